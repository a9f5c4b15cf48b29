//! Tests of the suite as a whole, with a real PostgreSQL and a real Kafka. They are one binary, so that the servers are
//! started once. Every test has its own databases, topics and service processes, and the tests run in parallel. The folders
//! are named after the guarantees that the tests prove.

mod harness;

mod faults;
mod http;
mod messaging;
mod ops;
mod saga;
