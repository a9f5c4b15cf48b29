//! Saga steps at the participant: a command is claimed a second time by (saga, step, direction), with the recorded
//! outcome. A command that is sent again gets its first answer again; an undo that comes before its action bars the
//! action (null compensation, hanging action); so a zombie changes nothing.

mod store;
mod together;

use std::future::Future;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use tracing::warn;
use uuid::Uuid;

pub(crate) use self::store::{Open, Reclaimed, Record, Status};
pub(crate) use self::store::{claim_open, find, resolve, save, try_later};
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

    fn of(message: &Incoming) -> Result<Self, Fault> {
        let envelope = message.envelope()?;
        let metadata = &envelope.metadata;
        let (Some(step), Some(direction)) = (metadata.step.clone(), metadata.direction) else {
            return Err(Fault::permanent("the command does not say which saga step it belongs to"));
        };
        Ok(Self { saga_id: envelope.correlation_id, step, direction })
    }

    /// The step that this undo step takes back.
    fn action(&self) -> Option<Self> {
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
    /// The command's reply, or its refusal with a `code`.
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
}

impl Message for StepReply {
    const TYPE: &'static str = "saga.step_replied.v1";
    const TOPIC: &'static str = "orchestrator.replies";
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
    fn handle<'a>(
        &'a self,
        claimed: &'a mut Claimed,
        messages: &'a [&'a Incoming],
    ) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(async move {
            let tasks = unanswered::<C>(claimed, messages).await?;
            let answers =
                if tasks.is_empty() { vec![] } else { self.handler.handle(claimed, &tasks).await? };
            let mut records = Vec::with_capacity(tasks.len());
            for (task, answer) in tasks.iter().zip(&answers) {
                records.push(reply(claimed, task, answer)?);
            }
            save(claimed.db(), &records).await?;
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
    let mut known = find(claimed.db(), asked).await?;
    let mut rest = Vec::with_capacity(tasks.len());
    let mut barred = Vec::new();
    for task in tasks {
        match known.get(&task.step) {
            Some(record) => {
                repeat(claimed, &task, record)?;
                continue;
            }
            None => {
                // An action that is on record has not been undone: its undo would be on record for longer.
                if !task.step.action().is_some_and(|action| known.contains_key(&action)) {
                    retention::still_known(claimed, &task.step)?;
                }
                match undoing(claimed, &task, &known)? {
                    Undoing::Needed => {}
                    Undoing::Settled(outcomes) => {
                        barred.extend(outcomes);
                        continue;
                    }
                    Undoing::TooEarly => {
                        metrics::counter!("amends_steps_undone_early_total").increment(1);
                        warn!(
                            saga = %task.step.saga_id, step = task.step.step,
                            "an undo came while its action is under way; it is not answered, its saga asks again"
                        );
                        continue;
                    }
                }
            }
        }
        // A second command for the same step in one batch is a repetition of the first.
        known.insert(task.step.clone(), Record::open(&task));
        rest.push(task);
    }
    save(claimed.db(), &barred).await?;
    Ok(rest)
}

/// What is to be done about a command that is an undo, or is not.
enum Undoing {
    /// There is something to do, or to undo.
    Needed,
    /// There is nothing to undo: it was answered, and this is to be recorded.
    Settled(Vec<Record>),
    /// Whether there is something to undo is not known yet.
    TooEarly,
}

/// Answers an undo that has nothing to undo: its action was refused, or never came and is barred from now on.
///
/// An undo of an action that is under way is passed over, as a second asking of it is. Its saga, which has not heard
/// of the action's end either, asks again. Parking would call an operator for what mends itself, and waiting would
/// hold up every other order for as long as the outside is silent.
fn undoing<C: Commands>(
    claimed: &mut Claimed,
    task: &Task<C>,
    known: &std::collections::HashMap<StepKey, Record>,
) -> Result<Undoing, Fault> {
    let Some(action) = task.step.action() else { return Ok(Undoing::Needed) };
    let mut outcomes = Vec::new();
    match known.get(&action).map(|record| record.status) {
        Some(Status::Done) => return Ok(Undoing::Needed),
        Some(Status::Pending) => return Ok(Undoing::TooEarly),
        Some(Status::Refused | Status::Barred) => {}
        None => outcomes.push(Record::barred(task, action)),
    }
    let result = to_raw_value(&serde_json::Map::new())?;
    tell(claimed, task, ReplyOutcome::Done, result.clone())?;
    outcomes.push(Record::answered(task, Status::Done, result));
    Ok(Undoing::Settled(outcomes))
}

/// Gives a command that was sent again its recorded answer. One under way is answered when it ends.
fn repeat<C: Commands>(claimed: &mut Claimed, task: &Task<C>, record: &Record) -> Result<(), Fault> {
    match (record.status, &record.outcome) {
        (Status::Done, Some(result)) => tell(claimed, task, ReplyOutcome::Done, result.clone()),
        (Status::Refused, Some(result)) => tell(claimed, task, ReplyOutcome::Refused, result.clone()),
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
    let status = match reply.outcome {
        ReplyOutcome::Done => Status::Done,
        ReplyOutcome::Refused => Status::Refused,
    };
    tell(claimed, task, reply.outcome, reply.result.clone())?;
    Ok(Record::answered(task, status, reply.result))
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
