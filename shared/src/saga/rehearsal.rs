//! Rehearses a plan with what sagas have lived through: the recorded inputs, at their times, against another definition.
//! What it would have decided otherwise tells whether sagas in flight could follow it. (The idea: Temporal's replay tests.)

use time::OffsetDateTime;

use super::registry::{Registry, UnknownDefinition};
use crate::saga::engine::{Decision, Input, State};

/// An entry of a saga's log.
#[derive(Debug, Clone)]
pub struct Recorded {
    pub sequence: i64,
    pub at: OffsetDateTime,
    /// As JSON.
    pub input: String,
    /// As JSON.
    pub decisions: String,
}

/// The first entry at which a plan would have gone another way. What comes behind it can't be compared any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Divergence {
    pub sequence: i64,
    /// What was decided, as JSON.
    pub recorded: String,
    /// What would be decided, as JSON.
    pub rehearsed: String,
}

/// Why a log could not be rehearsed.
#[derive(Debug, thiserror::Error)]
pub enum RehearsalError {
    #[error(transparent)]
    Unknown(#[from] UnknownDefinition),
    #[error("entry {sequence} of the log can't be read")]
    Unreadable {
        sequence: i64,
        #[source]
        source: serde_json::Error,
    },
}

impl Registry {
    /// Replays a log from its beginning against a definition that is here.
    ///
    /// # Errors
    /// If the definition is not here, or an entry is of a release that wrote it otherwise.
    pub fn rehearse(
        &self,
        name: &str,
        version: i32,
        log: &[Recorded],
    ) -> Result<Option<Divergence>, RehearsalError> {
        let shape = self.find(name, version)?.shape();
        let mut state = State::new(shape);
        for entry in log {
            let sequence = entry.sequence;
            let unreadable = |source| RehearsalError::Unreadable { sequence, source };
            let input: Input = serde_json::from_str(&entry.input).map_err(unreadable)?;
            let recorded: Vec<Decision> = serde_json::from_str(&entry.decisions).map_err(unreadable)?;
            let rehearsed = state.apply(shape, &input, entry.at);
            if rehearsed != recorded {
                let rehearsed = serde_json::to_string(&rehearsed).map_err(unreadable)?;
                return Ok(Some(Divergence { sequence, recorded: entry.decisions.clone(), rehearsed }));
            }
        }
        Ok(None)
    }
}
