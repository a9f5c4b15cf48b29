//! How far a shard is behind, measured every few seconds in statements whose cost does not grow with the backlog.

use std::time::{Duration, Instant};

use sqlx::PgConnection;

use super::checkpoint::{Cursor, Lease};

const MEASURE_EVERY: Duration = Duration::from_secs(3);
/// Up to how many rows are counted; more are estimated by their positions.
const COUNT_MAX: i64 = 10_000;

/// The measurements of one shard. A relay that does not hold the shard any more has nothing to say of it: dropped, they
/// are nought.
pub(super) struct Gauges {
    stopped: metrics::Gauge,
    rows: metrics::Gauge,
    age: metrics::Gauge,
    measured: Option<Instant>,
}

impl Gauges {
    pub(super) fn new(shard: i16) -> Self {
        let shard = shard.to_string();
        Self {
            stopped: metrics::gauge!("amends_relay_stopped", "shard" => shard.clone()),
            rows: metrics::gauge!("amends_outbox_backlog_rows", "shard" => shard.clone()),
            age: metrics::gauge!("amends_outbox_oldest_age_seconds", "shard" => shard),
            measured: None,
        }
    }

    /// Measures what lies behind this cursor, if it is time to.
    pub(super) async fn measure(
        &mut self,
        db: &mut PgConnection,
        lease: &Lease,
        cursor: &Cursor,
        stopped: bool,
    ) -> Result<(), sqlx::Error> {
        self.stopped.set(f64::from(u8::from(stopped)));
        if self.measured.is_some_and(|measured| measured.elapsed() < MEASURE_EVERY) {
            return Ok(());
        }
        self.measured = Some(Instant::now());
        let (rows, age) = match &cursor.upto {
            None => after_snapshot(db, lease.shard, &cursor.seen).await?,
            Some(_) => after_position(db, lease.shard, cursor.position).await?,
        };
        self.rows.set(rows as f64);
        self.age.set(age);
        Ok(())
    }
}

impl Drop for Gauges {
    fn drop(&mut self) {
        for gauge in [&self.stopped, &self.rows, &self.age] {
            gauge.set(0.0);
        }
    }
}

/// Rows, and the age of the oldest in seconds, in the order of transactions. Beyond the first ten thousand the rows of
/// all shards up to the newest position are taken for the backlog.
async fn after_snapshot(db: &mut PgConnection, shard: i16, seen: &str) -> Result<(i64, f64), sqlx::Error> {
    sqlx::query_as(
        "select case when count(*) < $3 then count(*)
                     else greatest(count(*), (select last_value from outbox_position) - min(position)) end,
                coalesce(extract(epoch from clock_timestamp() - min(created_at)), 0)::double precision
         from ((select position, created_at from outbox
                where shard = $1 and xid >= (select pg_snapshot_xmax($2::pg_snapshot)) limit $3)
               union all
               (select position, created_at from outbox
                where shard = $1 and xid = any (array (select pg_snapshot_xip($2::pg_snapshot))) limit $3)) as unsent",
    )
    .bind(shard)
    .bind(seen)
    .bind(COUNT_MAX)
    .fetch_one(db)
    .await
}

/// As [`after_snapshot`], inside a window that is read by position.
async fn after_position(db: &mut PgConnection, shard: i16, position: i64) -> Result<(i64, f64), sqlx::Error> {
    sqlx::query_as(
        "select case when count(*) < $3 then count(*) filter (where shard = $1)
                     else (select last_value from outbox_position) - $2 end,
                coalesce(extract(epoch from clock_timestamp() - min(created_at) filter (where shard = $1)), 0)
                    ::double precision
         from (select shard, created_at from outbox where position > $2 order by position limit $3) as unsent",
    )
    .bind(shard)
    .bind(position)
    .bind(COUNT_MAX)
    .fetch_one(db)
    .await
}
