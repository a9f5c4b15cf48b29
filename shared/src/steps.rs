//! Saga steps at the participant: a command is claimed a second time by (saga, step, direction), with the recorded
//! outcome. A command that is sent again gets its first answer again; an undo that comes before its action bars the
//! action (null compensation, hanging action); so a zombie changes nothing.

mod book;
mod store;
mod together;

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use tracing::warn;
use uuid::Uuid;

pub(crate) use self::book::Book;
pub(crate) use self::store::{Found, Open, Reclaimed, Record, Status};
pub(crate) use self::store::{bind, claim_open, columns, find, insert, insert_statement};
pub(crate) use self::store::{hurry, put_off, release, resolve, try_later};
pub use self::together::{Commands, HandleTogether, Reply};
use crate::consumer::{BatchHandler, BoxFuture, Incoming, Table};
use crate::envelope::{Cause, Command, Direction, Event, Message, Metadata};
use crate::fault::Fault;
use crate::inbox::Claimed;
use crate::outbox::Attributes;
use crate::retention;

/// Which step of which saga, and whether it is done or undone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StepKey {
    /// The saga.
    pub saga_id: Uuid,
    /// The step's name in the saga's plan.
    pub step: String,
    /// Whether it is done or undone.
    pub direction: Direction,
}

impl StepKey {
    /// The key under which the outside world is asked, so that it too does a step once.
    pub fn idempotency_key(&self) -> String {
        format!("{}:{}:{}", self.saga_id, self.step, self.direction.as_str())
    }

    pub(crate) fn of(message: &Incoming) -> Result<Self, Fault> {
        let envelope = message.envelope()?;
        let metadata = &envelope.metadata;
        let (Some(step), Some(direction)) = (metadata.step.clone(), metadata.direction) else {
            return Err(Fault::permanent("the command does not say which saga step it belongs to"));
        };
        Ok(Self { saga_id: envelope.correlation_id, step, direction })
    }

    /// The step that this undo step takes back.
    pub(crate) fn action(&self) -> Option<Self> {
        (self.direction == Direction::Undo).then(|| Self { direction: Direction::Do, ..self.clone() })
    }
}

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
pub trait Handle<C: Command>: Send + Sync + 'static {
    /// Carries out the commands, each of another saga step, and answers them in their order.
    ///
    /// # Errors
    /// A technical failure, which rolls the batch back.
    fn handle(
        &self,
        claimed: &mut Claimed,
        tasks: &[Task<C>],
    ) -> impl Future<Output = Result<Vec<Answer<C>>, Fault>> + Send;
}

/// What a step tells its saga.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepReply {
    /// The step's name in the saga's plan.
    pub step: String,
    /// Whether it was to be done or undone.
    pub direction: Direction,
    /// Whether it was carried out.
    pub outcome: ReplyOutcome,
    /// The command's reply, its refusal with a `code`, or, while it is failing, an `error` and its `attempts`.
    #[schemars(with = "serde_json::Value")]
    pub result: Box<RawValue>,
}

/// Whether the step was carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failing {
    /// Why the outside gave no answer the last time.
    pub error: String,
    /// How often it was asked, since the step is open.
    pub attempts: u32,
}

/// Longer errors are cut: a page of text from an outside must not make a message that is too large.
const ERROR_CHARS: usize = 500;

impl Message for StepReply {
    const TYPE: &'static str = "saga.step_replied.v1";
    const TOPIC: &'static str = "orchestrator.replies";
    /// 1.1 has the outcome `failing`.
    const DATA_VERSION: &'static str = "1.1.0";
}
impl Event for StepReply {}

impl Table {
    /// Carries out the commands of type `C` with `handler`.
    #[must_use]
    pub fn command<C: Command>(self, handler: &Arc<impl Handle<C>>) -> Self {
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

impl<C: Command, H: Handle<C>> BatchHandler for Steps<C, H> {
    fn takes_steps(&self) -> bool {
        true
    }

    fn handle<'a>(
        &'a self,
        claimed: &'a mut Claimed,
        messages: &'a [&'a Incoming],
    ) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(async move {
            let tasks = unanswered::<C>(claimed, messages).await?;
            let answers =
                if tasks.is_empty() { vec![] } else { self.handler.handle(claimed, &tasks).await? };
            for (task, answer) in tasks.iter().zip(&answers) {
                let record = reply(claimed, task, answer)?;
                claimed.steps.add(record);
            }
            Ok(())
        })
    }
}

/// Decodes the commands, answers those whose step has an outcome already, and returns the rest.
pub(crate) async fn unanswered<C: Commands>(
    claimed: &mut Claimed,
    messages: &[&Incoming],
) -> Result<Vec<Task<C>>, Fault> {
    let mut tasks = Vec::with_capacity(messages.len());
    for message in messages {
        let step = StepKey::of(message)?;
        let command = C::read(message)?;
        tasks.push(Task {
            command,
            subject: message.envelope()?.subject.clone(),
            cause: message.cause()?,
            step,
        });
    }
    let mut asked: Vec<StepKey> = tasks.iter().map(|task| task.step.clone()).collect();
    asked.extend(tasks.iter().filter_map(|task| task.step.action()));
    claimed.look_up(&asked).await?;
    let mut rest = Vec::with_capacity(tasks.len());
    let mut taken = HashSet::new();
    for task in tasks {
        // A second command for the same step in one batch is a repetition of the first, whose answer is under way.
        if taken.contains(&task.step) {
            continue;
        }
        if let Some(record) = claimed.steps.get(&task.step) {
            let (status, outcome) = (record.status, record.outcome.clone());
            repeat(claimed, &task, status, outcome)?;
            if status == Status::Pending {
                claimed.steps.asked_again.push(task.step);
            }
            continue;
        }
        let action = task.step.action().map(|action| {
            let status = claimed.steps.get(&action).map(|record| record.status);
            (action, status)
        });
        // An action that is on record has not been undone: its undo would be on record for longer.
        if !matches!(action, Some((_, Some(_)))) {
            retention::still_known(claimed, &task.step)?;
        }
        match action {
            None | Some((_, Some(Status::Done))) => {}
            Some((action, None)) => {
                claimed.steps.add(Record::barred(&task, action));
                nothing_to_undo(claimed, &task)?;
                continue;
            }
            Some((_, Some(Status::Refused | Status::Barred))) => {
                nothing_to_undo(claimed, &task)?;
                continue;
            }
            // Its saga, which has not heard of the action's end either, asks again. Parking would call an operator for
            // what mends itself, and waiting would hold up every other order for as long as the outside is silent.
            Some((_, Some(Status::Pending))) => {
                metrics::counter!("amends_steps_undone_early_total").increment(1);
                warn!(
                    saga = %task.step.saga_id, step = task.step.step,
                    "an undo came while its action is under way; it is not answered, its saga asks again"
                );
                continue;
            }
        }
        taken.insert(task.step.clone());
        rest.push(task);
    }
    Ok(rest)
}

/// Answers an undo that has nothing to undo: its action was refused, or never came and is barred from now on.
fn nothing_to_undo<C: Commands>(claimed: &mut Claimed, task: &Task<C>) -> Result<(), Fault> {
    let result = to_raw_value(&serde_json::Map::new())?;
    tell(claimed, task, ReplyOutcome::Done, result.clone())?;
    claimed.steps.add(Record::answered(task, Status::Done, result));
    Ok(())
}

/// Gives a command that was sent again its recorded answer. One under way is answered when it ends.
fn repeat<C: Commands>(
    claimed: &mut Claimed,
    task: &Task<C>,
    status: Status,
    outcome: Option<Box<RawValue>>,
) -> Result<(), Fault> {
    match (status, outcome) {
        (Status::Done, Some(result)) => tell(claimed, task, ReplyOutcome::Done, result),
        (Status::Refused, Some(result)) => tell(claimed, task, ReplyOutcome::Refused, result),
        // The saga has undone the step before it began, so it waits for no answer.
        (Status::Pending | Status::Barred, _) | (_, None) => Ok(()),
    }
}

/// Replies, and returns what is to be recorded.
pub(crate) fn reply<C: Command>(
    claimed: &mut Claimed,
    task: &Task<C>,
    answer: &Answer<C>,
) -> Result<Record, Fault> {
    answered(claimed, task, Reply::of(answer)?)
}

fn answered<C: Commands>(claimed: &mut Claimed, task: &Task<C>, reply: Reply) -> Result<Record, Fault> {
    let (outcome, status) = match reply.refused {
        false => (ReplyOutcome::Done, Status::Done),
        true => (ReplyOutcome::Refused, Status::Refused),
    };
    tell(claimed, task, outcome, reply.result.clone())?;
    Ok(Record::answered(task, status, reply.result))
}

/// Tells the saga that a step is still open, and why. Nothing is recorded: the answer is still to come.
pub(crate) fn failing<C>(
    claimed: &mut Claimed,
    task: &Task<C>,
    error: &str,
    attempts: u32,
) -> Result<(), Fault> {
    let failing = Failing { error: error.chars().take(ERROR_CHARS).collect(), attempts };
    tell(claimed, task, ReplyOutcome::Failing, to_raw_value(&failing)?)
}

fn tell<C>(
    claimed: &mut Claimed,
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
    claimed.publish_with(&task.subject, &task.cause, &reply, Attributes { sequence: None, metadata })?;
    Ok(())
}
