//! The guarantees when processes, servers and networks fail.

mod commits;
mod crashes;
mod names;
mod releases;
mod replicas;
mod restores;
mod servers;
mod shutdown;
mod silence;
