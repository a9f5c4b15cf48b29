//! The list of all messages with their schemas. The documents beside this crate are generated from it.

pub use crate::entry::Entry;
use crate::{inventory, notification, orchestrator, order, payment, shipping};

/// Returns every message of the suite, sorted by owner, topic and type.
pub fn all() -> Vec<Entry> {
    let mut all: Vec<Entry> = [
        order::events(),
        order::commands(),
        inventory::events(),
        inventory::commands(),
        payment::events(),
        payment::commands(),
        shipping::events(),
        shipping::commands(),
        notification::events(),
        notification::commands(),
        orchestrator::events(),
        vec![Entry::parked()],
    ]
    .into_iter()
    .flatten()
    .collect();
    all.sort_by_key(|entry| (entry.owner(), entry.topic, entry.kind));
    all
}
