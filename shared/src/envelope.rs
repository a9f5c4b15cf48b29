//! The message: a JSON envelope around typed data. Ids are UUIDv7, times RFC 3339 in UTC, members camelCase.
//! Unknown members are ignored when reading, so that a newer producer does not stop an older consumer.

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use time::OffsetDateTime;
use uuid::Uuid;

/// The largest message, in bytes of JSON, that may be appended to an outbox. A larger one is refused when it is
/// appended, not when it is sent: a record that the broker refuses would be overtaken by the ones behind it.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// A message's data with its name on the wire and the topic it belongs to.
pub trait Message: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// `<domain>.<past-tense action>.v<major>` for an event, imperative for a command.
    const TYPE: &'static str;
    /// The topic without the installation's prefix, for example `inventory.events`.
    const TOPIC: &'static str;
    /// The semantic version of the data; its major part is the one in [`Message::TYPE`].
    const DATA_VERSION: &'static str = "1.0.0";
}

/// Something that happened. Anybody may listen.
pub trait Event: Message {}

/// Something that one service is asked to do, answered with a reply or with a refusal. Both are business outcomes:
/// a technical failure has no answer, it is retried.
pub trait Command: Message {
    /// What the asker learns when it was done.
    type Reply: Serialize + DeserializeOwned + Send + Sync + 'static;
    /// Why it was not done, for business reasons. Serialises to an object with a member `code`.
    type Refusal: Serialize + DeserializeOwned + Send + Sync + 'static;
}

/// The refusal of a command that can't be refused: an undo, or a step behind the pivot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Never {}

/// A command without its Rust type, as a saga's plan has them.
#[derive(Clone)]
pub struct ErasedCommand {
    /// See [`Message::TYPE`].
    pub kind: &'static str,
    /// See [`Message::TOPIC`].
    pub topic: &'static str,
    /// See [`Message::DATA_VERSION`].
    pub data_version: &'static str,
    /// The command as JSON.
    pub data: Box<RawValue>,
}

/// Whether a saga step is carried out or taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// It is carried out.
    Do,
    /// It is taken back.
    Undo,
}

impl Direction {
    /// As it stands in messages and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Do => "do",
            Self::Undo => "undo",
        }
    }
}

/// What is said about a message beside its data.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// The saga step that a command or a reply belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Whether the step is done or undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// Who caused the message, where a person did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
}

/// A message as it is on the wire. `D` is the data; the consumer keeps it unparsed until its handler is known.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope<D = Box<RawValue>> {
    /// The message's identity, a UUIDv7: a redelivery carries the same one.
    pub id: Uuid,
    /// See [`Message::TYPE`].
    #[serde(rename = "type")]
    pub kind: Cow<'static, str>,
    /// The service that wrote it.
    pub source: Cow<'static, str>,
    /// What it is about, an order id mostly; also the record's key.
    pub subject: String,
    /// See [`Message::DATA_VERSION`].
    pub data_version: Cow<'static, str>,
    /// When the transaction that wrote it began, by the clock of the writer's database.
    #[serde(with = "time::serde::rfc3339")]
    pub timestamp: OffsetDateTime,
    /// The saga that it belongs to.
    pub correlation_id: Uuid,
    /// The message that caused this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<Uuid>,
    /// The version of the aggregate after the change, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<i64>,
    /// What is told or asked for.
    pub data: D,
    /// What is said about the message beside its data.
    #[serde(default)]
    pub metadata: Metadata,
}

/// What a message inherits from the one, or from the request, that caused it.
#[derive(Debug, Clone)]
pub struct Cause {
    /// The saga, or whatever else all the messages that come of one thing have in common.
    pub correlation_id: Uuid,
    /// The message that is the cause; none where a request is.
    pub causation_id: Option<Uuid>,
    /// W3C trace context of the span in which the cause is handled.
    pub traceparent: Option<String>,
}

impl Cause {
    /// The cause of what a request from outside starts.
    pub fn request(correlation_id: Uuid, traceparent: Option<String>) -> Self {
        Self { correlation_id, causation_id: None, traceparent }
    }
}

/// Makes a new message or entity id. Time-ordered, so that indexes grow at one edge.
pub fn new_id() -> Uuid {
    #[expect(clippy::disallowed_methods, reason = "this is where ids are made")]
    Uuid::now_v7()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIRE: &str = r#"{"id":"0197e3a0-0000-7000-8000-000000000001","type":"order.created.v1","source":"order",
        "subject":"o-1","dataVersion":"1.2.0","timestamp":"2026-11-21T10:00:00Z",
        "correlationId":"0197e3a0-0000-7000-8000-000000000002","data":{"a":1},"later":"ignored"}"#;

    #[test]
    fn unknown_members_are_ignored_and_missing_optional_ones_defaulted() {
        let read: Envelope = serde_json::from_str(WIRE).expect("a newer producer's message is readable");
        assert_eq!(read.kind, "order.created.v1");
        assert_eq!(read.causation_id, None);
        assert_eq!(read.metadata, Metadata::default());
        assert_eq!(read.data.get(), r#"{"a":1}"#);
    }

    #[test]
    fn members_are_camel_case_and_absent_ones_are_left_out() {
        let read: Envelope = serde_json::from_str(WIRE).expect("readable");
        let written = serde_json::to_value(&read).expect("writable");
        let mut members: Vec<_> = written.as_object().expect("an object").keys().cloned().collect();
        members.sort();
        assert_eq!(
            members,
            [
                "correlationId",
                "data",
                "dataVersion",
                "id",
                "metadata",
                "source",
                "subject",
                "timestamp",
                "type"
            ]
        );
    }
}
