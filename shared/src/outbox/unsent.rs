//! Finds the outbox rows that the broker has not acknowledged. This rule is the most delicate one of the system, and
//! only this module contains it.
//!
//! A position is drawn before its transaction commits, so a cursor on positions would skip rows that commit late. The
//! checkpoint of a shard therefore consists of snapshots. All rows visible in `acked_snapshot` are on Kafka. If
//! `window_snapshot` is set, the rows visible in it up to `position` are on Kafka too.

use std::sync::LazyLock;

use sqlx::PgConnection;

/// SQL that is true if the row `o` of the outbox is on Kafka, by the checkpoint `c` of its shard.
pub(crate) const IS_SENT: &str = "(pg_visible_in_snapshot(o.xid, c.acked_snapshot)
     or (c.window_snapshot is not null and pg_visible_in_snapshot(o.xid, c.window_snapshot)
         and o.position <= c.position))";

/// Returns SQL for these columns of a shard's rows that are invisible in a snapshot, at most `limit` rows per half.
///
/// It is a union of two index scans, because the planner serves an `or` by reading the whole outbox. Every id in xip
/// is below xmax, so the halves do not overlap. As one statement they use one snapshot. The subselects evaluate the
/// snapshot once and not once per row.
pub(crate) fn not_shown_by(snapshot: &str, shard: &str, columns: &str, limit: &str) -> String {
    let begun_after = begun_after(snapshot, shard, columns, limit);
    format!(
        "({begun_after}
          union all
          (select {columns} from outbox
           where shard = {shard} and xid = any (array (select pg_snapshot_xip({snapshot}))) limit {limit}))"
    )
}

/// Returns SQL for these columns of a shard's rows whose transactions began after a snapshot, at most `limit` rows. If no
/// transaction was in progress in the snapshot, these are all that it does not show.
pub(crate) fn begun_after(snapshot: &str, shard: &str, columns: &str, limit: &str) -> String {
    format!(
        "(select {columns} from outbox
          where shard = {shard} and xid >= (select pg_snapshot_xmax({snapshot})) limit {limit})"
    )
}

/// Makes the rest of the transaction read by index. Waiting rows are the newest of a large table with old statistics.
/// With default settings the planner would sooner or later read the whole table to find them.
///
/// # Errors
/// Fails if the database does not answer.
pub async fn read_by_index(db: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query(
        "select set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true)",
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Returns the approximate number of outbox rows that are not on Kafka yet, counted up to `limit`. Rows sent in the
/// second since the last checkpoint count too. Call [`read_by_index`] before it.
///
/// # Errors
/// Fails if the database does not answer.
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
