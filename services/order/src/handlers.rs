//! The messages that the order service takes: the saga's commands, and everybody's events for the timeline.

mod returns;
mod settle;
mod timeline;

use std::sync::Arc;

use schemas::inventory::ProductUpdated;
use schemas::order::{CancelOrder, ConfirmOrder, RefuseReturn, RejectOrder, ReturnOrder};
use shared::envelope::Message;
use shared::router::MessageRouter;

use self::timeline::{ProductUpdates, TIMELINE, Timeline};
use crate::order_events::OrderNotifier;

/// Carries out the commands about orders.
#[derive(Debug)]
pub struct Orders {
    events: OrderNotifier,
}

/// The messages that the order service takes.
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
