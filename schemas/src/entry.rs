//! An entry of the message catalogue.

use schemars::{JsonSchema, Schema, schema_for};
use shared::envelope::{Command, Message, Never};
use shared::parked::ParkedCopy;

/// A message of the catalogue.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The type name of the message.
    pub kind: &'static str,
    /// The topic of the message.
    pub topic: &'static str,
    /// The semantic version of the data.
    pub data_version: &'static str,
    /// The JSON schema of the data.
    pub schema: Schema,
    /// The types of the events that answer a command: that of its reply, and that of its refusal if it can be refused.
    /// `None` for an event.
    pub answers: Option<(&'static str, Option<&'static str>)>,
}

impl Entry {
    pub(crate) fn event<M: Message + JsonSchema>() -> Self {
        Self {
            kind: M::TYPE,
            topic: M::TOPIC,
            data_version: M::DATA_VERSION,
            schema: schema_for!(M),
            answers: None,
        }
    }

    pub(crate) fn command<C: Command + JsonSchema>() -> Self {
        let refusal = <C::Refusal as Message>::TYPE;
        let refusal = (refusal != Never::TYPE).then_some(refusal);
        Self { answers: Some((<C::Reply as Message>::TYPE, refusal)), ..Self::event::<C>() }
    }

    /// A message that every participant of a saga publishes to its own topic of events.
    pub(crate) fn of_participants<D: JsonSchema>(kind: &'static str, data_version: &'static str) -> Self {
        Self { kind, topic: crate::topics::EVENTS, data_version, schema: schema_for!(D), answers: None }
    }

    /// The copy of a parked message. Every service publishes it to its own topic.
    pub(crate) fn parked() -> Self {
        Self {
            kind: ParkedCopy::TYPE,
            topic: crate::topics::PARKED,
            data_version: ParkedCopy::DATA_VERSION,
            schema: schema_for!(ParkedCopy),
            answers: None,
        }
    }

    /// Returns the service that owns the message: it publishes the event or carries out the command.
    pub fn owner(&self) -> &'static str {
        self.topic.split('.').next().unwrap_or(self.topic)
    }
}
