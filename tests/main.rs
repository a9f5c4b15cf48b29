//! The suite as a whole, over a real PostgreSQL and a real Kafka. One binary, so that the servers are started once; every
//! test has databases, topics and service processes of its own, and they run in parallel.

mod harness;

mod audit;
mod barrier;
mod breaker;
mod command_line;
mod commits;
mod crashes;
mod delivery;
mod dependencies;
mod duplicates;
mod http;
mod idempotency;
mod inbox;
mod load;
mod mail;
mod messaging;
mod nine;
mod orders;
mod overload;
mod parked;
mod plans;
mod relay;
mod replicas;
mod retention;
mod roles;
mod sagas;
mod servers;
mod shutdown;
mod silence;
mod stock;
mod traces;
