//! All SQL statements about parked messages. Writers hold the lock of the key.

pub mod bulk;

use std::collections::HashSet;

use sqlx::{AssertSqlSafe, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use super::storable;
use crate::incoming::Incoming;

crate::row! {
    /// A parked or resolved message: a row of the table `parked`.
    pub struct ParkedRow {
        /// The number of the row. Rows of one key are replayed in the order of their ids.
        pub id: i64,
        /// The key of the record.
        pub key: String,
        /// The id of the message, if it could be read.
        pub message_id: Option<Uuid>,
        /// The type of the message, if it could be read.
        pub kind: Option<String> = "type",
        /// The topic of the record, without the installation's prefix.
        pub topic: String,
        /// The partition of the record.
        pub partition: i32,
        /// The offset of the record in its partition.
        pub offset: i64,
        /// The reason of the last failure.
        pub reason: String,
        /// The value of the record, or the body after the last edit.
        pub body: Vec<u8>,
        /// The W3C trace context of the message.
        pub traceparent: Option<String>,
        /// The status: `parked`, `replayed` or `skipped`.
        pub status: String,
        /// The time at which the message was parked.
        pub parked_at: OffsetDateTime,
        /// The number of replays so far.
        pub attempts: i32,
        /// The time of the last replay.
        pub last_attempt_at: Option<OffsetDateTime>,
        /// The time at which the message was replayed successfully or skipped.
        pub resolved_at: Option<OffsetDateTime>,
        /// The operator who skipped the message.
        pub resolved_by: Option<String>,
        /// The reason that the operator gave for skipping the message.
        pub skip_reason: Option<String>,
        /// The number of edits of the body. Only [`list_messages`] fills it.
        pub edits: i64,
    }
}

crate::row! {
    /// A parked key, with facts about its first parked message.
    pub struct ParkedKeyRow {
        /// The parked key.
        pub key: String,
        /// The number of its messages that are parked.
        pub count: i64,
        /// The id of its first parked message.
        pub first_id: i64,
        /// The time at which the first message was parked.
        pub since: OffsetDateTime,
        /// The reason of the first message.
        pub reason: String,
        /// The topic of the first message, without the installation's prefix.
        pub topic: String,
        /// The type of the first message, if it could be read.
        pub kind: Option<String> = "type",
    }
}

const PARKED: &str = "parked";

/// The columns are listed one by one, because a column of a newer release must not change the result of prepared
/// statements.
const COLUMNS: &str = r#"p.id, p.key, p.message_id, p.type, p.topic, p.partition, p."offset", p.reason, p.body, p.traceparent,
    p.status, p.parked_at, p.attempts, p.last_attempt_at, p.resolved_at, p.resolved_by, p.skip_reason"#;

impl ParkedRow {
    /// Returns whether the message is not resolved yet.
    pub fn is_parked(&self) -> bool {
        self.status == PARKED
    }
}

/// Returns the members of `keys` that are parked.
pub(crate) async fn parked_keys(
    db: &mut PgConnection,
    keys: &[String],
) -> Result<HashSet<String>, sqlx::Error> {
    let found: Vec<String> =
        sqlx::query_scalar("select distinct key from parked where status = 'parked' and key = any($1)")
            .bind(keys)
            .fetch_all(db)
            .await?;
    Ok(found.into_iter().collect())
}

/// Inserts the message. Returns whether it was not parked before. The place and the content together tell, because a
/// broker that was begun anew has another record at the place.
pub(super) async fn insert(
    db: &mut PgConnection,
    message: &Incoming,
    reason: &str,
) -> Result<bool, sqlx::Error> {
    let inserted = sqlx::query(
        r#"insert into parked (key, message_id, type, topic, partition, "offset", reason, body, traceparent, digest)
           values ($1, $2, $3, $4, $5, $6, $7, $8, $9, sha256(convert_to($1, 'UTF8') || '\x00'::bytea || $8))
           on conflict on constraint parked_once do nothing"#,
    )
    .bind(&message.key)
    .bind(message.envelope.as_ref().map(|envelope| envelope.id))
    .bind(message.envelope.as_ref().map(|envelope| storable(&envelope.kind)))
    .bind(&message.topic)
    .bind(message.partition)
    .bind(message.offset)
    .bind(reason)
    .bind(message.original())
    .bind(message.traceparent.as_deref().map(storable))
    .execute(db)
    .await?;
    Ok(inserted.rows_affected() > 0)
}

/// Returns the bodies of parked messages of this key and type, the newest first. Returns at most `limit` bodies.
pub(super) async fn find_bodies(
    db: &mut PgConnection,
    key: &str,
    kind: &str,
    limit: i64,
) -> Result<Vec<Vec<u8>>, sqlx::Error> {
    sqlx::query_scalar(
        "select body from parked where status = 'parked' and key = $1 and type = $2 order by id desc limit $3",
    )
    .bind(key)
    .bind(kind)
    .bind(limit)
    .fetch_all(db)
    .await
}

pub(super) async fn count_keys(db: &mut PgConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("select count(distinct key) from parked where status = 'parked'").fetch_one(db).await
}

/// Returns the parked keys, the longest parked first, behind the key whose first message is `after`. Returns at most
/// `limit` keys.
///
/// # Errors
/// Fails if the database does not answer.
pub async fn list_keys(
    db: &mut PgConnection,
    after: i64,
    limit: i64,
) -> Result<Vec<ParkedKeyRow>, sqlx::Error> {
    sqlx::query_as(
        "select p.key, g.count, g.first_id, p.parked_at as since, p.reason, p.topic, p.type
         from (select key, min(id) as first_id, count(*) as count from parked where status = 'parked'
               group by key having min(id) > $1) as g
         join parked p on p.id = g.first_id
         order by g.first_id limit $2",
    )
    .bind(after)
    .bind(limit)
    .fetch_all(db)
    .await
}

/// Returns the messages of a key in order, parked and resolved ones, behind the id `after`. Returns at most `limit`
/// messages.
///
/// # Errors
/// Fails if the database does not answer.
pub async fn list_messages(
    db: &mut PgConnection,
    key: &str,
    after: i64,
    limit: i64,
) -> Result<Vec<ParkedRow>, sqlx::Error> {
    let list = format!(
        "select {COLUMNS}, (select count(*) from parked_edit e where e.parked_id = p.id) as edits
         from parked p where p.key = $1 and p.id > $2 order by p.id limit $3"
    );
    sqlx::query_as(AssertSqlSafe(list)).bind(key).bind(after).bind(limit).fetch_all(db).await
}

/// Returns how many messages of a key are parked, or `None` if none of them ever was.
///
/// # Errors
/// Fails if the database does not answer.
pub async fn left(db: &mut PgConnection, key: &str) -> Result<Option<i64>, sqlx::Error> {
    let left: i64 = sqlx::query_scalar("select count(*) from parked where key = $1 and status = 'parked'")
        .bind(key)
        .fetch_one(&mut *db)
        .await?;
    if left > 0 {
        return Ok(Some(left));
    }
    let known: bool = sqlx::query_scalar("select exists (select from parked where key = $1)")
        .bind(key)
        .fetch_one(db)
        .await?;
    Ok(known.then_some(0))
}

/// Returns the message that is replayed next.
pub(super) async fn first(db: &mut PgConnection, key: &str) -> Result<Option<ParkedRow>, sqlx::Error> {
    let first = format!(
        "select {COLUMNS}, 0::bigint as edits from parked p where key = $1 and status = 'parked' order by id limit 1"
    );
    sqlx::query_as(AssertSqlSafe(first)).bind(key).fetch_optional(db).await
}

pub(super) async fn find(
    db: &mut PgConnection,
    key: &str,
    id: i64,
) -> Result<Option<ParkedRow>, sqlx::Error> {
    let find = format!("select {COLUMNS}, 0::bigint as edits from parked p where key = $1 and id = $2");
    sqlx::query_as(AssertSqlSafe(find)).bind(key).bind(id).fetch_optional(db).await
}

pub(super) async fn mark_replayed(db: &mut PgConnection, id: i64) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update parked set status = 'replayed', attempts = attempts + 1, last_attempt_at = now(), resolved_at = now()
         where id = $1 and status = 'parked'",
    )
    .bind(id)
    .execute(db)
    .await?;
    Ok(())
}

/// Records that a replay failed again.
pub(super) async fn mark_failed(db: &mut PgConnection, id: i64, reason: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update parked set reason = $2, attempts = attempts + 1, last_attempt_at = now() where id = $1 and status = 'parked'",
    )
    .bind(id)
    .bind(reason)
    .execute(db)
    .await?;
    Ok(())
}

pub(super) async fn mark_skipped(
    db: &mut PgConnection,
    id: i64,
    reason: &str,
    by: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update parked set status = 'skipped', skip_reason = $2, resolved_by = $3, resolved_at = now()
         where id = $1 and status = 'parked'",
    )
    .bind(id)
    .bind(reason)
    .bind(by)
    .execute(db)
    .await?;
    Ok(())
}

/// Replaces the body of a message and keeps the old one.
pub(super) async fn replace_body(
    db: &mut PgConnection,
    id: i64,
    body: &[u8],
    message_id: Uuid,
    kind: &str,
    by: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "with before as (insert into parked_edit (parked_id, edited_by, body)
                         select id, $5, body from parked where id = $1)
         update parked set body = $2, message_id = $3, type = $4 where id = $1",
    )
    .bind(id)
    .bind(body)
    .bind(message_id)
    .bind(kind)
    .bind(by)
    .execute(db)
    .await?;
    Ok(())
}
