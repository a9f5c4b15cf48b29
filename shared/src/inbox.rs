//! The inbox: a message takes effect in the transaction that claims its id, and in no other. A handler that notices a
//! repetition by what it has written itself may do without ([`crate::router::BatchHandler::is_idempotent`]).
//! (The pattern: Chris Richardson, "Idempotent consumer".)

use std::collections::HashSet;

use sqlx::types::Json;
use sqlx::{AssertSqlSafe, FromRow, PgConnection};
use uuid::Uuid;

use crate::step_outcome::{self, StepKey};

/// What a batch of messages wants to know before it is handled.
pub(crate) struct Asked<'a> {
    /// The ids that the inbox is to remember.
    pub ids: &'a [Uuid],
    /// Those that it is not, because their handler notices a repetition by itself.
    pub others: &'a [Uuid],
    /// The steps of which an outcome may be on record.
    pub steps: &'a [StepKey],
}

/// What of a batch is to be handled.
pub(crate) struct Claims {
    /// Ids that had no effect yet, and have it now or never.
    pub new: HashSet<Uuid>,
    /// Keys that wait for an operator.
    pub parked: HashSet<String>,
    /// Those of the other ids that were parked once, and replayed or skipped since.
    pub resolved: HashSet<Uuid>,
}

/// What the database knows about the batch.
#[derive(FromRow)]
pub(crate) struct Answer {
    pub new: Vec<Uuid>,
    pub parked: Vec<String>,
    pub resolved: Vec<Uuid>,
    pub outcomes: Option<Json<Vec<step_outcome::Found>>>,
}

/// Claims message ids, says which of the keys are parked, and looks up outcomes of steps. The caller holds the keys'
/// locks; they are taken by an earlier statement, because this one must see what their former holders have committed.
pub(crate) async fn claim(
    db: &mut PgConnection,
    keys: &[String],
    asked: &Asked<'_>,
) -> Result<Answer, sqlx::Error> {
    // Most batches have nothing to claim or no steps, and then need not pay for the other half.
    let claiming = match asked.ids {
        [] => "with claimed as (select null::uuid as message_id where $2::uuid[] is null)",
        _ => {
            "with claimed as (
                 insert into inbox (message_id) select * from unnest($2::uuid[])
                 on conflict do nothing returning message_id)"
        }
    };
    let outcomes = match asked.steps {
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
    let mut ids = asked.ids.to_vec();
    ids.sort_unstable();
    let (sagas, names, directions) = step_outcome::columns(asked.steps);
    sqlx::query_as(AssertSqlSafe(statement))
        .bind(keys)
        .bind(ids)
        .bind(asked.others)
        .bind(sagas)
        .bind(names)
        .bind(directions)
        .fetch_one(db)
        .await
}

/// Claims one id outside a batch. Returns whether it was free.
pub(crate) async fn claim_one(db: &mut PgConnection, id: Uuid) -> Result<bool, sqlx::Error> {
    let claimed = sqlx::query("insert into inbox (message_id) values ($1) on conflict do nothing")
        .bind(id)
        .execute(db)
        .await?;
    Ok(claimed.rows_affected() == 1)
}
