//! The second idempotency key of a command: what a saga step did here, and the answer it gets however often it asks. A step is
//! identified by saga, name and direction; the inbox identifies a message by its id.

#![cfg_attr(not(feature = "saga"), expect(dead_code, reason = "only participants of sagas record outcomes"))]

mod outcomes;
mod store;

use uuid::Uuid;

pub(crate) use self::outcomes::StepOutcomes;
pub(crate) use self::store::{Found, Record, bind, columns, insert, insert_statement};
#[cfg(feature = "saga")]
pub(crate) use self::store::{Open, Status, find, key, outcome};
use crate::envelope::Direction;
use crate::fault::Fault;
use crate::incoming::Incoming;

/// Which step of which saga, and whether it is done or undone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StepKey {
    /// The saga.
    pub saga_id: Uuid,
    /// The step's name in the saga's plan.
    pub step: String,
    /// Whether it is done or undone.
    pub direction: Direction,
}

impl StepKey {
    /// The key under which the external dependency is asked, so that it too does a step once.
    pub fn idempotency_key(&self) -> String {
        format!("{}:{}:{}", self.saga_id, self.step, self.direction.as_str())
    }

    pub(crate) fn of(message: &Incoming) -> Result<Self, Fault> {
        let envelope = message.envelope()?;
        let metadata = &envelope.metadata;
        let (Some(step), Some(direction)) = (metadata.step.clone(), metadata.direction) else {
            return Err(Fault::permanent("the command does not say which saga step it belongs to"));
        };
        Ok(Self { saga_id: envelope.correlation_id, step, direction })
    }

    /// The step that this undo step takes back.
    pub(crate) fn action(&self) -> Option<Self> {
        (self.direction == Direction::Undo).then(|| Self { direction: Direction::Do, ..self.clone() })
    }
}
