//! The events that begin and cancel the orchestrator's sagas.

use std::sync::Arc;

use schemas::orchestrator::EVENTS;
use schemas::order::{CancellationRequested, OrderCreated, ReturnRequested};
use shared::db::Db;
use shared::saga::coordinator::Coordinator;
use shared::saga::registry::Registry;

use crate::sagas::{PlaceOrder, ReturnOrder};

/// Returns the coordinator of the sagas about orders.
pub fn coordinator(db: Db, registry: Arc<Registry>) -> Coordinator {
    Coordinator::new(db, registry, EVENTS)
        .begin_on::<OrderCreated, _>(PlaceOrder::of)
        .begin_on::<ReturnRequested, _>(ReturnOrder::of)
        .cancel_or_bar_on::<CancellationRequested, _>(PlaceOrder::unknown)
}
