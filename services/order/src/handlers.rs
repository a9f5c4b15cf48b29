//! The messages that order consumes: the sagas' commands, and the other services' events for the timeline.

mod products;
mod returns;
mod settle;
mod timeline;

use std::sync::Arc;

use schemas::inventory::ProductUpdated;
use schemas::order::{CancelOrder, ConfirmOrder, RefuseReturn, RejectOrder, ReturnOrder};
use shared::envelope::Message;
use shared::router::MessageRouter;

use self::products::ProductUpdates;
use self::timeline::{TIMELINE, Timeline};
use crate::order_events::OrderNotifier;

/// Handles the commands about orders.
#[derive(Debug)]
pub struct Orders {
    events: OrderNotifier,
}

/// Returns the handlers of all messages that order consumes.
pub fn router(events: &OrderNotifier) -> MessageRouter {
    let orders = Arc::new(Orders { events: events.clone() });
    MessageRouter::new()
        .command::<ConfirmOrder>(&orders)
        .command::<RejectOrder>(&orders)
        .command::<CancelOrder>(&orders)
        .command::<ReturnOrder>(&orders)
        .command::<RefuseReturn>(&orders)
        .events(TIMELINE, Arc::new(Timeline { events: events.clone() }))
        .events(&[(ProductUpdated::TYPE, ProductUpdated::TOPIC)], Arc::new(ProductUpdates))
}
