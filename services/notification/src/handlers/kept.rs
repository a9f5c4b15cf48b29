//! Keeps a notice to be read.

use schemas::common::Nothing;
use schemas::notification::{NotifyCustomer, Sent};
use shared::fault::Fault;
use shared::inbox::Claimed;
use shared::steps::{Answer, Handle, Task};

use super::Kept;
use crate::domain::{Channel, Status};
use crate::store::{self, NewNotification};

impl Handle<NotifyCustomer> for Kept {
    async fn handle(
        &self,
        claimed: &mut Claimed,
        tasks: &[Task<NotifyCustomer>],
    ) -> Result<Vec<Answer<NotifyCustomer>>, Fault> {
        let rows: Vec<_> = tasks.iter().map(|task| NewNotification::of(&task.command)).collect();
        for (task, row) in tasks.iter().zip(&rows) {
            let event = Sent {
                order_id: row.order_id,
                notification_id: row.id,
                channel: Channel::Kept.as_str().to_owned(),
            };
            claimed.publish(&task.subject, &task.cause, &event)?;
        }
        store::insert(claimed.db(), &rows, Channel::Kept, Status::Sent).await?;
        Ok(tasks.iter().map(|_| Answer::Done(Nothing {})).collect())
    }
}
