//! Saga steps at the participant. A command takes effect once per saga, step and direction. The record of the step's
//! outcome is the command's inbox, so that the message's id is not claimed beside it.
//! A repeated command gets its first answer again. An undo that arrives before its action records a tombstone, and
//! the late action then has no effect. (Others call these the null compensation and the hanging action.)

mod answer;
mod batch;

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::value::{RawValue, to_raw_value};
use tracing::warn;
use uuid::Uuid;

pub(crate) use self::answer::failing;
pub use self::answer::{Answer, AnyAnswer, StepAnswered, StepFailing};
pub use self::batch::{CommandBatchHandler, CommandSet};
use crate::envelope::{Cause, Command, Outcome};
use crate::fault::Fault;
use crate::incoming::Incoming;
use crate::router::{BatchHandler, MessageRouter};
use crate::step_outcome::{Record, Status, StepKey};
use crate::unit_of_work::UnitOfWork;
use crate::{metric, retention};

/// A command to carry out.
#[derive(Debug)]
pub struct Task<C> {
    /// The command.
    pub command: C,
    /// The aggregate that the command is about, for example an order id.
    pub subject: String,
    /// The values that messages caused by the command inherit.
    pub cause: Cause,
    /// The identity of the step. Pass its [`StepKey::idempotency_key`] to external dependencies.
    pub step: StepKey,
}

/// Carries out commands inside the transaction that claimed them.
pub trait CommandHandler<C: Command>: Send + Sync + 'static {
    /// Carries out the commands, each of a different saga step, and returns the answers in the order of the commands.
    ///
    /// # Errors
    /// Fails on a technical failure, which rolls the batch back.
    fn handle(
        &self,
        uow: &mut UnitOfWork,
        tasks: &[Task<C>],
    ) -> impl Future<Output = Result<Vec<Answer<C>>, Fault>> + Send;
}

impl MessageRouter {
    /// Registers the handler of the commands of type `C`.
    ///
    /// # Panics
    /// Panics if the type already has a handler.
    #[must_use]
    pub fn command<C: Command>(self, handler: &Arc<impl CommandHandler<C>>) -> Self {
        self.on(
            &[(C::TYPE, C::TOPIC)],
            Arc::new(CommandRoute { handler: Arc::clone(handler), _command: std::marker::PhantomData }),
        )
    }
}

struct CommandRoute<C, H> {
    handler: Arc<H>,
    _command: std::marker::PhantomData<fn(C)>,
}

impl<C: Command, H: CommandHandler<C>> BatchHandler for CommandRoute<C, H> {
    /// The record of its step shows a repeated command.
    fn is_idempotent(&self) -> bool {
        true
    }

    fn takes_steps(&self) -> bool {
        true
    }

    fn handle<'a>(
        &'a self,
        uow: &'a mut UnitOfWork,
        messages: &'a [&'a Incoming],
    ) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(async move {
            let tasks = unanswered::<C>(uow, messages).await?;
            let answers = if tasks.is_empty() { vec![] } else { self.handler.handle(uow, &tasks).await? };
            for (task, answer) in tasks.iter().zip(answers) {
                let record = answered(uow, task, answer)?;
                uow.steps.add(record);
            }
            Ok(())
        })
    }
}

/// Decodes the commands, answers those whose step already has an outcome, and returns the others.
pub(crate) async fn unanswered<C: CommandSet>(
    uow: &mut UnitOfWork,
    messages: &[&Incoming],
) -> Result<Vec<Task<C>>, Fault> {
    let tasks = messages.iter().map(|message| task(message)).collect::<Result<Vec<Task<C>>, Fault>>()?;
    let mut asked: Vec<StepKey> = tasks.iter().map(|task| task.step.clone()).collect();
    asked.extend(tasks.iter().filter_map(|task| task.step.action()));
    uow.look_up(&asked).await?;
    let mut open = Vec::with_capacity(tasks.len());
    let mut taken = HashSet::new();
    for task in tasks {
        // A second command for the same step in one batch repeats the first one, which is being answered.
        if taken.contains(&task.step) {
            continue;
        }
        if let Some(record) = uow.steps.get(&task.step) {
            // The same message again needs no second answer. A new message asks for the answer again.
            if Some(record.message_id) == task.cause.causation_id {
                metric::INBOX_DUPLICATES.counter(&[]).increment(1);
                continue;
            }
            let (status, outcome) = (record.status, record.outcome.clone());
            repeat(uow, &task, status, outcome)?;
            if status == Status::Pending {
                uow.steps.asked_again.push(task.step);
            }
        } else if must_carry_out(uow, &task)? {
            taken.insert(task.step.clone());
            open.push(task);
        }
    }
    Ok(open)
}

/// Reads the command in a message.
pub(crate) fn task<C: CommandSet>(message: &Incoming) -> Result<Task<C>, Fault> {
    Ok(Task {
        step: StepKey::of(message)?,
        command: C::read(message)?,
        subject: message.envelope()?.subject.clone(),
        cause: message.cause()?,
    })
}

/// Returns whether a command without a record must be carried out. An undo with nothing to undo is answered here.
fn must_carry_out<C: CommandSet>(uow: &mut UnitOfWork, task: &Task<C>) -> Result<bool, Fault> {
    let action = task.step.action().map(|action| {
        let status = uow.steps.get(&action).map(|record| record.status);
        (action, status)
    });
    // An action with a record was not undone: the record of its undo would be kept longer.
    if !matches!(action, Some((_, Some(_)))) {
        check_retention(uow, &task.step)?;
    }
    match action {
        None | Some((_, Some(Status::Done))) => return Ok(true),
        Some((action, None)) => {
            uow.steps.add(record(task, action, Status::Tombstoned, None));
            nothing_to_undo(uow, task)?;
        }
        Some((_, Some(Status::Refused | Status::Tombstoned))) => nothing_to_undo(uow, task)?,
        // The saga does not know the end of the action either, so it asks again. Parking would involve an operator in
        // a problem that solves itself. Waiting would delay all other orders while the dependency is silent.
        Some((_, Some(Status::Pending))) => {
            metric::COMPENSATIONS_BEFORE_COMPLETION.counter(&[]).increment(1);
            warn!(
                saga = %task.step.saga_id, step = task.step.step,
                "an undo arrived while its action is under way; it is not answered, and its saga asks again"
            );
        }
    }
    Ok(false)
}

/// Returns the record of a step that this command caused.
pub(crate) fn record<C: CommandSet>(
    task: &Task<C>,
    key: StepKey,
    status: Status,
    outcome: Option<Box<RawValue>>,
) -> Record {
    let message_id = task.cause.causation_id.unwrap_or_else(Uuid::nil);
    Record::new(key, task.command.kind(), message_id, status, outcome)
}

/// Checks that a missing record cannot be a forgotten one.
///
/// # Errors
/// Fails permanently if the saga began longer ago than step outcomes are kept. The command is then parked.
fn check_retention(uow: &UnitOfWork, step: &StepKey) -> Result<(), Fault> {
    let retention = uow.retention().steps;
    if !retention::stale(step.saga_id, uow.now(), retention) {
        return Ok(());
    }
    Err(Fault::permanent(format!(
        "stale: the saga began more than {} days ago, so nobody can know whether this step was done; if it was not, \
         set STEP_RETENTION above the saga's age and retry",
        retention.as_secs() / 86_400
    )))
}

/// Answers an undo that has nothing to undo. Its action was refused, or has not arrived and is tombstoned from now
/// on.
fn nothing_to_undo<C: CommandSet>(uow: &mut UnitOfWork, task: &Task<C>) -> Result<(), Fault> {
    let result = to_raw_value(&serde_json::Map::new())?;
    answer::answer_again(uow, task, Outcome::Done, result.clone())?;
    uow.steps.add(record(task, task.step.clone(), Status::Done, Some(result)));
    Ok(())
}

/// Answers a repeated command with its recorded outcome. A command that is under way is answered when it ends.
fn repeat<C: CommandSet>(
    uow: &mut UnitOfWork,
    task: &Task<C>,
    status: Status,
    outcome: Option<Box<RawValue>>,
) -> Result<(), Fault> {
    match (status, outcome) {
        (Status::Done, Some(result)) => answer::answer_again(uow, task, Outcome::Done, result),
        (Status::Refused, Some(result)) => answer::answer_again(uow, task, Outcome::Refused, result),
        // The saga has undone the step before it began, so it does not wait for an answer.
        (Status::Pending | Status::Tombstoned, _) | (_, None) => Ok(()),
    }
}

/// Publishes the answer and returns the record of the outcome.
pub(crate) fn answered<C: CommandSet>(
    uow: &mut UnitOfWork,
    task: &Task<C>,
    answer: impl Into<AnyAnswer>,
) -> Result<Record, Fault> {
    let (outcome, data) = answer.into().publish(uow, task)?;
    let status = if outcome == Outcome::Refused { Status::Refused } else { Status::Done };
    Ok(record(task, task.step.clone(), status, Some(data)))
}
