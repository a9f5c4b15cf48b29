//! The copy of a parked message on the topic `<service>.parked`.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::storable;
use crate::envelope::{Cause, new_id};
use crate::incoming::Incoming;
use crate::outbox::{AppendError, Draft};
use crate::unit_of_work::UnitOfWork;

/// A message was parked, because it or an earlier message of its key failed permanently. The copy is published to
/// `<service>.parked` of the service that parked the message. That service replays the message from its table
/// `parked`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ParkedCopy {
    /// The key that is parked.
    pub key: String,
    /// The reason why the message was not handled.
    pub reason: String,
    /// The topic of the record.
    pub topic: String,
    /// The partition of the record.
    pub partition: i32,
    /// The offset of the record in its partition.
    pub offset: i64,
    /// The type of the message, if it could be read.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The id of the message, if it could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<Uuid>,
    /// The value of the record. It may contain personal data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The encoding of the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<Encoding>,
    /// Whether the body is left out because it would not fit into a message. The table has it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub body_omitted: bool,
}

/// The encoding of bytes in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// The bytes are UTF-8 and are written unchanged.
    Text,
    /// The bytes are not UTF-8 and are written as Base64 with padding (RFC 4648).
    Base64,
}

impl ParkedCopy {
    /// The type name of the message.
    pub const TYPE: &str = "messaging.parked.v1";
    /// The semantic version of the data.
    pub const DATA_VERSION: &str = "1.0.0";
}

impl std::fmt::Debug for ParkedCopy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ParkedCopy({}/{}/{})", self.topic, self.partition, self.offset)
    }
}

/// Returns bytes as a JSON text, with the encoding.
pub(crate) fn readable(body: &[u8]) -> (String, Encoding) {
    match std::str::from_utf8(body) {
        Ok(text) => (text.to_owned(), Encoding::Text),
        Err(_) => (BASE64_STANDARD.encode(body), Encoding::Base64),
    }
}

/// Appends the copy to the outbox. The caller holds the lock of the key.
pub(super) fn append(uow: &mut UnitOfWork, message: &Incoming, reason: &str) -> Result<(), AppendError> {
    let cause = Cause {
        correlation_id: message.envelope.as_ref().map_or_else(new_id, |envelope| envelope.correlation_id),
        causation_id: message.envelope.as_ref().map(|envelope| envelope.id),
        traceparent: message.traceparent.clone(),
    };
    let topic = uow.parked_topic().to_owned();
    let kind = (ParkedCopy::TYPE, ParkedCopy::DATA_VERSION);
    let copy = of(message, reason);
    match uow.publish(&message.key, &cause, Draft::untyped(kind, topic.clone(), &copy)) {
        Err(AppendError::TooLarge { .. }) => {
            let shorter = ParkedCopy { body: None, encoding: None, body_omitted: true, ..copy };
            uow.publish(&message.key, &cause, Draft::untyped(kind, topic, &shorter))?;
        }
        appended => drop(appended?),
    }
    Ok(())
}

fn of(message: &Incoming, reason: &str) -> ParkedCopy {
    let (body, encoding) = readable(message.original());
    ParkedCopy {
        key: message.key.clone(),
        reason: reason.to_owned(),
        topic: message.topic.clone(),
        partition: message.partition,
        offset: message.offset,
        kind: message.envelope.as_ref().map(|_| storable(message.kind())),
        message_id: message.envelope.as_ref().map(|envelope| envelope.id),
        body: Some(body),
        encoding: Some(encoding),
        body_omitted: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_written_as_base64() {
        assert_eq!(readable(b"{}"), ("{}".to_owned(), Encoding::Text));
        assert_eq!(readable(&[0xff, 0x00]), ("/wA=".to_owned(), Encoding::Base64));
    }
}
