//! Rehearses a plan with what sagas have lived through: the recorded inputs, at their times, against another definition.
//! What it would have decided otherwise tells whether sagas in flight could follow it. (The idea: Temporal's replay tests.)

use time::OffsetDateTime;

use super::Registry;
use super::registry::UnknownDefinition;
use crate::engine::{Decision, Input, State};

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

#[cfg(test)]
mod tests {
    use shared::envelope::Direction;

    use super::*;
    use crate::plan::Saga;
    use crate::sagas::{PlaceOrder, PlaceOrder1, ReturnOrder, all};
    use crate::testing::BEGINNING;

    /// A log as `place_order@1` writes it, of an order that gets this far.
    fn log(inputs: &[Input]) -> Vec<Recorded> {
        let registry = all(None);
        let shape =
            registry.find(PlaceOrder1::NAME, PlaceOrder1::VERSION).expect("it is here").shape().clone();
        let mut state = State::new(&shape);
        let entry = |(sequence, input): (i64, &Input)| Recorded {
            sequence,
            at: BEGINNING,
            input: serde_json::to_string(input).expect("JSON"),
            decisions: serde_json::to_string(&state.apply(&shape, input, BEGINNING)).expect("JSON"),
        };
        (1..).zip(inputs).map(entry).collect()
    }

    fn done(step: &str) -> Input {
        Input::Done { step: step.to_owned(), direction: Direction::Do }
    }

    #[test]
    fn the_plan_with_a_cancellation_goes_the_same_way_as_the_one_without() {
        let log =
            log(&[Input::Started, done("reserve_stock"), done("authorize_payment"), done("book_shipment")]);
        let rehearsed = all(None).rehearse(PlaceOrder::NAME, PlaceOrder::VERSION, &log).expect("rehearsed");
        assert_eq!(rehearsed, None);
    }

    #[test]
    fn another_plan_diverges_where_it_would_ask_something_else() {
        let log = log(&[Input::Started, done("reserve_stock")]);
        let diverged = all(None).rehearse(ReturnOrder::NAME, ReturnOrder::VERSION, &log).expect("rehearsed");
        let diverged = diverged.expect("it begins otherwise");
        assert_eq!(diverged.sequence, 1);
        assert!(diverged.rehearsed.contains("stop_shipment") && diverged.recorded.contains("reserve_stock"));
    }

    #[test]
    fn a_definition_that_is_not_here_is_named() {
        let error = all(None).rehearse("place_order", 9, &[]).expect_err("there is none");
        assert_eq!(error.to_string(), "this orchestrator has no definition place_order@9");
    }
}
