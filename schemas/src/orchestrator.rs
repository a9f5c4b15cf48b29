//! Messages of the orchestrator: events about its sagas, and the messages with which participants answer it beside their
//! own events.

use schemars::{JsonSchema, schema_for};
pub use shared::saga::events::{
    SagaCancellationRefused, SagaCompensated, SagaCompensating, SagaCompleted, SagaStuck,
};
use shared::saga::participant::{StepAnswered, StepFailing};

use crate::entry::Entry;

/// The topic of the orchestrator's events.
pub const EVENTS: &str = "orchestrator.events";

fn entry<D: JsonSchema>(kind: &'static str, data_version: &'static str, topic: &'static str) -> Entry {
    Entry { kind, topic, data_version, schema: schema_for!(D), answers: None }
}

/// Returns the events of the sagas, and the messages of participants about their steps.
pub(crate) fn events() -> Vec<Entry> {
    macro_rules! events {
        ($($event:ident),*) => {
            vec![$(entry::<$event>($event::TYPE, $event::DATA_VERSION, EVENTS)),*]
        };
    }
    let mut events =
        events![SagaCompensating, SagaStuck, SagaCancellationRefused, SagaCompleted, SagaCompensated];
    events.push(Entry::of_participants::<StepAnswered>(StepAnswered::TYPE, StepAnswered::DATA_VERSION));
    events.push(Entry::of_participants::<StepFailing>(StepFailing::TYPE, StepFailing::DATA_VERSION));
    events
}
