//! Resumes a shipment that was stopped: its parcel is booked anew.

use std::error::Error;
use std::time::Duration;

use schemas::common::Address;
use schemas::shipping::{ResumeShipment, Resumed};
use serde::Deserialize;
use shared::envelope::Never;
use shared::fault::Fault;
use shared::saga::external_call::{AT_ONCE, ExternalCall, LocalError, Resolution, Resolved, Unresolved};
use shared::saga::participant::{Answer, Task};
use shared::unit_of_work::UnitOfWork;

use super::{CARRIER, Shipments};
use crate::domain::Status;
use crate::gateway::{Carrier, Verdict};
use crate::store;

/// What an operator has seen of the new booking at the carrier.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Seen {
    /// It is left out if there was nothing to resume.
    tracking_number: Option<String>,
}

impl<K: Carrier> ExternalCall<ResumeShipment> for Shipments<K> {
    const TARGET: &'static str = CARRIER;
    const CALL_FIRST: Option<Duration> = Some(AT_ONCE);
    /// The new tracking number; `None` if there was nothing to resume.
    type Outcome = Option<String>;

    async fn record_intent(
        &self,
        _uow: &mut UnitOfWork,
        _tasks: &[Task<ResumeShipment>],
    ) -> Result<(), Fault> {
        // The shipment is on record, and the step's own row is the intent of the new booking.
        Ok(())
    }

    async fn call(
        &self,
        key: &str,
        task: &Task<ResumeShipment>,
    ) -> Result<Option<String>, Box<dyn Error + Send + Sync>> {
        let shipment = store::find(&mut *self.db.read().await?, task.command.order_id).await?;
        let Some(stopped) = shipment.filter(|shipment| shipment.status == Status::Cancelled.as_str()) else {
            return Ok(None);
        };
        let address: Address = serde_json::from_str(stopped.address.0.get())?;
        match self.carrier.book(key, &address).await? {
            Verdict::Booked { tracking_number } => Ok(Some(tracking_number)),
            // The carrier accepted the parcel once. An operator has to find out why it refuses the parcel now.
            Verdict::Refused(_) => Err(LocalError("the carrier does not deliver there any more").into()),
        }
    }

    async fn record_outcome(
        &self,
        uow: &mut UnitOfWork,
        answered: &[(Task<ResumeShipment>, Option<String>)],
    ) -> Result<Vec<Answer<ResumeShipment>>, Fault> {
        let mut rows = Vec::with_capacity(answered.len());
        for (task, number) in answered {
            rows.extend(number.as_deref().map(|number| (task.command.order_id, number)));
        }
        let now = uow.now();
        let due_at = self.carrier.pace().dispatch(now);
        if store::save_resumed(uow.db(), &rows, now, due_at).await? != rows.len() as u64 {
            return Err(Fault::permanent("a shipment that is to be resumed was not stopped"));
        }
        let answer = |(task, tracking_number): &(Task<ResumeShipment>, Option<String>)| {
            let order_id = task.command.order_id;
            Answer::done(Resumed { order_id, tracking_number: tracking_number.clone() })
        };
        Ok(answered.iter().map(answer).collect())
    }

    async fn resolve(
        &self,
        _uow: &mut UnitOfWork,
        _task: &Task<ResumeShipment>,
        resolution: &Resolution,
    ) -> Result<Option<String>, Unresolved> {
        Ok(match resolution.read::<Seen, Never>()? {
            Resolved::Done(seen) => seen.tracking_number,
            Resolved::Refused(never) => match never {},
        })
    }
}
