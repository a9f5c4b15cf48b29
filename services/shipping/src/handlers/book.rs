//! Books a shipment.

use std::error::Error;
use std::time::Duration;

use schemas::shipping::{BookRefused, BookShipment, Booked, BookingRefused};
use serde::Deserialize;
use shared::fault::Fault;
use shared::saga::external_call::{AT_ONCE, ExternalCall, Resolution, Resolved, Unresolved};
use shared::saga::participant::{Answer, Task};
use shared::unit_of_work::UnitOfWork;
use uuid::Uuid;

use super::{CARRIER, Shipments};
use crate::domain::Status;
use crate::gateway::{Carrier, Verdict};
use crate::store;

/// What an operator has seen of a booking at the carrier.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Seen {
    tracking_number: String,
}

impl<K: Carrier> ExternalCall<BookShipment> for Shipments<K> {
    const TARGET: &'static str = CARRIER;
    const CALL_FIRST: Option<Duration> = Some(AT_ONCE);
    const GIVES_UP: bool = true;
    type Outcome = Verdict;

    async fn record_intent(&self, uow: &mut UnitOfWork, tasks: &[Task<BookShipment>]) -> Result<(), Fault> {
        let bookings: Vec<&BookShipment> = tasks.iter().map(|task| &task.command).collect();
        Ok(store::insert_booking(uow.db(), &bookings).await?)
    }

    async fn call(
        &self,
        key: &str,
        task: &Task<BookShipment>,
    ) -> Result<Verdict, Box<dyn Error + Send + Sync>> {
        Ok(self.carrier.book(key, &task.command.address).await?)
    }

    async fn record_outcome(
        &self,
        uow: &mut UnitOfWork,
        answered: &[(Task<BookShipment>, Verdict)],
    ) -> Result<Vec<Answer<BookShipment>>, Fault> {
        let rows = rows(answered);
        if store::save_verdicts(uow.db(), &rows).await? != rows.len() as u64 {
            return Err(Fault::permanent("a shipment was not waiting for its booking"));
        }
        Ok(answered.iter().map(answer).collect())
    }

    async fn record_at_once(
        &self,
        uow: &mut UnitOfWork,
        tasks: &[Task<BookShipment>],
        answered: &[(Task<BookShipment>, Verdict)],
    ) -> Result<Vec<Answer<BookShipment>>, Fault> {
        let bookings: Vec<&BookShipment> = tasks.iter().map(|task| &task.command).collect();
        store::insert_decided(uow, &bookings, &rows(answered));
        Ok(answered.iter().map(answer).collect())
    }

    async fn resolve(
        &self,
        _uow: &mut UnitOfWork,
        _task: &Task<BookShipment>,
        resolution: &Resolution,
    ) -> Result<Verdict, Unresolved> {
        Ok(match resolution.read::<Seen, BookRefused>()? {
            Resolved::Done(seen) => Verdict::Booked { tracking_number: seen.tracking_number },
            Resolved::Refused(refusal) => Verdict::Refused(refusal),
        })
    }

    async fn withdraw(
        &self,
        key: &str,
        _task: &Task<BookShipment>,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(self.carrier.withdraw(key).await?)
    }
}

/// Returns what the carrier's answers change: order, status, tracking number.
fn rows(answered: &[(Task<BookShipment>, Verdict)]) -> Vec<(Uuid, Status, Option<&str>)> {
    let mut rows = Vec::with_capacity(answered.len());
    for (task, verdict) in answered {
        let (status, tracking_number) = match verdict {
            Verdict::Booked { tracking_number } => (Status::Booked, Some(tracking_number.as_str())),
            Verdict::Refused(_) => (Status::Refused, None),
        };
        rows.push((task.command.order_id, status, tracking_number));
    }
    rows
}

fn answer((task, verdict): &(Task<BookShipment>, Verdict)) -> Answer<BookShipment> {
    let order_id = task.command.order_id;
    match verdict {
        Verdict::Booked { tracking_number } => {
            Answer::done(Booked { order_id, tracking_number: tracking_number.clone() })
        }
        Verdict::Refused(refusal) => Answer::refused(BookingRefused { order_id, refusal: *refusal }),
    }
}
