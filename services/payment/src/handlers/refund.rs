//! Refunds the payment of a returned order.

use std::error::Error;
use std::time::Duration;

use schemas::payment::{RefundDeclined, RefundPayment, RefundRefused, Refunded};
use shared::fault::Fault;
use shared::saga::external_call::{
    AT_ONCE, ExternalCall, LocalError, Nothing, Resolution, Resolved, Unresolved,
};
use shared::saga::participant::{Answer, Task};
use shared::unit_of_work::UnitOfWork;
use uuid::Uuid;

use super::{CARD_PROVIDER, Payments, moves};
use crate::domain::Move;
use crate::gateway::CardProvider;
use crate::store;

impl<P: CardProvider> ExternalCall<RefundPayment> for Payments<P> {
    const TARGET: &'static str = CARD_PROVIDER;
    const CALL_FIRST: Option<Duration> = Some(AT_ONCE);
    /// Whether the money was given back.
    type Outcome = bool;

    async fn record_intent(
        &self,
        _uow: &mut UnitOfWork,
        _tasks: &[Task<RefundPayment>],
    ) -> Result<(), Fault> {
        // The step's own row is the intent, as for a capture.
        Ok(())
    }

    async fn call(
        &self,
        key: &str,
        task: &Task<RefundPayment>,
    ) -> Result<bool, Box<dyn Error + Send + Sync>> {
        // The return saga did not see the authorization, so it is read here, without a transaction.
        let card = store::find_card(&mut *self.db.read().await?, task.command.order_id).await?;
        let (token, authorization_id) =
            card.ok_or(LocalError("there is no captured payment of the order"))?;
        Ok(self.provider.refund(key, &token, &authorization_id).await?)
    }

    async fn record_outcome(
        &self,
        uow: &mut UnitOfWork,
        answered: &[(Task<RefundPayment>, bool)],
    ) -> Result<Vec<Answer<RefundPayment>>, Fault> {
        let refunded = answered.iter().filter(|(_, refunded)| *refunded);
        let orders: Vec<Uuid> = refunded.map(|(task, _)| task.command.order_id).collect();
        let reply = |order_id, amount| Refunded { order_id, amount };
        let mut done = moves::record(uow, Move::Refund, &orders, reply).await?.into_iter();
        let declined = |task: &Task<RefundPayment>| {
            let order_id = task.command.order_id;
            Answer::refused(RefundDeclined { order_id, refusal: RefundRefused::RefundDeclined })
        };
        let answer = |(task, refunded): &(Task<RefundPayment>, bool)| match refunded {
            true => done.next(),
            false => Some(declined(task)),
        };
        Ok(answered.iter().filter_map(answer).collect())
    }

    async fn resolve(
        &self,
        _uow: &mut UnitOfWork,
        _task: &Task<RefundPayment>,
        resolution: &Resolution,
    ) -> Result<bool, Unresolved> {
        Ok(match resolution.read::<Nothing, RefundRefused>()? {
            Resolved::Done(Nothing {}) => true,
            Resolved::Refused(RefundRefused::RefundDeclined) => false,
        })
    }

    async fn withdraw(
        &self,
        key: &str,
        _task: &Task<RefundPayment>,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(self.provider.withdraw(key).await?)
    }
}
