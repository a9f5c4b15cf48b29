//! Every command, reply and event as a Rust type, grouped by the owning service. The JSON schemas, the AsyncAPI
//! document and CATALOG.md beside this crate are generated from these types (`amends generate`). A test compares
//! them.

mod entry;
mod macros;

pub mod catalog;
pub mod common;
pub mod country;
pub mod currency;
pub mod inventory;
pub mod notification;
pub mod orchestrator;
pub mod order;
pub mod payment;
pub mod shipping;
pub mod topics;

/// The services with their own topics, in the order of their start. All code that needs the list of services takes it
/// from here.
pub const SERVICES: [&str; 6] = ["order", "payment", "inventory", "shipping", "notification", "orchestrator"];
