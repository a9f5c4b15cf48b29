//! Tells a customer something about an order. There is no way to send it yet, so the message is kept to be read.

use schemas::common::Nothing;
use schemas::notification::{NotifyCustomer, Sent};
use shared::envelope::new_id;
use shared::fault::Fault;
use shared::inbox::Claimed;
use shared::steps::{Answer, Handle, Task};

use super::Notifications;
use crate::domain;
use crate::store::{self, NewNotification};

const KEPT: &str = "kept";

impl Handle<NotifyCustomer> for Notifications {
    async fn handle(
        &self,
        claimed: &mut Claimed,
        tasks: &[Task<NotifyCustomer>],
    ) -> Result<Vec<Answer<NotifyCustomer>>, Fault> {
        let mut rows = Vec::with_capacity(tasks.len());
        for task in tasks {
            let NotifyCustomer { order_id, customer_id, email, notice } = &task.command;
            let row = NewNotification {
                id: new_id(),
                order_id: *order_id,
                customer_id,
                kind: domain::kind(notice),
                email: email.as_deref(),
                text: domain::text(*order_id, notice),
                channel: KEPT,
            };
            let event =
                Sent { order_id: row.order_id, notification_id: row.id, channel: row.channel.to_owned() };
            claimed.publish(&task.subject, &task.cause, &event)?;
            rows.push(row);
        }
        store::insert(claimed.db(), &rows).await?;
        Ok(tasks.iter().map(|_| Answer::Done(Nothing {})).collect())
    }
}
