//! Captures a payment, or voids its authorization.

use std::error::Error;
use std::time::Duration;

use schemas::common::Money;
use schemas::payment::{CaptureDeclined, CapturePayment, CaptureRefused, Captured, VoidPayment, Voided};
use shared::envelope::{Command, Never};
use shared::fault::Fault;
use shared::saga::external_call::{AT_ONCE, ExternalCall, Nothing, Resolution, Resolved, Unresolved};
use shared::saga::participant::{Answer, Task};
use shared::unit_of_work::UnitOfWork;
use uuid::Uuid;

use super::{CARD_PROVIDER, Payments};
use crate::domain::Move;
use crate::gateway::CardProvider;
use crate::store;

impl<P: CardProvider> ExternalCall<CapturePayment> for Payments<P> {
    const TARGET: &'static str = CARD_PROVIDER;
    const CALL_FIRST: Option<Duration> = Some(AT_ONCE);
    /// Why the money was not taken, if it was not.
    type Outcome = Option<CaptureRefused>;

    async fn record_intent(
        &self,
        _uow: &mut UnitOfWork,
        _tasks: &[Task<CapturePayment>],
    ) -> Result<(), Fault> {
        // The authorization is on record, and the step's own row is the intent of the capture.
        Ok(())
    }

    async fn call(
        &self,
        key: &str,
        task: &Task<CapturePayment>,
    ) -> Result<Option<CaptureRefused>, Box<dyn Error + Send + Sync>> {
        Ok(self.provider.capture(key, &task.command.authorization_id).await?)
    }

    async fn record_outcome(
        &self,
        uow: &mut UnitOfWork,
        answered: &[(Task<CapturePayment>, Option<CaptureRefused>)],
    ) -> Result<Vec<Answer<CapturePayment>>, Fault> {
        let captured = answered.iter().filter(|(_, refusal)| refusal.is_none());
        let orders: Vec<Uuid> = captured.map(|(task, _)| task.command.order_id).collect();
        let reply = |order_id, amount| Captured { order_id, amount };
        let mut done = record(uow, Move::Capture, &orders, reply).await?.into_iter();
        // What was not captured stays authorized. The saga is undone, and voids it.
        let answer = |(task, refusal): &(Task<CapturePayment>, Option<CaptureRefused>)| match *refusal {
            None => done.next(),
            Some(refusal) => {
                let order_id = task.command.order_id;
                Some(Answer::refused(CaptureDeclined { order_id, refusal }))
            }
        };
        Ok(answered.iter().filter_map(answer).collect())
    }

    async fn resolve(
        &self,
        _uow: &mut UnitOfWork,
        _task: &Task<CapturePayment>,
        resolution: &Resolution,
    ) -> Result<Option<CaptureRefused>, Unresolved> {
        Ok(match resolution.read::<Nothing, CaptureRefused>()? {
            Resolved::Done(Nothing {}) => None,
            Resolved::Refused(refusal) => Some(refusal),
        })
    }

    async fn withdraw(
        &self,
        key: &str,
        _task: &Task<CapturePayment>,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(self.provider.withdraw(key).await?)
    }
}

impl<P: CardProvider> ExternalCall<VoidPayment> for Payments<P> {
    const TARGET: &'static str = CARD_PROVIDER;
    const CALL_FIRST: Option<Duration> = Some(AT_ONCE);
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
        record(uow, Move::Void, &orders, |order_id, amount| Voided { order_id, amount }).await
    }

    async fn resolve(
        &self,
        _uow: &mut UnitOfWork,
        _task: &Task<VoidPayment>,
        resolution: &Resolution,
    ) -> Result<(), Unresolved> {
        resolution.read::<Nothing, Never>().map(drop)
    }
}

/// Writes a move of several orders to the payments and the ledger. Returns the answers in the order of `orders`.
pub(super) async fn record<C: Command>(
    uow: &mut UnitOfWork,
    step: Move,
    orders: &[Uuid],
    reply: impl Fn(Uuid, Money) -> C::Reply,
) -> Result<Vec<Answer<C>>, Fault> {
    let moved = store::save_move(uow.db(), orders, step).await?;
    let rows: Vec<(Uuid, &Money)> = moved.iter().map(|(order, money)| (*order, money)).collect();
    store::append_ledger(uow, step, &rows);
    let answer = |order: &Uuid| {
        let amount = moved.get(order).cloned().ok_or_else(|| {
            Fault::permanent(format!("the payment of {order} is in no state to {}", step.kind()))
        })?;
        Ok(Answer::done(reply(*order, amount)))
    };
    orders.iter().map(answer).collect()
}
