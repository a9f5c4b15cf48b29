//! A message of the catalogue.

use schemars::{JsonSchema, Schema, schema_for};
use shared::envelope::{Command, Message};
use shared::parked::ParkedCopy;

/// One message of the catalogue.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The name on the wire.
    pub kind: &'static str,
    pub topic: &'static str,
    pub data_version: &'static str,
    pub schema: Schema,
    /// For a command: what it is answered with, and what it can be refused with.
    pub answers: Option<(Schema, Schema)>,
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

    pub(crate) fn command<C>() -> Self
    where
        C: Command<Reply: JsonSchema, Refusal: JsonSchema> + JsonSchema,
    {
        let answers = Some((schema_for!(C::Reply), schema_for!(C::Refusal)));
        Self { answers, ..Self::event::<C>() }
    }

    /// The copy of a parked message, which every service publishes on a topic of its own.
    pub(crate) fn parked() -> Self {
        Self {
            kind: ParkedCopy::TYPE,
            topic: crate::topics::PARKED,
            data_version: ParkedCopy::DATA_VERSION,
            schema: schema_for!(ParkedCopy),
            answers: None,
        }
    }

    /// The service that owns the message: it writes the event, or carries out the command.
    pub fn owner(&self) -> &'static str {
        self.topic.split('.').next().unwrap_or(self.topic)
    }
}
