//! The inbox: a message takes effect only in the transaction that claims its id. A handler that detects a repetition
//! by its own data needs no claim; see [`crate::router::BatchHandler::is_idempotent`].
//! The pattern is "Idempotent consumer" by Chris Richardson.

use std::collections::HashSet;
use std::fmt::Display;

use serde::Deserialize;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::db::{Db, Tx, from_micros, quote_literal};
use crate::step_outcome::{self, OutcomeRow, StepKey};

/// The questions of a batch to the database, asked before the batch is handled.
pub(crate) struct ClaimRequest<'a> {
    /// Ids that the inbox must remember.
    pub ids: &'a [Uuid],
    /// Ids that the inbox need not remember, because their handler is idempotent.
    pub unclaimed: &'a [Uuid],
    /// Steps that may have a recorded outcome.
    pub steps: &'a [StepKey],
}

/// The state of a batch before it is handled.
pub(crate) struct Claims {
    /// Ids that had no effect before. This transaction now holds their claim.
    pub new: HashSet<Uuid>,
    /// Keys that wait for an operator.
    pub parked: HashSet<String>,
    /// Ids without a claim that were parked once and are resolved since.
    pub resolved: HashSet<Uuid>,
}

/// The answer of `claim_batch`, as JSON.
#[derive(Deserialize)]
struct ClaimAnswer {
    /// The start of the transaction, in microseconds since 1970.
    now: i64,
    new: Option<HashSet<Uuid>>,
    parked: Option<HashSet<String>>,
    resolved: Option<HashSet<Uuid>>,
    outcomes: Option<Vec<OutcomeRow>>,
}

/// Begins the transaction of a batch, in one round trip: takes the locks, claims message ids, finds the parked keys, and
/// looks up outcomes of steps. `locks` must be sorted, so that two batches cannot deadlock.
pub(crate) async fn begin(
    db: &Db,
    locks: &[i64],
    keys: &[String],
    request: &ClaimRequest<'_>,
) -> Result<(Tx, OffsetDateTime, Claims, Vec<OutcomeRow>), sqlx::Error> {
    let mut ids = request.ids.to_vec();
    ids.sort_unstable();
    let (sagas, steps, directions) = step_outcome::columns(request.steps);
    let arguments = [
        array(locks),
        array(keys),
        array(&ids),
        array(request.unclaimed),
        array(&sagas),
        array(&steps),
        array(&directions),
    ];
    let begin = format!("begin read write; select claim_batch({})::text", arguments.join(", "));
    let (tx, answer): (_, String) = Tx::begin_with(db, begin).await?;
    let answer: ClaimAnswer =
        serde_json::from_str(&answer).map_err(|error| sqlx::Error::Decode(error.into()))?;
    let claims = Claims {
        new: answer.new.unwrap_or_default(),
        parked: answer.parked.unwrap_or_default(),
        resolved: answer.resolved.unwrap_or_default(),
    };
    Ok((tx, from_micros(answer.now)?, claims, answer.outcomes.unwrap_or_default()))
}

/// Returns an array as an SQL literal. The statement that begins a transaction cannot have parameters, because
/// PostgreSQL takes only one statement with parameters at a time.
fn array<T: Display>(items: &[T]) -> String {
    let mut array = String::from("{");
    for (index, item) in items.iter().enumerate() {
        array.push_str(if index == 0 { "\"" } else { ",\"" });
        array.push_str(&item.to_string().replace('\\', "\\\\").replace('"', "\\\""));
        array.push('"');
    }
    array.push('}');
    quote_literal(&array)
}

/// Claims one id outside a batch. Returns whether the id was new.
pub(crate) async fn claim_one(db: &mut PgConnection, id: Uuid) -> Result<bool, sqlx::Error> {
    let claimed = sqlx::query("insert into inbox (message_id) values ($1) on conflict do nothing")
        .bind(id)
        .execute(db)
        .await?;
    Ok(claimed.rows_affected() == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_holds_any_text() {
        assert_eq!(array::<&str>(&[]), "'{}'");
        assert_eq!(array(&[1, -2]), r#"'{"1","-2"}'"#);
        assert_eq!(array(&[r#"it's "a" \ key, {really}"#]), r#"'{"it''s \"a\" \\ key, {really}"}'"#);
    }
}
