//! All SQL statements about the resolution of open steps, and about the withdrawal of their calls.

use sqlx::{AssertSqlSafe, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::cloudevents;
use crate::envelope::Envelope;
use crate::saga::external_call::store::{RECLAIMED, Reclaimed};
use crate::step_outcome::{Record, StepKey, columns, outcome};

crate::row! {
    /// A step at this participant, for operators.
    pub struct StepRow {
        /// The saga.
        pub saga_id: Uuid,
        /// The name of the step.
        pub step: String,
        /// `do` or `undo`.
        pub direction: String,
        /// The type of the command.
        pub kind: String = "type",
        /// `pending`, `done`, `refused` or `tombstoned`.
        pub status: String,
        /// The number of unanswered calls.
        pub attempts: i32,
        /// The time of the intent, or of the outcome.
        pub recorded_at: OffsetDateTime,
        /// The time from which on any replica may make the next call; `None` if no call is to be made.
        pub claimed_until: Option<OffsetDateTime>,
        command: Option<Vec<u8>>,
    }
}

const STEP: &str = "saga_id, step, direction, type, status, attempts, recorded_at, claimed_until, command";

impl StepRow {
    /// Returns the subject of the command, as long as a call is to be made for it.
    pub fn subject(&self) -> Option<String> {
        let envelope: Envelope = cloudevents::envelope(self.command.as_deref()?).ok()?;
        Some(envelope.subject)
    }
}

/// Returns the step, open or not.
pub(crate) async fn find_step(db: &mut PgConnection, step: &StepKey) -> Result<Option<StepRow>, sqlx::Error> {
    let find = format!("select {STEP} from step_outcome where saga_id = $1 and step = $2 and direction = $3");
    sqlx::query_as(AssertSqlSafe(find))
        .bind(step.saga_id)
        .bind(&step.step)
        .bind(step.direction.as_str())
        .fetch_optional(db)
        .await
}

/// Returns the steps of a saga at this participant.
///
/// # Errors
/// Fails if the database does not answer.
pub async fn find_steps(db: &mut PgConnection, saga: Uuid) -> Result<Vec<StepRow>, sqlx::Error> {
    let find =
        format!("select {STEP} from step_outcome where saga_id = $1 order by recorded_at, step, direction");
    sqlx::query_as(AssertSqlSafe(find)).bind(saga).fetch_all(db).await
}

/// Returns the steps for which a call is to be made, the longest open first. Returns at most `limit` steps.
///
/// # Errors
/// Fails if the database does not answer.
pub async fn list_open(db: &mut PgConnection, limit: i64) -> Result<Vec<StepRow>, sqlx::Error> {
    let list = format!(
        "select {STEP} from step_outcome where claimed_until is not null
         order by recorded_at, saga_id, step, direction limit $1"
    );
    sqlx::query_as(AssertSqlSafe(list)).bind(limit).fetch_all(db).await
}

/// Returns the step if it waits for its outcome.
pub(crate) async fn find_pending(
    db: &mut PgConnection,
    step: &StepKey,
) -> Result<Option<Reclaimed>, sqlx::Error> {
    let find = format!(
        "select {RECLAIMED} from step_outcome o
         where o.saga_id = $1 and o.step = $2 and o.direction = $3 and o.status = 'pending'"
    );
    sqlx::query_as(AssertSqlSafe(find))
        .bind(step.saga_id)
        .bind(&step.step)
        .bind(step.direction.as_str())
        .fetch_optional(db)
        .await
}

/// Returns pending steps of a type whose intent was recorded longer ago than `seconds`, the oldest first. Returns at most
/// `limit` steps.
pub(crate) async fn find_overdue(
    db: &mut PgConnection,
    kind: &str,
    seconds: f64,
    limit: i64,
) -> Result<Vec<Reclaimed>, sqlx::Error> {
    let find = format!(
        "select {RECLAIMED} from step_outcome o
         where o.claimed_until is not null and o.type = $1 and o.status = 'pending'
           and o.recorded_at < clock_timestamp() - $2 * interval '1 second'
         order by o.recorded_at limit $3"
    );
    sqlx::query_as(AssertSqlSafe(find)).bind(kind).bind(seconds).bind(limit).fetch_all(db).await
}

/// Records the outcome of a pending step, and that its call has to be withdrawn. The withdrawal waits until the claim of a
/// call that may be under way has expired. Returns the number of recorded outcomes.
pub(crate) async fn give_up(db: &mut PgConnection, record: &Record) -> Result<u64, sqlx::Error> {
    let given_up = sqlx::query(
        "update step_outcome
         set status = $4, outcome = $5::jsonb, attempts = 0, claimed_by = null,
             claimed_until = greatest(claimed_until, clock_timestamp()), recorded_at = now()
         where saga_id = $1 and step = $2 and direction = $3 and status = 'pending'",
    )
    .bind(record.key.saga_id)
    .bind(&record.key.step)
    .bind(record.key.direction.as_str())
    .bind(record.status.as_str())
    .bind(outcome(record))
    .execute(db)
    .await?;
    Ok(given_up.rows_affected())
}

/// Records that the dependency has withdrawn the calls of these steps.
pub(crate) async fn end_withdrawals(db: &mut PgConnection, steps: &[StepKey]) -> Result<(), sqlx::Error> {
    let (sagas, names, directions) = columns(steps);
    sqlx::query(
        "update step_outcome o
         set command = null, traceparent = null, claimed_by = null, claimed_until = null
         from unnest($1::uuid[], $2::text[], $3::text[]) as row (saga_id, step, direction)
         where o.saga_id = row.saga_id and o.step = row.step and o.direction = row.direction
           and o.status <> 'pending'",
    )
    .bind(sagas)
    .bind(names)
    .bind(directions)
    .execute(db)
    .await?;
    Ok(())
}
