//! The answers of participants. An answer is an event of the participant, with the outcome of the step in its metadata.

use std::marker::PhantomData;

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use uuid::Uuid;

use super::{CommandSet, Task};
use crate::envelope::{Command, Event, Message, Metadata, Outcome, new_id};
use crate::fault::Fault;
use crate::outbox::Draft;
use crate::step_outcome::StepKey;
use crate::unit_of_work::UnitOfWork;

/// The answer to a command of type `C`: an event about what was done, or about why it was not done. Both are business
/// outcomes: both commit. The event is published in the transaction that records the outcome.
#[derive(Debug)]
pub struct Answer<C> {
    erased: AnyAnswer,
    command: PhantomData<fn(C)>,
}

impl<C: Command> Answer<C> {
    /// The command was carried out.
    pub fn done(reply: C::Reply) -> Self {
        Self::of(Outcome::Done, &reply)
    }

    /// The command was carried out, and another event than [`Command::Reply`] says so. It must be on the same topic;
    /// otherwise the code does not compile. No plan may keep the reply of such a command (`on_reply`), because the saga
    /// could not read it.
    ///
    /// ```compile_fail
    /// # use serde::{Deserialize, Serialize};
    /// # use shared::envelope::{Command, Event, Message, Never};
    /// # use shared::saga::participant::Answer;
    /// # macro_rules! message { ($name:ident, $topic:literal) => {
    /// #     #[derive(Serialize, Deserialize)] struct $name {}
    /// #     impl Message for $name { const TYPE: &str = stringify!($name); const TOPIC: &str = $topic; }
    /// #     impl Event for $name {}
    /// # } }
    /// # message!(Print, "printer.commands");
    /// # message!(Printed, "printer.events");
    /// # message!(Lost, "office.events");
    /// impl Command for Print {
    ///     type Reply = Printed; // on `printer.events`
    ///     type Refusal = Never;
    /// }
    /// // This event is on `office.events`, where no saga believes it.
    /// let answer = Answer::<Print>::done_as(&Lost {});
    /// ```
    pub fn done_as<E: Event>(event: &E) -> Self {
        Self::of(Outcome::Done, event)
    }

    /// The command was not carried out, for a business reason.
    pub fn refused(refusal: C::Refusal) -> Self {
        Self::of(Outcome::Refused, &refusal)
    }

    /// Adds the version of the aggregate after the change.
    #[must_use]
    pub fn version(mut self, version: i64) -> Self {
        self.erased.version = Some(version);
        self
    }

    /// Returns the id that the event will have.
    pub fn id(&self) -> Uuid {
        self.erased.id
    }

    fn of<E: Event>(outcome: Outcome, event: &E) -> Self {
        const {
            assert!(
                is_same(E::TOPIC, <C::Reply as Message>::TOPIC),
                "an event that answers a command is on the topic of the command's reply"
            );
        }
        let erased = AnyAnswer {
            outcome,
            kind: (E::TYPE, E::DATA_VERSION),
            topic: E::TOPIC,
            data: to_raw_value(event),
            id: new_id(),
            version: None,
        };
        Self { erased, command: PhantomData }
    }
}

/// The answer to a command, without its Rust type.
#[derive(Debug)]
pub struct AnyAnswer {
    outcome: Outcome,
    /// Type name and data version.
    kind: (&'static str, &'static str),
    topic: &'static str,
    data: Result<Box<RawValue>, serde_json::Error>,
    id: Uuid,
    version: Option<i64>,
}

impl<C> From<Answer<C>> for AnyAnswer {
    fn from(answer: Answer<C>) -> Self {
        answer.erased
    }
}

impl AnyAnswer {
    /// Publishes the event. Returns the outcome and the data.
    pub(super) fn publish<C>(
        self,
        uow: &mut UnitOfWork,
        task: &Task<C>,
    ) -> Result<(Outcome, Box<RawValue>), Fault> {
        let data = self.data?;
        let draft = Draft::untyped(self.kind, self.topic, &data).id(self.id);
        let draft = draft.metadata(metadata(&task.step, self.outcome));
        let draft = match self.version {
            Some(version) => draft.version(version),
            None => draft,
        };
        uow.publish(&task.subject, &task.cause, draft)?;
        Ok((self.outcome, data))
    }
}

/// The answer of a step for which no event of its own is published: the recorded answer of a step that was asked again,
/// or the answer of an undo that had nothing to undo. It is on the participant's topic of events.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct StepAnswered {
    /// The data of the event that first answered the step. It is an empty object if nothing had to be undone.
    #[cfg_attr(feature = "schema", schemars(with = "serde_json::Value"))]
    pub result: Box<RawValue>,
}

impl StepAnswered {
    /// The type name of the message.
    pub const TYPE: &'static str = "saga.step_answered.v1";
    /// The semantic version of the data.
    pub const DATA_VERSION: &'static str = "1.0.0";
}

/// A step is still open, because an external dependency does not answer. It is called again, and a final answer
/// follows. The message is on the participant's topic of events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct StepFailing {
    /// The last error of the external dependency.
    pub error: String,
    /// The number of calls since the step is open.
    pub attempts: u32,
}

/// The longest error text, in characters. A long text from a dependency must not make the message too large.
const ERROR_CHARS: usize = 500;

impl StepFailing {
    /// The type name of the message.
    pub const TYPE: &'static str = "saga.step_failing.v1";
    /// The semantic version of the data.
    pub const DATA_VERSION: &'static str = "1.0.0";
}

/// Gives the saga the recorded answer of a step.
pub(super) fn answer_again<C: CommandSet>(
    uow: &mut UnitOfWork,
    task: &Task<C>,
    outcome: Outcome,
    result: Box<RawValue>,
) -> Result<(), Fault> {
    let kind = (StepAnswered::TYPE, StepAnswered::DATA_VERSION);
    let answered = StepAnswered { result };
    let draft = Draft::untyped(kind, C::ANSWERS, &answered).metadata(metadata(&task.step, outcome));
    uow.publish(&task.subject, &task.cause, draft)?;
    Ok(())
}

/// Informs the saga that a step is still open, and of the error. Nothing is recorded, because the answer is still to
/// come.
pub(crate) fn failing<C: CommandSet>(
    uow: &mut UnitOfWork,
    task: &Task<C>,
    error: &str,
    attempts: u32,
) -> Result<(), Fault> {
    let kind = (StepFailing::TYPE, StepFailing::DATA_VERSION);
    let failing = StepFailing { error: error.chars().take(ERROR_CHARS).collect(), attempts };
    let draft = Draft::untyped(kind, C::ANSWERS, &failing).metadata(metadata(&task.step, Outcome::Failing));
    uow.publish(&task.subject, &task.cause, draft)?;
    Ok(())
}

fn metadata(step: &StepKey, outcome: Outcome) -> Metadata {
    Metadata {
        saga_id: Some(step.saga_id),
        step: Some(step.step.clone()),
        direction: Some(step.direction),
        outcome: Some(outcome),
        user_id: None,
    }
}

/// Compares two texts while the code is compiled.
const fn is_same(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    if one.len() != other.len() {
        return false;
    }
    let mut index = 0;
    while index < one.len() {
        if one[index] != other[index] {
            return false;
        }
        index += 1;
    }
    true
}
