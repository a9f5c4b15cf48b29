//! Every statement about step outcomes.

use std::borrow::Borrow;

use serde::Deserialize;
use serde_json::value::RawValue;
use sqlx::{AssertSqlSafe, FromRow, PgConnection};
use uuid::Uuid;

use super::{Commands, StepKey, Task};
use crate::db::PgQuery;
use crate::envelope::Direction;

/// Where a step stands at its participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// The outside world is being asked.
    Pending,
    Done,
    Refused,
    /// Undone before it began; it must not begin any more.
    Barred,
}

impl Status {
    fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Barred => "barred",
        }
    }

    fn parse(text: &str) -> Self {
        match text {
            "pending" => Self::Pending,
            "done" => Self::Done,
            "refused" => Self::Refused,
            _ => Self::Barred,
        }
    }
}

/// A row of `step_outcome`.
#[derive(Debug)]
pub(crate) struct Record {
    pub key: StepKey,
    pub kind: &'static str,
    pub message_id: Uuid,
    pub status: Status,
    pub outcome: Option<Box<RawValue>>,
    /// For a pending step: the command's bytes and the trace, so that it can be taken up again.
    pub open: Option<Open>,
}

/// What an interrupted call to the outside is taken up from.
#[derive(Debug)]
pub(crate) struct Open {
    pub command: Vec<u8>,
    pub traceparent: Option<String>,
    /// Nobody, if anybody may take it up.
    pub claimed_by: Option<String>,
    pub claimed_for_seconds: f64,
}

impl Record {
    fn new<C: Commands>(
        task: &Task<C>,
        key: StepKey,
        status: Status,
        outcome: Option<Box<RawValue>>,
    ) -> Self {
        let message_id = task.cause.causation_id.unwrap_or_else(Uuid::nil);
        Self { key, kind: task.command.kind(), message_id, status, outcome, open: None }
    }

    pub(super) fn answered<C: Commands>(task: &Task<C>, status: Status, outcome: Box<RawValue>) -> Self {
        Self::new(task, task.step.clone(), status, Some(outcome))
    }

    pub(super) fn barred<C: Commands>(task: &Task<C>, action: StepKey) -> Self {
        Self::new(task, action, Status::Barred, None)
    }

    pub(crate) fn open<C: Commands>(task: &Task<C>) -> Self {
        Self::new(task, task.step.clone(), Status::Pending, None)
    }
}

/// A recorded outcome as it is looked up.
#[derive(FromRow, Deserialize)]
pub(crate) struct Found {
    saga_id: Uuid,
    step: String,
    direction: String,
    message_id: Uuid,
    status: String,
    /// As text, because a JSON `null` is an outcome too.
    outcome: Option<String>,
}

impl From<Found> for Record {
    fn from(row: Found) -> Self {
        Self {
            key: key(row.saga_id, row.step, &row.direction),
            kind: "",
            message_id: row.message_id,
            status: Status::parse(&row.status),
            // The database has it as JSON.
            outcome: row.outcome.and_then(|outcome| RawValue::from_string(outcome).ok()),
            open: None,
        }
    }
}

/// The keys as the columns of an array each.
pub(crate) fn columns<K: Borrow<StepKey>>(keys: &[K]) -> (Vec<Uuid>, Vec<&str>, Vec<&'static str>) {
    let (mut sagas, mut names, mut directions) = (vec![], vec![], vec![]);
    for key in keys {
        let key = key.borrow();
        sagas.push(key.saga_id);
        names.push(key.step.as_str());
        directions.push(key.direction.as_str());
    }
    (sagas, names, directions)
}

fn key(saga_id: Uuid, step: String, direction: &str) -> StepKey {
    let direction = if direction == "undo" { Direction::Undo } else { Direction::Do };
    StepKey { saga_id, step, direction }
}

/// The recorded outcomes of these steps.
pub(crate) async fn find(db: &mut PgConnection, steps: &[StepKey]) -> Result<Vec<Record>, sqlx::Error> {
    let (sagas, names, directions) = columns(steps);
    let found: Vec<Found> = sqlx::query_as(
        "select saga_id, step, direction, message_id, status, outcome::text
         from unnest($1::uuid[], $2::text[], $3::text[]) as asked (saga_id, step, direction)
         join step_outcome using (saga_id, step, direction)",
    )
    .bind(sagas)
    .bind(names)
    .bind(directions)
    .fetch_all(db)
    .await?;
    Ok(found.into_iter().map(Record::from).collect())
}

/// Records outcomes of steps that had none. The caller holds their orders' locks.
pub(crate) async fn insert(db: &mut PgConnection, records: &[&Record]) -> Result<(), sqlx::Error> {
    bind(sqlx::query(AssertSqlSafe(insert_statement(1))), records).execute(db).await?;
    Ok(())
}

/// The statement whose parameters [`bind`] binds, the first of them by this number: it may be a part of another one.
pub(crate) fn insert_statement(first: usize) -> String {
    let types = ["uuid", "text", "text", "text", "uuid", "text", "text", "bytea", "text", "text", "float8"];
    let parameter = |(index, kind)| format!("${}::{kind}[]", first + index);
    let parameters: Vec<String> = types.iter().enumerate().map(parameter).collect();
    format!(
        "insert into step_outcome (saga_id, step, direction, type, message_id, status, outcome,
                                   command, traceparent, claimed_by, claimed_until)
         select saga_id, step, direction, type, message_id, status, outcome::jsonb,
                command, traceparent, claimed_by, clock_timestamp() + lease * interval '1 second'
         from unnest({}) as row (saga_id, step, direction, type, message_id, status, outcome,
                                 command, traceparent, claimed_by, lease)",
        parameters.join(", ")
    )
}

/// Binds the records to [`insert_statement`].
pub(crate) fn bind(query: PgQuery, records: &[&Record]) -> PgQuery {
    let open = |pick: fn(&Open) -> Option<&str>| {
        records.iter().map(|record| record.open.as_ref().and_then(pick)).collect::<Vec<_>>()
    };
    let lease = |record: &&Record| record.open.as_ref().map(|open| open.claimed_for_seconds);
    query
        .bind(records.iter().map(|record| record.key.saga_id).collect::<Vec<_>>())
        .bind(records.iter().map(|record| record.key.step.as_str()).collect::<Vec<_>>())
        .bind(records.iter().map(|record| record.key.direction.as_str()).collect::<Vec<_>>())
        .bind(records.iter().map(|record| record.kind).collect::<Vec<_>>())
        .bind(records.iter().map(|record| record.message_id).collect::<Vec<_>>())
        .bind(records.iter().map(|record| record.status.as_str()).collect::<Vec<_>>())
        .bind(records.iter().map(|record| outcome(record)).collect::<Vec<_>>())
        .bind(
            records
                .iter()
                .map(|record| record.open.as_ref().map(|o| o.command.as_slice()))
                .collect::<Vec<_>>(),
        )
        .bind(open(|open| open.traceparent.as_deref()))
        .bind(open(|open| open.claimed_by.as_deref()))
        .bind(records.iter().map(lease).collect::<Vec<_>>())
}

fn outcome(record: &Record) -> Option<&str> {
    record.outcome.as_deref().map(RawValue::get)
}

/// Writes the outcomes of those steps that are pending. How many were.
pub(crate) async fn resolve(db: &mut PgConnection, records: &[Record]) -> Result<u64, sqlx::Error> {
    let resolved = sqlx::query(
        "update step_outcome o
         set status = row.status, outcome = row.outcome::jsonb, command = null, claimed_by = null,
             claimed_until = null, recorded_at = now()
         from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[])
              as row (saga_id, step, direction, status, outcome)
         where o.saga_id = row.saga_id and o.step = row.step and o.direction = row.direction
           and o.status = 'pending'",
    )
    .bind(records.iter().map(|record| record.key.saga_id).collect::<Vec<_>>())
    .bind(records.iter().map(|record| record.key.step.as_str()).collect::<Vec<_>>())
    .bind(records.iter().map(|record| record.key.direction.as_str()).collect::<Vec<_>>())
    .bind(records.iter().map(|record| record.status.as_str()).collect::<Vec<_>>())
    .bind(records.iter().map(outcome).collect::<Vec<_>>())
    .execute(db)
    .await?;
    Ok(resolved.rows_affected())
}

/// Lets the open steps rest: after `seconds`, twice as long each time, but after `least` seconds at the soonest, anybody
/// may take them up again. How often each has been tried; steps that are not open any more are left out.
pub(crate) async fn try_later(
    db: &mut PgConnection,
    steps: &[&StepKey],
    seconds: f64,
    least: f64,
) -> Result<Vec<(StepKey, u32)>, sqlx::Error> {
    let (sagas, names, directions) = columns(steps);
    let tried: Vec<(Uuid, String, String, i32)> = sqlx::query_as(
        "update step_outcome o
         set attempts = attempts + 1, claimed_by = null,
             claimed_until = clock_timestamp()
                 + greatest(least($4 * power(2, least(attempts, 10)), 30), $5) * interval '1 second'
         from unnest($1::uuid[], $2::text[], $3::text[]) as row (saga_id, step, direction)
         where o.saga_id = row.saga_id and o.step = row.step and o.direction = row.direction
           and o.status = 'pending'
         returning o.saga_id, o.step, o.direction, o.attempts",
    )
    .bind(sagas)
    .bind(names)
    .bind(directions)
    .bind(seconds)
    .bind(least)
    .fetch_all(db)
    .await?;
    let tried = tried.into_iter();
    Ok(tried
        .map(|(saga, step, direction, tries)| (key(saga, step, &direction), tries.unsigned_abs()))
        .collect())
}

/// Gives open steps back that were not tried; each may be taken up after so many seconds. A little chance is added, so
/// that it is not always the same step that is tried first.
pub(crate) async fn put_off(
    db: &mut PgConnection,
    steps: &[&StepKey],
    seconds: &[f64],
) -> Result<(), sqlx::Error> {
    let (sagas, names, directions) = columns(steps);
    sqlx::query(
        "update step_outcome o
         set claimed_by = null,
             claimed_until = clock_timestamp() + row.seconds * (1 + random() / 10) * interval '1 second'
         from unnest($1::uuid[], $2::text[], $3::text[], $4::float8[]) as row (saga_id, step, direction, seconds)
         where o.saga_id = row.saga_id and o.step = row.step and o.direction = row.direction
           and o.status = 'pending'",
    )
    .bind(sagas)
    .bind(names)
    .bind(directions)
    .bind(seconds)
    .execute(db)
    .await?;
    Ok(())
}

/// Lets open steps be taken up after so many seconds, unless somebody has a claim on them, or it is sooner anyway.
pub(crate) async fn hurry(db: &mut PgConnection, steps: &[StepKey], seconds: f64) -> Result<(), sqlx::Error> {
    let (sagas, names, directions) = columns(steps);
    sqlx::query(
        "update step_outcome o set claimed_until = clock_timestamp() + $4 * interval '1 second'
         from unnest($1::uuid[], $2::text[], $3::text[]) as row (saga_id, step, direction)
         where o.saga_id = row.saga_id and o.step = row.step and o.direction = row.direction
           and o.status = 'pending' and o.claimed_by is null
           and o.claimed_until > clock_timestamp() + $4 * interval '1 second'",
    )
    .bind(sagas)
    .bind(names)
    .bind(directions)
    .bind(seconds)
    .execute(db)
    .await?;
    Ok(())
}

/// An open step that is taken up again.
#[derive(FromRow)]
pub(crate) struct Reclaimed {
    pub saga_id: Uuid,
    pub step: String,
    direction: String,
    pub message_id: Uuid,
    pub command: Vec<u8>,
    pub traceparent: Option<String>,
}

impl Reclaimed {
    pub(crate) fn key(&self) -> StepKey {
        key(self.saga_id, self.step.clone(), &self.direction)
    }
}

/// Gives up this instance's claims on open steps of a type, which it had before it was started again.
pub(crate) async fn release(db: &mut PgConnection, kind: &str, claimed_by: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update step_outcome set claimed_by = null, claimed_until = clock_timestamp()
         where claimed_until is not null and status = 'pending' and type = $1 and claimed_by = $2",
    )
    .bind(kind)
    .bind(claimed_by)
    .execute(db)
    .await?;
    Ok(())
}

/// Takes up open steps of a type that nobody has a claim on any more.
pub(crate) async fn claim_open(
    db: &mut PgConnection,
    kind: &str,
    claimed_by: &str,
    seconds: f64,
    limit: i64,
) -> Result<Vec<Reclaimed>, sqlx::Error> {
    sqlx::query_as(
        "update step_outcome o
         set claimed_by = $2, claimed_until = clock_timestamp() + $3 * interval '1 second'
         from (select saga_id, step, direction from step_outcome
               where claimed_until is not null and status = 'pending' and type = $1
                 and claimed_until < clock_timestamp()
               order by claimed_until limit $4 for update skip locked) as open
         where o.saga_id = open.saga_id and o.step = open.step and o.direction = open.direction
         returning o.saga_id, o.step, o.direction, o.message_id, o.command, o.traceparent",
    )
    .bind(kind)
    .bind(claimed_by)
    .bind(seconds)
    .bind(limit)
    .fetch_all(db)
    .await
}
