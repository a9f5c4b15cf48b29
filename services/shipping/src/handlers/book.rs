//! Books a shipment.

use std::error::Error;

use schemas::shipping::{BookRefused, BookShipment, Booked, Booking};
use shared::fault::Fault;
use shared::saga::external_call::ExternalCall;
use shared::saga::participant::{Answer, Task};
use shared::unit_of_work::UnitOfWork;

use super::{CARRIER, Shipments};
use crate::domain::Status;
use crate::gateway::{Carrier, Verdict};
use crate::store;

impl<K: Carrier> ExternalCall<BookShipment> for Shipments<K> {
    const TARGET: &'static str = CARRIER;
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
        let mut rows = Vec::with_capacity(answered.len());
        let mut answers = Vec::with_capacity(answered.len());
        for (task, verdict) in answered {
            let order_id = task.command.order_id;
            match verdict {
                Verdict::Booked { tracking_number } => {
                    rows.push((order_id, Status::Booked, Some(tracking_number.as_str())));
                    let event = Booked { order_id, tracking_number: tracking_number.clone() };
                    uow.publish(&task.subject, &task.cause, &event)?;
                    answers.push(Answer::Done(Booking { tracking_number: tracking_number.clone() }));
                }
                Verdict::Undeliverable => {
                    rows.push((order_id, Status::Refused, None));
                    answers.push(Answer::Refused(BookRefused::UndeliverableAddress));
                }
            }
        }
        if store::save_verdicts(uow.db(), &rows).await? != rows.len() as u64 {
            return Err(Fault::permanent("a shipment was not waiting for its booking"));
        }
        Ok(answers)
    }
}
