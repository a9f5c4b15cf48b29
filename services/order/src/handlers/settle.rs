//! Settles orders: confirmed, rejected, or cancelled.

use std::collections::HashMap;

use schemas::common::{Money, Nothing};
use schemas::order::{CancelOrder, ConfirmOrder, OrderCancelled, OrderConfirmed, OrderRejected, RejectOrder};
use shared::envelope::{Event, Message};
use shared::fault::Fault;
use shared::inbox::Claimed;
use shared::steps::{Answer, Handle, Task};
use tracing::info;
use uuid::Uuid;

use super::Orders;
use crate::domain::Status;
use crate::store::{self, SettledRow};

impl Handle<ConfirmOrder> for Orders {
    async fn handle(
        &self,
        claimed: &mut Claimed,
        tasks: &[Task<ConfirmOrder>],
    ) -> Result<Vec<Answer<ConfirmOrder>>, Fault> {
        let orders: Vec<Uuid> = tasks.iter().map(|task| task.command.order_id).collect();
        let settled = store::confirm(claimed.db(), &orders).await?;
        self.tell(
            claimed,
            tasks,
            |command| command.order_id,
            settled,
            Status::Confirmed,
            |command, row| OrderConfirmed {
                order_id: command.order_id,
                total: Money { amount: row.total_amount, currency: row.currency.clone() },
            },
        )
        .await?;
        Ok(tasks.iter().map(|_| Answer::Done(Nothing {})).collect())
    }
}

impl Handle<RejectOrder> for Orders {
    async fn handle(
        &self,
        claimed: &mut Claimed,
        tasks: &[Task<RejectOrder>],
    ) -> Result<Vec<Answer<RejectOrder>>, Fault> {
        let orders: Vec<&RejectOrder> = tasks.iter().map(|task| &task.command).collect();
        let settled = store::reject(claimed.db(), &orders).await?;
        self.tell(
            claimed,
            tasks,
            |command| command.order_id,
            settled,
            Status::Rejected,
            |command, _| OrderRejected {
                order_id: command.order_id,
                reason: command.reason.clone(),
                detail: command.detail.clone(),
            },
        )
        .await?;
        Ok(tasks.iter().map(|_| Answer::Done(Nothing {})).collect())
    }
}

impl Handle<CancelOrder> for Orders {
    async fn handle(
        &self,
        claimed: &mut Claimed,
        tasks: &[Task<CancelOrder>],
    ) -> Result<Vec<Answer<CancelOrder>>, Fault> {
        let orders: Vec<Uuid> = tasks.iter().map(|task| task.command.order_id).collect();
        let settled = store::cancel(claimed.db(), &orders).await?;
        self.tell(
            claimed,
            tasks,
            |command| command.order_id,
            settled,
            Status::Cancelled,
            |command, _| OrderCancelled { order_id: command.order_id },
        )
        .await?;
        Ok(tasks.iter().map(|_| Answer::Done(Nothing {})).collect())
    }
}

impl Orders {
    /// Publishes what became of the orders, and writes it into their timelines.
    async fn tell<C: Sync, E: Event>(
        &self,
        claimed: &mut Claimed,
        tasks: &[Task<C>],
        order: fn(&C) -> Uuid,
        settled: Vec<SettledRow>,
        status: Status,
        event: impl Fn(&C, &SettledRow) -> E,
    ) -> Result<(), Fault> {
        let now = claimed.now();
        let missing = |id| format!("the order {id} is not pending");
        let ids = record(claimed, tasks, order, settled, missing, event).await?;
        let (watchers, settlements) = (self.watchers.clone(), self.settlements.clone());
        claimed.after_commit(move || {
            watchers.settled(&ids, status, now);
            settlements.tell(&ids);
            for order in ids {
                info!(%order, outcome = <E as Message>::TYPE, "the order has settled");
            }
        });
        Ok(())
    }
}

/// Publishes what became of the orders of the tasks, and writes it into their timelines; `missing` says what is wrong with
/// one that has no row. The orders.
pub(super) async fn record<C: Sync, E: Event>(
    claimed: &mut Claimed,
    tasks: &[Task<C>],
    order: fn(&C) -> Uuid,
    rows: Vec<SettledRow>,
    missing: fn(Uuid) -> String,
    event: impl Fn(&C, &SettledRow) -> E,
) -> Result<Vec<Uuid>, Fault> {
    let rows: HashMap<Uuid, SettledRow> = rows.into_iter().map(|row| (row.id, row)).collect();
    let now = claimed.now();
    let mut timeline = Vec::with_capacity(tasks.len());
    for task in tasks {
        let id = order(&task.command);
        let row = rows.get(&id).ok_or_else(|| Fault::permanent(missing(id)))?;
        let event = event(&task.command, row);
        let message = claimed.publish_version(&task.subject, &task.cause, &event, row.version)?;
        timeline.push((id, message, now, "order", <E as Message>::TYPE));
    }
    store::append_timeline(claimed.db(), &timeline).await?;
    Ok(rows.into_keys().collect())
}
