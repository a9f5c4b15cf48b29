//! The messages that the order service takes: the saga's commands, and everybody's events for the timeline.

mod returns;
mod settle;
mod timeline;

use std::sync::Arc;

use schemas::inventory::ProductUpdated;
use schemas::order::{CancelOrder, ConfirmOrder, RefuseReturn, RejectOrder, ReturnOrder};
use shared::consumer::Table;
use shared::envelope::Message;

use self::timeline::{Products, TIMELINE, Timeline};
use crate::settled::Settlements;
use crate::watch::Watchers;

/// Carries out the commands about orders.
#[derive(Debug)]
pub struct Orders {
    watchers: Watchers,
    settlements: Settlements,
}

/// The messages that the order service takes.
pub fn table(watchers: &Watchers, settlements: &Settlements) -> Table {
    let orders = Arc::new(Orders { watchers: watchers.clone(), settlements: settlements.clone() });
    Table::new()
        .command::<ConfirmOrder>(&orders)
        .command::<RejectOrder>(&orders)
        .command::<CancelOrder>(&orders)
        .command::<ReturnOrder>(&orders)
        .command::<RefuseReturn>(&orders)
        .on(TIMELINE, Arc::new(Timeline { watchers: watchers.clone() }))
        .on(&[(ProductUpdated::TYPE, ProductUpdated::TOPIC)], Arc::new(Products))
}
