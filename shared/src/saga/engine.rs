//! The engine: a pure function from a saga's state and an input to its next state and what is to be done. It knows the
//! plan by its [`Shape`] only, and neither clock nor database.
//!
//! Its rules: a group of steps is asked together, and the next one when all are done. A refusal before or at the pivot
//! turns the saga round once no step of the group is open any more; then what was done is undone, group by group in
//! reverse. The pivot is never undone. A step that does not answer in time is asked again under the same step key;
//! silence is never taken for a refusal. A step that has been asked in vain too often makes the saga stuck, which is an
//! alarm and no end: it is asked on, less and less often, and an operator may have it asked at once. A cancellation
//! counts as a refusal as long as the pivot was not asked; after that it is refused itself. The saga's own deadline counts
//! as a refusal too as long as the pivot was not asked; after that it makes the saga stuck. A reply to a step that is not
//! open changes nothing.

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

/// What the engine knows of a plan.
#[derive(Debug, Clone)]
pub struct Shape {
    /// In the order of the plan; the closing steps last.
    pub steps: Vec<StepShape>,
    /// How long all of it may take.
    pub deadline: Option<Duration>,
}

/// What the engine knows of a step.
#[derive(Debug, Clone)]
pub struct StepShape {
    pub name: &'static str,
    /// Steps of one group run side by side.
    pub group: usize,
    pub kind: Kind,
    /// Whether there is something to undo.
    pub undo: bool,
    pub deadline: Duration,
    /// How often it may be asked in vain before the saga is stuck.
    pub stuck_after: u32,
}

/// The kinds of step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Compensatable,
    Pivot,
    Forward,
    /// What closes a saga after everything was undone.
    Closing,
    /// What closes a saga that was cancelled, instead.
    Cancelling,
}

/// Where a saga stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Running,
    Compensating,
    Completed,
    Compensated,
    Stuck,
}

impl Status {
    /// As it stands in the database.
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

/// Where a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum StepStatus {
    Waiting,
    Asked,
    Done,
    Refused,
    Undoing,
    Undone,
}

/// Why a step was not carried out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// The refusal's code, for example `card_declined`.
    pub code: String,
    /// What else it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Value>,
}

impl Refusal {
    /// Reads a refusal from its JSON: an object with a `code`; what else it has is the detail.
    ///
    /// # Errors
    /// If it is no such object.
    pub fn from_json(json: &str) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Wire {
            code: String,
            #[serde(flatten)]
            rest: serde_json::Map<String, Value>,
        }
        let wire: Wire = serde_json::from_str(json)?;
        let detail = (!wire.rest.is_empty()).then_some(Value::Object(wire.rest));
        Ok(Self { code: wire.code, detail })
    }
}

/// What happens to a saga.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "input", rename_all = "snake_case")]
pub enum Input {
    Started,
    Done {
        step: String,
        direction: Direction,
    },
    Refused {
        step: String,
        refusal: Refusal,
    },
    /// A participant can't answer yet, and says why.
    Failing {
        step: String,
        direction: Direction,
        error: String,
    },
    /// The customer wants it undone.
    Cancel,
    /// An operator wants the open steps asked at once.
    Retry {
        by: String,
        reason: String,
    },
    /// Time has passed.
    Due,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "decision", rename_all = "snake_case")]
pub enum Decision {
    /// Send the step's command.
    Ask { step: String, direction: Direction },
    /// Tell that the saga turned round: at a step that was refused, or because it was cancelled or took too long.
    Compensate {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<String>,
        reason: String,
    },
    /// Tell that a step was asked in vain too often, or that the saga takes too long at it.
    Stuck { step: String, direction: Direction },
    /// Tell that it is too late for a cancellation.
    RefuseCancellation { reason: NoCancellation },
    /// Tell that the saga has ended, everything done.
    Complete,
    /// Tell that the saga has ended, everything undone.
    Compensated { reason: String },
}

/// Why a saga is not cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoCancellation {
    /// The pivot was asked, and may be done.
    PastPivot,
    /// It is being undone, or was, for another reason.
    AlreadyUndone,
    /// Its plan does not say how.
    NotForeseen,
}

impl NoCancellation {
    /// As it stands in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PastPivot => "past_pivot",
            Self::AlreadyUndone => "already_undone",
            Self::NotForeseen => "not_foreseen",
        }
    }
}

/// The reason of a saga that was cancelled.
pub const CANCELLED: &str = "cancelled";
/// The reason of a saga that was undone because it took too long.
pub const TOO_LATE: &str = "deadline_exceeded";

impl Kind {
    /// Whether it closes a saga that was undone.
    pub fn closes(self) -> bool {
        matches!(self, Self::Closing | Self::Cancelling)
    }

    fn may_be_refused(self) -> bool {
        matches!(self, Self::Compensatable | Self::Pivot)
    }
}

impl Shape {
    /// What closes a saga after everything was undone.
    fn closing(&self, cancelled: bool) -> Option<usize> {
        let kind = if cancelled { Kind::Cancelling } else { Kind::Closing };
        self.steps.iter().position(|step| step.kind == kind)
    }

    /// The step of this name.
    pub fn index(&self, name: &str) -> Option<usize> {
        self.steps.iter().position(|step| step.name == name)
    }

    /// Two steps of one name, if there are such: the name, and where they stand.
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
