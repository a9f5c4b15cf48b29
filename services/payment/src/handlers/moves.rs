//! Captures a payment, or voids its authorization.

use std::error::Error;

use schemas::common::{Money, Nothing};
use schemas::payment::{CapturePayment, Captured, VoidPayment, Voided};
use shared::envelope::Event;
use shared::fault::Fault;
use shared::saga::external_call::ExternalCall;
use shared::saga::participant::{Answer, Task};
use shared::unit_of_work::UnitOfWork;
use uuid::Uuid;

use super::{CARD_PROVIDER, Payments};
use crate::domain::Move;
use crate::gateway::CardProvider;
use crate::store;

impl<P: CardProvider> ExternalCall<CapturePayment> for Payments<P> {
    const TARGET: &'static str = CARD_PROVIDER;
    type Outcome = ();

    async fn record_intent(
        &self,
        _uow: &mut UnitOfWork,
        _tasks: &[Task<CapturePayment>],
    ) -> Result<(), Fault> {
        // The authorization is on record, and the step's own row is the intent of the capture.
        Ok(())
    }

    async fn call(&self, key: &str, task: &Task<CapturePayment>) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(self.provider.capture(key, &task.command.authorization_id).await?)
    }

    async fn record_outcome(
        &self,
        uow: &mut UnitOfWork,
        answered: &[(Task<CapturePayment>, ())],
    ) -> Result<Vec<Answer<CapturePayment>>, Fault> {
        let orders: Vec<Uuid> = answered.iter().map(|(task, ())| task.command.order_id).collect();
        let tasks: Vec<_> = answered.iter().map(|(task, ())| task).collect();
        record(uow, Move::Capture, &tasks, &orders, |order_id, amount| Captured { order_id, amount }).await?;
        Ok(answered.iter().map(|_| Answer::Done(Nothing {})).collect())
    }
}

impl<P: CardProvider> ExternalCall<VoidPayment> for Payments<P> {
    const TARGET: &'static str = CARD_PROVIDER;
    type Outcome = ();

    async fn record_intent(&self, _uow: &mut UnitOfWork, _tasks: &[Task<VoidPayment>]) -> Result<(), Fault> {
        // The step's own row is the intent, as for a capture.
        Ok(())
    }

    async fn call(&self, key: &str, task: &Task<VoidPayment>) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(self.provider.void(key, &task.command.authorization_id).await?)
    }

    async fn record_outcome(
        &self,
        uow: &mut UnitOfWork,
        answered: &[(Task<VoidPayment>, ())],
    ) -> Result<Vec<Answer<VoidPayment>>, Fault> {
        let orders: Vec<Uuid> = answered.iter().map(|(task, ())| task.command.order_id).collect();
        let tasks: Vec<_> = answered.iter().map(|(task, ())| task).collect();
        record(uow, Move::Void, &tasks, &orders, |order_id, amount| Voided { order_id, amount }).await?;
        Ok(answered.iter().map(|_| Answer::Done(Nothing {})).collect())
    }
}

/// Writes a move of several orders to the payments, the ledger and the outbox.
pub(super) async fn record<C, E: Event>(
    uow: &mut UnitOfWork,
    step: Move,
    tasks: &[&Task<C>],
    orders: &[Uuid],
    event: impl Fn(Uuid, Money) -> E,
) -> Result<(), Fault> {
    let moved = store::save_move(uow.db(), orders, step).await?;
    let rows: Vec<(Uuid, &Money)> = moved.iter().map(|(order, money)| (*order, money)).collect();
    store::append_ledger(uow.db(), step, &rows).await?;
    for (task, order) in tasks.iter().zip(orders) {
        let amount = moved.get(order).cloned().ok_or_else(|| {
            Fault::permanent(format!("the payment of {order} is in no state to {}", step.kind()))
        })?;
        uow.publish(&task.subject, &task.cause, &event(*order, amount))?;
    }
    Ok(())
}
