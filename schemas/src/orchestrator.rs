//! Messages of the orchestrator: events about its sagas, and the replies that it consumes.

use schemars::{JsonSchema, schema_for};
pub use shared::saga::events::{
    SagaCancellationRefused, SagaCompensated, SagaCompensating, SagaCompleted, SagaStarted, SagaStuck,
};
use shared::saga::participant::StepReply;

use crate::entry::Entry;

/// The topic of the orchestrator's events.
pub const EVENTS: &str = "orchestrator.events";
/// The topic to which participants reply.
pub const REPLIES: &str = "orchestrator.replies";

fn entry<D: JsonSchema>(kind: &'static str, data_version: &'static str, topic: &'static str) -> Entry {
    Entry { kind, topic, data_version, schema: schema_for!(D), answers: None }
}

/// Returns the events of the sagas, and the reply.
pub(crate) fn events() -> Vec<Entry> {
    macro_rules! events {
        ($($event:ident),*) => {
            vec![$(entry::<$event>($event::TYPE, $event::DATA_VERSION, EVENTS)),*]
        };
    }
    let mut events = events![
        SagaStarted,
        SagaCompensating,
        SagaStuck,
        SagaCancellationRefused,
        SagaCompleted,
        SagaCompensated
    ];
    events.push(entry::<StepReply>(StepReply::TYPE, StepReply::DATA_VERSION, REPLIES));
    events
}
