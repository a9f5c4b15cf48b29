//! Every history that a saga can have: who may answer answers, in every order, and who may refuse refuses, too. A plan
//! with few steps has few dozens of them, so nothing is left to chance.

use crate::envelope::Direction;
use serde_json::Value;

use super::{Run, given};
use crate::saga::engine::{Decision, Input, Kind, Refusal};
use crate::saga::plan::Saga;

/// What a participant answered.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Answer {
    pub step: String,
    pub undo: bool,
    pub refused: bool,
}

/// A saga and all its histories.
pub struct Sweep<S> {
    saga: S,
    /// What a step replies when it is done.
    reply: fn(&str) -> Value,
    pub histories: Vec<Vec<Answer>>,
}

/// Finds every history of a saga.
pub fn sweep<S: Saga + Clone>(saga: S, reply: fn(&str) -> Value) -> Sweep<S> {
    let mut sweep = Sweep { saga, reply, histories: Vec::new() };
    sweep.explore(&mut Vec::new());
    sweep
}

impl<S: Saga + Clone> Sweep<S> {
    pub fn begin(&self) -> Run {
        given(self.saga.clone())
    }

    /// A run that got these answers.
    pub fn play(&self, history: &[Answer]) -> Run {
        let mut run = self.begin();
        for answer in history {
            self.answer(&mut run, answer);
        }
        run
    }

    /// The participant's answer arrives.
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

    /// Whoever is asked carries it out, until nobody is any more.
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
