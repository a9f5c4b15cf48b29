//! The inbox: a message takes effect only in the transaction that claims its id. A handler that detects a repetition
//! by its own data needs no claim; see [`crate::router::BatchHandler::is_idempotent`].
//! The pattern is "Idempotent consumer" by Chris Richardson.

use std::collections::HashSet;

use sqlx::types::Json;
use sqlx::{AssertSqlSafe, FromRow, PgConnection};
use uuid::Uuid;

use crate::step_outcome::{self, StepKey};

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

/// The answer of the database to a [`ClaimRequest`].
#[derive(FromRow)]
pub(crate) struct ClaimAnswer {
    pub new: Vec<Uuid>,
    pub parked: Vec<String>,
    pub resolved: Vec<Uuid>,
    pub outcomes: Option<Json<Vec<step_outcome::OutcomeRow>>>,
}

/// Claims message ids, finds the parked keys, and looks up outcomes of steps. The caller already holds the locks of
/// the keys. An earlier statement took them, because this one must see the commits of their former holders.
pub(crate) async fn claim(
    db: &mut PgConnection,
    keys: &[String],
    request: &ClaimRequest<'_>,
) -> Result<ClaimAnswer, sqlx::Error> {
    // Most batches have nothing to claim or no steps. The statement leaves out the part that is not needed.
    let claiming = match request.ids {
        [] => "with claimed as (select null::uuid as message_id where $2::uuid[] is null)",
        _ => {
            "with claimed as (
                 insert into inbox (message_id) select * from unnest($2::uuid[])
                 on conflict do nothing returning message_id)"
        }
    };
    let outcomes = match request.steps {
        [] => "(select null::json where $4::uuid[] is null and $5::text[] is null and $6::text[] is null)",
        _ => {
            "(select json_agg(found)
              from (select saga_id, step, direction, message_id, status, outcome::text
                    from unnest($4::uuid[], $5::text[], $6::text[]) as asked (saga_id, step, direction)
                    join step_outcome using (saga_id, step, direction)) as found)"
        }
    };
    let statement = format!(
        "{claiming}
         select array(select message_id from claimed) as new,
                array(select distinct key from parked where status = 'parked' and key = any($1)) as parked,
                array(select message_id from parked where status <> 'parked' and message_id = any($3)) as resolved,
                {outcomes} as outcomes"
    );
    let mut ids = request.ids.to_vec();
    ids.sort_unstable();
    let (sagas, names, directions) = step_outcome::columns(request.steps);
    sqlx::query_as(AssertSqlSafe(statement))
        .bind(keys)
        .bind(ids)
        .bind(request.unclaimed)
        .bind(sagas)
        .bind(names)
        .bind(directions)
        .fetch_one(db)
        .await
}

/// Claims one id outside a batch. Returns whether the id was new.
pub(crate) async fn claim_one(db: &mut PgConnection, id: Uuid) -> Result<bool, sqlx::Error> {
    let claimed = sqlx::query("insert into inbox (message_id) values ($1) on conflict do nothing")
        .bind(id)
        .execute(db)
        .await?;
    Ok(claimed.rows_affected() == 1)
}
