//! Takes a booking back.

use std::error::Error;

use schemas::common::Nothing;
use schemas::shipping::{CancelShipment, Cancelled};
use shared::effects::Effect;
use shared::fault::Fault;
use shared::inbox::Claimed;
use shared::steps::{Answer, Task};
use uuid::Uuid;

use super::{CARRIER, Shipments};
use crate::carrier::Carrier;
use crate::domain::Status;
use crate::store;

impl<K: Carrier> Effect<CancelShipment> for Shipments<K> {
    const OUTSIDE: &'static str = CARRIER;
    type Outcome = ();

    async fn intend(&self, _claimed: &mut Claimed, _tasks: &[Task<CancelShipment>]) -> Result<(), Fault> {
        // The booking is on record; the step's own row says that its cancellation is under way.
        Ok(())
    }

    async fn call(&self, key: &str, task: &Task<CancelShipment>) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(self.carrier.cancel(key, &task.command.tracking_number).await?)
    }

    async fn settle(
        &self,
        claimed: &mut Claimed,
        settled: &[(Task<CancelShipment>, ())],
    ) -> Result<Vec<Answer<CancelShipment>>, Fault> {
        let orders: Vec<Uuid> = settled.iter().map(|(task, ())| task.command.order_id).collect();
        if store::save_cancelled(claimed.db(), &orders, Status::Booked).await?.len() != orders.len() {
            return Err(Fault::permanent("a shipment that is to be cancelled is not booked"));
        }
        for (task, ()) in settled {
            let event = Cancelled { order_id: task.command.order_id };
            claimed.publish(&task.subject, &task.cause, &event)?;
        }
        Ok(settled.iter().map(|_| Answer::Done(Nothing {})).collect())
    }
}
