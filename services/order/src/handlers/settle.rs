//! Settles orders: each becomes confirmed, rejected or cancelled.

use std::collections::HashMap;

use schemas::common::{Money, Nothing};
use schemas::order::{CancelOrder, ConfirmOrder, OrderCancelled, OrderConfirmed, OrderRejected, RejectOrder};
use shared::envelope::{Event, Message};
use shared::fault::Fault;
use shared::outbox::Draft;
use shared::saga::participant::{Answer, CommandHandler, Task};
use shared::unit_of_work::UnitOfWork;
use tracing::info;
use uuid::Uuid;

use super::Orders;
use crate::domain::Status;
use crate::store::{self, SettledRow};

impl CommandHandler<ConfirmOrder> for Orders {
    async fn handle(
        &self,
        uow: &mut UnitOfWork,
        tasks: &[Task<ConfirmOrder>],
    ) -> Result<Vec<Answer<ConfirmOrder>>, Fault> {
        let orders: Vec<Uuid> = tasks.iter().map(|task| task.command.order_id).collect();
        let settled = store::confirm(uow.db(), &orders).await?;
        self.publish_settled(
            uow,
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

impl CommandHandler<RejectOrder> for Orders {
    async fn handle(
        &self,
        uow: &mut UnitOfWork,
        tasks: &[Task<RejectOrder>],
    ) -> Result<Vec<Answer<RejectOrder>>, Fault> {
        let orders: Vec<&RejectOrder> = tasks.iter().map(|task| &task.command).collect();
        let settled = store::reject(uow.db(), &orders).await?;
        self.publish_settled(
            uow,
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

impl CommandHandler<CancelOrder> for Orders {
    async fn handle(
        &self,
        uow: &mut UnitOfWork,
        tasks: &[Task<CancelOrder>],
    ) -> Result<Vec<Answer<CancelOrder>>, Fault> {
        let orders: Vec<Uuid> = tasks.iter().map(|task| task.command.order_id).collect();
        let settled = store::cancel(uow.db(), &orders).await?;
        self.publish_settled(
            uow,
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
    /// Publishes the outcomes of the orders, and writes them into the timelines.
    async fn publish_settled<C: Sync, E: Event>(
        &self,
        uow: &mut UnitOfWork,
        tasks: &[Task<C>],
        order: fn(&C) -> Uuid,
        settled: Vec<SettledRow>,
        status: Status,
        event: impl Fn(&C, &SettledRow) -> E,
    ) -> Result<(), Fault> {
        let now = uow.now();
        let missing = |id| format!("the order {id} is not pending");
        let ids = publish_outcomes(uow, tasks, order, settled, missing, event).await?;
        let events = self.events.clone();
        uow.after_commit(move || {
            events.notify_settled(&ids, status, now);
            for order in ids {
                info!(%order, outcome = <E as Message>::TYPE, "the order has settled");
            }
        });
        Ok(())
    }
}

/// Publishes the outcomes of the tasks' orders, and writes them into the timelines. Returns the ids of the orders.
///
/// An order without a row is an error, whose text is `missing`.
pub(super) async fn publish_outcomes<C: Sync, E: Event>(
    uow: &mut UnitOfWork,
    tasks: &[Task<C>],
    order: fn(&C) -> Uuid,
    rows: Vec<SettledRow>,
    missing: fn(Uuid) -> String,
    event: impl Fn(&C, &SettledRow) -> E,
) -> Result<Vec<Uuid>, Fault> {
    let rows: HashMap<Uuid, SettledRow> = rows.into_iter().map(|row| (row.id, row)).collect();
    let now = uow.now();
    let mut timeline = Vec::with_capacity(tasks.len());
    for task in tasks {
        let id = order(&task.command);
        let row = rows.get(&id).ok_or_else(|| Fault::permanent(missing(id)))?;
        let event = event(&task.command, row);
        let message = uow.publish(&task.subject, &task.cause, Draft::from(&event).version(row.version))?;
        timeline.push((id, message, now, "order", <E as Message>::TYPE));
    }
    store::append_timeline(uow.db(), &timeline).await?;
    Ok(rows.into_keys().collect())
}
