//! Every statement about parked messages. Who writes holds the lock of the key.

use std::collections::HashSet;

use sqlx::{AssertSqlSafe, FromRow, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use super::storable;
use crate::incoming::Incoming;

/// A parked message.
#[derive(FromRow)]
pub struct Row {
    pub id: i64,
    pub key: String,
    pub message_id: Option<Uuid>,
    #[sqlx(rename = "type")]
    pub kind: Option<String>,
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub reason: String,
    pub body: Vec<u8>,
    pub traceparent: Option<String>,
    pub status: String,
    pub parked_at: OffsetDateTime,
    pub attempts: i32,
    pub last_attempt_at: Option<OffsetDateTime>,
    pub resolved_at: Option<OffsetDateTime>,
    pub resolved_by: Option<String>,
    pub skip_reason: Option<String>,
    pub edits: i64,
}

/// A parked key.
#[derive(FromRow)]
pub struct KeyRow {
    pub key: String,
    pub count: i64,
    pub first_id: i64,
    pub since: OffsetDateTime,
    pub reason: String,
    pub topic: String,
    #[sqlx(rename = "type")]
    pub kind: Option<String>,
}

const PARKED: &str = "parked";

/// Named one by one: a column that a newer release adds must not change what this one's prepared statements return.
const COLUMNS: &str = r#"p.id, p.key, p.message_id, p.type, p.topic, p.partition, p."offset", p.reason, p.body, p.traceparent,
    p.status, p.parked_at, p.attempts, p.last_attempt_at, p.resolved_at, p.resolved_by, p.skip_reason"#;

impl Row {
    pub fn is_parked(&self) -> bool {
        self.status == PARKED
    }
}

/// Those of `keys` that are parked.
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

/// Whether the message was not parked before.
pub(super) async fn insert(
    db: &mut PgConnection,
    message: &Incoming,
    reason: &str,
) -> Result<bool, sqlx::Error> {
    let inserted = sqlx::query(
        r#"insert into parked (key, message_id, type, topic, partition, "offset", reason, body, traceparent)
           values ($1, $2, $3, $4, $5, $6, $7, $8, $9) on conflict on constraint parked_once do nothing"#,
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

pub(super) async fn count_keys(db: &mut PgConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("select count(distinct key) from parked where status = 'parked'").fetch_one(db).await
}

/// The parked keys, the longest parked first, behind the one whose first message is `after`.
pub async fn list_keys(db: &mut PgConnection, after: i64, limit: i64) -> Result<Vec<KeyRow>, sqlx::Error> {
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

/// The messages of a key, whatever became of them, in order.
pub async fn list_messages(
    db: &mut PgConnection,
    key: &str,
    after: i64,
    limit: i64,
) -> Result<Vec<Row>, sqlx::Error> {
    let list = format!(
        "select {COLUMNS}, (select count(*) from parked_edit e where e.parked_id = p.id) as edits
         from parked p where p.key = $1 and p.id > $2 order by p.id limit $3"
    );
    sqlx::query_as(AssertSqlSafe(list)).bind(key).bind(after).bind(limit).fetch_all(db).await
}

/// How many messages of a key are parked; nothing if none of it ever was.
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

/// The message that is replayed next.
pub(super) async fn first(db: &mut PgConnection, key: &str) -> Result<Option<Row>, sqlx::Error> {
    let first = format!(
        "select {COLUMNS}, 0::bigint as edits from parked p where key = $1 and status = 'parked' order by id limit 1"
    );
    sqlx::query_as(AssertSqlSafe(first)).bind(key).fetch_optional(db).await
}

pub(super) async fn find(db: &mut PgConnection, key: &str, id: i64) -> Result<Option<Row>, sqlx::Error> {
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

/// Writes down that a replay failed again.
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

/// Puts another body in the place of a message's, and keeps the old one.
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
