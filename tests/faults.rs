//! The guarantees when processes, servers and networks fail.

mod commits;
mod crashes;
mod replicas;
mod servers;
mod shutdown;
