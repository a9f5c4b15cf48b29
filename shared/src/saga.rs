//! Sagas: business transactions over several services. Steps before the pivot can be undone. Steps behind it are
//! repeated until they succeed.
//! The pattern is from Hector Garcia-Molina and Kenneth Salem, "Sagas", 1987. The pivot is from Chris Richardson,
//! "Microservices Patterns".
//!
//! - [`participant`] carries out commands of sagas and answers them. [`external_call`] does so by calling an external
//!   dependency, protected by a circuit breaker ([`crate::circuit_breaker`]).
//! - [`plan`] is the language in which a saga is written. The kinds of step are types.
//! - [`engine`] is the pure function from a saga's state and an input to its next state and decisions.
//! - [`coordinator`] connects messages and deadlines to the engine, with the log in the database ([`store`]).
//! - [`registry`] has the definitions by name and version. [`rehearsal`] replays old logs against a new definition.
//! - [`testing`] drives a saga by hand, and through every history that it can have.

pub mod coordinator;
pub mod engine;
pub mod events;
pub mod external_call;
pub mod participant;
pub mod plan;
pub mod registry;
pub mod rehearsal;
pub mod replay;
pub mod store;
pub mod testing;
