//! Finds every history of a saga. Each open step answers in every order, and each refusable step also refuses. A plan
//! with few steps has a few dozen histories, so none is left out.

use crate::envelope::Direction;
use serde_json::Value;

use super::{Run, given};
use crate::saga::engine::{Decision, Input, Kind, Refusal};
use crate::saga::plan::Saga;

/// The answer of a participant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Answer {
    /// The name of the step.
    pub step: String,
    /// Whether the step is undone.
    pub undo: bool,
    /// Whether the step is refused.
    pub refused: bool,
}

/// A saga and all its histories.
pub struct Sweep<S> {
    saga: S,
    /// Returns the reply of a step that is done.
    reply: fn(&str) -> Value,
    /// All histories, each with its answers in order.
    pub histories: Vec<Vec<Answer>>,
}

/// Finds every history of a saga. `reply` returns the reply of a step by its name.
pub fn sweep<S: Saga + Clone>(saga: S, reply: fn(&str) -> Value) -> Sweep<S> {
    let mut sweep = Sweep { saga, reply, histories: Vec::new() };
    sweep.explore(&mut Vec::new());
    sweep
}

impl<S: Saga + Clone> Sweep<S> {
    /// Begins the saga.
    pub fn begin(&self) -> Run {
        given(self.saga.clone())
    }

    /// Begins the saga and applies these answers.
    pub fn play(&self, history: &[Answer]) -> Run {
        let mut run = self.begin();
        for answer in history {
            self.answer(&mut run, answer);
        }
        run
    }

    /// Applies one answer and returns the decisions.
    pub fn answer(&self, run: &mut Run, answer: &Answer) -> Vec<Decision> {
        let step = answer.step.clone();
        if answer.refused {
            let refusal = Refusal { code: format!("no_{step}"), detail: None };
            return run.take(&Input::Refused { step, refusal }, None);
        }
        let direction = if answer.undo { Direction::Undo } else { Direction::Do };
        let reply = (self.reply)(&step);
        run.take(&Input::Done { step, direction }, Some(&reply))
    }

    /// Answers that each asked step is carried out, until no step is open.
    pub fn answer_all(&self, run: &mut Run) {
        while let Some((step, direction)) = run.open().pop() {
            self.answer(run, &Answer { step, undo: direction == Direction::Undo, refused: false });
        }
    }

    fn explore(&mut self, history: &mut Vec<Answer>) {
        let run = self.play(history);
        let open = run.open();
        if open.is_empty() {
            self.histories.push(history.clone());
        }
        for (step, direction) in open {
            let undo = direction == Direction::Undo;
            let kind = run.shape.index(&step).map(|index| run.shape.steps[index].kind);
            let refusable = !undo && matches!(kind, Some(Kind::Compensatable | Kind::Pivot));
            for refused in [false, true] {
                if refusable || !refused {
                    history.push(Answer { step: step.clone(), undo, refused });
                    self.explore(history);
                    history.pop();
                }
            }
        }
    }
}
