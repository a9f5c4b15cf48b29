//! Every command, reply and event as a Rust type, by the service that owns it. JSON schemas, the AsyncAPI document and
//! CATALOG.md beside this crate are generated from these types (`amends generate`) and compared by a test.

mod entry;
mod macros;

pub mod catalog;
pub mod common;
pub mod inventory;
pub mod notification;
pub mod orchestrator;
pub mod order;
pub mod payment;
pub mod shipping;
pub mod topics;

/// The services that have topics of their own, in the order in which they are started. Everything else that must know all
/// services takes them from here.
pub const SERVICES: [&str; 6] = ["order", "payment", "inventory", "shipping", "notification", "orchestrator"];
