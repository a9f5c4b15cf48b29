//! Which rows of the outbox the broker has not acknowledged: the most delicate rule of the system, and the only place that
//! has it.
//!
//! A position is drawn before its transaction commits, so a cursor on positions would skip rows that commit late. The
//! checkpoint of a shard therefore has snapshots. Everything that is visible in `acked_snapshot` is on Kafka. If
//! `window_snapshot` is set, so is what that one shows beyond it, up to `position`.

use std::sync::LazyLock;

use sqlx::PgConnection;

/// SQL: whether the row `o` of the outbox is on Kafka, by the checkpoint `c` of its shard.
pub(crate) const IS_SENT: &str = "(pg_visible_in_snapshot(o.xid, c.acked_snapshot)
     or (c.window_snapshot is not null and pg_visible_in_snapshot(o.xid, c.window_snapshot)
         and o.position <= c.position))";

/// SQL: these columns of a shard's rows that a snapshot does not show, at most `limit` of each half.
///
/// It is two index scans: the planner serves an `or` by reading the whole outbox. Every id in xip is below xmax, so the
/// halves do not overlap; in one statement they are read in one snapshot. The subselects make the snapshot a snapshot once,
/// not once per row.
pub(crate) fn not_shown_by(snapshot: &str, shard: &str, columns: &str, limit: &str) -> String {
    format!(
        "((select {columns} from outbox
           where shard = {shard} and xid >= (select pg_snapshot_xmax({snapshot})) limit {limit})
          union all
          (select {columns} from outbox
           where shard = {shard} and xid = any (array (select pg_snapshot_xip({snapshot}))) limit {limit}))"
    )
}

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

/// Returns about how many rows of the outbox are not on Kafka yet, counted no further than `limit`. Rows that were sent since
/// the checkpoint was saved, within 100 ms, count too. Call [`read_by_index`] before.
///
/// # Errors
/// If the database does not answer.
pub async fn count_unsent(db: &mut PgConnection, limit: i64) -> Result<i64, sqlx::Error> {
    static COUNT: LazyLock<String> = LazyLock::new(|| {
        format!(
            "select count(*)
             from (select from relay_checkpoint c, lateral (
                       select from {} as unseen where c.window_snapshot is null
                       union all
                       select from outbox o
                       where c.window_snapshot is not null and o.shard = c.shard and o.position > c.position) as unsent
                   limit $1) as counted",
            not_shown_by("c.acked_snapshot", "c.shard", "1", "$1")
        )
    });
    sqlx::query_scalar(COUNT.as_str()).bind(limit).fetch_one(db).await
}
