//! The commands that notification takes.

mod notify;

use std::sync::Arc;

use schemas::notification::NotifyCustomer;
use shared::consumer::Table;

/// Tells customers.
#[derive(Debug)]
pub struct Notifications;

/// The messages that notification takes.
pub fn table() -> Table {
    Table::new().command::<NotifyCustomer>(&Arc::new(Notifications))
}
