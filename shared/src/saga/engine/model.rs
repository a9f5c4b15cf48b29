//! A model of a saga as an observer sees it: the sent commands and the received answers. It does not know how the
//! engine decides. It fails on every decision that the rules forbid.

use std::fmt::Write as _;
use std::time::Duration;

use crate::envelope::Direction;
use time::OffsetDateTime;

use super::{CANCELLED, Decision, Input, Kind, Shape, State, Status, StepStatus, TOO_LATE};

/// A step as the observer sees it.
struct ObservedStep {
    status: StepStatus,
    asked_at: Option<OffsetDateTime>,
    /// The number of requests since the step became open, or since an operator's retry.
    asked: u32,
}

pub(super) struct Model<'s> {
    shape: &'s Shape,
    steps: Vec<ObservedStep>,
    /// The code of the first refusal.
    reason: Option<String>,
    cancelled: bool,
    /// The deadline of the saga, until it has passed.
    ends_by: Option<OffsetDateTime>,
    /// Whether the deadline passed before the pivot was asked.
    too_late: bool,
    turned_round: bool,
    /// The step at which the saga is stuck.
    stuck: Option<usize>,
    pub ended: Option<Status>,
    /// Groups with completed undoable steps, in the order of completion.
    done: Vec<usize>,
    /// Groups in the order in which their undo was asked.
    undone: Vec<usize>,
    history: Vec<(OffsetDateTime, Input, Vec<Decision>)>,
}

impl<'s> Model<'s> {
    pub fn new(shape: &'s Shape) -> Self {
        let steps = shape
            .steps
            .iter()
            .map(|_| ObservedStep { status: StepStatus::Waiting, asked_at: None, asked: 0 })
            .collect();
        Self {
            shape,
            steps,
            reason: None,
            cancelled: false,
            ends_by: None,
            too_late: false,
            turned_round: false,
            stuck: None,
            ended: None,
            done: Vec::new(),
            undone: Vec::new(),
            history: Vec::new(),
        }
    }

    /// Returns the steps without an answer.
    pub fn open(&self) -> Vec<(usize, Direction)> {
        let open = |status| match status {
            StepStatus::Asked => Some(Direction::Do),
            StepStatus::Undoing => Some(Direction::Undo),
            StepStatus::Waiting | StepStatus::Done | StepStatus::Refused | StepStatus::Undone => None,
        };
        self.steps.iter().enumerate().filter_map(|(index, step)| Some((index, open(step.status)?))).collect()
    }

    /// Observes an input and the engine's decisions. `changed` means that the state has changed.
    pub fn observe(&mut self, now: OffsetDateTime, input: &Input, decisions: &[Decision], changed: bool) {
        self.history.push((now, input.clone(), decisions.to_vec()));
        if *input == Input::Cancel {
            self.observe_cancellation(decisions, changed);
        }
        if self.history.len() == 1 {
            self.ends_by = self.shape.deadline.map(|deadline| now + deadline);
        }
        let answered = self.observe_answer(input);
        let woken = *input == Input::Due;
        let overdue = woken && self.ends_by.is_some_and(|by| by <= now);
        if overdue {
            self.observe_deadline(decisions);
        }
        let other = matches!(input, Input::Cancel | Input::Retry { .. } | Input::Failing { .. });
        if !answered && !woken && !other && self.history.len() > 1 {
            self.must(decisions.is_empty() && !changed, "an answer that nobody waits for changes nothing");
        }
        if matches!(input, Input::Failing { .. }) {
            self.must(decisions.is_empty(), "a failing reply does not complete a step");
        }
        if matches!(input, Input::Retry { .. }) {
            self.must(decisions.len() == self.open().len(), "what is open is asked at once");
            self.steps.iter_mut().for_each(|step| step.asked = 0);
            self.stuck = None;
        }
        for decision in decisions {
            if matches!(decision, Decision::RefuseCancellation { .. }) {
                continue;
            }
            self.must(self.ended.is_none(), "nothing is decided after the end");
            match decision {
                Decision::RefuseCancellation { .. } => {}
                Decision::Ask { step, direction } => self.asked(self.index(step), *direction, input, now),
                Decision::Stuck { step, direction } => {
                    let index = self.index(step);
                    let often = self.steps[index].asked >= self.shape.steps[index].stuck_after;
                    let open = self.open().contains(&(index, *direction));
                    self.must(
                        woken && open && (often || overdue) && self.stuck.is_none(),
                        "a saga is stuck at an open step after enough unanswered requests or its deadline, and only one alert is sent",
                    );
                    self.stuck = Some(index);
                }
                Decision::Compensate { step, reason } => {
                    let refused = |step: &String| self.steps[self.index(step)].status == StepStatus::Refused;
                    let justified = step.as_ref().map_or(self.cancelled || self.too_late, refused);
                    self.must(
                        justified && !self.turned_round,
                        "a refusal, a cancellation or its deadline turns the saga round, once",
                    );
                    self.must(!self.any(StepStatus::Asked), "it turns round when no step is open any more");
                    self.must(self.reason.as_ref() == Some(reason), "the first refusal is the reason");
                    self.turned_round = true;
                }
                Decision::Complete => {
                    let mut all = self.steps[..self.business()].iter();
                    self.must(
                        all.all(|step| step.status == StepStatus::Done),
                        "it is complete when all is done",
                    );
                    self.ended = Some(Status::Completed);
                }
                Decision::Compensated { reason } => {
                    let closed = self.steps[self.closing()].status == StepStatus::Done;
                    self.must(closed && self.nothing_to_undo(), "it is compensated when all is undone");
                    self.must(self.reason.as_ref() == Some(reason), "the first refusal is the reason");
                    self.ended = Some(Status::Compensated);
                }
            }
        }
        self.must(
            self.ended.is_some() || !self.open().is_empty(),
            "a saga that has not ended waits for someone",
        );
        if woken {
            let late = |index: usize| {
                let interval = self.shape.steps[index].deadline.max(Duration::from_secs(60));
                self.steps[index].asked_at.is_none_or(|asked| now - asked >= interval)
            };
            self.must(!self.open().iter().any(|(index, _)| late(*index)), "silence is not forgotten");
        }
    }

    /// Compares the engine's state with the model.
    pub fn agrees_with(&self, state: &State) {
        let same = self.steps.iter().zip(&state.steps).all(|(seen, step)| seen.status == step.status);
        self.must(same, "the state says what was seen");
        let running = if self.turned_round { Status::Compensating } else { Status::Running };
        self.must(state.status == self.ended.unwrap_or(running), "the status says what was seen");
        let stuck = self.stuck.map(|index| self.shape.steps[index].name);
        self.must(
            state.stuck.as_ref().map(|stuck| stuck.step.as_str()) == stuck,
            "it is stuck where it was seen to be",
        );
        self.must((state.shown() == Status::Stuck) == stuck.is_some(), "and says so");
        self.must(state.due_at().is_some() == self.ended.is_none(), "it is woken until it has ended");
    }

    /// Checks the end of a saga that got all its answers.
    pub fn finish(&self) {
        let end = if self.reason.is_some() { Status::Compensated } else { Status::Completed };
        self.must(self.ended == Some(end), "a saga that gets its answers ends well");
        let mut reverse = self.done.clone();
        reverse.reverse();
        let wanted = if self.reason.is_some() { reverse } else { Vec::new() };
        self.must(self.undone == wanted, "what was done is undone in reverse");
    }

    /// Records an answer. Returns whether the step was waiting for it.
    fn observe_answer(&mut self, input: &Input) -> bool {
        let (step, from, to) = match input {
            Input::Done { step, direction: Direction::Do } => (step, StepStatus::Asked, StepStatus::Done),
            Input::Done { step, direction: Direction::Undo } => {
                (step, StepStatus::Undoing, StepStatus::Undone)
            }
            Input::Refused { step, .. } => (step, StepStatus::Asked, StepStatus::Refused),
            Input::Started | Input::Due | Input::Cancel | Input::Retry { .. } | Input::Failing { .. } => {
                return false;
            }
        };
        let Some(index) = self.shape.index(step) else {
            return false;
        };
        let kind = self.shape.steps[index].kind;
        let ignored =
            to == StepStatus::Refused && matches!(kind, Kind::Forward | Kind::Closing | Kind::Cancelling);
        if self.steps[index].status != from || ignored {
            return false;
        }
        self.steps[index].status = to;
        self.stuck = self.stuck.filter(|stuck| *stuck != index);
        if let Input::Refused { refusal, .. } = input {
            self.reason.get_or_insert_with(|| refusal.code.clone());
        }
        let group = self.shape.steps[index].group;
        if to == StepStatus::Done && self.undoable(index) && !self.done.contains(&group) {
            self.done.push(group);
        }
        true
    }

    /// Observes a cancellation. It has an effect only before the pivot was asked and before any refusal.
    fn observe_cancellation(&mut self, decisions: &[Decision], changed: bool) {
        let foreseen = self.shape.steps.iter().any(|step| step.kind == Kind::Cancelling);
        let in_time = self.is_before_pivot() && self.reason.is_none();
        if self.cancelled {
            self.must(decisions.is_empty() && !changed, "it is cancelled once");
        } else if foreseen && in_time {
            self.cancelled = true;
            self.reason = Some(CANCELLED.to_owned());
        } else {
            let refused = matches!(decisions, [Decision::RefuseCancellation { .. }]);
            self.must(refused && !changed, "a cancellation that comes too late is refused");
        }
    }

    /// Observes that the deadline has passed. It turns the saga round or raises one alert, unless the saga is already
    /// undone or stuck.
    fn observe_deadline(&mut self, decisions: &[Decision]) {
        self.ends_by = None;
        if self.ended.is_some() || self.reason.is_some() {
            return;
        }
        if self.is_before_pivot() {
            self.too_late = true;
            self.reason = Some(TOO_LATE.to_owned());
        } else {
            let alerted = decisions.iter().any(|decision| matches!(decision, Decision::Stuck { .. }));
            self.must(
                alerted || self.stuck.is_some(),
                "a saga that takes too long behind its pivot is stuck",
            );
        }
    }

    fn is_before_pivot(&self) -> bool {
        let pivot = self.shape.steps.iter().position(|step| step.kind == Kind::Pivot).unwrap_or_default();
        self.steps[pivot].status == StepStatus::Waiting
    }

    fn asked(&mut self, index: usize, direction: Direction, input: &Input, now: OffsetDateTime) {
        if self.open().contains(&(index, direction)) {
            let deadline = self.shape.steps[index].deadline;
            let overdue = self.steps[index].asked_at.is_some_and(|asked| now - asked >= deadline);
            let justified = matches!(input, Input::Retry { .. }) || (*input == Input::Due && overdue);
            self.must(
                justified,
                "who is open is asked again when the deadline has passed, or an operator says so",
            );
        } else if direction == Direction::Do {
            self.may_be_done(index);
            self.steps[index].status = StepStatus::Asked;
            self.steps[index].asked = 0;
        } else {
            self.may_be_undone(index);
            let group = self.shape.steps[index].group;
            if self.undone.last() != Some(&group) {
                self.undone.push(group);
            }
            self.steps[index].status = StepStatus::Undoing;
            self.steps[index].asked = 0;
        }
        self.steps[index].asked += 1;
        self.steps[index].asked_at = Some(now);
    }

    fn may_be_done(&self, index: usize) {
        self.must(self.steps[index].status == StepStatus::Waiting, "a step is begun once");
        if index == self.closing() {
            self.must(
                self.turned_round && self.nothing_to_undo(),
                "it is closed after everything was undone",
            );
            return;
        }
        self.must(self.reason.is_none(), "nothing is begun after a refusal");
        let group = self.shape.steps[index].group;
        let mut before = self.shape.steps.iter().zip(&self.steps).filter(|(shape, _)| shape.group < group);
        self.must(before.all(|(_, step)| step.status == StepStatus::Done), "the group before is done");
    }

    fn may_be_undone(&self, index: usize) {
        self.must(self.turned_round, "nothing is undone without a refusal");
        self.must(!self.any(StepStatus::Asked), "nothing is undone past an open step");
        self.must(
            self.undoable(index),
            "the pivot, and what follows, and what needs no undo, is never undone",
        );
        self.must(self.steps[index].status == StepStatus::Done, "only what is done is undone, and once");
        let group = self.shape.steps[index].group;
        let others = |other: &usize| self.shape.steps[*other].group != group;
        let mut undoing = (0..self.business()).filter(others);
        let none = undoing.all(|other| self.steps[other].status != StepStatus::Undoing);
        self.must(none, "groups are undone one by one");
        let later = |other: &usize| self.shape.steps[*other].group > group && self.undoable(*other);
        let mut later = (0..self.business()).filter(later);
        self.must(
            later.all(|other| self.steps[other].status != StepStatus::Done),
            "what was done last goes first",
        );
    }

    fn undoable(&self, index: usize) -> bool {
        self.shape.steps[index].undo && self.shape.steps[index].kind == Kind::Compensatable
    }

    fn nothing_to_undo(&self) -> bool {
        let open = |index| self.undoable(index) && self.steps[index].status == StepStatus::Done;
        !self.any(StepStatus::Undoing) && !(0..self.business()).any(open)
    }

    fn any(&self, status: StepStatus) -> bool {
        self.steps.iter().any(|step| step.status == status)
    }

    /// Returns the step that closes the saga if it is undone.
    fn closing(&self) -> usize {
        let kind = if self.cancelled { Kind::Cancelling } else { Kind::Closing };
        self.shape.steps.iter().position(|step| step.kind == kind).unwrap_or_default()
    }

    /// Returns the number of steps that are not closing steps.
    fn business(&self) -> usize {
        self.shape.steps.iter().filter(|step| !step.kind.closes()).count()
    }

    fn index(&self, step: &str) -> usize {
        let index = self.shape.index(step);
        self.must(index.is_some(), "a decision is about a step of the plan");
        index.unwrap_or_default()
    }

    #[track_caller]
    pub fn must(&self, holds: bool, rule: &str) {
        if !holds {
            let mut history = String::new();
            for (now, input, decisions) in &self.history {
                let _ = writeln!(history, "{now} <- {input:?}\n    -> {decisions:?}");
            }
            panic!("{rule}\nThe history so far:\n{history}{:#?}", self.shape);
        }
    }
}
