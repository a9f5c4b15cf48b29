//! What is promised of sagas: steps are done or undone, silence is no refusal, and every order comes to its end.

mod breaker;
mod delivery;
mod mail;
mod plans;
mod sagas;
mod silence;
mod stock;
