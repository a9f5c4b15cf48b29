//! Every SQL statement about sagas and their log. A batch of inputs for many sagas costs a constant number of them.

use std::time::Duration;

use serde_json::value::RawValue;
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, FromRow, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

/// A saga's row: a snapshot, which the log may have gone beyond.
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
    /// The last entry of the log that is in it.
    pub sequence: i32,
    pub traceparent: Option<String>,
    pub due_at: Option<OffsetDateTime>,
    pub started_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

/// A snapshot as it is written.
#[derive(Debug)]
pub struct Snapshot {
    pub saga_id: Uuid,
    pub definition: String,
    pub version: i32,
    pub plan_hash: String,
    pub subject: String,
    pub status: &'static str,
    pub reason: Option<String>,
    pub state: String,
    pub data: String,
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
    /// What the step replied, if the saga keeps it.
    pub reply: Option<Box<RawValue>>,
    pub decisions: String,
}

/// An entry of the log, as it was written.
#[derive(Debug, FromRow)]
pub struct LogRow {
    pub saga_id: Uuid,
    pub sequence: i32,
    pub at: OffsetDateTime,
    pub message_id: Option<Uuid>,
    pub input: Json<Box<RawValue>>,
    pub reply: Option<Json<Box<RawValue>>>,
    pub decisions: Json<Box<RawValue>>,
}

const COLUMNS: &str = "saga_id, definition, version, plan_hash, subject, status, reason, state, data, sequence, \
                       traceparent, due_at, started_at, updated_at";
const LOG_COLUMNS: &str = "saga_id, sequence, at, message_id, input, reply, decisions";

/// The sagas' rows.
pub async fn find_sagas(db: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<SagaRow>, sqlx::Error> {
    let find = format!("select {COLUMNS} from saga where saga_id = any($1)");
    sqlx::query_as(AssertSqlSafe(find)).bind(ids).fetch_all(db).await
}

/// What the log has beyond these rows, in order.
pub async fn find_beyond(db: &mut PgConnection, sagas: &[SagaRow]) -> Result<Vec<LogRow>, sqlx::Error> {
    if sagas.is_empty() {
        return Ok(Vec::new());
    }
    let find = format!(
        "select {LOG_COLUMNS}
         from unnest($1::uuid[], $2::integer[]) as row (saga_id, upto)
         join saga_log using (saga_id)
         where sequence > upto
         order by saga_id, sequence"
    );
    sqlx::query_as(AssertSqlSafe(find))
        .bind(sagas.iter().map(|saga| saga.saga_id).collect::<Vec<_>>())
        .bind(sagas.iter().map(|saga| saga.sequence).collect::<Vec<_>>())
        .fetch_all(db)
        .await
}

/// Appends to the log and writes the snapshots, with one statement. The log's primary key is the optimistic lock: of two
/// writers of one sequence the second fails, see [`is_outdated`].
pub async fn save(
    db: &mut PgConnection,
    entries: &[Entry],
    snapshots: &[Snapshot],
) -> Result<(), sqlx::Error> {
    const APPEND: &str = "insert into saga_log (saga_id, sequence, at, message_id, input, reply, decisions)
         select saga_id, sequence, now(), message_id, input::json, reply::json, decisions::json
         from unnest($1::uuid[], $2::integer[], $3::uuid[], $4::text[], $5::text[], $6::text[])
              as row (saga_id, sequence, message_id, input, reply, decisions)";
    const SAVE: &str = "insert into saga (saga_id, definition, version, plan_hash, subject, status, reason, state, data,
                           sequence, traceparent, due_at)
         select saga_id, definition, version, plan_hash, subject, status, reason, state::json, data::json,
                sequence, traceparent, due_at
         from unnest($7::uuid[], $8::text[], $9::integer[], $10::text[], $11::text[], $12::text[], $13::text[],
                     $14::text[], $15::text[], $16::integer[], $17::text[], $18::timestamptz[])
              as row (saga_id, definition, version, plan_hash, subject, status, reason, state, data,
                      sequence, traceparent, due_at)
         on conflict (saga_id) do update
         set status = excluded.status, reason = excluded.reason, state = excluded.state, data = excluded.data,
             sequence = excluded.sequence, due_at = excluded.due_at, updated_at = now()";
    if snapshots.is_empty() && entries.is_empty() {
        return Ok(());
    }
    let statement = match snapshots {
        [] => APPEND.to_owned(),
        _ => format!("with saved as ({SAVE}) {APPEND}"),
    };
    let mut query = sqlx::query(AssertSqlSafe(statement))
        .bind(entries.iter().map(|entry| entry.saga_id).collect::<Vec<_>>())
        .bind(entries.iter().map(|entry| entry.sequence).collect::<Vec<_>>())
        .bind(entries.iter().map(|entry| entry.message_id).collect::<Vec<_>>())
        .bind(entries.iter().map(|entry| entry.input.as_str()).collect::<Vec<_>>())
        .bind(entries.iter().map(|entry| entry.reply.as_deref().map(RawValue::get)).collect::<Vec<_>>())
        .bind(entries.iter().map(|entry| entry.decisions.as_str()).collect::<Vec<_>>());
    if !snapshots.is_empty() {
        query = query
            .bind(snapshots.iter().map(|saga| saga.saga_id).collect::<Vec<_>>())
            .bind(snapshots.iter().map(|saga| saga.definition.as_str()).collect::<Vec<_>>())
            .bind(snapshots.iter().map(|saga| saga.version).collect::<Vec<_>>())
            .bind(snapshots.iter().map(|saga| saga.plan_hash.as_str()).collect::<Vec<_>>())
            .bind(snapshots.iter().map(|saga| saga.subject.as_str()).collect::<Vec<_>>())
            .bind(snapshots.iter().map(|saga| saga.status).collect::<Vec<_>>())
            .bind(snapshots.iter().map(|saga| saga.reason.as_deref()).collect::<Vec<_>>())
            .bind(snapshots.iter().map(|saga| saga.state.as_str()).collect::<Vec<_>>())
            .bind(snapshots.iter().map(|saga| saga.data.as_str()).collect::<Vec<_>>())
            .bind(snapshots.iter().map(|saga| saga.sequence).collect::<Vec<_>>())
            .bind(snapshots.iter().map(|saga| saga.traceparent.as_deref()).collect::<Vec<_>>())
            .bind(snapshots.iter().map(|saga| saga.due_at).collect::<Vec<_>>());
    }
    query.execute(db).await?;
    Ok(())
}

/// Whether somebody else has written to the log of one of the sagas since it was read.
pub fn is_outdated(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.constraint()) == Some("saga_log_pkey")
}

/// Takes sagas whose next deadline may have passed, those that have waited longest first, with their subjects. For `lease`
/// nobody else takes them. Sagas that somebody else is just taking or writing are passed over, so that this waits for
/// nobody.
pub async fn claim_due(
    db: &mut PgConnection,
    lease: Duration,
    limit: i64,
) -> Result<Vec<(Uuid, String)>, sqlx::Error> {
    sqlx::query_as(
        // A subquery in its place might be run more than once, and take more than the limit.
        "with due as materialized (
             select saga_id from saga where due_at <= now() order by due_at limit $2 for update skip locked)
         update saga s set due_at = now() + $1 * interval '1 second'
         from due
         where s.saga_id = due.saga_id
         returning s.saga_id, s.subject",
    )
    .bind(lease.as_secs_f64())
    .bind(limit)
    .fetch_all(db)
    .await
}

/// How many sagas are stuck.
pub async fn count_stuck(db: &mut PgConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("select count(*) from saga where status = 'stuck'").fetch_one(db).await
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

/// The sagas about a subject, the newest first.
pub async fn find_by_subject(db: &mut PgConnection, subject: &str) -> Result<Vec<SagaRow>, sqlx::Error> {
    let find = format!("select {COLUMNS} from saga where subject = $1 order by saga_id desc");
    sqlx::query_as(AssertSqlSafe(find)).bind(subject).fetch_all(db).await
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
    sqlx::query_as(AssertSqlSafe(list)).bind(status).bind(before).bind(limit).fetch_all(db).await
}

/// A saga's log.
pub async fn find_log(db: &mut PgConnection, saga_id: Uuid) -> Result<Vec<LogRow>, sqlx::Error> {
    let find = format!("select {LOG_COLUMNS} from saga_log where saga_id = $1 order by sequence");
    sqlx::query_as(AssertSqlSafe(find)).bind(saga_id).fetch_all(db).await
}
