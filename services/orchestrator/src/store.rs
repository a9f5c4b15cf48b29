//! Every SQL statement of the orchestrator. A batch of inputs for many sagas costs a constant number of them.

use serde_json::value::RawValue;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

/// A saga's row.
#[derive(Debug, FromRow)]
pub struct SagaRow {
    pub saga_id: Uuid,
    pub definition: String,
    pub version: i32,
    pub plan_hash: String,
    pub subject: String,
    pub status: String,
    pub reason: Option<String>,
    pub state: Json<Box<RawValue>>,
    pub data: Json<Box<RawValue>>,
    pub sequence: i32,
    pub traceparent: Option<String>,
    pub due_at: Option<OffsetDateTime>,
    pub started_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

/// A saga's row as it is written.
#[derive(Debug)]
pub struct Saved {
    pub saga_id: Uuid,
    pub definition: String,
    pub version: i32,
    pub plan_hash: String,
    pub subject: String,
    pub status: &'static str,
    pub reason: Option<String>,
    pub state: String,
    /// The saga's memory, unless it is as it was.
    pub data: Option<String>,
    pub sequence: i32,
    pub traceparent: Option<String>,
    pub due_at: Option<OffsetDateTime>,
}

/// An entry of the log, to be written.
#[derive(Debug)]
pub struct Entry {
    pub saga_id: Uuid,
    pub sequence: i32,
    pub message_id: Option<Uuid>,
    pub input: String,
    pub decisions: String,
}

const COLUMNS: &str = "saga_id, definition, version, plan_hash, subject, status, reason, state, data, sequence, \
                       traceparent, due_at, started_at, updated_at";

/// Locks the sagas and returns them as they are.
pub async fn lock_sagas(db: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<SagaRow>, sqlx::Error> {
    let lock = format!("select {COLUMNS} from saga where saga_id = any($1) order by saga_id for update");
    sqlx::query_as(sqlx::AssertSqlSafe(lock)).bind(ids).fetch_all(db).await
}

/// Writes new sagas.
pub async fn insert_sagas(db: &mut PgConnection, sagas: &[&Saved]) -> Result<(), sqlx::Error> {
    if sagas.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "insert into saga (saga_id, definition, version, plan_hash, subject, status, reason, state, data, sequence,
                           traceparent, due_at)
         select saga_id, definition, version, plan_hash, subject, status, reason, state::json, data::json, sequence,
                traceparent, due_at
         from unnest($1::uuid[], $2::text[], $3::integer[], $4::text[], $5::text[], $6::text[], $7::text[],
                     $8::text[], $9::text[], $10::integer[], $11::text[], $12::timestamptz[])
              as row (saga_id, definition, version, plan_hash, subject, status, reason, state, data, sequence,
                      traceparent, due_at)",
    )
    .bind(sagas.iter().map(|saga| saga.saga_id).collect::<Vec<_>>())
    .bind(sagas.iter().map(|saga| saga.definition.as_str()).collect::<Vec<_>>())
    .bind(sagas.iter().map(|saga| saga.version).collect::<Vec<_>>())
    .bind(sagas.iter().map(|saga| saga.plan_hash.as_str()).collect::<Vec<_>>())
    .bind(sagas.iter().map(|saga| saga.subject.as_str()).collect::<Vec<_>>())
    .bind(sagas.iter().map(|saga| saga.status).collect::<Vec<_>>())
    .bind(sagas.iter().map(|saga| saga.reason.as_deref()).collect::<Vec<_>>())
    .bind(sagas.iter().map(|saga| saga.state.as_str()).collect::<Vec<_>>())
    .bind(sagas.iter().map(|saga| saga.data.as_deref()).collect::<Vec<_>>())
    .bind(sagas.iter().map(|saga| saga.sequence).collect::<Vec<_>>())
    .bind(sagas.iter().map(|saga| saga.traceparent.as_deref()).collect::<Vec<_>>())
    .bind(sagas.iter().map(|saga| saga.due_at).collect::<Vec<_>>())
    .execute(db)
    .await?;
    Ok(())
}

/// Writes where the sagas stand now and appends to the log, with one statement. The caller has locked the sagas. The
/// log's primary key is the optimistic lock: two writers of one sequence can't both commit.
pub async fn move_sagas(
    db: &mut PgConnection,
    sagas: &[&Saved],
    entries: &[Entry],
) -> Result<(), sqlx::Error> {
    if sagas.is_empty() && entries.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "with moved as (
             update saga s
             set status = row.status, reason = row.reason, state = row.state::json, data = coalesce(row.data::json, s.data),
                 sequence = row.sequence, due_at = row.due_at, updated_at = now()
             from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::integer[], $7::timestamptz[])
                  as row (saga_id, status, reason, state, data, sequence, due_at)
             where s.saga_id = row.saga_id)
         insert into saga_log (saga_id, sequence, at, message_id, input, decisions)
         select saga_id, sequence, now(), message_id, input::json, decisions::json
         from unnest($8::uuid[], $9::integer[], $10::uuid[], $11::text[], $12::text[])
              as row (saga_id, sequence, message_id, input, decisions)",
    )
    .bind(sagas.iter().map(|saga| saga.saga_id).collect::<Vec<_>>())
    .bind(sagas.iter().map(|saga| saga.status).collect::<Vec<_>>())
    .bind(sagas.iter().map(|saga| saga.reason.as_deref()).collect::<Vec<_>>())
    .bind(sagas.iter().map(|saga| saga.state.as_str()).collect::<Vec<_>>())
    .bind(sagas.iter().map(|saga| saga.data.as_deref()).collect::<Vec<_>>())
    .bind(sagas.iter().map(|saga| saga.sequence).collect::<Vec<_>>())
    .bind(sagas.iter().map(|saga| saga.due_at).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| entry.saga_id).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| entry.sequence).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| entry.message_id).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| entry.input.as_str()).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| entry.decisions.as_str()).collect::<Vec<_>>())
    .execute(db)
    .await?;
    Ok(())
}

/// Sagas whose next deadline may have passed, with their subjects.
pub async fn find_due(db: &mut PgConnection, limit: i64) -> Result<Vec<(Uuid, String)>, sqlx::Error> {
    sqlx::query_as(
        "select saga_id, subject from saga where due_at <= clock_timestamp() order by due_at limit $1",
    )
    .bind(limit)
    .fetch_all(db)
    .await
}

/// Lets a saga that could not be woken rest for a while.
pub async fn postpone(db: &mut PgConnection, saga_id: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query("update saga set due_at = clock_timestamp() + interval '30 seconds' where saga_id = $1")
        .bind(saga_id)
        .execute(db)
        .await?;
    Ok(())
}

/// Definitions that open sagas began with: name, version, plan hash, and one saga that has it.
pub async fn definitions_in_flight(
    db: &mut PgConnection,
) -> Result<Vec<(String, i32, String, Uuid)>, sqlx::Error> {
    sqlx::query_as(
        "select distinct on (definition, version, plan_hash) definition, version, plan_hash, saga_id
         from saga where status in ('running', 'compensating', 'stuck')",
    )
    .fetch_all(db)
    .await
}

/// The sagas about an order, the newest first.
pub async fn find_by_subject(db: &mut PgConnection, subject: &str) -> Result<Vec<SagaRow>, sqlx::Error> {
    let find = format!("select {COLUMNS} from saga where subject = $1 order by saga_id desc");
    sqlx::query_as(sqlx::AssertSqlSafe(find)).bind(subject).fetch_all(db).await
}

/// A page of sagas, the newest first.
pub async fn list(
    db: &mut PgConnection,
    status: Option<&str>,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<SagaRow>, sqlx::Error> {
    let list = format!(
        "select {COLUMNS} from saga
         where ($1::text is null or status = $1) and ($2::uuid is null or saga_id < $2)
         order by saga_id desc limit $3"
    );
    sqlx::query_as(sqlx::AssertSqlSafe(list)).bind(status).bind(before).bind(limit).fetch_all(db).await
}

/// An entry of the log, as it was written.
#[derive(Debug, FromRow)]
pub struct LogRow {
    pub sequence: i32,
    pub at: OffsetDateTime,
    pub message_id: Option<Uuid>,
    pub input: Json<Box<RawValue>>,
    pub decisions: Json<Box<RawValue>>,
}

/// A saga's log.
pub async fn find_log(db: &mut PgConnection, saga_id: Uuid) -> Result<Vec<LogRow>, sqlx::Error> {
    sqlx::query_as(
        "select sequence, at, message_id, input, decisions from saga_log where saga_id = $1 order by sequence",
    )
    .bind(saga_id)
    .fetch_all(db)
    .await
}
