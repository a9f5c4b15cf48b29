//! The state of a saga, and the effect of each input on it.

use std::time::Duration;

use crate::envelope::Direction;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{CANCELLED, Decision, Input, Kind, NoCancellation, Refusal, Shape, Status, StepStatus, TOO_LATE};

/// The longest interval between two requests to a step, unless its deadline is longer.
const MAX_ASK_INTERVAL: Duration = Duration::from_secs(60);

/// The state of a saga: everything that the engine needs beside the shape.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The status of the saga. It never is [`Status::Stuck`]; see [`State::shown`].
    pub status: Status,
    /// The first refusal, which is the reason for undoing the saga.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
    /// Whether the saga was cancelled.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cancelled: bool,
    /// The step at which the saga is stuck, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stuck: Option<Stuck>,
    /// The deadline of the saga, until it has passed or no longer matters.
    #[serde(
        default,
        rename = "endsBy",
        with = "time::serde::rfc3339::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub ends_by: Option<OffsetDateTime>,
    /// The states of the steps, in the order of the shape.
    pub steps: Vec<StepState>,
}

/// The step at which a saga is stuck.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stuck {
    /// The name of the step.
    pub step: String,
    /// Whether it is being carried out or undone.
    pub direction: Direction,
}

/// A step's state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepState {
    /// The status of the step.
    pub status: StepStatus,
    /// The number of requests in the current direction.
    pub attempts: u32,
    /// The time of the first request in the current direction.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub asked_at: Option<OffsetDateTime>,
    /// The time of the last answer.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<OffsetDateTime>,
    /// The time at which the step is asked again.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub due_at: Option<OffsetDateTime>,
    /// The last error of the participant while it cannot answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

impl State {
    /// Creates the state of a saga in which no step was asked yet.
    pub fn new(shape: &Shape) -> Self {
        let step = StepState {
            status: StepStatus::Waiting,
            attempts: 0,
            asked_at: None,
            ended_at: None,
            due_at: None,
            last_error: None,
        };
        let steps = vec![step; shape.steps.len()];
        Self { status: Status::Running, refusal: None, cancelled: false, stuck: None, ends_by: None, steps }
    }

    /// Returns the status as users see it: stuck, or the status of the saga.
    pub fn shown(&self) -> Status {
        if self.stuck.is_some() { Status::Stuck } else { self.status }
    }

    /// Returns the time at which the saga must be woken, if it must be.
    pub fn due_at(&self) -> Option<OffsetDateTime> {
        self.steps.iter().filter_map(|step| step.due_at).chain(self.ends_by).min()
    }

    /// Returns whether a reply to this step has an effect, because the step is open in this direction.
    pub fn awaits(&self, step: usize, direction: Direction) -> bool {
        let open = match direction {
            Direction::Do => StepStatus::Asked,
            Direction::Undo => StepStatus::Undoing,
        };
        self.steps.get(step).is_some_and(|state| state.status == open)
    }

    /// Returns whether a step has ended in another way than this answer says. No repetition does that.
    pub fn contradicts(&self, shape: &Shape, input: &Input) -> bool {
        use StepStatus::{Done, Refused, Undoing, Undone};
        let status =
            |step: &str| shape.index(step).and_then(|index| self.steps.get(index)).map(|it| it.status);
        match input {
            Input::Done { step, direction: Direction::Do } => status(step) == Some(Refused),
            Input::Refused { step, .. } => matches!(status(step), Some(Done | Undoing | Undone)),
            Input::Done { direction: Direction::Undo, .. }
            | Input::Failing { .. }
            | Input::Started
            | Input::Cancel
            | Input::Due
            | Input::Retry { .. } => false,
        }
    }

    /// Applies an input at this time and returns the decisions. An input without an effect returns no decisions.
    pub fn apply(&mut self, shape: &Shape, input: &Input, now: OffsetDateTime) -> Vec<Decision> {
        let mut decisions = Vec::new();
        match input {
            Input::Started if self.ends_by.is_none() && self.is_new() => {
                self.ends_by = shape.deadline.map(|deadline| now + deadline);
            }
            Input::Started => {}
            Input::Due => {
                if self.ends_by.is_some_and(|by| by <= now) {
                    self.pass_deadline(shape, &mut decisions);
                }
                self.ask_again(shape, now, &mut decisions);
            }
            Input::Retry { .. } => self.ask_at_once(shape, now, &mut decisions),
            Input::Failing { step, direction, error } => {
                if let Some(index) = shape.open(self, step, *direction) {
                    self.steps[index].last_error = Some(error.clone());
                }
                return decisions;
            }
            Input::Cancel => match self.cancel(shape) {
                Ok(()) => {}
                Err(reason) => return vec![Decision::RefuseCancellation { reason }],
            },
            Input::Done { step, direction } => {
                let Some(index) = shape.open(self, step, *direction) else {
                    return decisions;
                };
                let done = if *direction == Direction::Do { StepStatus::Done } else { StepStatus::Undone };
                self.end(index, step, done, now);
            }
            Input::Refused { step, refusal } => {
                let Some(index) = shape.open(self, step, Direction::Do) else {
                    return decisions;
                };
                if !shape.steps[index].kind.may_be_refused() {
                    // The plan's types make this impossible. If it happens anyway, the step is asked again at its
                    // deadline.
                    return decisions;
                }
                self.end(index, step, StepStatus::Refused, now);
                // The first of several refusals is the saga's reason.
                self.refusal.get_or_insert_with(|| refusal.clone());
            }
        }
        match self.status {
            Status::Running => self.advance(shape, now, &mut decisions),
            Status::Compensating => self.retreat(shape, now, &mut decisions),
            Status::Completed | Status::Compensated | Status::Stuck => {}
        }
        // A saga turns round only once, and an ended saga is not woken.
        if self.refusal.is_some() || self.status == Status::Completed {
            self.ends_by = None;
        }
        decisions
    }

    /// Returns whether no step was asked yet.
    fn is_new(&self) -> bool {
        self.status == Status::Running && self.steps.iter().all(|step| step.status == StepStatus::Waiting)
    }

    fn is_before_pivot(&self, shape: &Shape) -> bool {
        shape.pivot().is_none_or(|pivot| self.steps[pivot].status == StepStatus::Waiting)
    }

    /// Handles the passed deadline, which happens once. Before the pivot the saga is undone; later it becomes stuck.
    fn pass_deadline(&mut self, shape: &Shape, decisions: &mut Vec<Decision>) {
        self.ends_by = None;
        if self.is_before_pivot(shape) {
            self.refusal = Some(Refusal { code: TOO_LATE.to_owned(), detail: None });
            return;
        }
        let open = self.steps.iter().zip(&shape.steps).find(|(step, _)| step.due_at.is_some());
        if let (Some((step, shape)), None) = (open, &self.stuck) {
            let (step, direction) = (shape.name.to_owned(), step.direction());
            self.stuck = Some(Stuck { step: step.clone(), direction });
            decisions.push(Decision::Stuck { step, direction });
        }
    }

    /// Marks the saga as cancelled, if it can still be undone.
    fn cancel(&mut self, shape: &Shape) -> Result<(), NoCancellation> {
        match self.status {
            _ if self.cancelled => Ok(()),
            Status::Completed => Err(NoCancellation::PastPivot),
            Status::Compensating | Status::Compensated => Err(NoCancellation::AlreadyUndone),
            Status::Running | Status::Stuck if shape.closing(true).is_none() => {
                Err(NoCancellation::NotForeseen)
            }
            Status::Running | Status::Stuck if self.refusal.is_some() => Err(NoCancellation::AlreadyUndone),
            Status::Running | Status::Stuck if !self.is_before_pivot(shape) => Err(NoCancellation::PastPivot),
            Status::Running | Status::Stuck => {
                self.cancelled = true;
                self.refusal = Some(Refusal { code: CANCELLED.to_owned(), detail: None });
                Ok(())
            }
        }
    }

    fn advance(&mut self, shape: &Shape, now: OffsetDateTime, decisions: &mut Vec<Decision>) {
        let unfinished = (0..shape.steps.len())
            .find(|&i| !shape.steps[i].kind.closes() && self.steps[i].status != StepStatus::Done);
        let Some(first) = unfinished else {
            self.status = Status::Completed;
            decisions.push(Decision::Complete);
            return;
        };
        let group = shape.group(shape.steps[first].group);
        let refused = group.clone().find(|&i| self.steps[i].status == StepStatus::Refused);
        if self.refusal.is_none() {
            for index in group.filter(|&i| self.steps[i].status == StepStatus::Waiting).collect::<Vec<_>>() {
                self.ask(shape, index, Direction::Do, now, decisions);
            }
            return;
        }
        // The saga waits for open steps, because they may still be done.
        if !group.clone().any(|i| self.steps[i].status == StepStatus::Asked) {
            self.status = Status::Compensating;
            let step = refused.map(|refused| shape.steps[refused].name.to_owned());
            decisions.push(Decision::Compensate { step, reason: self.reason() });
            self.retreat(shape, now, decisions);
        }
    }

    fn retreat(&mut self, shape: &Shape, now: OffsetDateTime, decisions: &mut Vec<Decision>) {
        if self.steps.iter().any(|step| step.status == StepStatus::Undoing) {
            return;
        }
        let is_undoable = |step: &super::StepShape| step.undo && step.kind == Kind::Compensatable;
        let to_undo = |i: &usize| is_undoable(&shape.steps[*i]) && self.steps[*i].status == StepStatus::Done;
        if let Some(next) = (0..shape.steps.len()).rev().find(to_undo) {
            for index in shape.group(shape.steps[next].group).filter(to_undo).collect::<Vec<_>>() {
                self.ask(shape, index, Direction::Undo, now, decisions);
            }
            return;
        }
        let closing = shape.closing(self.cancelled).map(|index| (index, self.steps[index].status));
        match closing {
            Some((index, StepStatus::Waiting)) => self.ask(shape, index, Direction::Do, now, decisions),
            None | Some((_, StepStatus::Done)) => {
                self.status = Status::Compensated;
                decisions.push(Decision::Compensated { reason: self.reason() });
            }
            Some((_, StepStatus::Asked | StepStatus::Refused | StepStatus::Undoing | StepStatus::Undone)) => {
            }
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
        step.last_error = None;
        decisions.push(Decision::Ask { step: shape.steps[index].name.to_owned(), direction });
    }

    fn ask_again(&mut self, shape: &Shape, now: OffsetDateTime, decisions: &mut Vec<Decision>) {
        for (step, shape) in self.steps.iter_mut().zip(&shape.steps) {
            if step.due_at.is_none_or(|due| due > now) {
                continue;
            }
            let direction = step.direction();
            if step.attempts >= shape.stuck_after && self.stuck.is_none() {
                self.stuck = Some(Stuck { step: shape.name.to_owned(), direction });
                decisions.push(Decision::Stuck { step: shape.name.to_owned(), direction });
            }
            let wait = shape.deadline * 2_u32.saturating_pow(step.attempts.min(8));
            step.attempts = step.attempts.saturating_add(1);
            step.due_at = Some(now + wait.min(MAX_ASK_INTERVAL.max(shape.deadline)));
            decisions.push(Decision::Ask { step: shape.name.to_owned(), direction });
        }
    }

    /// Asks all open steps at once and restarts their intervals.
    fn ask_at_once(&mut self, shape: &Shape, now: OffsetDateTime, decisions: &mut Vec<Decision>) {
        self.stuck = None;
        for (step, shape) in self.steps.iter_mut().zip(&shape.steps) {
            if step.due_at.is_some() {
                step.attempts = 1;
                step.due_at = Some(now + shape.deadline);
                decisions.push(Decision::Ask { step: shape.name.to_owned(), direction: step.direction() });
            }
        }
    }

    /// Records the answer of a step. The saga continues if it was stuck there.
    fn end(&mut self, index: usize, step: &str, status: StepStatus, now: OffsetDateTime) {
        self.steps[index].end(status, now);
        self.stuck = self.stuck.take().filter(|stuck| stuck.step != step);
    }

    fn reason(&self) -> String {
        self.refusal.as_ref().map(|refusal| refusal.code.clone()).unwrap_or_default()
    }
}

impl StepState {
    /// Returns the direction in which the step is asked.
    fn direction(&self) -> Direction {
        if self.status == StepStatus::Undoing { Direction::Undo } else { Direction::Do }
    }

    fn end(&mut self, status: StepStatus, now: OffsetDateTime) {
        self.status = status;
        self.last_error = None;
        self.ended_at = Some(now);
        self.due_at = None;
    }
}
