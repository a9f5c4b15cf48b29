//! Rehearses a plan: replays the recorded inputs of sagas, with their times, against another definition. A different
//! decision shows that unfinished sagas could not follow the other definition. The idea is from Temporal's replay
//! tests.

use time::OffsetDateTime;

use super::registry::{Registry, UnknownDefinition};
use crate::saga::engine::{Decision, Input, State};

/// An entry of a saga's log.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// The sequence number of the entry.
    pub sequence: i64,
    /// The time of the entry.
    pub at: OffsetDateTime,
    /// The input, as JSON.
    pub input: String,
    /// The decisions, as JSON.
    pub decisions: String,
}

/// The first entry at which the other plan would have decided differently. Later entries cannot be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Divergence {
    /// The sequence number of the entry.
    pub sequence: i64,
    /// The recorded decisions, as JSON.
    pub recorded: String,
    /// The decisions of the rehearsal, as JSON.
    pub rehearsed: String,
}

/// The reason why a log could not be rehearsed.
#[derive(Debug, thiserror::Error)]
pub enum RehearsalError {
    /// The registry lacks the definition.
    #[error(transparent)]
    Unknown(#[from] UnknownDefinition),
    /// An entry of the log has an unknown format.
    #[error("entry {sequence} of the log can't be read")]
    Unreadable {
        /// The sequence number of the entry.
        sequence: i64,
        /// The error of the parser.
        #[source]
        source: serde_json::Error,
    },
}

impl Registry {
    /// Replays a log from its beginning against a definition of this registry. Returns the first divergence, if there
    /// is one.
    ///
    /// # Errors
    /// Fails if the registry lacks the definition, or if another release wrote an entry in an unknown format.
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
