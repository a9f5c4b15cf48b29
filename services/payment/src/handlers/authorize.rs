//! Authorizes a payment.

use std::error::Error;
use std::time::Duration;

use schemas::payment::{AuthorizePayment, AuthorizeRefused, Authorized, Declined};
use serde::Deserialize;
use shared::fault::Fault;
use shared::saga::external_call::{AT_ONCE, ExternalCall, Resolution, Resolved, Unresolved};
use shared::saga::participant::{Answer, Task};
use shared::unit_of_work::UnitOfWork;
use uuid::Uuid;

use super::{CARD_PROVIDER, Payments};
use crate::domain::{Move, Status};
use crate::gateway::{CardProvider, Verdict};
use crate::store::{self, VerdictRow};

/// What an operator has seen of an authorization at the provider.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Seen {
    authorization_id: String,
}

impl<P: CardProvider> ExternalCall<AuthorizePayment> for Payments<P> {
    const TARGET: &'static str = CARD_PROVIDER;
    const CALL_FIRST: Option<Duration> = Some(AT_ONCE);
    const GIVES_UP: bool = true;
    type Outcome = Verdict;

    async fn record_intent(
        &self,
        uow: &mut UnitOfWork,
        tasks: &[Task<AuthorizePayment>],
    ) -> Result<(), Fault> {
        let payments: Vec<&AuthorizePayment> = tasks.iter().map(|task| &task.command).collect();
        Ok(store::insert_authorizing(uow.db(), &payments).await?)
    }

    async fn call(
        &self,
        key: &str,
        task: &Task<AuthorizePayment>,
    ) -> Result<Verdict, Box<dyn Error + Send + Sync>> {
        Ok(self.provider.authorize(key, &task.command.token, &task.command.amount).await?)
    }

    async fn record_outcome(
        &self,
        uow: &mut UnitOfWork,
        answered: &[(Task<AuthorizePayment>, Verdict)],
    ) -> Result<Vec<Answer<AuthorizePayment>>, Fault> {
        let rows: Vec<VerdictRow<'_>> = answered.iter().map(row).collect();
        let saved = store::save_verdicts(uow.db(), &rows).await?;
        if saved != rows.len() as u64 {
            return Err(Fault::permanent("a payment was not waiting for its authorization"));
        }
        Ok(answers(uow, answered))
    }

    async fn record_at_once(
        &self,
        uow: &mut UnitOfWork,
        tasks: &[Task<AuthorizePayment>],
        answered: &[(Task<AuthorizePayment>, Verdict)],
    ) -> Result<Vec<Answer<AuthorizePayment>>, Fault> {
        let payments: Vec<&AuthorizePayment> = tasks.iter().map(|task| &task.command).collect();
        let verdicts: Vec<VerdictRow<'_>> = answered.iter().map(row).collect();
        store::insert_decided(uow, &payments, &verdicts);
        Ok(answers(uow, answered))
    }

    async fn resolve(
        &self,
        _uow: &mut UnitOfWork,
        _task: &Task<AuthorizePayment>,
        resolution: &Resolution,
    ) -> Result<Verdict, Unresolved> {
        Ok(match resolution.read::<Seen, AuthorizeRefused>()? {
            Resolved::Done(seen) => Verdict::Authorized { authorization_id: seen.authorization_id },
            Resolved::Refused(refusal) => Verdict::Refused(refusal),
        })
    }

    async fn withdraw(
        &self,
        key: &str,
        _task: &Task<AuthorizePayment>,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(self.provider.withdraw(key).await?)
    }
}

/// Writes what is held into the ledger, and returns the answers.
fn answers(
    uow: &mut UnitOfWork,
    answered: &[(Task<AuthorizePayment>, Verdict)],
) -> Vec<Answer<AuthorizePayment>> {
    let mut held = Vec::with_capacity(answered.len());
    let mut answers = Vec::with_capacity(answered.len());
    for (task, verdict) in answered {
        let AuthorizePayment { order_id, amount, .. } = &task.command;
        answers.push(match verdict {
            Verdict::Authorized { authorization_id } => {
                held.push((*order_id, amount));
                Answer::done(Authorized {
                    order_id: *order_id,
                    amount: amount.clone(),
                    authorization_id: authorization_id.clone(),
                })
            }
            Verdict::Refused(refusal) => declined(*order_id, *refusal),
        });
    }
    store::append_ledger(uow, Move::Authorize, &held);
    answers
}

fn row((task, verdict): &(Task<AuthorizePayment>, Verdict)) -> VerdictRow<'_> {
    let order_id = task.command.order_id;
    match verdict {
        Verdict::Authorized { authorization_id } => {
            let (_, status) = Move::Authorize.transition();
            VerdictRow { order_id, status, authorization_id: Some(authorization_id), reason: None }
        }
        Verdict::Refused(refusal) => VerdictRow {
            order_id,
            status: Status::Declined,
            authorization_id: None,
            reason: Some(code(*refusal)),
        },
    }
}

fn code(refused: AuthorizeRefused) -> &'static str {
    match refused {
        AuthorizeRefused::CardDeclined => "card_declined",
        AuthorizeRefused::InsufficientFunds => "insufficient_funds",
        AuthorizeRefused::TimedOut => "timed_out",
    }
}

fn declined(order_id: Uuid, refusal: AuthorizeRefused) -> Answer<AuthorizePayment> {
    Answer::refused(Declined { order_id, refusal })
}
