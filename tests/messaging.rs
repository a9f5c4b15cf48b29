//! The guarantees for messages: each takes effect once, in the order of its key, and none is lost.

mod deleted;
mod duplicates;
mod forged;
mod parked;
mod partitions;
mod read_models;
mod records;
mod retention;
mod topics;
mod traces;
