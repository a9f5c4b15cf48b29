//! What the world outside sees of a saga: which commands were sent and which answers came. It knows nothing of how the
//! engine decides, and complains of every decision that the rules forbid.

use std::fmt::Write as _;
use std::time::Duration;

use shared::envelope::Direction;
use time::OffsetDateTime;

use super::{Decision, Input, Kind, Shape, State, Status, StepStatus};

/// A step as the world sees it.
struct Seen {
    status: StepStatus,
    asked_at: Option<OffsetDateTime>,
}

pub(super) struct Model<'s> {
    shape: &'s Shape,
    steps: Vec<Seen>,
    /// The code of the first refusal.
    reason: Option<String>,
    turned_round: bool,
    pub ended: Option<Status>,
    /// Groups with something that can be undone, in the order in which they were done.
    done: Vec<usize>,
    /// Groups in the order in which their undo was asked.
    undone: Vec<usize>,
    history: Vec<(OffsetDateTime, Input, Vec<Decision>)>,
}

impl<'s> Model<'s> {
    pub fn new(shape: &'s Shape) -> Self {
        let steps =
            shape.steps.iter().map(|_| Seen { status: StepStatus::Waiting, asked_at: None }).collect();
        Self {
            shape,
            steps,
            reason: None,
            turned_round: false,
            ended: None,
            done: Vec::new(),
            undone: Vec::new(),
            history: Vec::new(),
        }
    }

    /// The steps that an answer is missing from.
    pub fn open(&self) -> Vec<(usize, Direction)> {
        let open = |status| match status {
            StepStatus::Asked => Some(Direction::Do),
            StepStatus::Undoing => Some(Direction::Undo),
            StepStatus::Waiting | StepStatus::Done | StepStatus::Refused | StepStatus::Undone => None,
        };
        self.steps.iter().enumerate().filter_map(|(index, step)| Some((index, open(step.status)?))).collect()
    }

    /// Takes an input and what was decided upon it. `changed` tells whether the state is another one.
    pub fn saw(&mut self, now: OffsetDateTime, input: &Input, decisions: &[Decision], changed: bool) {
        self.history.push((now, input.clone(), decisions.to_vec()));
        let answered = self.hear(input);
        let woken = *input == Input::Due;
        if !answered && !woken && self.history.len() > 1 {
            self.must(decisions.is_empty() && !changed, "an answer that nobody waits for changes nothing");
        }
        for decision in decisions {
            self.must(self.ended.is_none(), "nothing is decided after the end");
            match decision {
                Decision::Ask { step, direction } => self.asked(self.index(step), *direction, woken, now),
                Decision::Compensate { step, reason } => {
                    let refused = self.steps[self.index(step)].status == StepStatus::Refused;
                    self.must(refused && !self.turned_round, "a refusal turns the saga round, once");
                    self.must(!self.any(StepStatus::Asked), "it turns round when no step is open any more");
                    self.must(self.reason.as_ref() == Some(reason), "the first refusal is the reason");
                    self.turned_round = true;
                }
                Decision::Complete => {
                    let mut all = self.steps[..self.closing()].iter();
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
                let patience = self.shape.steps[index].deadline.max(Duration::from_secs(60));
                self.steps[index].asked_at.is_none_or(|asked| now - asked >= patience)
            };
            self.must(!self.open().iter().any(|(index, _)| late(*index)), "silence is not forgotten");
        }
    }

    /// The engine's state says the same.
    pub fn agrees_with(&self, state: &State) {
        let same = self.steps.iter().zip(&state.steps).all(|(seen, step)| seen.status == step.status);
        self.must(same, "the state says what was seen");
        let running = if self.turned_round { Status::Compensating } else { Status::Running };
        self.must(state.status == self.ended.unwrap_or(running), "the status says what was seen");
        self.must(state.due_at().is_some() == self.ended.is_none(), "it is woken until it has ended");
    }

    /// The saga has got all its answers.
    pub fn finish(&self) {
        let end = if self.reason.is_some() { Status::Compensated } else { Status::Completed };
        self.must(self.ended == Some(end), "a saga that gets its answers ends well");
        let mut reverse = self.done.clone();
        reverse.reverse();
        let wanted = if self.reason.is_some() { reverse } else { Vec::new() };
        self.must(self.undone == wanted, "what was done is undone in reverse");
    }

    /// Notes the answer, if someone waits for it.
    fn hear(&mut self, input: &Input) -> bool {
        let (step, from, to) = match input {
            Input::Done { step, direction: Direction::Do } => (step, StepStatus::Asked, StepStatus::Done),
            Input::Done { step, direction: Direction::Undo } => {
                (step, StepStatus::Undoing, StepStatus::Undone)
            }
            Input::Refused { step, .. } => (step, StepStatus::Asked, StepStatus::Refused),
            Input::Started | Input::Due => return false,
        };
        let Some(index) = self.shape.index(step) else {
            return false;
        };
        let kind = self.shape.steps[index].kind;
        let deaf = to == StepStatus::Refused && matches!(kind, Kind::Forward | Kind::Closing);
        if self.steps[index].status != from || deaf {
            return false;
        }
        self.steps[index].status = to;
        if let Input::Refused { refusal, .. } = input {
            self.reason.get_or_insert_with(|| refusal.code.clone());
        }
        let group = self.shape.steps[index].group;
        if to == StepStatus::Done && self.undoable(index) && !self.done.contains(&group) {
            self.done.push(group);
        }
        true
    }

    fn asked(&mut self, index: usize, direction: Direction, woken: bool, now: OffsetDateTime) {
        if self.open().contains(&(index, direction)) {
            let deadline = self.shape.steps[index].deadline;
            let overdue = self.steps[index].asked_at.is_some_and(|asked| now - asked >= deadline);
            self.must(woken && overdue, "who is open is asked again only when the deadline has passed");
        } else if direction == Direction::Do {
            self.may_be_done(index);
            self.steps[index].status = StepStatus::Asked;
        } else {
            self.may_be_undone(index);
            let group = self.shape.steps[index].group;
            if self.undone.last() != Some(&group) {
                self.undone.push(group);
            }
            self.steps[index].status = StepStatus::Undoing;
        }
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
        let mut undoing = (0..self.closing()).filter(others);
        let none = undoing.all(|other| self.steps[other].status != StepStatus::Undoing);
        self.must(none, "groups are undone one by one");
        let later = |other: &usize| self.shape.steps[*other].group > group && self.undoable(*other);
        let mut later = (0..self.closing()).filter(later);
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
        !self.any(StepStatus::Undoing) && !(0..self.closing()).any(open)
    }

    fn any(&self, status: StepStatus) -> bool {
        self.steps.iter().any(|step| step.status == status)
    }

    fn closing(&self) -> usize {
        self.steps.len() - 1
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
