//! Cancels a booking.

use std::error::Error;
use std::time::Duration;

use schemas::shipping::{CancelShipment, Cancelled};
use shared::envelope::Never;
use shared::fault::Fault;
use shared::saga::external_call::{AT_ONCE, ExternalCall, Nothing, Resolution, Unresolved};
use shared::saga::participant::{Answer, Task};
use shared::unit_of_work::UnitOfWork;
use uuid::Uuid;

use super::{CARRIER, Shipments};
use crate::domain::Status;
use crate::gateway::Carrier;
use crate::store;

impl<K: Carrier> ExternalCall<CancelShipment> for Shipments<K> {
    const TARGET: &'static str = CARRIER;
    const CALL_FIRST: Option<Duration> = Some(AT_ONCE);
    type Outcome = ();

    async fn record_intent(
        &self,
        _uow: &mut UnitOfWork,
        _tasks: &[Task<CancelShipment>],
    ) -> Result<(), Fault> {
        // The booking is on record, and the step's own row is the intent of its cancellation.
        Ok(())
    }

    async fn call(&self, key: &str, task: &Task<CancelShipment>) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(self.carrier.cancel(key, &task.command.tracking_number).await?)
    }

    async fn record_outcome(
        &self,
        uow: &mut UnitOfWork,
        answered: &[(Task<CancelShipment>, ())],
    ) -> Result<Vec<Answer<CancelShipment>>, Fault> {
        let orders: Vec<Uuid> = answered.iter().map(|(task, ())| task.command.order_id).collect();
        if store::save_cancelled(uow.db(), &orders, Status::Booked).await?.len() != orders.len() {
            return Err(Fault::permanent("a shipment that is to be cancelled is not booked"));
        }
        Ok(orders.into_iter().map(|order_id| Answer::done(Cancelled { order_id })).collect())
    }

    async fn resolve(
        &self,
        _uow: &mut UnitOfWork,
        _task: &Task<CancelShipment>,
        resolution: &Resolution,
    ) -> Result<(), Unresolved> {
        resolution.read::<Nothing, Never>().map(drop)
    }
}
