//! The list of all messages with their schemas, from which the documents beside this crate are generated.

pub use crate::entry::Entry;
use crate::{inventory, notification, orchestrator, order, payment, shipping};

/// Every message of the suite, by owner and name.
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
