//! The guarantees for sagas: steps are done or undone, a missing answer does not count as a refusal, and every order reaches
//! a final state.

mod breaker;
mod delivery;
mod mail;
mod plans;
mod resolution;
mod sagas;
mod silence;
mod stock;
