//! Settles orders: each becomes confirmed, rejected or cancelled.

use std::collections::HashMap;

use schemas::common::Money;
use schemas::order::{CancelOrder, ConfirmOrder, OrderCancelled, OrderConfirmed, OrderRejected, RejectOrder};
use shared::envelope::{Command, Message};
use shared::fault::Fault;
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
        self.settle(
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
        self.settle(
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
        self.settle(
            uow,
            tasks,
            |command| command.order_id,
            settled,
            Status::Cancelled,
            |command, _| OrderCancelled { order_id: command.order_id },
        )
    }
}

impl Orders {
    /// Returns the answers about orders that have settled.
    fn settle<C: Command>(
        &self,
        uow: &mut UnitOfWork,
        tasks: &[Task<C>],
        order: fn(&C) -> Uuid,
        settled: Vec<SettledRow>,
        status: Status,
        reply: impl Fn(&C, &SettledRow) -> C::Reply,
    ) -> Result<Vec<Answer<C>>, Fault> {
        let now = uow.now();
        let missing = |id| format!("the order {id} is not pending");
        let (ids, answers) = answers(tasks, order, settled, missing, reply)?;
        let events = self.events.clone();
        uow.after_commit(move || {
            events.notify_settled(&ids, status, now);
            for order in ids {
                info!(%order, outcome = <C::Reply as Message>::TYPE, "the order has settled");
            }
        });
        Ok(answers)
    }
}

/// Returns the ids of the tasks' orders, and the answers. They go into the timelines as all other events do, when they come
/// back from the topic.
///
/// An order without a row is an error, whose text is `missing`.
pub(super) fn answers<C: Command>(
    tasks: &[Task<C>],
    order: fn(&C) -> Uuid,
    rows: Vec<SettledRow>,
    missing: fn(Uuid) -> String,
    reply: impl Fn(&C, &SettledRow) -> C::Reply,
) -> Result<(Vec<Uuid>, Vec<Answer<C>>), Fault> {
    let rows: HashMap<Uuid, SettledRow> = rows.into_iter().map(|row| (row.id, row)).collect();
    let mut answers = Vec::with_capacity(tasks.len());
    for task in tasks {
        let id = order(&task.command);
        let row = rows.get(&id).ok_or_else(|| Fault::permanent(missing(id)))?;
        answers.push(Answer::done(reply(&task.command, row)).version(row.version));
    }
    Ok((rows.into_keys().collect(), answers))
}
