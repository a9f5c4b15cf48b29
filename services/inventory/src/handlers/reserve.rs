//! Holds stock for orders.

use schemas::common::{Line, Nothing};
use schemas::inventory::{ReserveStock, Reserved, StockLow};
use shared::envelope::Cause;
use shared::fault::Fault;
use shared::inbox::Claimed;
use shared::steps::{Answer, Handle, Task};
use uuid::Uuid;

use super::Inventory;
use crate::domain::{Shelf, merged};
use crate::store;

impl Handle<ReserveStock> for Inventory {
    async fn handle(
        &self,
        claimed: &mut Claimed,
        tasks: &[Task<ReserveStock>],
    ) -> Result<Vec<Answer<ReserveStock>>, Fault> {
        let mut skus: Vec<&str> =
            tasks.iter().flat_map(|task| task.command.items.iter().map(|line| line.sku.as_str())).collect();
        skus.sort_unstable();
        skus.dedup();
        // Before the rows, as every writer of a product does: it may be told that there is little left of it.
        claimed.lock(skus.iter().map(|sku| (*sku).to_owned())).await?;
        let mut shelf = store::lock_shelf(claimed.db(), &skus).await?;

        let mut answers = Vec::with_capacity(tasks.len());
        let mut held: Vec<(Uuid, &[Line])> = Vec::with_capacity(tasks.len());
        for task in tasks {
            let ReserveStock { order_id, items } = &task.command;
            match shelf.hold(items) {
                Ok(()) => {
                    held.push((*order_id, items));
                    let event = Reserved { order_id: *order_id, items: items.clone() };
                    claimed.publish(&task.subject, &task.cause, &event)?;
                    answers.push(Answer::Done(Nothing {}));
                }
                Err(refusal) => answers.push(Answer::Refused(refusal)),
            }
        }
        if !held.is_empty() {
            store::save_taken(claimed.db(), &shelf.taken()).await?;
            store::insert_reservations(claimed.db(), &held).await?;
            store::append_ledger(claimed.db(), "reserved", &moves(&held)).await?;
            tell_low(claimed, &shelf, &tasks[0].cause)?;
        }
        Ok(answers)
    }
}

/// The ledger's rows of what orders hold.
pub(super) fn moves(held: &[(Uuid, &[Line])]) -> Vec<(Uuid, String, i64)> {
    let of_order = |(order, lines): &(Uuid, &[Line])| {
        let order = *order;
        merged(lines).into_iter().map(move |(sku, quantity)| (order, sku, quantity))
    };
    held.iter().flat_map(of_order).collect()
}

fn tell_low(claimed: &mut Claimed, shelf: &Shelf, cause: &Cause) -> Result<(), Fault> {
    for (sku, stock) in shelf.fallen_low() {
        let event = StockLow { sku: sku.to_owned(), on_hand: stock.on_hand, threshold: stock.low_threshold };
        claimed.publish(sku, cause, &event)?;
    }
    Ok(())
}
