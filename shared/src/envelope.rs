//! The message: a JSON envelope around typed data. Ids are UUIDv7, times are RFC 3339 in UTC, and members are
//! camelCase.
//! Readers ignore unknown members, so that a newer producer does not stop an older consumer.

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use time::OffsetDateTime;
use uuid::Uuid;

/// The largest message that may be appended to an outbox, in bytes of JSON. A larger message is refused when it is
/// appended. If the broker refused it later, the messages behind it would overtake it.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// The longest key of a message, in bytes of UTF-8. Keys appear in indexes and URLs.
pub const MAX_KEY_BYTES: usize = 512;

/// Returns whether a message's key is valid in a text column, in an index and in a URL.
pub(crate) fn is_usable_key(key: &str) -> bool {
    !key.contains('\0') && key.len() <= MAX_KEY_BYTES && !matches!(key, "" | "." | "..")
}

/// The data of a message, with its type name and its topic.
pub trait Message: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The type name: `<domain>.<past-tense action>.v<major>` for an event, an imperative action for a command.
    const TYPE: &'static str;
    /// The topic without the installation's prefix, for example `inventory.events`.
    const TOPIC: &'static str;
    /// The semantic version of the data. Its major part is also in [`Message::TYPE`].
    const DATA_VERSION: &'static str = "1.0.0";
}

/// Something that happened. Any service may consume it.
pub trait Event: Message {}

/// A request to one service, answered with an event. A refusal is an answer too. A technical failure has no answer; it
/// is retried.
pub trait Command: Message {
    /// The event that says that the command was carried out. Answers to the command are believed on its topic only.
    type Reply: Event;
    /// The event that says that the command was not carried out, for a business reason. Its data has the reason as a
    /// member `code`, and may have a member `detail`. It is on the same topic as the reply.
    type Refusal: Event;
}

/// The refusal type of commands that cannot be refused: undo commands and steps behind the pivot. No such message
/// exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Never {}

impl Message for Never {
    const TYPE: &'static str = "never";
    const TOPIC: &'static str = "never";
}

impl Event for Never {}

/// A command without its Rust type, as saga plans store it.
#[derive(Clone)]
pub struct ErasedCommand {
    /// The type name; see [`Message::TYPE`].
    pub kind: &'static str,
    /// The topic; see [`Message::TOPIC`].
    pub topic: &'static str,
    /// The version of the data; see [`Message::DATA_VERSION`].
    pub data_version: &'static str,
    /// The command as JSON.
    pub data: Box<RawValue>,
}

/// Whether a saga step is carried out or undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The step is carried out.
    Do,
    /// The step is undone.
    Undo,
}

impl Direction {
    /// Returns the direction as messages and the database write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Do => "do",
            Self::Undo => "undo",
        }
    }
}

/// How a saga step ended at its participant, or that it has not ended yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The command was carried out.
    Done,
    /// The command was not carried out, for a business reason.
    Refused,
    /// The external dependency does not answer, and is called again. This does not complete the step; a final outcome
    /// follows.
    Failing,
}

impl Outcome {
    /// Returns the outcome as messages write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Failing => "failing",
        }
    }
}

/// Facts about a message beside its data. A command names its step and direction. An event that answers a command
/// also names the saga and the outcome; to everybody else it is an event like any other.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// The saga that an answer belongs to. A command has it as `correlationId`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saga_id: Option<Uuid>,
    /// The saga step that a command or an answer belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Whether the step is carried out or undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// The outcome of the step, if the event answers a command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// The user who caused the message, if a person did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
}

/// A message as Kafka carries it. `D` is the data; the consumer keeps it unparsed until it knows the handler.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope<D = Box<RawValue>> {
    /// The identity of the message, a UUIDv7. All copies of a message have the same id.
    pub id: Uuid,
    /// The type name; see [`Message::TYPE`].
    #[serde(rename = "type")]
    pub kind: Cow<'static, str>,
    /// The service that wrote the message.
    pub source: Cow<'static, str>,
    /// The aggregate that the message is about, mostly an order id. It is also the record's key.
    pub subject: String,
    /// The version of the data; see [`Message::DATA_VERSION`].
    pub data_version: Cow<'static, str>,
    /// The start of the transaction that wrote the message, by the clock of the writer's database.
    #[serde(with = "time::serde::rfc3339")]
    pub timestamp: OffsetDateTime,
    /// The saga that the message belongs to.
    pub correlation_id: Uuid,
    /// The message that caused this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<Uuid>,
    /// The version of the aggregate after the change, for aggregates with versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<i64>,
    /// The data of the message.
    pub data: D,
    /// Facts about the message beside its data.
    #[serde(default)]
    pub metadata: Metadata,
}

/// The values that a message inherits from the message or request that caused it.
#[derive(Debug, Clone)]
pub struct Cause {
    /// The saga id, or another id that all messages with a common origin share.
    pub correlation_id: Uuid,
    /// The causing message; `None` if a request is the cause.
    pub causation_id: Option<Uuid>,
    /// The W3C trace context of the span that handles the cause.
    pub traceparent: Option<String>,
}

impl Cause {
    /// Creates the cause for work that an HTTP request starts.
    pub fn request(correlation_id: Uuid, traceparent: Option<String>) -> Self {
        Self { correlation_id, causation_id: None, traceparent }
    }
}

/// Creates a new id for a message or an entity. Ids are ordered by time, so that indexes grow at one end.
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
