//! How much is on its way, for a service that refuses new work before it drowns.

use sqlx::PgConnection;

/// Has the rest of the transaction read by index. What waits is the newest of a large table whose statistics are old:
/// left to itself, the planner would sooner or later read all of the table to find it.
///
/// # Errors
/// If the database does not answer.
pub async fn read_by_index(db: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query(
        "select set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true)",
    )
    .execute(db)
    .await?;
    Ok(())
}

/// About how many rows of the outbox are not on Kafka yet, counted no further than `most`. Rows that were sent since
/// the checkpoint was saved, within 100 ms, count too. Call [`read_by_index`] before.
///
/// # Errors
/// If the database does not answer.
pub async fn unsent(db: &mut PgConnection, most: i64) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "select count(*)
         from (select from relay_checkpoint c, lateral (
                   select from outbox o
                   where c.upto is null and o.shard = c.shard and o.xid >= pg_snapshot_xmax(c.seen)
                   union all
                   select from outbox o
                   where c.upto is null and o.shard = c.shard and o.xid = any (array (select pg_snapshot_xip(c.seen)))
                   union all
                   select from outbox o
                   where c.upto is not null and o.shard = c.shard and o.position > c.position) as unsent
               limit $1) as counted",
    )
    .bind(most)
    .fetch_one(db)
    .await
}
