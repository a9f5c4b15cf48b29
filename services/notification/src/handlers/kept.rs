//! Keeps a notice, to be read over HTTP.

use schemas::common::Nothing;
use schemas::notification::{NotifyCustomer, Sent};
use shared::fault::Fault;
use shared::saga::participant::{Answer, CommandHandler, Task};
use shared::unit_of_work::UnitOfWork;

use super::Kept;
use crate::domain::{Channel, Status};
use crate::store::{self, NewNotification};

impl CommandHandler<NotifyCustomer> for Kept {
    async fn handle(
        &self,
        uow: &mut UnitOfWork,
        tasks: &[Task<NotifyCustomer>],
    ) -> Result<Vec<Answer<NotifyCustomer>>, Fault> {
        let rows: Vec<_> = tasks.iter().map(|task| NewNotification::of(&task.command)).collect();
        for (task, row) in tasks.iter().zip(&rows) {
            let event = Sent {
                order_id: row.order_id,
                notification_id: row.id,
                channel: Channel::Kept.as_str().to_owned(),
            };
            uow.publish(&task.subject, &task.cause, &event)?;
        }
        store::insert(uow.db(), &rows, Channel::Kept, Status::Sent).await?;
        Ok(tasks.iter().map(|_| Answer::Done(Nothing {})).collect())
    }
}
