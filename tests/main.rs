//! The suite as a whole, over a real PostgreSQL and a real Kafka. One binary, so that the servers are started once; every
//! test has databases, topics and service processes of its own, and they run in parallel. The folders say what the tests prove.

mod harness;

mod faults;
mod http;
mod messaging;
mod ops;
mod saga;
