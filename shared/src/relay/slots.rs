//! Emptying the outbox by truncation: writers use three slots in turn, a minute each, and a slot is truncated when
//! every relay is past all of its rows.

use sqlx::{Connection, PgConnection};
use tracing::debug;

use crate::fault::{Class, Classified};

/// Truncates the slot that will be written next, if it holds rows and all of them are on Kafka.
pub(super) async fn truncate_passed(db: &mut PgConnection) -> Result<(), sqlx::Error> {
    let next: i64 = sqlx::query_scalar("select (extract(epoch from now())::bigint / 60 + 1) % 3")
        .fetch_one(&mut *db)
        .await?;
    let slot = format!("outbox_{next}");
    match truncate(db, &slot).await {
        Err(error) if error.class() == Class::Retry && error.as_database_error().is_some() => {
            debug!(slot, %error, "the slot is in use; it is tried again later");
            Ok(())
        }
        other => other,
    }
}

async fn truncate(db: &mut PgConnection, slot: &str) -> Result<(), sqlx::Error> {
    let any: bool = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("select exists (select from {slot})")))
        .fetch_one(&mut *db)
        .await?;
    if !any {
        return Ok(());
    }
    #[expect(clippy::disallowed_methods, reason = "the relay's own connection, not the pool's")]
    let mut tx = db.begin().await?;
    // With the lock held no writer is inside the slot, so what is checked is all there is. Don't make writers wait.
    sqlx::query("set local lock_timeout = '50ms'").execute(&mut *tx).await?;
    sqlx::query(sqlx::AssertSqlSafe(format!("lock table {slot} in access exclusive mode")))
        .execute(&mut *tx)
        .await?;
    let passed: bool = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
        "select not exists (
             select from {slot} o left join relay_checkpoint c on c.shard = o.shard
             where c.shard is null
                or not (pg_visible_in_snapshot(o.xid, c.seen)
                        or (c.upto is not null and pg_visible_in_snapshot(o.xid, c.upto)
                            and o.position <= c.position)))"
    )))
    .fetch_one(&mut *tx)
    .await?;
    if passed {
        sqlx::query(sqlx::AssertSqlSafe(format!("truncate {slot}"))).execute(&mut *tx).await?;
        metrics::counter!("amends_outbox_truncations_total").increment(1);
    }
    tx.commit().await
}
