//! Ends returns: the order is taken back, or its return is refused.

use schemas::common::Money;
use schemas::order::{OrderReturned, RefuseReturn, ReturnOrder, ReturnRefused};
use shared::envelope::{Command, Message};
use shared::fault::Fault;
use shared::saga::participant::{Answer, CommandHandler, Task};
use shared::unit_of_work::UnitOfWork;
use tracing::info;
use uuid::Uuid;

use super::Orders;
use super::settle::answers;
use crate::store::{self, SettledRow};

impl CommandHandler<ReturnOrder> for Orders {
    async fn handle(
        &self,
        uow: &mut UnitOfWork,
        tasks: &[Task<ReturnOrder>],
    ) -> Result<Vec<Answer<ReturnOrder>>, Fault> {
        let returns = tasks.iter().map(|task| (task.command.order_id, task.command.return_id));
        let ended = store::finish_returns(uow.db(), &returns.collect::<Vec<_>>()).await?;
        self.end_returns(
            uow,
            tasks,
            |command| command.order_id,
            ended,
            |command, row| OrderReturned {
                order_id: command.order_id,
                return_id: command.return_id,
                total: Money { amount: row.total_amount, currency: row.currency.clone() },
            },
        )
    }
}

impl CommandHandler<RefuseReturn> for Orders {
    async fn handle(
        &self,
        uow: &mut UnitOfWork,
        tasks: &[Task<RefuseReturn>],
    ) -> Result<Vec<Answer<RefuseReturn>>, Fault> {
        let commands = tasks.iter().map(|task| &task.command);
        let returns = commands.map(|command| (command.order_id, command.return_id, command.reason.as_str()));
        let ended = store::refuse_returns(uow.db(), &returns.collect::<Vec<_>>()).await?;
        self.end_returns(
            uow,
            tasks,
            |command| command.order_id,
            ended,
            |command, _| ReturnRefused {
                order_id: command.order_id,
                return_id: command.return_id,
                reason: command.reason.clone(),
            },
        )
    }
}

impl Orders {
    /// Returns the answers about returns that have ended.
    fn end_returns<C: Command>(
        &self,
        uow: &mut UnitOfWork,
        tasks: &[Task<C>],
        order: fn(&C) -> Uuid,
        ended: Vec<SettledRow>,
        reply: impl Fn(&C, &SettledRow) -> C::Reply,
    ) -> Result<Vec<Answer<C>>, Fault> {
        let missing = |id| format!("no such return of the order {id} is under way");
        let (ids, answers) = answers(tasks, order, ended, missing, reply)?;
        let events = self.events.clone();
        uow.after_commit(move || {
            events.notify_changed(&ids);
            for order in ids {
                info!(%order, outcome = <C::Reply as Message>::TYPE, "the return has ended");
            }
        });
        Ok(answers)
    }
}
