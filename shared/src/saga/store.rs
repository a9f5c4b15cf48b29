//! All SQL statements about sagas and their log. A batch of inputs for many sagas costs a constant number of
//! statements.

use std::time::Duration;

use serde_json::value::RawValue;
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::text::json_without_nul;
use crate::unit_of_work::UnitOfWork;

crate::row! {
    /// A row of the table `saga`: a snapshot, which may be older than the log.
    #[derive(Debug)]
    pub struct SagaRow {
        /// The id of the saga.
        pub saga_id: Uuid,
        /// The name of the definition.
        pub definition: String,
        /// The version of the definition.
        pub version: i32,
        /// The hash of the plan with which the saga began.
        pub plan_hash: String,
        /// The aggregate that the saga is about.
        pub subject: String,
        /// The status, as in [`crate::saga::engine::Status::as_str`].
        pub status: String,
        /// The code of the first refusal, if there is one.
        pub reason: Option<String>,
        /// The state, as JSON.
        pub state: Json<Box<RawValue>>,
        /// The saga's memory, as JSON.
        pub data: Json<Box<RawValue>>,
        /// The sequence number of the last log entry in this snapshot.
        pub sequence: i32,
        /// The W3C trace context of the saga.
        pub traceparent: Option<String>,
        /// The time at which the timers wake the saga.
        pub due_at: Option<OffsetDateTime>,
        /// The start of the saga.
        pub started_at: OffsetDateTime,
        /// The time of this snapshot.
        pub updated_at: OffsetDateTime,
    }
}

/// A snapshot to write.
#[derive(Debug)]
pub(crate) struct Snapshot {
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

/// A log entry to write.
#[derive(Debug)]
pub(crate) struct Entry {
    pub saga_id: Uuid,
    pub sequence: i32,
    pub message_id: Option<Uuid>,
    pub input: String,
    /// The reply of the step, if the saga keeps it.
    pub reply: Option<Box<RawValue>>,
    pub decisions: String,
}

crate::row! {
    /// A row of the table `saga_log`.
    #[derive(Debug)]
    pub struct LogRow {
        /// The id of the saga.
        pub saga_id: Uuid,
        /// The sequence number of the entry, counted from 1.
        pub sequence: i32,
        /// The time of the entry.
        pub at: OffsetDateTime,
        /// The message that brought the input, if there was one.
        pub message_id: Option<Uuid>,
        /// The input, as JSON.
        pub input: Json<Box<RawValue>>,
        /// The reply of the step, if the saga keeps it.
        pub reply: Option<Json<Box<RawValue>>>,
        /// The decisions, as JSON.
        pub decisions: Json<Box<RawValue>>,
    }
}

const COLUMNS: &str = "saga_id, definition, version, plan_hash, subject, status, reason, state, data, sequence, \
                       traceparent, due_at, started_at, updated_at";
const LOG_COLUMNS: &str = "saga_id, sequence, at, message_id, input, reply, decisions";

/// Returns the rows of these sagas.
///
/// # Errors
/// Fails if the database does not answer.
pub async fn find_sagas(db: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<SagaRow>, sqlx::Error> {
    let find = format!("select {COLUMNS} from saga where saga_id = any($1)");
    sqlx::query_as(AssertSqlSafe(find)).bind(ids).fetch_all(db).await
}

/// Returns the log entries that are newer than these rows, ordered by saga and sequence number.
///
/// # Errors
/// Fails if the database does not answer.
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

/// Appends to the log and writes the snapshots when the unit of work commits. The primary key of the log is the
/// optimistic lock: if two writers use one sequence number, the commit of the second one fails, and may be retried.
///
/// A NUL character in somebody's words is replaced, because PostgreSQL could not read the row any more.
pub(crate) fn save(uow: &mut UnitOfWork, entries: &[Entry], snapshots: &[Snapshot]) {
    const APPEND: &str = "insert into saga_log (saga_id, sequence, at, message_id, input, reply, decisions)
         select saga_id, sequence, now(), message_id, input::json, reply::json, decisions::json
         from unnest($1::uuid[], $2::integer[], $3::uuid[], $4::text[], $5::text[], $6::text[])
              as row (saga_id, sequence, message_id, input, reply, decisions)";
    const SAVE: &str =
        "insert into saga (saga_id, definition, version, plan_hash, subject, status, reason, state, data,
                           sequence, traceparent, due_at)
         select saga_id, definition, version, plan_hash, subject, status, reason, state::json, data::json,
                sequence, traceparent, due_at
         from unnest($1::uuid[], $2::text[], $3::integer[], $4::text[], $5::text[], $6::text[], $7::text[],
                     $8::text[], $9::text[], $10::integer[], $11::text[], $12::timestamptz[])
              as row (saga_id, definition, version, plan_hash, subject, status, reason, state, data,
                      sequence, traceparent, due_at)
         on conflict (saga_id) do update
         set status = excluded.status, reason = excluded.reason, state = excluded.state, data = excluded.data,
             sequence = excluded.sequence, due_at = excluded.due_at, updated_at = now()";
    if !entries.is_empty() {
        uow.defer(APPEND, |parameters| {
            parameters
                .bind(entries.iter().map(|entry| entry.saga_id).collect::<Vec<_>>())
                .bind(entries.iter().map(|entry| entry.sequence).collect::<Vec<_>>())
                .bind(entries.iter().map(|entry| entry.message_id).collect::<Vec<_>>())
                .bind(entries.iter().map(|entry| json_without_nul(&entry.input)).collect::<Vec<_>>())
                .bind(
                    entries
                        .iter()
                        .map(|entry| entry.reply.as_deref().map(|reply| json_without_nul(reply.get())))
                        .collect::<Vec<_>>(),
                )
                .bind(entries.iter().map(|entry| json_without_nul(&entry.decisions)).collect::<Vec<_>>());
        });
    }
    if !snapshots.is_empty() {
        uow.defer(SAVE, |parameters| {
            parameters
                .bind(snapshots.iter().map(|saga| saga.saga_id).collect::<Vec<_>>())
                .bind(snapshots.iter().map(|saga| saga.definition.as_str()).collect::<Vec<_>>())
                .bind(snapshots.iter().map(|saga| saga.version).collect::<Vec<_>>())
                .bind(snapshots.iter().map(|saga| saga.plan_hash.as_str()).collect::<Vec<_>>())
                .bind(snapshots.iter().map(|saga| saga.subject.as_str()).collect::<Vec<_>>())
                .bind(snapshots.iter().map(|saga| saga.status).collect::<Vec<_>>())
                .bind(snapshots.iter().map(|saga| saga.reason.as_deref()).collect::<Vec<_>>())
                .bind(snapshots.iter().map(|saga| json_without_nul(&saga.state)).collect::<Vec<_>>())
                .bind(snapshots.iter().map(|saga| json_without_nul(&saga.data)).collect::<Vec<_>>())
                .bind(snapshots.iter().map(|saga| saga.sequence).collect::<Vec<_>>())
                .bind(snapshots.iter().map(|saga| saga.traceparent.as_deref()).collect::<Vec<_>>())
                .bind(snapshots.iter().map(|saga| saga.due_at).collect::<Vec<_>>());
        });
    }
}

/// Returns whether the next deadline of a saga may have passed.
pub(crate) async fn is_any_due(db: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("select exists (select from saga where due_at <= now())").fetch_one(db).await
}

/// Claims sagas whose next deadline may have passed, the longest waiting first, and returns them with their subjects.
/// No other replica claims them for `lease`. It skips sagas that another transaction is claiming or writing, so that
/// it never waits.
pub(crate) async fn claim_due(
    db: &mut PgConnection,
    lease: Duration,
    limit: i64,
) -> Result<Vec<(Uuid, String)>, sqlx::Error> {
    sqlx::query_as(
        // PostgreSQL could run a plain subquery more than once, and claim more than the limit.
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

/// Returns the number of stuck sagas.
pub(crate) async fn count_stuck(db: &mut PgConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("select count(*) from saga where status = 'stuck'").fetch_one(db).await
}

/// Returns the definitions of unfinished sagas: name, version, plan hash, and one of the sagas.
pub(crate) async fn definitions_in_flight(
    db: &mut PgConnection,
) -> Result<Vec<(String, i32, String, Uuid)>, sqlx::Error> {
    sqlx::query_as(
        "select distinct on (definition, version, plan_hash) definition, version, plan_hash, saga_id
         from saga where status in ('running', 'compensating', 'stuck')",
    )
    .fetch_all(db)
    .await
}

/// Returns the sagas about a subject, the newest first.
///
/// # Errors
/// Fails if the database does not answer.
pub async fn find_by_subject(db: &mut PgConnection, subject: &str) -> Result<Vec<SagaRow>, sqlx::Error> {
    let find = format!("select {COLUMNS} from saga where subject = $1 order by saga_id desc");
    sqlx::query_as(AssertSqlSafe(find)).bind(subject).fetch_all(db).await
}

/// Returns a page of sagas, the newest first: those older than `before`, and only those with `status` if it is set.
///
/// # Errors
/// Fails if the database does not answer.
pub async fn list(
    db: &mut PgConnection,
    status: Option<&str>,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<SagaRow>, sqlx::Error> {
    let before = before.unwrap_or(Uuid::max());
    let Some(status) = status else {
        let list = format!("select {COLUMNS} from saga where saga_id < $1 order by saga_id desc limit $2");
        return sqlx::query_as(AssertSqlSafe(list)).bind(before).bind(limit).fetch_all(db).await;
    };
    // The range of one status is asked for instead of the status, because only the index by status has its order. With an
    // equality, a planner that takes the status for frequent would read the sagas of all.
    let list = format!(
        "select {COLUMNS} from saga where status >= $1 and (status, saga_id) < ($1, $2)
         order by status desc, saga_id desc limit $3"
    );
    sqlx::query_as(AssertSqlSafe(list)).bind(status).bind(before).bind(limit).fetch_all(db).await
}

/// Returns the log of a saga, in order.
///
/// # Errors
/// Fails if the database does not answer.
pub async fn find_log(db: &mut PgConnection, saga_id: Uuid) -> Result<Vec<LogRow>, sqlx::Error> {
    let find = format!("select {LOG_COLUMNS} from saga_log where saga_id = $1 order by sequence");
    sqlx::query_as(AssertSqlSafe(find)).bind(saga_id).fetch_all(db).await
}
