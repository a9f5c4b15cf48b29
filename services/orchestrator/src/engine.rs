//! The engine: a pure function from a saga's state and an input to its next state and what is to be done. It knows the
//! plan by its [`Shape`] only, and neither clock nor database.
//!
//! Its rules: a group of steps is asked together, and the next one when all are done. A refusal before or at the pivot
//! turns the saga round once no step of the group is open any more; then what was done is undone, group by group in
//! reverse. The pivot is never undone. A step that does not answer in time is asked again under the same step key;
//! silence is never taken for a refusal. A reply to a step that is not open changes nothing.

#[cfg(test)]
mod model;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::envelope::Direction;
use time::OffsetDateTime;

/// The longest time between two askings of a step.
const ASK_AGAIN_AT_MOST: Duration = Duration::from_secs(60);

/// What the engine knows of a plan.
#[derive(Debug, Clone)]
pub struct Shape {
    /// In the order of the plan; the closing step last.
    pub steps: Vec<StepShape>,
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
}

/// The kinds of step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Compensatable,
    Pivot,
    Forward,
    /// What closes a saga after everything was undone.
    Closing,
}

/// Where a saga stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
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

/// A saga's state: all that the engine needs beside the shape.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub status: Status,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
    pub steps: Vec<StepState>,
}

/// A step's state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepState {
    pub status: StepStatus,
    /// How often it was asked in its present direction.
    pub attempts: u32,
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub asked_at: Option<OffsetDateTime>,
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<OffsetDateTime>,
    /// When it is asked again.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub due_at: Option<OffsetDateTime>,
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
    /// Time has passed.
    Due,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "decision", rename_all = "snake_case")]
pub enum Decision {
    /// Send the step's command.
    Ask { step: String, direction: Direction },
    /// Tell that the saga turned round.
    Compensate { step: String, reason: String },
    /// Tell that the saga has ended, everything done.
    Complete,
    /// Tell that the saga has ended, everything undone.
    Compensated { reason: String },
}

impl State {
    pub fn new(shape: &Shape) -> Self {
        let step = StepState {
            status: StepStatus::Waiting,
            attempts: 0,
            asked_at: None,
            ended_at: None,
            due_at: None,
        };
        Self { status: Status::Running, refusal: None, steps: vec![step; shape.steps.len()] }
    }

    /// When the saga wants to be woken, if nothing happens before.
    pub fn due_at(&self) -> Option<OffsetDateTime> {
        self.steps.iter().filter_map(|step| step.due_at).min()
    }

    /// Whether a reply to this step would be taken: it is open in this direction.
    pub fn awaits(&self, step: usize, direction: Direction) -> bool {
        let open = match direction {
            Direction::Do => StepStatus::Asked,
            Direction::Undo => StepStatus::Undoing,
        };
        self.steps.get(step).is_some_and(|state| state.status == open)
    }

    /// Takes an input, at this time. An input that changes nothing gives no decisions.
    pub fn apply(&mut self, shape: &Shape, input: &Input, now: OffsetDateTime) -> Vec<Decision> {
        let mut decisions = Vec::new();
        match input {
            Input::Started => {}
            Input::Due => self.ask_again(shape, now, &mut decisions),
            Input::Done { step, direction } => {
                let Some(index) = shape.open(self, step, *direction) else {
                    return decisions;
                };
                let done = if *direction == Direction::Do { StepStatus::Done } else { StepStatus::Undone };
                self.steps[index].end(done, now);
            }
            Input::Refused { step, refusal } => {
                let Some(index) = shape.open(self, step, Direction::Do) else {
                    return decisions;
                };
                if matches!(shape.steps[index].kind, Kind::Forward | Kind::Closing) {
                    // The types rule it out; should it come all the same, the step is asked again when it is due.
                    return decisions;
                }
                self.steps[index].end(StepStatus::Refused, now);
                // Of several refusals the first is the saga's reason.
                self.refusal.get_or_insert_with(|| refusal.clone());
            }
        }
        match self.status {
            Status::Running => self.advance(shape, now, &mut decisions),
            Status::Compensating => self.retreat(shape, now, &mut decisions),
            Status::Completed | Status::Compensated | Status::Stuck => {}
        }
        decisions
    }

    fn advance(&mut self, shape: &Shape, now: OffsetDateTime, decisions: &mut Vec<Decision>) {
        let unfinished = (0..shape.steps.len())
            .find(|&i| shape.steps[i].kind != Kind::Closing && self.steps[i].status != StepStatus::Done);
        let Some(first) = unfinished else {
            self.status = Status::Completed;
            decisions.push(Decision::Complete);
            return;
        };
        let group = shape.group(shape.steps[first].group);
        let refused = group.clone().find(|&i| self.steps[i].status == StepStatus::Refused);
        match refused {
            // Not past an unresolved step: what is open may still be done.
            Some(_) if group.clone().any(|i| self.steps[i].status == StepStatus::Asked) => {}
            Some(refused) => {
                self.status = Status::Compensating;
                let step = shape.steps[refused].name.to_owned();
                decisions.push(Decision::Compensate { step, reason: self.reason() });
                self.retreat(shape, now, decisions);
            }
            None => {
                for index in
                    group.filter(|&i| self.steps[i].status == StepStatus::Waiting).collect::<Vec<_>>()
                {
                    self.ask(shape, index, Direction::Do, now, decisions);
                }
            }
        }
    }

    fn retreat(&mut self, shape: &Shape, now: OffsetDateTime, decisions: &mut Vec<Decision>) {
        let last = shape.steps.len() - 1;
        if self.steps.iter().any(|step| step.status == StepStatus::Undoing) {
            return;
        }
        let to_undo = |i: &usize| shape.steps[*i].undo && self.steps[*i].status == StepStatus::Done;
        if let Some(next) = (0..last).rev().find(to_undo) {
            for index in shape.group(shape.steps[next].group).filter(to_undo).collect::<Vec<_>>() {
                self.ask(shape, index, Direction::Undo, now, decisions);
            }
            return;
        }
        match self.steps[last].status {
            StepStatus::Waiting => self.ask(shape, last, Direction::Do, now, decisions),
            StepStatus::Done => {
                self.status = Status::Compensated;
                decisions.push(Decision::Compensated { reason: self.reason() });
            }
            StepStatus::Asked | StepStatus::Refused | StepStatus::Undoing | StepStatus::Undone => {}
        }
    }

    fn ask(
        &mut self,
        shape: &Shape,
        index: usize,
        direction: Direction,
        now: OffsetDateTime,
        decisions: &mut Vec<Decision>,
    ) {
        let step = &mut self.steps[index];
        step.status = if direction == Direction::Do { StepStatus::Asked } else { StepStatus::Undoing };
        step.attempts = 1;
        step.asked_at = Some(now);
        step.ended_at = None;
        step.due_at = Some(now + shape.steps[index].deadline);
        decisions.push(Decision::Ask { step: shape.steps[index].name.to_owned(), direction });
    }

    fn ask_again(&mut self, shape: &Shape, now: OffsetDateTime, decisions: &mut Vec<Decision>) {
        for (step, shape) in self.steps.iter_mut().zip(&shape.steps) {
            if step.due_at.is_some_and(|due| due <= now) {
                let direction =
                    if step.status == StepStatus::Undoing { Direction::Undo } else { Direction::Do };
                let wait = shape.deadline * 2_u32.saturating_pow(step.attempts.min(8));
                step.attempts += 1;
                step.due_at = Some(now + wait.min(ASK_AGAIN_AT_MOST.max(shape.deadline)));
                decisions.push(Decision::Ask { step: shape.name.to_owned(), direction });
            }
        }
    }

    fn reason(&self) -> String {
        self.refusal.as_ref().map(|refusal| refusal.code.clone()).unwrap_or_default()
    }
}

impl StepState {
    fn end(&mut self, status: StepStatus, now: OffsetDateTime) {
        self.status = status;
        self.ended_at = Some(now);
        self.due_at = None;
    }
}

impl Shape {
    /// The step of this name.
    pub fn index(&self, name: &str) -> Option<usize> {
        self.steps.iter().position(|step| step.name == name)
    }

    fn open(&self, state: &State, name: &str, direction: Direction) -> Option<usize> {
        self.index(name).filter(|&index| state.awaits(index, direction))
    }

    fn group(&self, group: usize) -> impl Iterator<Item = usize> + Clone + '_ {
        (0..self.steps.len()).filter(move |&index| self.steps[index].group == group)
    }
}
