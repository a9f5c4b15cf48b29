//! Sagas: a business transaction over several services, made of steps that can be undone up to a pivot, and of steps that are
//! repeated until they succeed behind it. (The pattern: Hector Garcia-Molina and Kenneth Salem, "Sagas", 1987; the pivot:
//! Chris Richardson, "Microservices Patterns".)
//!
//! - [`participant`]: carries out commands of sagas and answers them. [`external_call`] does so by asking an external
//!   dependency, with a circuit breaker ([`crate::circuit_breaker`]) around it.
//! - [`plan`]: how a saga is written. The kinds of step are types.
//! - [`engine`]: the pure function from a saga's state and an input to its next state and decisions.
//! - [`coordinator`]: the way from messages and deadlines to the engine and back, with the log in the database ([`store`]).
//! - [`registry`] and [`rehearsal`]: definitions by name and version, and what a new one would decide with old logs.
//! - [`testing`]: drives a saga by hand, and through every history that it can have.

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
