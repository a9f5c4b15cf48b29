//! All SQL statements about step outcomes.

use std::borrow::Borrow;

use serde::Deserialize;
use serde_json::value::RawValue;
use sqlx::PgConnection;
use uuid::Uuid;

use super::StepKey;
use crate::db::Parameters;
use crate::envelope::Direction;

/// The status of a step at its participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// The call to the external dependency is under way.
    Pending,
    Done,
    Refused,
    /// The step was undone before it began, so it must not begin any more.
    Tombstoned,
}

impl Status {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Tombstoned => "tombstoned",
        }
    }

    fn parse(text: &str) -> Self {
        match text {
            "pending" => Self::Pending,
            "done" => Self::Done,
            "refused" => Self::Refused,
            _ => Self::Tombstoned,
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
    /// For a pending step: the command and the trace, so that the call can be resumed.
    pub open: Option<OpenCall>,
}

/// The data for resuming an interrupted external call.
#[derive(Debug)]
pub(crate) struct OpenCall {
    pub command: Vec<u8>,
    pub traceparent: Option<String>,
    /// The replica that makes the call; `None` if any replica may resume it.
    pub claimed_by: Option<String>,
    pub claimed_for_seconds: f64,
}

impl Record {
    /// Creates a record of a step. The message `message_id` of the type `kind` caused it.
    pub(crate) fn new(
        key: StepKey,
        kind: &'static str,
        message_id: Uuid,
        status: Status,
        outcome: Option<Box<RawValue>>,
    ) -> Self {
        Self { key, kind, message_id, status, outcome, open: None }
    }
}

crate::row! {
    /// A recorded outcome as a query returns it.
    #[derive(Deserialize)]
    pub(crate) struct OutcomeRow {
        saga_id: Uuid,
        step: String,
        direction: String,
        message_id: Uuid,
        status: String,
        /// The outcome is text, because a JSON `null` is an outcome too.
        outcome: Option<String>,
    }
}

impl From<OutcomeRow> for Record {
    fn from(row: OutcomeRow) -> Self {
        Self {
            key: key(row.saga_id, row.step, &row.direction),
            kind: "",
            message_id: row.message_id,
            status: Status::parse(&row.status),
            // The text comes from a JSON column, so it is valid JSON.
            outcome: row.outcome.and_then(|outcome| RawValue::from_string(outcome).ok()),
            open: None,
        }
    }
}

/// Returns the keys as one array per column.
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

pub(crate) fn key(saga_id: Uuid, step: String, direction: &str) -> StepKey {
    let direction = if direction == "undo" { Direction::Undo } else { Direction::Do };
    StepKey { saga_id, step, direction }
}

/// Returns the recorded outcomes of these steps.
pub(crate) async fn find(db: &mut PgConnection, steps: &[StepKey]) -> Result<Vec<Record>, sqlx::Error> {
    let (sagas, names, directions) = columns(steps);
    let found: Vec<OutcomeRow> = sqlx::query_as(
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

/// Records outcomes of steps that have none. The caller holds the locks of the steps' subjects.
pub(crate) const INSERT: &str = "insert into step_outcome (saga_id, step, direction, type, message_id, status, outcome,
                               command, traceparent, claimed_by, claimed_until)
     select saga_id, step, direction, type, message_id, status, outcome::jsonb,
            command, traceparent, claimed_by, clock_timestamp() + lease * interval '1 second'
     from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::uuid[], $6::text[], $7::text[], $8::bytea[],
                 $9::text[], $10::text[], $11::float8[])
          as row (saga_id, step, direction, type, message_id, status, outcome, command, traceparent, claimed_by, lease)";

/// Binds the records to [`INSERT`].
pub(crate) fn bind(parameters: &mut Parameters, records: &[&Record]) {
    let open = |pick: fn(&OpenCall) -> Option<&str>| {
        records.iter().map(|record| record.open.as_ref().and_then(pick)).collect::<Vec<_>>()
    };
    let lease = |record: &&Record| record.open.as_ref().map(|open| open.claimed_for_seconds);
    parameters
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
        .bind(records.iter().map(lease).collect::<Vec<_>>());
}

pub(crate) fn outcome(record: &Record) -> Option<&str> {
    record.outcome.as_deref().map(RawValue::get)
}
