//! An entry of the message catalogue.

use schemars::{JsonSchema, Schema, schema_for};
use shared::envelope::{Command, Message};
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
    /// The schemas of a command's reply and refusal; `None` for an event.
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
