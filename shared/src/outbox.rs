//! The transactional outbox: messages are rows, written in the transaction of the change that they tell of.
//! (The pattern: Chris Richardson, "Transactional outbox"; the relay that reads it is [`crate::relay`].)

use std::borrow::Cow;

use serde::Serialize;
use sqlx::{AssertSqlSafe, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::db::PgQuery;
use crate::envelope::{Cause, Envelope, MAX_MESSAGE_BYTES, Message, Metadata, new_id};
use crate::fault::{Class, Classified};
use crate::steps::{self, Record};

/// Why a message was not appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// It has more than [`MAX_MESSAGE_BYTES`].
    #[error(
        "a {kind} about {key} has {bytes} bytes, more than the {MAX_MESSAGE_BYTES} that a message may have"
    )]
    TooLarge {
        /// The message's type.
        kind: &'static str,
        /// The aggregate that it is about.
        key: String,
        /// How large it is.
        bytes: usize,
    },
    /// Its place among the messages of its key could not be kept.
    #[error("a {kind} about {key} was appended without holding the key's lock")]
    NotLocked {
        /// The message's type.
        kind: &'static str,
        /// The aggregate whose lock is missing.
        key: String,
    },
    /// Its type serialises to something that JSON has not.
    #[error("a {kind} can't be written as JSON")]
    Json {
        /// The message's type.
        kind: &'static str,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

impl Classified for AppendError {
    fn class(&self) -> Class {
        match self {
            Self::TooLarge { .. } | Self::NotLocked { .. } | Self::Json { .. } => Class::Permanent,
        }
    }
}

/// A message that waits for the end of its transaction.
pub(crate) struct Row {
    pub shard: i16,
    pub topic: Cow<'static, str>,
    pub key: String,
    pub traceparent: Option<String>,
    pub body: Vec<u8>,
}

/// What a message says beside its data and its cause.
#[derive(Debug, Default)]
pub struct Attributes {
    /// The version of the aggregate after the change.
    pub sequence: Option<i64>,
    /// Which step it belongs to, and who caused it.
    pub metadata: Metadata,
}

/// A message as bytes; its id is returned beside it.
pub(crate) fn encode<M: Message>(
    source: &'static str,
    subject: &str,
    timestamp: OffsetDateTime,
    cause: &Cause,
    data: &M,
    attributes: Attributes,
) -> Result<(Uuid, Vec<u8>), AppendError> {
    encode_as(source, subject, timestamp, cause, (M::TYPE, M::DATA_VERSION), data, attributes)
}

/// [`encode`] for data whose type is known only at run time.
pub(crate) fn encode_as(
    source: &'static str,
    subject: &str,
    timestamp: OffsetDateTime,
    cause: &Cause,
    (kind, data_version): (&'static str, &'static str),
    data: &impl Serialize,
    attributes: Attributes,
) -> Result<(Uuid, Vec<u8>), AppendError> {
    let id = new_id();
    let envelope = Envelope {
        id,
        kind: Cow::Borrowed(kind),
        source: Cow::Borrowed(source),
        subject: subject.to_owned(),
        data_version: Cow::Borrowed(data_version),
        timestamp,
        correlation_id: cause.correlation_id,
        causation_id: cause.causation_id,
        sequence: attributes.sequence,
        data,
        metadata: attributes.metadata,
    };
    let body = serde_json::to_vec(&envelope).map_err(|source| AppendError::Json { kind, source })?;
    if body.len() > MAX_MESSAGE_BYTES {
        return Err(AppendError::TooLarge { kind, key: subject.to_owned(), bytes: body.len() });
    }
    Ok((id, body))
}

/// Positions are drawn in the order of the ORDER BY, so a key's messages keep theirs.
const INSERT: &str = "insert into outbox (shard, topic, key, traceparent, body)
     select shard, topic, key, traceparent, body
     from unnest($1::smallint[], $2::text[], $3::text[], $4::text[], $5::bytea[])
          with ordinality as row (shard, topic, key, traceparent, body, ordinal)
     order by ordinal";

/// Appends the rows in their order. The caller holds the locks of all their keys.
pub(crate) async fn insert(db: &mut PgConnection, rows: &[Row]) -> Result<(), sqlx::Error> {
    if !rows.is_empty() {
        bind(sqlx::query(INSERT), rows).execute(db).await?;
    }
    Ok(())
}

/// Appends the rows and records the steps' outcomes with one statement.
pub(crate) async fn insert_with_steps(
    db: &mut PgConnection,
    rows: &[Row],
    records: &[&Record],
) -> Result<(), sqlx::Error> {
    let both = format!("with recorded as ({}) {INSERT}", steps::insert_statement(6));
    let query = bind(sqlx::query(AssertSqlSafe(both)), rows);
    steps::bind(query, records).execute(db).await?;
    Ok(())
}

fn bind(query: PgQuery, rows: &[Row]) -> PgQuery {
    query
        .bind(rows.iter().map(|row| row.shard).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.topic.as_ref()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.key.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.traceparent.as_deref()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.body.as_slice()).collect::<Vec<_>>())
}
