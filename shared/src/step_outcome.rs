//! The second idempotency key of a command: the outcome of a saga step at this participant. However often a step is
//! asked for, the answer is the same. Saga, name and direction identify a step; the message id identifies a message
//! for the inbox.

#![cfg_attr(not(feature = "saga"), expect(dead_code, reason = "only participants of sagas record outcomes"))]

mod outcomes;
mod store;

use uuid::Uuid;

pub(crate) use self::outcomes::StepOutcomes;
pub(crate) use self::store::{INSERT, OutcomeRow, Record, bind, columns};
#[cfg(feature = "saga")]
pub(crate) use self::store::{OpenCall, Status, find, key, outcome};
use crate::envelope::Direction;
use crate::fault::Fault;
use crate::incoming::Incoming;

/// The identity of a saga step: the saga, the step and the direction.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StepKey {
    /// The saga.
    pub saga_id: Uuid,
    /// The name of the step in the saga's plan.
    pub step: String,
    /// Whether the step is carried out or undone.
    pub direction: Direction,
}

impl StepKey {
    /// Returns the idempotency key for calls to an external dependency, so that the dependency carries out a step
    /// only once.
    pub fn idempotency_key(&self) -> String {
        format!("{}:{}:{}", self.saga_id, self.step, self.direction.as_str())
    }

    pub(crate) fn of(message: &Incoming) -> Result<Self, Fault> {
        let envelope = message.envelope()?;
        let metadata = &envelope.metadata;
        let (Some(step), Some(direction)) = (metadata.step.clone(), metadata.direction) else {
            return Err(Fault::permanent("the command does not name its saga step and direction"));
        };
        // PostgreSQL has no such text, and takes it for the end of a statement.
        if step.contains('\0') {
            return Err(Fault::permanent("the name of the command's step has a NUL character"));
        }
        Ok(Self { saga_id: envelope.correlation_id, step, direction })
    }

    /// Returns the action that this undo step reverses, or `None` for an action.
    pub(crate) fn action(&self) -> Option<Self> {
        (self.direction == Direction::Undo).then(|| Self { direction: Direction::Do, ..self.clone() })
    }
}
