//! Sends a notice by mail. If a mail can't be delivered, only the notice fails. The step is done all the same, because the
//! order does not depend on the notice.

use std::error::Error;
use std::time::Duration;

use schemas::notification::{Failed, NotifyCustomer, Sent};
use serde::Deserialize;
use shared::envelope::Never;
use shared::fault::Fault;
use shared::saga::external_call::{ExternalCall, LocalError, Resolution, Resolved, Unresolved};
use shared::saga::participant::{Answer, Task};
use shared::unit_of_work::UnitOfWork;
use uuid::Uuid;

use super::Mailed;
use crate::domain::{self, Channel, Status};
use crate::gateway::{self, Delivery, Mail};
use crate::store::{self, EndedRow, NewNotification};

/// The outcome of a notice.
pub struct Ended {
    notification_id: Uuid,
    /// `None` for a notice without an address.
    delivery: Option<Delivery>,
}

/// What an operator has found out about a mail.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Seen {
    /// Whether the mail server has accepted it. If not, the notice has failed.
    accepted: bool,
}

impl ExternalCall<NotifyCustomer> for Mailed {
    const TARGET: &'static str = "mail-server";
    type Outcome = Ended;

    // A mail server may examine a mail for long before it accepts it. A second attempt meanwhile would send the mail twice.
    const TIMEOUT: Duration = Duration::from_secs(30);
    const IDEMPOTENT: bool = false;
    const MAX_CONCURRENCY: usize = gateway::CONNECTIONS;

    async fn record_intent(&self, uow: &mut UnitOfWork, tasks: &[Task<NotifyCustomer>]) -> Result<(), Fault> {
        let rows: Vec<_> = tasks.iter().map(|task| NewNotification::of(&task.command)).collect();
        store::insert(uow, &rows, Channel::Smtp, Status::Sending);
        Ok(())
    }

    async fn call(
        &self,
        key: &str,
        task: &Task<NotifyCustomer>,
    ) -> Result<Ended, Box<dyn Error + Send + Sync>> {
        let NotifyCustomer { order_id, notice, .. } = &task.command;
        let row = store::find_sending(&mut *self.db.read().await?, *order_id, domain::kind(notice)).await?;
        let row = row.ok_or(LocalError("another process has ended it"))?;
        let delivery = match (&self.smtp, &row.email) {
            (Some(smtp), Some(email)) => {
                let subject = domain::subject(*order_id, notice);
                let message =
                    Mail { to: email, subject: &subject, text: &row.text, date: row.created_at, key };
                Some(smtp.send(&message).await?)
            }
            _ => None,
        };
        Ok(Ended { notification_id: row.id, delivery })
    }

    async fn record_outcome(
        &self,
        uow: &mut UnitOfWork,
        answered: &[(Task<NotifyCustomer>, Ended)],
    ) -> Result<Vec<Answer<NotifyCustomer>>, Fault> {
        let rows: Vec<EndedRow<'_>> = answered.iter().map(|(_, ended)| row(ended)).collect();
        let saved = store::end(uow.db(), &rows).await?;
        if saved != rows.len() as u64 {
            return Err(Fault::permanent("a notice was not waiting to be sent"));
        }
        let answer = |((task, _), row): (&(Task<NotifyCustomer>, Ended), &EndedRow<'_>)| {
            let (order_id, notification_id) = (task.command.order_id, row.id);
            match row.reason {
                None => {
                    let channel = row.channel.as_str().to_owned();
                    Answer::done(Sent { order_id, notification_id, channel })
                }
                Some(reason) => {
                    Answer::done_as(&Failed { order_id, notification_id, reason: reason.to_owned() })
                }
            }
        };
        Ok(answered.iter().zip(&rows).map(answer).collect())
    }

    async fn resolve(
        &self,
        uow: &mut UnitOfWork,
        task: &Task<NotifyCustomer>,
        resolution: &Resolution,
    ) -> Result<Ended, Unresolved> {
        let accepted = match resolution.read::<Seen, Never>()? {
            Resolved::Done(seen) => seen.accepted,
            Resolved::Refused(never) => match never {},
        };
        let NotifyCustomer { order_id, notice, .. } = &task.command;
        let row = store::find_sending(uow.db(), *order_id, domain::kind(notice)).await?;
        let row = row.ok_or_else(|| Fault::permanent("the notice is not being sent"))?;
        let delivery = if accepted {
            Delivery::Accepted
        } else {
            Delivery::Refused { reason: "an operator has given it up".to_owned() }
        };
        Ok(Ended { notification_id: row.id, delivery: Some(delivery) })
    }
}

fn row(ended: &Ended) -> EndedRow<'_> {
    let id = ended.notification_id;
    let (channel, status, reason) = match &ended.delivery {
        None => (Channel::Kept, Status::Sent, None),
        Some(Delivery::Accepted) => (Channel::Smtp, Status::Sent, None),
        Some(Delivery::Refused { reason }) => (Channel::Smtp, Status::Failed, Some(reason.as_str())),
    };
    EndedRow { id, channel, status, reason }
}
