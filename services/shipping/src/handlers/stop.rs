//! Keeps a parcel from leaving. The transaction that handles the command decides whether it is in time. A shipment with the
//! status `stopping` behind it is not dispatched any more. No other shipment is stopped.

use std::error::Error;

use schemas::shipping::{StopDeclined, StopRefused, StopShipment, Stopped};
use shared::fault::Fault;
use shared::saga::external_call::ExternalCall;
use shared::saga::participant::{Answer, Task};
use shared::unit_of_work::UnitOfWork;
use uuid::Uuid;

use super::{CARRIER, Shipments};
use crate::domain::Status;
use crate::gateway::Carrier;
use crate::store;

impl<K: Carrier> ExternalCall<StopShipment> for Shipments<K> {
    const TARGET: &'static str = CARRIER;
    type Outcome = ();

    async fn record_intent(&self, uow: &mut UnitOfWork, tasks: &[Task<StopShipment>]) -> Result<(), Fault> {
        let orders = orders(tasks.iter());
        let statuses = store::find_statuses(uow.db(), &orders).await?;
        for order in &orders {
            match statuses.get(order) {
                None => return Err(Fault::permanent(format!("the order {order} has no shipment to stop"))),
                Some(Status::Booking) => {
                    return Err(Fault::permanent(format!("the shipment of {order} is still being booked")));
                }
                Some(
                    Status::Booked
                    | Status::Refused
                    | Status::Stopping
                    | Status::Cancelled
                    | Status::Dispatched
                    | Status::Delivered,
                ) => {}
            }
        }
        let left = self.carrier.pace().released_before(uow.now());
        Ok(store::save_stopping(uow.db(), &orders, left).await?)
    }

    async fn call(&self, key: &str, task: &Task<StopShipment>) -> Result<(), Box<dyn Error + Send + Sync>> {
        let shipment = store::find(&mut *self.db.read().await?, task.command.order_id).await?;
        let stopping = shipment.filter(|shipment| shipment.status == Status::Stopping.as_str());
        // A parcel that had left before is not stopped, so there is nothing to ask.
        if let Some(tracking_number) = stopping.and_then(|shipment| shipment.tracking_number) {
            self.carrier.cancel(key, &tracking_number).await?;
        }
        Ok(())
    }

    async fn record_outcome(
        &self,
        uow: &mut UnitOfWork,
        answered: &[(Task<StopShipment>, ())],
    ) -> Result<Vec<Answer<StopShipment>>, Fault> {
        let orders = orders(answered.iter().map(|(task, ())| task));
        store::save_cancelled(uow.db(), &orders, Status::Stopping).await?;
        let statuses = store::find_statuses(uow.db(), &orders).await?;
        let mut answers = Vec::with_capacity(answered.len());
        for order_id in orders {
            answers.push(match statuses.get(&order_id) {
                Some(Status::Cancelled | Status::Refused) => {
                    Answer::done(Stopped { order_id, delivered: false })
                }
                Some(Status::Delivered) => Answer::done(Stopped { order_id, delivered: true }),
                // A shipment that was not stopped in time is in transit, or will be at once.
                Some(Status::Dispatched | Status::Booked) => {
                    Answer::refused(StopDeclined { order_id, refusal: StopRefused::InTransit })
                }
                None | Some(Status::Booking | Status::Stopping) => {
                    return Err(Fault::permanent(format!(
                        "the shipment of {order_id} was not being stopped"
                    )));
                }
            });
        }
        Ok(answers)
    }
}

fn orders<'t>(tasks: impl Iterator<Item = &'t Task<StopShipment>>) -> Vec<Uuid> {
    tasks.map(|task| task.command.order_id).collect()
}
