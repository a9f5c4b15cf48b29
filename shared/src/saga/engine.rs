//! The engine: a pure function from a saga's state and an input to the next state and the decisions. It knows a plan
//! only by its [`Shape`], and has neither clock nor database.
//!
//! Its rules:
//!
//! - The steps of a group are asked together. The next group is asked when all of them are done.
//! - A refusal before or at the pivot turns the saga round, once no step of the group is open. The completed steps
//!   are then undone, group by group in reverse order. The pivot is never undone.
//! - A step that does not answer in time is asked again under the same step key. Silence never counts as a refusal.
//! - A step without an answer to too many requests makes the saga stuck. That is an alert and not a final state. The
//!   step is asked again, less and less often, and an operator can have it asked at once.
//! - A cancellation before the pivot was asked counts as a refusal. A later one is refused.
//! - The deadline of the saga before the pivot was asked counts as a refusal. Later it makes the saga stuck.
//! - A reply to a step that is not open has no effect.

#[cfg(test)]
mod model;
#[cfg(test)]
mod properties;
mod state;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::envelope::Direction;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::state::{State, StepState, Stuck};

/// The part of a plan that the engine needs.
#[derive(Debug, Clone)]
pub struct Shape {
    /// The steps in the order of the plan. The closing steps come last.
    pub steps: Vec<StepShape>,
    /// The deadline of the whole saga, counted from its start.
    pub deadline: Option<Duration>,
}

/// The part of a step that the engine needs.
#[derive(Debug, Clone)]
pub struct StepShape {
    /// The name of the step, unique in its plan.
    pub name: &'static str,
    /// The number of the group. Steps of one group run side by side.
    pub group: usize,
    /// The kind of the step.
    pub kind: Kind,
    /// Whether the step has an undo command.
    pub undo: bool,
    /// How long the step may take before it is asked again.
    pub deadline: Duration,
    /// The number of unanswered requests after which the saga is stuck.
    pub stuck_after: u32,
}

/// The kinds of step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A step before the pivot. It can be undone.
    Compensatable,
    /// The step that decides the outcome. It is never undone.
    Pivot,
    /// A step behind the pivot. It is repeated until it is done.
    Forward,
    /// The step that closes a saga after everything was undone.
    Closing,
    /// The step that closes a cancelled saga, in place of the closing step.
    Cancelling,
}

/// The status of a saga.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Steps are being carried out.
    Running,
    /// Completed steps are being undone.
    Compensating,
    /// The saga has ended, and all steps are done.
    Completed,
    /// The saga has ended, and all completed steps are undone.
    Compensated,
    /// A step gets no answer, and an operator should act. The saga continues when the answer comes.
    Stuck,
}

impl Status {
    /// Returns the status as the database has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Compensating => "compensating",
            Self::Completed => "completed",
            Self::Compensated => "compensated",
            Self::Stuck => "stuck",
        }
    }
}

/// The status of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum StepStatus {
    /// The step was not asked yet.
    Waiting,
    /// The step was asked and has not answered yet.
    Asked,
    /// The step is done.
    Done,
    /// The step was refused.
    Refused,
    /// The undo was asked and has not answered yet.
    Undoing,
    /// The step is undone.
    Undone,
}

/// The business reason why a step was not carried out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// The code of the refusal, for example `card_declined`.
    pub code: String,
    /// More about the refusal, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Value>,
}

impl Refusal {
    /// Reads the refusal from the data of the event that refuses a step: its member `code`, and its member `detail` if
    /// there is one.
    ///
    /// # Errors
    /// Fails if the JSON is not an object with a `code`.
    pub fn from_json(json: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json)
    }
}

/// An event in the life of a saga, given to the engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "input", rename_all = "snake_case")]
pub enum Input {
    /// The saga begins.
    Started,
    /// A step was carried out or undone.
    Done {
        /// The name of the step.
        step: String,
        /// Whether it was carried out or undone.
        direction: Direction,
    },
    /// A step was refused.
    Refused {
        /// The name of the step.
        step: String,
        /// The business reason.
        refusal: Refusal,
    },
    /// A participant cannot answer yet, because its dependency does not respond.
    Failing {
        /// The name of the step.
        step: String,
        /// Whether it is being carried out or undone.
        direction: Direction,
        /// The last error of the participant.
        error: String,
    },
    /// The customer cancels.
    Cancel,
    /// An operator has the open steps asked at once.
    Retry {
        /// The name of the operator.
        by: String,
        /// The reason that the operator gives.
        reason: String,
    },
    /// Time has passed.
    Due,
}

impl Input {
    /// Returns the step that this input answers, if it answers one.
    pub fn answered(&self) -> Option<(&str, Direction)> {
        match self {
            Self::Done { step, direction } | Self::Failing { step, direction, .. } => {
                Some((step, *direction))
            }
            Self::Refused { step, .. } => Some((step, Direction::Do)),
            Self::Started | Self::Cancel | Self::Retry { .. } | Self::Due => None,
        }
    }
}

/// An action that the engine has decided on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "decision", rename_all = "snake_case")]
pub enum Decision {
    /// Send the command of the step.
    Ask {
        /// The name of the step.
        step: String,
        /// Whether to carry it out or undo it.
        direction: Direction,
    },
    /// Publish that the saga turns round, after a refusal, a cancellation or its deadline.
    Compensate {
        /// The refused step, if a refusal is the cause.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<String>,
        /// The reason, as a code.
        reason: String,
    },
    /// Publish that the saga is stuck, because a step got no answer to too many requests or takes too long.
    Stuck {
        /// The name of the step.
        step: String,
        /// Whether it is being carried out or undone.
        direction: Direction,
    },
    /// Publish that a cancellation was refused.
    RefuseCancellation {
        /// The reason.
        reason: NoCancellation,
    },
    /// Publish that the saga has ended with all steps done.
    Complete,
    /// Publish that the saga has ended with all completed steps undone.
    Compensated {
        /// The reason of the first refusal, as a code.
        reason: String,
    },
}

/// The reason why a cancellation is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoCancellation {
    /// The pivot was asked, so it may be done.
    PastPivot,
    /// The saga is already being undone, or was undone.
    AlreadyUndone,
    /// The plan has no step for a cancelled saga.
    NotForeseen,
}

impl NoCancellation {
    /// Returns the reason as messages have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PastPivot => "past_pivot",
            Self::AlreadyUndone => "already_undone",
            Self::NotForeseen => "not_foreseen",
        }
    }
}

/// The refusal code of a cancelled saga.
pub const CANCELLED: &str = "cancelled";
/// The refusal code of a saga that was undone because it took too long.
pub const TOO_LATE: &str = "deadline_exceeded";

impl Kind {
    /// Returns whether the step closes a saga that was undone.
    pub fn closes(self) -> bool {
        matches!(self, Self::Closing | Self::Cancelling)
    }

    fn may_be_refused(self) -> bool {
        matches!(self, Self::Compensatable | Self::Pivot)
    }
}

impl Shape {
    /// Returns the step that closes a saga after everything was undone.
    fn closing(&self, cancelled: bool) -> Option<usize> {
        let kind = if cancelled { Kind::Cancelling } else { Kind::Closing };
        self.steps.iter().position(|step| step.kind == kind)
    }

    /// Returns the index of the step with this name.
    pub fn index(&self, name: &str) -> Option<usize> {
        self.steps.iter().position(|step| step.name == name)
    }

    /// Finds two steps with one name. Returns the name and the indexes of both.
    pub(crate) fn same_name(&self) -> Option<(&'static str, usize, usize)> {
        let mut steps = self.steps.iter().map(|step| step.name).enumerate();
        steps.find_map(|(second, name)| {
            Some((name, self.index(name).filter(|&first| first < second)?, second))
        })
    }

    fn open(&self, state: &State, name: &str, direction: Direction) -> Option<usize> {
        self.index(name).filter(|&index| state.awaits(index, direction))
    }

    fn pivot(&self) -> Option<usize> {
        self.steps.iter().position(|step| step.kind == Kind::Pivot)
    }

    fn group(&self, group: usize) -> impl Iterator<Item = usize> + Clone + '_ {
        (0..self.steps.len()).filter(move |&index| self.steps[index].group == group)
    }
}
