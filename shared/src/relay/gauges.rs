//! Measures the backlog of a shard every few seconds. The cost of the statements does not grow with the backlog.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use sqlx::PgConnection;
use tracing::error;

use super::RelayError;
use super::blocked::{Blocked, has_foreign_rows};
use super::checkpoint::{Cursor, Lease};
use crate::metric;
use crate::outbox::unsent::not_shown_by;

const MEASURE_EVERY: Duration = Duration::from_secs(3);
/// How often the log repeats why a relay is blocked.
const LOG_EVERY: Duration = Duration::from_secs(60);
/// The largest number of rows that is counted. Larger numbers are estimated from positions.
const COUNT_MAX: i64 = 10_000;

/// The measurements of one shard. Dropping them sets the gauges to zero, because a relay without the lease must not
/// report on the shard.
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
            stopped: metric::RELAY_STOPPED.gauge(&[&shard, "record"]),
            rows: metric::OUTBOX_BACKLOG_ROWS.gauge(&[&shard]),
            age: metric::OUTBOX_OLDEST_AGE_SECONDS.gauge(&[&shard]),
            measured: None,
        }
    }

    /// Measures the backlog behind this cursor, if the interval has passed.
    ///
    /// # Errors
    /// Fails with [`RelayError::ForeignRows`] if the outbox has rows from another cluster.
    pub(super) async fn measure(
        &mut self,
        db: &mut PgConnection,
        lease: &Lease,
        cursor: &Cursor,
        stopped: bool,
    ) -> Result<(), RelayError> {
        self.stopped.set(f64::from(u8::from(stopped)));
        if self.measured.is_some_and(|measured| measured.elapsed() < MEASURE_EVERY) {
            return Ok(());
        }
        self.measured = Some(Instant::now());
        if has_foreign_rows(db).await? {
            return Err(RelayError::ForeignRows);
        }
        let (rows, age) = match &cursor.window_snapshot {
            None => after_snapshot(db, lease.shard, &cursor.acked_snapshot).await?,
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

/// Reports that a relay may not begin. Dropping it sets the gauge to zero.
pub(super) struct BlockedGauge {
    shard: i16,
    reported: Option<Blocked>,
    logged: Option<Instant>,
}

impl BlockedGauge {
    pub(super) fn new(shard: i16) -> Self {
        Self { shard, reported: None, logged: None }
    }

    /// Sets the gauge, and repeats the reason in the log once a minute.
    pub(super) fn report(&mut self, blocked: &Blocked, service: &str) {
        if self.reported.as_ref() != Some(blocked) {
            self.clear();
        }
        self.gauge(blocked).set(1.0);
        self.reported = Some(blocked.clone());
        if self.logged.is_none_or(|logged| logged.elapsed() >= LOG_EVERY) {
            self.logged = Some(Instant::now());
            error!(shard = self.shard, reason = blocked.describe(service), "the relay is blocked");
        }
    }

    /// Sets the gauge to zero.
    pub(super) fn clear(&mut self) {
        if let Some(blocked) = self.reported.take() {
            self.gauge(&blocked).set(0.0);
            self.logged = None;
        }
    }

    fn gauge(&self, blocked: &Blocked) -> metrics::Gauge {
        metric::RELAY_STOPPED.gauge(&[&self.shard.to_string(), blocked.name()])
    }
}

impl Drop for BlockedGauge {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Returns the number of rows, and the age of the oldest one in seconds, in transaction order. Beyond ten thousand
/// rows it estimates: it counts the positions of all shards up to the newest one.
async fn after_snapshot(
    db: &mut PgConnection,
    shard: i16,
    acked_snapshot: &str,
) -> Result<(i64, f64), sqlx::Error> {
    static COUNT: LazyLock<String> = LazyLock::new(|| {
        format!(
            "select case when count(*) < $3 then count(*)
                         else greatest(count(*), (select last_value from outbox_position) - min(position)) end,
                    coalesce(extract(epoch from clock_timestamp() - min(created_at)), 0)::double precision
             from {} as unsent",
            not_shown_by("$2::pg_snapshot", "$1", "position, created_at", "$3")
        )
    });
    sqlx::query_as(COUNT.as_str()).bind(shard).bind(acked_snapshot).bind(COUNT_MAX).fetch_one(db).await
}

/// Returns the same as [`after_snapshot`], inside a window that is read by position.
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
