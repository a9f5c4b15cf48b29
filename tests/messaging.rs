//! What is promised of messages: each takes effect once, in order per key, and none is lost.

mod duplicates;
mod inbox;
mod parked;
mod records;
mod relay;
mod retention;
mod traces;
