//! The language of saga plans. The kinds of step are types. A compensatable step cannot be written without its undo,
//! or the reason why it needs none. Behind the pivot nothing can be undone and nothing can be refused.

mod build;
mod mermaid;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::envelope::{Command, Direction, ErasedCommand, Message};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use self::build::Impossible;
pub use self::build::{Forward, ForwardGroup, Group, Plan, Several, StepWithoutUndo, Undoable};
use crate::saga::engine::{Kind, Refusal, Shape, StepShape};

/// How long a step may take before it is asked again, unless its plan sets another value.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// The number of unanswered requests after which a saga is stuck, unless its plan sets another value.
pub const STUCK_AFTER: u32 = 5;

/// The memory of a saga, with its plan.
pub trait Saga: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The name in the database. It must never change.
    const NAME: &'static str;
    /// The version. Increase it when the plan changes in a way that running sagas must not follow.
    const VERSION: i32;
    /// Returns the plan.
    fn plan() -> Definition<Self>;
}

type Make<S> = Box<dyn Fn(&S) -> Result<ErasedCommand, serde_json::Error> + Send + Sync>;
type Close<S> = Box<dyn Fn(&S, &Refusal) -> Result<ErasedCommand, serde_json::Error> + Send + Sync>;
type OnReply<S> = Box<dyn Fn(&mut S, &RawValue) -> Result<(), serde_json::Error> + Send + Sync>;

/// A complete plan.
pub struct Definition<S> {
    steps: Vec<StepPlan<S>>,
    close: Closing<S>,
    /// The closing step of a cancelled saga, if the plan allows cancellations.
    cancel: Option<Closing<S>>,
    deadline: Option<Duration>,
}

struct Closing<S> {
    name: &'static str,
    command: Close<S>,
    /// The topic of its answers.
    answers: &'static str,
}

struct StepPlan<S> {
    name: &'static str,
    /// The type name of the command.
    command: &'static str,
    group: usize,
    kind: Kind,
    action: Make<S>,
    /// The topic of the action's answers.
    answers: &'static str,
    undo: Undo<S>,
    on_reply: Option<OnReply<S>>,
    deadline: Duration,
    stuck_after: u32,
}

enum Undo<S> {
    By {
        name: &'static str,
        command: Make<S>,
        /// The topic of its answers.
        answers: &'static str,
    },
    Nothing(&'static str),
}

/// Returns the topic on which the answers to a command are believed.
fn answers_of<C: Command>() -> &'static str {
    <C::Reply as Message>::TOPIC
}

/// Returns the name of a step: the name of its command, without owner and version.
fn name_of<C: Command>() -> &'static str {
    C::TYPE.split('.').nth(1).unwrap_or(C::TYPE)
}

fn make<S: 'static, C: Command>(command: fn(&S) -> C) -> Make<S> {
    Box::new(move |saga| erase(&command(saga)))
}

fn erase<C: Command>(command: &C) -> Result<ErasedCommand, serde_json::Error> {
    let data = serde_json::value::to_raw_value(command)?;
    Ok(ErasedCommand { kind: C::TYPE, topic: C::TOPIC, data_version: C::DATA_VERSION, data })
}

fn closing<S: 'static, C: Command<Refusal: Impossible>>(close: fn(&S, &Refusal) -> C) -> Closing<S> {
    let command: Close<S> = Box::new(move |saga, refusal| erase(&close(saga, refusal)));
    Closing { name: name_of::<C>(), command, answers: answers_of::<C>() }
}

impl<S: 'static> Definition<S> {
    /// Sets the command that closes a saga which the customer has cancelled. Without it the saga cannot be cancelled.
    #[must_use]
    pub fn if_cancelled<C: Command<Refusal: Impossible>>(self, close: fn(&S, &Refusal) -> C) -> Self {
        Self { cancel: Some(closing(close)), ..self }
    }

    /// Sets the deadline of the whole saga. If the pivot was not asked by then, the saga is undone with the reason
    /// `deadline_exceeded`. Otherwise the saga is stuck until the open step has its answer.
    #[must_use]
    pub fn within(self, deadline: Duration) -> Self {
        Self { deadline: Some(deadline), ..self }
    }
}

impl<S> Definition<S> {
    /// Returns the part of the plan that the engine needs.
    pub fn shape(&self) -> Shape {
        let mut steps: Vec<StepShape> = self
            .steps
            .iter()
            .map(|step| StepShape {
                name: step.name,
                group: step.group,
                kind: step.kind,
                undo: matches!(step.undo, Undo::By { .. }),
                deadline: step.deadline,
                stuck_after: step.stuck_after,
            })
            .collect();
        let group = steps.last().map_or(0, |last| last.group + 1);
        let closing = |(number, (kind, name)): (usize, (Kind, &'static str))| StepShape {
            name,
            group: group + number,
            kind,
            undo: false,
            deadline: DEADLINE,
            stuck_after: STUCK_AFTER,
        };
        let closings = [(Kind::Closing, self.close.name)].into_iter();
        let closings = closings.chain(self.cancel.iter().map(|cancel| (Kind::Cancelling, cancel.name)));
        steps.extend(closings.enumerate().map(closing));
        Shape { steps, deadline: self.deadline }
    }

    /// Returns the command of a step.
    pub(crate) fn command(
        &self,
        saga: &S,
        step: usize,
        direction: Direction,
        refusal: &Refusal,
    ) -> Result<ErasedCommand, serde_json::Error> {
        match (self.steps.get(step), direction) {
            (None, _) if step == self.steps.len() => (self.close.command)(saga, refusal),
            (None, _) => (self.cancel.as_ref().unwrap_or(&self.close).command)(saga, refusal),
            (Some(step), Direction::Do) => (step.action)(saga),
            (Some(step), Direction::Undo) => match &step.undo {
                Undo::By { command, .. } => command(saga),
                Undo::Nothing(_) => (step.action)(saga),
            },
        }
    }

    /// Returns the topic on which the answers of a step are believed: that of the service that owns the command.
    pub(crate) fn answers(&self, step: usize, direction: Direction) -> &'static str {
        match (self.steps.get(step), direction) {
            (None, _) if step == self.steps.len() => self.close.answers,
            (None, _) => self.cancel.as_ref().unwrap_or(&self.close).answers,
            (Some(step), Direction::Do) => step.answers,
            (Some(step), Direction::Undo) => match step.undo {
                Undo::By { answers, .. } => answers,
                Undo::Nothing(_) => step.answers,
            },
        }
    }

    /// Stores a step's reply in the saga's memory. Returns whether the plan keeps replies of this step.
    pub(crate) fn on_reply(
        &self,
        saga: &mut S,
        step: usize,
        reply: &RawValue,
    ) -> Result<bool, serde_json::Error> {
        match self.steps.get(step).and_then(|step| step.on_reply.as_ref()) {
            Some(on_reply) => on_reply(saga, reply).map(|()| true),
            None => Ok(false),
        }
    }

    /// Returns a text of everything that a running saga depends on: the table, the command types, and which replies
    /// are kept.
    pub fn fingerprint(&self) -> String {
        let mut text = self.as_table();
        for step in &self.steps {
            let kept = if step.on_reply.is_some() { "kept" } else { "not kept" };
            text.push_str(&format!("{} {kept}\n", step.command));
            if step.stuck_after != STUCK_AFTER {
                text.push_str(&format!("stuck after {}\n", step.stuck_after));
            }
        }
        text
    }

    /// Returns the plan as a Markdown table, for documents.
    pub fn as_table(&self) -> String {
        let mut table = String::from("| # | step | kind | undone by | deadline |\n|---|---|---|---|---|\n");
        for step in &self.steps {
            let (kind, undo) = match (step.kind, &step.undo) {
                (Kind::Compensatable, Undo::By { name, .. }) => ("compensatable", format!("`{name}`")),
                (Kind::Compensatable, Undo::Nothing(reason)) => {
                    ("compensatable", format!("nothing: {reason}"))
                }
                (Kind::Pivot, _) => ("**pivot**", "never".to_owned()),
                (Kind::Forward | Kind::Closing | Kind::Cancelling, _) => {
                    ("retried until done", "never".to_owned())
                }
            };
            let (number, name, deadline) = (step.group + 1, step.name, step.deadline);
            table.push_str(&format!("| {number} | `{name}` | {kind} | {undo} | {deadline:?} |\n"));
        }
        table.push_str(&format!(
            "| - | `{}` | after everything was undone | never | {DEADLINE:?} |\n",
            self.close.name
        ));
        if let Some(cancel) = &self.cancel {
            table.push_str(&format!(
                "| - | `{}` | instead, if it was cancelled | never | {DEADLINE:?} |\n",
                cancel.name
            ));
        }
        if let Some(deadline) = self.deadline {
            table.push_str(&format!(
                "| - | all of it | undone, if the pivot was not asked | - | {deadline:?} |\n"
            ));
        }
        table
    }
}
