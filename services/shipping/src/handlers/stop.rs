//! Keeps a parcel from leaving. The transaction that handles the command decides whether it is in time. A shipment with the
//! status `stopping` behind it is not dispatched any more. No other shipment is stopped.

use std::error::Error;

use schemas::shipping::{StopDeclined, StopRefused, StopShipment, Stopped};
use shared::fault::Fault;
use shared::saga::external_call::{ExternalCall, Nothing, Resolution, Resolved, Unresolved};
use shared::saga::participant::{Answer, Task};
use shared::unit_of_work::UnitOfWork;
use uuid::Uuid;

use super::{CARRIER, Shipments};
use crate::domain::Status;
use crate::gateway::Carrier;
use crate::store;

impl<K: Carrier> ExternalCall<StopShipment> for Shipments<K> {
    const TARGET: &'static str = CARRIER;
    const GIVES_UP: bool = true;
    /// Why the parcel goes on, although it was being stopped. The carrier itself refuses no stop.
    type Outcome = Option<StopRefused>;

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

    async fn call(
        &self,
        key: &str,
        task: &Task<StopShipment>,
    ) -> Result<Option<StopRefused>, Box<dyn Error + Send + Sync>> {
        let shipment = store::find(&mut *self.db.read().await?, task.command.order_id).await?;
        let stopping = shipment.filter(|shipment| shipment.status == Status::Stopping.as_str());
        // A parcel that had left before is not stopped, so there is nothing to ask.
        if let Some(tracking_number) = stopping.and_then(|shipment| shipment.tracking_number) {
            self.carrier.cancel(key, &tracking_number).await?;
        }
        Ok(None)
    }

    async fn record_outcome(
        &self,
        uow: &mut UnitOfWork,
        answered: &[(Task<StopShipment>, Option<StopRefused>)],
    ) -> Result<Vec<Answer<StopShipment>>, Fault> {
        let of = |stopped: bool| {
            let kept = answered.iter().filter(move |(_, refusal)| refusal.is_none() == stopped);
            orders(kept.map(|(task, _)| task))
        };
        store::save_cancelled(uow.db(), &of(true), Status::Stopping).await?;
        let go_on = of(false);
        if !go_on.is_empty() {
            let due_at = self.carrier.pace().dispatch(uow.now());
            store::save_not_stopped(uow.db(), &go_on, due_at).await?;
        }
        let statuses = store::find_statuses(uow.db(), &orders(answered.iter().map(|(task, _)| task))).await?;
        let mut answers = Vec::with_capacity(answered.len());
        for (task, refusal) in answered {
            let order_id = task.command.order_id;
            if let Some(refusal) = *refusal {
                answers.push(Answer::refused(StopDeclined { order_id, refusal }));
                continue;
            }
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

    async fn resolve(
        &self,
        _uow: &mut UnitOfWork,
        _task: &Task<StopShipment>,
        resolution: &Resolution,
    ) -> Result<Option<StopRefused>, Unresolved> {
        Ok(match resolution.read::<Nothing, StopRefused>()? {
            Resolved::Done(Nothing {}) => None,
            Resolved::Refused(refusal) => Some(refusal),
        })
    }

    async fn withdraw(
        &self,
        key: &str,
        _task: &Task<StopShipment>,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(self.carrier.withdraw(key).await?)
    }
}

fn orders<'t>(tasks: impl Iterator<Item = &'t Task<StopShipment>>) -> Vec<Uuid> {
    tasks.map(|task| task.command.order_id).collect()
}
