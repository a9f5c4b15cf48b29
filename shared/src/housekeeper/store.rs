//! The SQL statements of the housekeeper.

use std::time::Duration;

use sqlx::PgConnection;
use time::{Date, OffsetDateTime};

use super::BATCH;
use crate::retention::floor;

/// Tries to take the housekeeping lock until the end of the transaction. Returns whether this replica has it.
pub(super) async fn try_lock(db: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("select pg_try_advisory_xact_lock(hashtext(current_schema()), hashtext('retention'))")
        .fetch_one(db)
        .await
}

/// Returns the days, up to three ahead, that have no partition yet. Today and a day that is about to begin are
/// excluded. Attaching their partition would break claims that are on their way to the default partition, so their
/// ids stay there.
pub(super) async fn missing_days(db: &mut PgConnection) -> Result<Vec<Date>, sqlx::Error> {
    sqlx::query_scalar(
        "select day::date
         from generate_series(((now() + interval '1 hour') at time zone 'UTC')::date + 1,
                              (now() at time zone 'UTC')::date + 3, interval '1 day') as day
         where to_regclass('inbox_' || to_char(day, 'YYYYMMDD')) is null",
    )
    .fetch_all(db)
    .await
}

/// Returns the days whose ids are all older than `retention`.
pub(super) async fn days_over(db: &mut PgConnection, retention: Duration) -> Result<Vec<Date>, sqlx::Error> {
    sqlx::query_scalar(
        "select day from (select to_date(right(relname, 8), 'YYYYMMDD') as day
                          from pg_inherits join pg_class on oid = inhrelid
                          where inhparent = 'inbox'::regclass and relname ~ '^inbox_[0-9]{8}$') as partition
         where (day + 1)::timestamp at time zone 'UTC' < now() - $1 * interval '1 second'
         order by day",
    )
    .bind(retention.as_secs_f64())
    .fetch_all(db)
    .await
}

/// Creates a day's partition.
pub(super) async fn add_day(db: &mut PgConnection, day: Date) -> Result<(), sqlx::Error> {
    wait_briefly(db).await?;
    sqlx::query("select inbox_add_day($1)").bind(day).execute(db).await?;
    Ok(())
}

/// Drops a day's partition. Every claim waits for this lock, but only briefly.
pub(super) async fn drop_day(db: &mut PgConnection, day: Date) -> Result<(), sqlx::Error> {
    wait_briefly(db).await?;
    sqlx::query("select inbox_drop_day($1)").bind(day).execute(db).await?;
    Ok(())
}

/// Limits the wait for locks. While this transaction waits for a table, all others wait behind it.
async fn wait_briefly(db: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("set local lock_timeout = '100ms'").execute(db).await?;
    Ok(())
}

/// Returns the number of partitions of the inbox, including the default one.
pub(super) async fn count_partitions(db: &mut PgConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("select count(*) from pg_inherits where inhparent = 'inbox'::regclass")
        .fetch_one(db)
        .await
}

/// Deletes ids outside the daily partitions that arrived longer ago than `retention`. Returns the number of deleted
/// rows.
pub(super) async fn delete_others(db: &mut PgConnection, retention: Duration) -> Result<u64, sqlx::Error> {
    let deleted = sqlx::query(
        "delete from inbox_other
         where message_id = any (array (select message_id from inbox_other
                                        where received_at < now() - $1 * interval '1 second' limit $2))",
    )
    .bind(retention.as_secs_f64())
    .bind(BATCH)
    .execute(db)
    .await?;
    Ok(deleted.rows_affected())
}

/// Deletes notices of deleted records that are older than `retention`. Returns the number of deleted rows.
pub(super) async fn delete_gaps(db: &mut PgConnection, retention: Duration) -> Result<u64, sqlx::Error> {
    let deleted = sqlx::query("delete from record_gap where noticed_at < now() - $1 * interval '1 second'")
        .bind(retention.as_secs_f64())
        .execute(db)
        .await?;
    Ok(deleted.rows_affected())
}

/// Deletes outcomes of steps whose saga began, and that were recorded, longer ago than `retention`. Open steps stay, and so
/// do refused ones whose call the dependency still has to withdraw.
/// Returns the number of deleted rows.
pub(super) async fn delete_steps(db: &mut PgConnection, retention: Duration) -> Result<u64, sqlx::Error> {
    let now: OffsetDateTime = sqlx::query_scalar("select now()").fetch_one(&mut *db).await?;
    // Saga ids are UUIDv7 and come first in the primary key. The statement reads the old end of that index and needs
    // no index on the time.
    let deleted = sqlx::query(
        "delete from step_outcome
         where ctid = any (array (select ctid from step_outcome
                                  where saga_id < $1 and status <> 'pending' and claimed_until is null
                                    and recorded_at < now() - $2 * interval '1 second'
                                  order by saga_id limit $3 for update skip locked))",
    )
    .bind(floor(now, retention))
    .bind(retention.as_secs_f64())
    .bind(BATCH)
    .execute(db)
    .await?;
    Ok(deleted.rows_affected())
}
