//! All SQL statements about open steps: external calls without a recorded outcome, and those that were given up and whose
//! withdrawal the dependency has not answered. Both have a claim, which may have expired. Other steps have none.

use std::collections::{HashMap, HashSet};

use sqlx::types::Json;
use sqlx::{AssertSqlSafe, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::cloudevents;
use crate::db::{NOW, from_micros};
use crate::envelope::{Cause, Command, Envelope};
use crate::saga::participant::Task;
use crate::step_outcome::{OutcomeRow, Record, Status, StepKey, columns, key, outcome};

/// What is on record about some messages, their keys and their steps.
pub(super) struct Known {
    pub now: OffsetDateTime,
    pub parked: HashSet<String>,
    /// Messages that were parked once and are resolved since.
    pub resolved: HashSet<Uuid>,
    pub outcomes: HashMap<StepKey, Status>,
}

/// Looks up the outcomes of steps, which of the keys are parked, and which of the messages an operator has resolved.
pub(super) async fn look_up(
    db: &mut PgConnection,
    keys: &[&str],
    messages: &[Uuid],
    steps: &[StepKey],
) -> Result<Known, sqlx::Error> {
    let (sagas, names, directions) = columns(steps);
    let look_up = format!(
        "select {NOW}, array(select distinct key from parked where status = 'parked' and key = any($1)),
                array(select message_id from parked where status <> 'parked' and message_id = any($5)),
                (select json_agg(found)
                 from (select saga_id, step, direction, message_id, status, null as outcome
                       from unnest($2::uuid[], $3::text[], $4::text[]) as asked (saga_id, step, direction)
                       join step_outcome using (saga_id, step, direction)) as found)"
    );
    type Found = (i64, Vec<String>, Vec<Uuid>, Option<Json<Vec<OutcomeRow>>>);
    let (now, parked, resolved, outcomes): Found = sqlx::query_as(AssertSqlSafe(look_up))
        .bind(keys)
        .bind(sagas)
        .bind(names)
        .bind(directions)
        .bind(messages)
        .fetch_one(db)
        .await?;
    let outcomes = outcomes.map_or_else(Vec::new, |Json(outcomes)| outcomes);
    let outcomes = outcomes.into_iter().map(Record::from).map(|record| (record.key, record.status));
    let (parked, resolved) = (parked.into_iter().collect(), resolved.into_iter().collect());
    Ok(Known { now: from_micros(now)?, parked, resolved, outcomes: outcomes.collect() })
}

/// Records the outcomes of the steps that are pending. Returns the number of recorded outcomes.
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

/// Schedules open steps for another call. The wait is `seconds`, doubled with each attempt, but at least `min_seconds`
/// seconds. Then any replica may claim them. Returns the number of attempts of each step that waits for its outcome.
pub(crate) async fn reschedule(
    db: &mut PgConnection,
    steps: &[&StepKey],
    seconds: f64,
    min_seconds: f64,
) -> Result<Vec<(StepKey, u32)>, sqlx::Error> {
    let (sagas, names, directions) = columns(steps);
    let tried: Vec<(Uuid, String, String, i32, bool)> = sqlx::query_as(
        "update step_outcome o
         set attempts = attempts + 1, claimed_by = null,
             claimed_until = clock_timestamp()
                 + greatest(least($4 * power(2, least(attempts, 10)), 30), $5) * interval '1 second'
         from unnest($1::uuid[], $2::text[], $3::text[]) as row (saga_id, step, direction)
         where o.saga_id = row.saga_id and o.step = row.step and o.direction = row.direction
           and o.claimed_until is not null
         returning o.saga_id, o.step, o.direction, o.attempts, o.status = 'pending'",
    )
    .bind(sagas)
    .bind(names)
    .bind(directions)
    .bind(seconds)
    .bind(min_seconds)
    .fetch_all(db)
    .await?;
    let tried = tried.into_iter().filter(|(.., waits)| *waits);
    Ok(tried
        .map(|(saga, step, direction, attempts, _)| (key(saga, step, &direction), attempts.unsigned_abs()))
        .collect())
}

/// Releases open steps that were not called. Each may be claimed after its number of seconds. A small random part
/// varies the step that is tried first.
pub(crate) async fn defer(
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
           and o.claimed_until is not null",
    )
    .bind(sagas)
    .bind(names)
    .bind(directions)
    .bind(seconds)
    .execute(db)
    .await?;
    Ok(())
}

/// Makes open steps available after `seconds`, unless a process has claimed them or they are available earlier.
pub(crate) async fn expedite(
    db: &mut PgConnection,
    steps: &[StepKey],
    seconds: f64,
) -> Result<(), sqlx::Error> {
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

crate::row! {
    /// An open step that is resumed.
    #[derive(Debug)]
    pub(crate) struct Reclaimed {
        pub saga_id: Uuid,
        pub step: String,
        direction: String,
        /// The type of the command.
        pub kind: String = "type",
        pub message_id: Uuid,
        status: String,
        pub command: Vec<u8>,
        pub traceparent: Option<String>,
    }
}

pub(crate) const RECLAIMED: &str =
    "o.saga_id, o.step, o.direction, o.type, o.message_id, o.status, o.command, o.traceparent";

impl Reclaimed {
    pub(crate) fn key(&self) -> StepKey {
        key(self.saga_id, self.step.clone(), &self.direction)
    }

    /// Restores the task.
    pub(super) fn task<C: Command>(&self) -> Result<Task<C>, serde_json::Error> {
        let envelope: Envelope = cloudevents::envelope(&self.command)?;
        let cause = Cause {
            correlation_id: self.saga_id,
            causation_id: Some(self.message_id),
            traceparent: self.traceparent.clone(),
        };
        let command = serde_json::from_str(envelope.data.get())?;
        Ok(Task { command, subject: envelope.subject, cause, step: self.key() })
    }

    /// Returns whether the step has an outcome, and only the dependency has to withdraw what it may have done.
    pub(crate) fn is_given_up(&self) -> bool {
        self.status != Status::Pending.as_str()
    }
}

/// Releases the claims of this instance on open steps of a type, left from before its restart.
pub(crate) async fn release(db: &mut PgConnection, kind: &str, claimed_by: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update step_outcome set claimed_by = null, claimed_until = clock_timestamp()
         where claimed_until is not null and type = $1 and claimed_by = $2",
    )
    .bind(kind)
    .bind(claimed_by)
    .execute(db)
    .await?;
    Ok(())
}

/// Returns whether the claim of an open step of this type has expired.
pub(crate) async fn is_any_due(db: &mut PgConnection, kind: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "select exists (select from step_outcome
                        where claimed_until is not null and type = $1 and claimed_until < clock_timestamp())",
    )
    .bind(kind)
    .fetch_one(db)
    .await
}

/// Claims open steps of a type whose claims have expired. Those that were never called come first: when a circuit admits one
/// call as a trial, a step that is never answered must not be the one, or it would hold up all others.
pub(crate) async fn claim_open(
    db: &mut PgConnection,
    kind: &str,
    claimed_by: &str,
    seconds: f64,
    limit: i64,
) -> Result<Vec<Reclaimed>, sqlx::Error> {
    let claim = format!(
        "update step_outcome o
         set claimed_by = $2, claimed_until = clock_timestamp() + $3 * interval '1 second'
         from (select saga_id, step, direction from step_outcome
               where claimed_until is not null and type = $1 and claimed_until < clock_timestamp()
               order by attempts > 0, claimed_until limit $4 for update skip locked) as open
         where o.saga_id = open.saga_id and o.step = open.step and o.direction = open.direction
         returning {RECLAIMED}"
    );
    sqlx::query_as(AssertSqlSafe(claim))
        .bind(kind)
        .bind(claimed_by)
        .bind(seconds)
        .bind(limit)
        .fetch_all(db)
        .await
}
