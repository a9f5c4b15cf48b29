//! The end of an open call by somebody else than its dependency. An operator states the outcome, and the service records it
//! as if the dependency had answered so.

pub mod store;

use std::marker::PhantomData;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tracing::info;

use super::ExternalCall;
use super::store::Reclaimed;
use crate::db::Db;
use crate::envelope::{Command, new_id};
use crate::fault::{Class, Classified, Fault};
use crate::operator_act::{self, Act};
use crate::router::MessageRouter;
use crate::saga::participant::{self, Task};
use crate::step_outcome::{Status, StepKey};
use crate::unit_of_work::UnitOfWork;

/// The outcome that is stated for an open call.
#[derive(Debug, Clone, PartialEq)]
pub enum Resolution {
    /// The dependency has acted. `reply` is a JSON object with what the service must know about it, for example the id of an
    /// authorization.
    Done {
        /// What the service must know.
        reply: Value,
    },
    /// The call counts as refused for the business reason `code`. If the dependency has acted, or acts later, it must take
    /// that back.
    Refused {
        /// A refusal code of the command.
        code: String,
    },
}

/// The refusal code of a call that was given up because the dependency did not answer in time.
pub const TIMED_OUT: &str = "timed_out";

/// A [`Resolution`] in the types of a command.
#[derive(Debug, PartialEq)]
pub enum Resolved<D, R> {
    /// The dependency has acted.
    Done(D),
    /// The call counts as refused.
    Refused(R),
}

/// The reply of a call about which the service must know nothing but that it is done.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

impl Resolution {
    /// Reads the reply as `D`, or the refusal as `R`: a type that is read from an object with a member `code`. A command that
    /// cannot be refused takes [`crate::envelope::Never`] as `R`.
    ///
    /// # Errors
    /// Fails with [`Unresolved::Unfit`] if the reply or the code does not fit.
    pub fn read<D: DeserializeOwned, R: DeserializeOwned>(&self) -> Result<Resolved<D, R>, Unresolved> {
        let read = match self {
            Self::Done { reply } => {
                let read = serde_json::from_value(reply.clone());
                read.map(Resolved::Done).map_err(|error| format!("/reply {error}"))
            }
            Self::Refused { code } => {
                let read = serde_json::from_value(json!({"code": code}));
                read.map(Resolved::Refused)
                    .map_err(|error| format!("/code the command cannot be refused with it: {error}"))
            }
        };
        read.map_err(Unresolved::Unfit)
    }

    fn status(&self) -> Status {
        match self {
            Self::Done { .. } => Status::Done,
            Self::Refused { .. } => Status::Refused,
        }
    }
}

/// The reason why an open call was not resolved. Nothing has changed then.
#[derive(Debug)]
pub enum Unresolved {
    /// The service has no record of the step.
    Unknown,
    /// The step is not open: it has this status.
    NotOpen(String),
    /// The outcome does not fit the command. The text is for the operator, and may begin with a JSON pointer.
    Unfit(String),
    /// A technical failure.
    Fault(Fault),
}

impl<E: Classified> From<E> for Unresolved {
    fn from(error: E) -> Self {
        Self::Fault(error.into())
    }
}

impl From<Fault> for Unresolved {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Resolves open calls of one command type.
pub(crate) trait ResolveCall: Send + Sync {
    /// Records the outcome and publishes the answer. The caller holds the lock of the step's subject.
    fn resolve<'a>(
        &'a self,
        uow: &'a mut UnitOfWork,
        open: &'a Reclaimed,
        resolution: &'a Resolution,
    ) -> BoxFuture<'a, Result<(), Unresolved>>;
}

/// The handler of a command type, which resolves its open calls.
pub(super) struct Resolver<C, E> {
    handler: Arc<E>,
    command: PhantomData<fn(C)>,
}

impl<C, E> Resolver<C, E> {
    pub fn new(handler: Arc<E>) -> Self {
        Self { handler, command: PhantomData }
    }
}

impl<C: Command, E: ExternalCall<C>> ResolveCall for Resolver<C, E> {
    fn resolve<'a>(
        &'a self,
        uow: &'a mut UnitOfWork,
        open: &'a Reclaimed,
        resolution: &'a Resolution,
    ) -> BoxFuture<'a, Result<(), Unresolved>> {
        Box::pin(async move {
            let task = open.task::<C>().map_err(Fault::from)?;
            record(&*self.handler, uow, task, resolution).await
        })
    }
}

/// Records the stated outcome of an open call and publishes the answer. The caller holds the lock of the step's subject.
pub(crate) async fn record<C: Command, E: ExternalCall<C>>(
    handler: &E,
    uow: &mut UnitOfWork,
    task: Task<C>,
    resolution: &Resolution,
) -> Result<(), Unresolved> {
    let outcome = handler.resolve(uow, &task, resolution).await?;
    let answered = [(task, outcome)];
    let answer = handler.record_outcome(uow, &answered).await?.pop();
    let [(task, _)] = &answered;
    let answer = answer.ok_or_else(|| Fault::permanent(format!("{} has no answer", C::TYPE)))?;
    let outcome = participant::answered(uow, task, answer)?;
    if outcome.status != resolution.status() {
        let (wanted, is) = (resolution.status().as_str(), outcome.status.as_str());
        return Err(Unresolved::Unfit(format!("the step would be recorded as {is}, not as {wanted}")));
    }
    let written = match resolution {
        Resolution::Done { .. } => super::store::resolve(uow.db(), &[outcome]).await?,
        Resolution::Refused { .. } => store::give_up(uow.db(), &outcome).await?,
    };
    if written == 1 { Ok(()) } else { Err(Unresolved::NotOpen("answered meanwhile".to_owned())) }
}

/// Resolves an open call for an operator, and keeps the operator's name and reason.
///
/// # Errors
/// Fails if the step is not open, if the outcome does not fit the command, or on a technical failure. See [`Unresolved`].
pub async fn resolve(
    db: &Db,
    router: &MessageRouter,
    step: &StepKey,
    resolution: &Resolution,
    (by, reason): (&str, &str),
) -> Result<(), Unresolved> {
    let subject = match store::find_step(&mut *db.read().await?, step).await? {
        None => return Err(Unresolved::Unknown),
        Some(found) => found.subject().ok_or_else(|| Unresolved::NotOpen(found.status.clone()))?,
    };
    let mut uow = db.write(std::slice::from_ref(&subject)).await?;
    let Some(open) = store::find_pending(uow.db(), step).await? else {
        let status = store::find_step(uow.db(), step).await?.map(|found| found.status);
        return Err(Unresolved::NotOpen(status.unwrap_or_default()));
    };
    let resolver = router.extensions.get(open.kind.as_str());
    let resolver = resolver.and_then(|one| one.downcast_ref::<Box<dyn ResolveCall>>());
    let resolver = resolver
        .ok_or_else(|| Unresolved::Unfit(format!("this release makes no calls for {}", open.kind)))?;
    resolver.resolve(&mut uow, &open, resolution).await.map_err(|unresolved| match unresolved {
        // A permanent failure repeats itself, so its text is of use to the operator.
        Unresolved::Fault(fault) if fault.class() == Class::Permanent => Unresolved::Unfit(fault.chain()),
        other => other,
    })?;
    let outcome = match resolution {
        Resolution::Done { reply } => json!({"outcome": "done", "reply": reply}),
        Resolution::Refused { code } => json!({"outcome": "refused", "code": code}),
    };
    let detail = json!({
        "sagaId": step.saga_id, "step": step.step, "direction": step.direction, "subject": subject,
        "resolution": outcome,
    });
    let act = Act { id: new_id(), act: "resolve_step", by, reason, detail };
    operator_act::record(uow.db(), &act).await?;
    uow.commit().await?;
    info!(saga = %step.saga_id, step = step.step, by, "an operator has resolved an open call");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::Never;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Held {
        id: String,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(tag = "code", rename_all = "snake_case")]
    enum No {
        CardDeclined,
    }

    #[test]
    fn a_resolution_is_read_in_the_types_of_its_command() {
        let unfit = |unresolved| match unresolved {
            Unresolved::Unfit(text) => text,
            other => panic!("{other:?}"),
        };
        let done = |reply| Resolution::Done { reply }.read::<Held, No>().map_err(unfit);
        let refused = |code: &str| {
            let resolution = Resolution::Refused { code: code.to_owned() };
            resolution.read::<Held, No>().map_err(unfit)
        };
        assert_eq!(done(json!({"id": "a"})), Ok(Resolved::Done(Held { id: "a".to_owned() })));
        assert_eq!(refused("card_declined"), Ok(Resolved::Refused(No::CardDeclined)));
        assert_eq!(done(json!({})), Err("/reply missing field `id`".to_owned()));
        assert!(
            done(json!({"id": "a", "more": 1})).is_err_and(|error| error.contains("unknown field `more`"))
        );
        assert!(refused("bad_mood").is_err_and(|error| error.contains("expected `card_declined`")));
        let never = Resolution::Refused { code: "card_declined".to_owned() }.read::<Held, Never>();
        assert!(never.is_err(), "a command without refusals is not refused");
    }
}
