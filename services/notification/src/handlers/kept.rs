//! Keeps a notice, to be read over HTTP.

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
        store::insert(uow, &rows, Channel::Kept, Status::Sent);
        let sent = |row: &NewNotification<'_>| Sent {
            order_id: row.order_id,
            notification_id: row.id,
            channel: Channel::Kept.as_str().to_owned(),
        };
        Ok(rows.iter().map(|row| Answer::done(sent(row))).collect())
    }
}
