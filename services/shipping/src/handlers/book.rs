//! Books a shipment.

use std::error::Error;

use schemas::shipping::{BookRefused, BookShipment, Booked, Booking};
use shared::effects::Effect;
use shared::fault::Fault;
use shared::inbox::Claimed;
use shared::steps::{Answer, Task};

use super::{CARRIER, Shipments};
use crate::carrier::{Carrier, Verdict};
use crate::domain::Status;
use crate::store;

impl<K: Carrier> Effect<BookShipment> for Shipments<K> {
    const OUTSIDE: &'static str = CARRIER;
    type Outcome = Verdict;

    async fn intend(&self, claimed: &mut Claimed, tasks: &[Task<BookShipment>]) -> Result<(), Fault> {
        let bookings: Vec<&BookShipment> = tasks.iter().map(|task| &task.command).collect();
        Ok(store::insert_booking(claimed.db(), &bookings).await?)
    }

    async fn call(
        &self,
        key: &str,
        task: &Task<BookShipment>,
    ) -> Result<Verdict, Box<dyn Error + Send + Sync>> {
        Ok(self.carrier.book(key, &task.command.address).await?)
    }

    async fn settle(
        &self,
        claimed: &mut Claimed,
        settled: &[(Task<BookShipment>, Verdict)],
    ) -> Result<Vec<Answer<BookShipment>>, Fault> {
        let mut rows = Vec::with_capacity(settled.len());
        let mut answers = Vec::with_capacity(settled.len());
        for (task, verdict) in settled {
            let order_id = task.command.order_id;
            match verdict {
                Verdict::Booked { tracking_number } => {
                    rows.push((order_id, Status::Booked, Some(tracking_number.as_str())));
                    let event = Booked { order_id, tracking_number: tracking_number.clone() };
                    claimed.publish(&task.subject, &task.cause, &event)?;
                    answers.push(Answer::Done(Booking { tracking_number: tracking_number.clone() }));
                }
                Verdict::Undeliverable => {
                    rows.push((order_id, Status::Refused, None));
                    answers.push(Answer::Refused(BookRefused::UndeliverableAddress));
                }
            }
        }
        if store::save_verdicts(claimed.db(), &rows).await? != rows.len() as u64 {
            return Err(Fault::permanent("a shipment was not waiting for its booking"));
        }
        Ok(answers)
    }
}
