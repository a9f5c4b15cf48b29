//! The core's own proofs, over a real PostgreSQL and a real Kafka. One binary, so that the servers are started once. Every
//! test has a database, topics and processes of its own, and they run in parallel.
//!
//! The services of the tests are written on `shared` alone: [`loyalty`] takes commands and events, [`relayed`] only relays.
//! They are processes of their own, because the tests kill and stop them. The tests play everybody else: the coordinator
//! that sends commands, the shop that publishes events, and the operator.

mod harness;
mod loyalty;
mod relayed;

mod ahead;
mod barrier;
mod connections;
mod inbox;
mod own_names;
mod parked;
mod parked_again;
mod parked_bulk;
mod pools;
mod relay;
mod releases;
mod resolution;
mod restore;
mod retention;
