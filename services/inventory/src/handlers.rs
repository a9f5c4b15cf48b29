//! The commands that inventory takes. All are hot, so they work on a whole batch with a constant number of statements.

mod reserve;
mod settle;

use std::sync::Arc;

use schemas::inventory::{CommitStock, ReleaseStock, ReserveStock};
use shared::consumer::Table;

/// Carries out the commands about stock.
#[derive(Debug)]
pub struct Inventory;

/// The messages that inventory takes.
pub fn table() -> Table {
    let inventory = Arc::new(Inventory);
    Table::new()
        .command::<ReserveStock>(&inventory)
        .command::<ReleaseStock>(&inventory)
        .command::<CommitStock>(&inventory)
}
