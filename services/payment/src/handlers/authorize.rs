//! Authorizes a payment.

use std::error::Error;

use schemas::payment::{Authorization, AuthorizePayment, AuthorizeRefused, Authorized, Declined};
use shared::effects::Effect;
use shared::fault::Fault;
use shared::inbox::Claimed;
use shared::steps::{Answer, Task};

use super::{CARD_PROVIDER, Payments};
use crate::domain::Move;
use crate::psp::{CardProvider, Verdict};
use crate::store::{self, VerdictRow};

impl<P: CardProvider> Effect<AuthorizePayment> for Payments<P> {
    const OUTSIDE: &'static str = CARD_PROVIDER;
    type Outcome = Verdict;

    async fn intend(&self, claimed: &mut Claimed, tasks: &[Task<AuthorizePayment>]) -> Result<(), Fault> {
        let payments: Vec<&AuthorizePayment> = tasks.iter().map(|task| &task.command).collect();
        Ok(store::insert_authorizing(claimed.db(), &payments).await?)
    }

    async fn call(
        &self,
        key: &str,
        task: &Task<AuthorizePayment>,
    ) -> Result<Verdict, Box<dyn Error + Send + Sync>> {
        Ok(self.provider.authorize(key, &task.command.token, &task.command.amount).await?)
    }

    async fn settle(
        &self,
        claimed: &mut Claimed,
        settled: &[(Task<AuthorizePayment>, Verdict)],
    ) -> Result<Vec<Answer<AuthorizePayment>>, Fault> {
        let rows: Vec<VerdictRow<'_>> = settled.iter().map(row).collect();
        let saved = store::save_verdicts(claimed.db(), &rows).await?;
        if saved != rows.len() as u64 {
            return Err(Fault::permanent("a payment was not waiting for its authorization"));
        }
        let mut held = Vec::with_capacity(settled.len());
        let mut answers = Vec::with_capacity(settled.len());
        for (task, verdict) in settled {
            let AuthorizePayment { order_id, amount, .. } = &task.command;
            answers.push(match verdict {
                Verdict::Authorized { authorization_id } => {
                    held.push((*order_id, amount));
                    let event = Authorized { order_id: *order_id, amount: amount.clone() };
                    claimed.publish(&task.subject, &task.cause, &event)?;
                    Answer::Done(Authorization { authorization_id: authorization_id.clone() })
                }
                Verdict::CardDeclined => declined(claimed, task, AuthorizeRefused::CardDeclined)?,
                Verdict::InsufficientFunds => declined(claimed, task, AuthorizeRefused::InsufficientFunds)?,
            });
        }
        store::append_ledger(claimed.db(), Move::Authorize, &held).await?;
        Ok(answers)
    }
}

fn row((task, verdict): &(Task<AuthorizePayment>, Verdict)) -> VerdictRow<'_> {
    let order_id = task.command.order_id;
    let declined =
        |reason| VerdictRow { order_id, status: "declined", authorization_id: None, reason: Some(reason) };
    match verdict {
        Verdict::Authorized { authorization_id } => {
            let (_, status) = Move::Authorize.transition();
            VerdictRow { order_id, status, authorization_id: Some(authorization_id), reason: None }
        }
        Verdict::CardDeclined => declined(code(AuthorizeRefused::CardDeclined)),
        Verdict::InsufficientFunds => declined(code(AuthorizeRefused::InsufficientFunds)),
    }
}

fn code(refused: AuthorizeRefused) -> &'static str {
    match refused {
        AuthorizeRefused::CardDeclined => "card_declined",
        AuthorizeRefused::InsufficientFunds => "insufficient_funds",
    }
}

fn declined(
    claimed: &mut Claimed,
    task: &Task<AuthorizePayment>,
    refused: AuthorizeRefused,
) -> Result<Answer<AuthorizePayment>, Fault> {
    let event = Declined { order_id: task.command.order_id, reason: code(refused).to_owned() };
    claimed.publish(&task.subject, &task.cause, &event)?;
    Ok(Answer::Refused(refused))
}
