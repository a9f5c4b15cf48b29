//! Saga steps at the participant: a command is claimed a second time by (saga, step, direction), with the recorded
//! outcome. A command that is sent again gets its first answer again; an undo that comes before its action bars the
//! action (null compensation, hanging action); so a zombie changes nothing.

mod batch;

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use tracing::warn;
use uuid::Uuid;

pub use self::batch::{CommandBatchHandler, CommandSet, Reply};
use crate::envelope::{Cause, Command, Direction, Metadata};
use crate::fault::Fault;
use crate::incoming::Incoming;
use crate::outbox::Draft;
use crate::router::{BatchHandler, MessageRouter};
use crate::step_outcome::{Record, Status, StepKey};
use crate::unit_of_work::UnitOfWork;
use crate::{metric, retention};

/// A command to carry out.
#[derive(Debug)]
pub struct Task<C> {
    /// What is to be done.
    pub command: C,
    /// The aggregate that the command is about, an order id.
    pub subject: String,
    /// What the messages inherit that come of it.
    pub cause: Cause,
    /// Which step it is; its [`StepKey::idempotency_key`] is for the outside.
    pub step: StepKey,
}

/// How a command ended. Both are business outcomes: both commit, both are the reply.
#[derive(Debug)]
pub enum Answer<C: Command> {
    /// It was carried out.
    Done(C::Reply),
    /// It was not, for a reason of the business.
    Refused(C::Refusal),
}

/// Carries out commands inside the transaction that claimed them.
pub trait CommandHandler<C: Command>: Send + Sync + 'static {
    /// Carries out the commands, each of another saga step, and answers them in their order.
    ///
    /// # Errors
    /// A technical failure, which rolls the batch back.
    fn handle(
        &self,
        uow: &mut UnitOfWork,
        tasks: &[Task<C>],
    ) -> impl Future<Output = Result<Vec<Answer<C>>, Fault>> + Send;
}

/// What a step tells its saga.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct StepReply {
    /// The step's name in the saga's plan.
    pub step: String,
    /// Whether it was to be done or undone.
    pub direction: Direction,
    /// Whether it was carried out.
    pub outcome: ReplyOutcome,
    /// The command's reply, its refusal with a `code`, or, while it is failing, an `error` and its `attempts`.
    #[cfg_attr(feature = "schema", schemars(with = "serde_json::Value"))]
    pub result: Box<RawValue>,
}

/// Whether the step was carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum ReplyOutcome {
    /// It was carried out.
    Done,
    /// It was not, for a reason of the business.
    Refused,
    /// It is not known yet: the outside gives no answer, and is asked again. This is no outcome; one follows.
    Failing,
}

/// The result of a reply whose outcome is [`ReplyOutcome::Failing`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Failing {
    /// Why the outside gave no answer the last time.
    pub error: String,
    /// How often it was asked, since the step is open.
    pub attempts: u32,
}

/// Longer errors are cut: a page of text from an outside must not make a message that is too large.
const ERROR_CHARS: usize = 500;

impl StepReply {
    /// Its name on the wire.
    pub const TYPE: &'static str = "saga.step_replied.v1";
    /// The version of its data, by semantic versioning. 1.1 has the outcome `failing`.
    pub const DATA_VERSION: &'static str = "1.1.0";
}

impl MessageRouter {
    /// Carries out the commands of type `C` with `handler`.
    #[must_use]
    pub fn command<C: Command>(self, handler: &Arc<impl CommandHandler<C>>) -> Self {
        self.on(
            &[(C::TYPE, C::TOPIC)],
            Arc::new(Steps { handler: Arc::clone(handler), _command: std::marker::PhantomData }),
        )
    }
}

struct Steps<C, H> {
    handler: Arc<H>,
    _command: std::marker::PhantomData<fn(C)>,
}

impl<C: Command, H: CommandHandler<C>> BatchHandler for Steps<C, H> {
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
            for (task, answer) in tasks.iter().zip(&answers) {
                let record = reply(uow, task, answer)?;
                uow.steps.add(record);
            }
            Ok(())
        })
    }
}

/// Decodes the commands, answers those whose step has an outcome already, and returns the rest.
pub(crate) async fn unanswered<C: CommandSet>(
    uow: &mut UnitOfWork,
    messages: &[&Incoming],
) -> Result<Vec<Task<C>>, Fault> {
    let tasks = messages.iter().map(|message| task(message)).collect::<Result<Vec<Task<C>>, Fault>>()?;
    let mut asked: Vec<StepKey> = tasks.iter().map(|task| task.step.clone()).collect();
    asked.extend(tasks.iter().filter_map(|task| task.step.action()));
    uow.look_up(&asked).await?;
    let mut rest = Vec::with_capacity(tasks.len());
    let mut taken = HashSet::new();
    for task in tasks {
        // A second command for the same step in one batch is a repetition of the first, whose answer is under way.
        if taken.contains(&task.step) {
            continue;
        }
        if let Some(record) = uow.steps.get(&task.step) {
            let (status, outcome) = (record.status, record.outcome.clone());
            repeat(uow, &task, status, outcome)?;
            if status == Status::Pending {
                uow.steps.asked_again.push(task.step);
            }
        } else if is_to_be_done(uow, &task)? {
            taken.insert(task.step.clone());
            rest.push(task);
        }
    }
    Ok(rest)
}

fn task<C: CommandSet>(message: &Incoming) -> Result<Task<C>, Fault> {
    Ok(Task {
        step: StepKey::of(message)?,
        command: C::read(message)?,
        subject: message.envelope()?.subject.clone(),
        cause: message.cause()?,
    })
}

/// Whether a command of which nothing is on record is to be carried out. An undo that has nothing to undo is answered here.
fn is_to_be_done<C: CommandSet>(uow: &mut UnitOfWork, task: &Task<C>) -> Result<bool, Fault> {
    let action = task.step.action().map(|action| {
        let status = uow.steps.get(&action).map(|record| record.status);
        (action, status)
    });
    // An action that is on record has not been undone: its undo would be on record for longer.
    if !matches!(action, Some((_, Some(_)))) {
        still_known(uow, &task.step)?;
    }
    match action {
        None | Some((_, Some(Status::Done))) => return Ok(true),
        Some((action, None)) => {
            uow.steps.add(record(task, action, Status::Tombstoned, None));
            nothing_to_undo(uow, task)?;
        }
        Some((_, Some(Status::Refused | Status::Tombstoned))) => nothing_to_undo(uow, task)?,
        // Its saga, which has not heard of the action's end either, asks again. Parking would call an operator for what
        // mends itself. Waiting would hold up every other order for as long as the dependency is silent.
        Some((_, Some(Status::Pending))) => {
            metric::COMPENSATIONS_BEFORE_COMPLETION.counter(&[]).increment(1);
            warn!(
                saga = %task.step.saga_id, step = task.step.step,
                "an undo came while its action is under way; it is not answered, its saga asks again"
            );
        }
    }
    Ok(false)
}

/// What is to be recorded of a step because of this command.
pub(crate) fn record<C: CommandSet>(
    task: &Task<C>,
    key: StepKey,
    status: Status,
    outcome: Option<Box<RawValue>>,
) -> Record {
    let message_id = task.cause.causation_id.unwrap_or_else(Uuid::nil);
    Record::new(key, task.command.kind(), message_id, status, outcome)
}

/// Refuses a command for a step of which nothing is on record, if what was on record may have been forgotten.
///
/// # Errors
/// If the saga began longer ago than step outcomes are kept. The command is parked.
fn still_known(uow: &UnitOfWork, step: &StepKey) -> Result<(), Fault> {
    let memory = uow.retention().steps;
    if !retention::stale(step.saga_id, uow.now(), memory) {
        return Ok(());
    }
    Err(Fault::permanent(format!(
        "stale: the saga began more than {} days ago, so it can't be told whether this step was done; if it was not, \
         set STEP_RETENTION above the saga's age and retry",
        memory.as_secs() / 86_400
    )))
}

/// Answers an undo that has nothing to undo: its action was refused, or never came and is barred from now on.
fn nothing_to_undo<C: CommandSet>(uow: &mut UnitOfWork, task: &Task<C>) -> Result<(), Fault> {
    let result = to_raw_value(&serde_json::Map::new())?;
    tell(uow, task, ReplyOutcome::Done, result.clone())?;
    uow.steps.add(record(task, task.step.clone(), Status::Done, Some(result)));
    Ok(())
}

/// Gives a command that was sent again its recorded answer. One under way is answered when it ends.
fn repeat<C: CommandSet>(
    uow: &mut UnitOfWork,
    task: &Task<C>,
    status: Status,
    outcome: Option<Box<RawValue>>,
) -> Result<(), Fault> {
    match (status, outcome) {
        (Status::Done, Some(result)) => tell(uow, task, ReplyOutcome::Done, result),
        (Status::Refused, Some(result)) => tell(uow, task, ReplyOutcome::Refused, result),
        // The saga has undone the step before it began, so it waits for no answer.
        (Status::Pending | Status::Tombstoned, _) | (_, None) => Ok(()),
    }
}

/// Replies, and returns what is to be recorded.
pub(crate) fn reply<C: Command>(
    uow: &mut UnitOfWork,
    task: &Task<C>,
    answer: &Answer<C>,
) -> Result<Record, Fault> {
    answered(uow, task, Reply::of(answer)?)
}

fn answered<C: CommandSet>(uow: &mut UnitOfWork, task: &Task<C>, reply: Reply) -> Result<Record, Fault> {
    let (outcome, status) = match reply.refused {
        false => (ReplyOutcome::Done, Status::Done),
        true => (ReplyOutcome::Refused, Status::Refused),
    };
    tell(uow, task, outcome, reply.result.clone())?;
    Ok(record(task, task.step.clone(), status, Some(reply.result)))
}

/// Tells the saga that a step is still open, and why. Nothing is recorded: the answer is still to come.
pub(crate) fn failing<C>(
    uow: &mut UnitOfWork,
    task: &Task<C>,
    error: &str,
    attempts: u32,
) -> Result<(), Fault> {
    let failing = Failing { error: error.chars().take(ERROR_CHARS).collect(), attempts };
    tell(uow, task, ReplyOutcome::Failing, to_raw_value(&failing)?)
}

fn tell<C>(
    uow: &mut UnitOfWork,
    task: &Task<C>,
    outcome: ReplyOutcome,
    result: Box<RawValue>,
) -> Result<(), Fault> {
    let reply = StepReply { step: task.step.step.clone(), direction: task.step.direction, outcome, result };
    let metadata = Metadata {
        step: Some(task.step.step.clone()),
        direction: Some(task.step.direction),
        ..Metadata::default()
    };
    let kind = (StepReply::TYPE, StepReply::DATA_VERSION);
    let draft = Draft::untyped(kind, uow.reply_topic().to_owned(), &reply).metadata(metadata);
    uow.publish(&task.subject, &task.cause, draft)?;
    Ok(())
}
