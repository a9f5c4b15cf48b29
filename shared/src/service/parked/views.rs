//! What an operator sees of parked messages.

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::parked::store::{KeyRow, Row};
use crate::parked::{Encoding, readable};

/// The parked keys of a service.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ParkedKeys {
    pub keys: Vec<ParkedKey>,
    /// Give it as `cursor` to get the next page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<i64>,
}

/// A parked key: its first message failed for good, the others wait behind it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ParkedKey {
    pub key: String,
    /// How many messages wait.
    pub count: i64,
    /// Why the first of them was not handled.
    pub reason: String,
    /// The type of the first, where it could be read.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The topic of the first.
    pub topic: String,
    /// When the first was parked.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
}

/// The messages of a key in the order in which they came, those too that were replayed or skipped.
#[derive(Serialize, ToSchema)]
pub(super) struct ParkedMessages {
    pub key: String,
    pub messages: Vec<ParkedMessage>,
    /// Give it as `cursor` to get the next page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<i64>,
}

/// A parked message.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ParkedMessage {
    /// Its number here.
    pub id: i64,
    /// `parked`, `replayed` or `skipped`.
    pub status: String,
    /// Why it was not handled, when it was tried last.
    pub reason: String,
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<Uuid>,
    /// The record's value, of which at most 1 MiB is kept. May be personal data.
    pub body: String,
    pub encoding: Encoding,
    #[serde(with = "time::serde::rfc3339")]
    pub parked_at: OffsetDateTime,
    /// How often its replay was attempted.
    pub attempts: i32,
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub last_attempt_at: Option<OffsetDateTime>,
    /// How often it was edited. The table `parked_edit` has each body as it was before.
    pub edits: i64,
    /// When it was replayed or skipped.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub resolved_at: Option<OffsetDateTime>,
    /// Who skipped it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolved_by: Option<String>,
    /// Why it was skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skip_reason: Option<String>,
}

/// What was replayed.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Retried {
    pub key: String,
    /// How many messages had their effect now.
    pub replayed: u64,
    /// How many still wait; more than 0 where one request is too short for all.
    pub left: i64,
}

/// What became of a key by an edit or a skip.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Changed {
    pub key: String,
    /// The message's number.
    pub id: i64,
    /// How many messages of the key still wait.
    pub left: i64,
}

impl From<KeyRow> for ParkedKey {
    fn from(row: KeyRow) -> Self {
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

impl From<Row> for ParkedMessage {
    fn from(row: Row) -> Self {
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
