//! What is promised of messages: each takes effect once, in order per key, and none is lost.

mod duplicates;
mod parked;
mod records;
mod retention;
mod traces;
