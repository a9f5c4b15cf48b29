//! Gives the money of a returned order back.

use std::error::Error;

use schemas::common::Nothing;
use schemas::payment::{RefundPayment, RefundRefused, Refunded};
use shared::effects::{Effect, InHouse};
use shared::fault::Fault;
use shared::inbox::Claimed;
use shared::steps::{Answer, Task};
use uuid::Uuid;

use super::{CARD_PROVIDER, Payments, moves};
use crate::domain::Move;
use crate::psp::CardProvider;
use crate::store;

impl<P: CardProvider> Effect<RefundPayment> for Payments<P> {
    const OUTSIDE: &'static str = CARD_PROVIDER;
    /// Whether the money was given back.
    type Outcome = bool;

    async fn intend(&self, _claimed: &mut Claimed, _tasks: &[Task<RefundPayment>]) -> Result<(), Fault> {
        // As for a capture, the step's own row is the intent.
        Ok(())
    }

    async fn call(
        &self,
        key: &str,
        task: &Task<RefundPayment>,
    ) -> Result<bool, Box<dyn Error + Send + Sync>> {
        // The return saga did not see the authorization; a plain read, outside any transaction.
        let card = store::find_card(&mut *self.db.read().await?, task.command.order_id).await?;
        let (token, authorization_id) = card.ok_or(InHouse("there is no captured payment of the order"))?;
        Ok(self.provider.refund(key, &token, &authorization_id).await?)
    }

    async fn settle(
        &self,
        claimed: &mut Claimed,
        settled: &[(Task<RefundPayment>, bool)],
    ) -> Result<Vec<Answer<RefundPayment>>, Fault> {
        let refunded: Vec<&Task<RefundPayment>> =
            settled.iter().filter(|(_, refunded)| *refunded).map(|(task, _)| task).collect();
        let orders: Vec<Uuid> = refunded.iter().map(|task| task.command.order_id).collect();
        let event = |order_id, amount| Refunded { order_id, amount };
        moves::record(claimed, Move::Refund, &refunded, &orders, event).await?;
        let answer = |(_, refunded): &(_, bool)| match refunded {
            true => Answer::Done(Nothing {}),
            false => Answer::Refused(RefundRefused::RefundDeclined),
        };
        Ok(settled.iter().map(answer).collect())
    }
}
