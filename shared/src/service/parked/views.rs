//! The JSON views of parked messages.

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::parked::store::{ParkedKeyRow, ParkedRow};
use crate::parked::{Encoding, readable};

/// The parked keys of a service.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ParkedKeys {
    pub keys: Vec<ParkedKey>,
    /// The `cursor` of the next page, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<i64>,
}

/// A parked key. Its first message failed permanently, and the others wait behind it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ParkedKey {
    /// The parked key.
    pub key: String,
    /// The number of waiting messages.
    pub count: i64,
    /// The reason why the first message was not handled.
    pub reason: String,
    /// The type of the first message, if it could be read.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The topic of the first message.
    pub topic: String,
    /// The time at which the first message was parked.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
}

/// The messages of a key in their order, including replayed and skipped ones.
#[derive(Serialize, ToSchema)]
pub(super) struct ParkedMessages {
    pub key: String,
    pub messages: Vec<ParkedMessage>,
    /// The `cursor` of the next page, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<i64>,
}

/// A parked message.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ParkedMessage {
    /// The number of the message.
    pub id: i64,
    /// The status: `parked`, `replayed` or `skipped`.
    pub status: String,
    /// The reason of the last failure.
    pub reason: String,
    /// The topic of the record.
    pub topic: String,
    /// The partition of the record.
    pub partition: i32,
    /// The offset of the record in its partition.
    pub offset: i64,
    /// The type of the message, if it could be read.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The id of the message, if it could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<Uuid>,
    /// The value of the record, at most 1 MiB of it. It may contain personal data.
    pub body: String,
    pub encoding: Encoding,
    /// The time at which the message was parked.
    #[serde(with = "time::serde::rfc3339")]
    pub parked_at: OffsetDateTime,
    /// The number of replays so far.
    pub attempts: i32,
    /// The time of the last replay.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub last_attempt_at: Option<OffsetDateTime>,
    /// The number of edits. The table `parked_edit` has the earlier bodies.
    pub edits: i64,
    /// The time at which the message was replayed or skipped.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub resolved_at: Option<OffsetDateTime>,
    /// The operator who skipped the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolved_by: Option<String>,
    /// The reason for skipping the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skip_reason: Option<String>,
}

/// The result of a retry.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Retried {
    pub key: String,
    /// The number of messages that had their effect now.
    pub replayed: u64,
    /// The number of messages that still wait. It is above 0 if one request was too short for all of them.
    pub left: i64,
}

/// The result of an edit or a skip.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Changed {
    pub key: String,
    /// The number of the message.
    pub id: i64,
    /// The number of messages of the key that still wait.
    pub left: i64,
}

impl From<ParkedKeyRow> for ParkedKey {
    fn from(row: ParkedKeyRow) -> Self {
        Self {
            key: row.key,
            count: row.count,
            reason: row.reason,
            kind: row.kind,
            topic: row.topic,
            since: row.since,
        }
    }
}

impl From<ParkedRow> for ParkedMessage {
    fn from(row: ParkedRow) -> Self {
        let (body, encoding) = readable(&row.body);
        Self {
            id: row.id,
            status: row.status,
            reason: row.reason,
            topic: row.topic,
            partition: row.partition,
            offset: row.offset,
            kind: row.kind,
            message_id: row.message_id,
            body,
            encoding,
            parked_at: row.parked_at,
            attempts: row.attempts,
            last_attempt_at: row.last_attempt_at,
            edits: row.edits,
            resolved_at: row.resolved_at,
            resolved_by: row.resolved_by,
            skip_reason: row.skip_reason,
        }
    }
}
