//! Ends reservations: the stock goes back to the shelf, or out of the house.

use std::collections::BTreeMap;

use schemas::common::{Line, Nothing};
use schemas::inventory::{CommitStock, Committed, ReleaseStock, Released};
use shared::fault::Fault;
use shared::inbox::Claimed;
use shared::steps::{Answer, Handle, Task};
use uuid::Uuid;

use super::Inventory;
use super::reserve::moves;
use crate::domain::merged;
use crate::store;

impl Handle<ReleaseStock> for Inventory {
    async fn handle(
        &self,
        claimed: &mut Claimed,
        tasks: &[Task<ReleaseStock>],
    ) -> Result<Vec<Answer<ReleaseStock>>, Fault> {
        let orders: Vec<Uuid> = tasks.iter().map(|task| task.command.order_id).collect();
        let mut ended = store::end_reservations(claimed.db(), &orders, "released").await?;
        store::save_released(claimed.db(), &total(&ended)).await?;
        store::append_ledger(claimed.db(), "released", &moves(&lines(&ended))).await?;
        for task in tasks {
            let order_id = task.command.order_id;
            let items = ended.remove(&order_id).ok_or_else(|| nothing_held(order_id))?;
            claimed.publish(&task.subject, &task.cause, &Released { order_id, items })?;
        }
        Ok(tasks.iter().map(|_| Answer::Done(Nothing {})).collect())
    }
}

impl Handle<CommitStock> for Inventory {
    async fn handle(
        &self,
        claimed: &mut Claimed,
        tasks: &[Task<CommitStock>],
    ) -> Result<Vec<Answer<CommitStock>>, Fault> {
        let orders: Vec<Uuid> = tasks.iter().map(|task| task.command.order_id).collect();
        let mut ended = store::end_reservations(claimed.db(), &orders, "committed").await?;
        store::save_committed(claimed.db(), &total(&ended)).await?;
        store::append_ledger(claimed.db(), "committed", &moves(&lines(&ended))).await?;
        for task in tasks {
            let order_id = task.command.order_id;
            let items = ended.remove(&order_id).ok_or_else(|| nothing_held(order_id))?;
            claimed.publish(&task.subject, &task.cause, &Committed { order_id, items })?;
        }
        Ok(tasks.iter().map(|_| Answer::Done(Nothing {})).collect())
    }
}

/// The saga says that the stock is held; if it is not, an operator has to look.
fn nothing_held(order: Uuid) -> Fault {
    Fault::permanent(format!("nothing is held for the order {order}"))
}

fn lines(ended: &BTreeMap<Uuid, Vec<Line>>) -> Vec<(Uuid, &[Line])> {
    ended.iter().map(|(order, lines)| (*order, lines.as_slice())).collect()
}

fn total(ended: &BTreeMap<Uuid, Vec<Line>>) -> BTreeMap<String, i64> {
    let all: Vec<Line> = ended.values().flatten().cloned().collect();
    merged(&all)
}
