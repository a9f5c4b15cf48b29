//! Learns from the database which orders have ended.

use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::super::board::{Board, Source, Status};
use super::orders::Numbered;

const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Notes the orders that have ended, until an error. An order's latency ends when its row was written, not when it is seen.
pub async fn watch(mut db: PgConnection, board: &Board) -> anyhow::Result<()> {
    // All in one transaction, so that looking adds no commits to those that are counted.
    sqlx::raw_sql("begin").execute(&mut db).await?;
    loop {
        let under_way: Vec<String> =
            board.pending().iter().map(|id| Numbered::name(id.as_u128() as u64)).collect();
        if !under_way.is_empty() {
            for (id, status, at) in ended(&mut db, &under_way).await.context("the orders can't be read")? {
                board.settled(&[(id, status)], at, Source::Feed);
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn ended(
    db: &mut PgConnection,
    under_way: &[String],
) -> Result<Vec<(uuid::Uuid, Status, Instant)>, sqlx::Error> {
    let rows: Vec<(String, bool, OffsetDateTime)> = sqlx::query_as(
        "select id, status = 'COMPLETED', finished_at from orders
         where id = any($1) and finished_at is not null",
    )
    .bind(under_way)
    .fetch_all(db)
    .await?;
    // PostgreSQL's clock is that of this machine.
    let clocks = (Instant::now(), SystemTime::now());
    let ended = rows.into_iter().filter_map(|(name, completed, at)| {
        let status = if completed { Status::Confirmed } else { Status::Rejected };
        Some((Numbered::id(Numbered::number(&name)?), status, moment(clocks, at.into())))
    });
    Ok(ended.collect())
}

/// Converts a time of the clock on the wall, given what both clocks show now. It is not in the future.
fn moment((now, wall): (Instant, SystemTime), at: SystemTime) -> Instant {
    let ago = wall.duration_since(at).unwrap_or_default();
    now.checked_sub(ago).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_on_the_wall_is_as_long_ago_as_on_the_other_clock() {
        let clocks = (Instant::now(), SystemTime::now());
        let ago = Duration::from_millis(30);
        assert_eq!(moment(clocks, clocks.1 - ago), clocks.0 - ago);
        assert_eq!(moment(clocks, clocks.1 + ago), clocks.0, "the clocks are read one after the other");
    }
}
