//! Measures the relay.

use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::Serialize;
use sqlx::PgConnection;

use super::ground::Ground;
use super::reader::Reader;
use super::usage;
use super::writers::{Pace, Writers};
use crate::output::complain;

/// How long the measurement waits for a fact before it fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// CPU and memory of the processes. CPU is in seconds for 100 000 rows.
#[derive(Serialize)]
struct Used {
    /// The relay's process only.
    cpu_s_per_100k: f64,
    /// The relay's process only, at the end.
    rss_mb: f64,
    postgres_cpu_s_per_100k: Option<f64>,
    kafka_cpu_s_per_100k: Option<f64>,
}

#[derive(Serialize)]
pub struct Drained {
    rows: u32,
    row_bytes: i64,
    seconds: f64,
    rows_per_s: f64,
    missing: usize,
    duplicates: usize,
    out_of_order: usize,
    #[serde(flatten)]
    used: Used,
}

#[derive(Serialize)]
pub struct Paced {
    rate: u32,
    per_commit: u32,
    duration_s: f64,
    rows: usize,
    row_bytes: i64,
    /// The rows that were really written. If they are fewer than the rate, the database could not keep up.
    written_per_s: f64,
    p50_ms: f64,
    p95_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    missing: usize,
    duplicates: usize,
    out_of_order: usize,
    #[serde(flatten)]
    used: Used,
}

/// Measures how quickly rows are sent that already wait.
pub async fn drain(ground: &Ground, rows: u32) -> anyhow::Result<Drained> {
    complain!("writing {rows} rows");
    let writers = Writers::new(ground.db(), rows as usize);
    writers.at_once().await?;
    let mut db = ground.connect().await?;
    let row_bytes = row_bytes(&mut db).await?;
    complain!("draining them");
    let relay = Running(ground.relay()?);
    let began = relay.leading(ground, &mut db).await?;
    let meter = Meter::begin(ground, &relay);
    relay.until_sent(ground, &mut db).await?;
    let seconds = began.elapsed().as_secs_f64();
    let used = meter.end(rows as usize);
    let reader = Reader::start(&ground.kafka, rows as usize)?;
    reader.until_quiet(rows as usize, Duration::from_secs(10)).await;
    let received = reader.end()?;
    Ok(Drained {
        rows,
        row_bytes,
        seconds: rounded(seconds),
        rows_per_s: (f64::from(rows) / seconds).round(),
        missing: received.missing(),
        duplicates: received.duplicates,
        out_of_order: received.out_of_order,
        used,
    })
}

/// Writes rows on a schedule, and measures the time of each row from its commit to its receipt.
pub async fn paced(ground: &Ground, pace: Pace) -> anyhow::Result<Paced> {
    let (rows, warmup) = pace.rows();
    let db = ground.db();
    let mut look = ground.connect().await?;
    let relay = Running(ground.relay()?);
    relay.leading(ground, &mut look).await?;
    let reader = Reader::start(&ground.kafka, rows)?;
    let writers = Writers::new(db.clone(), rows);
    complain!("writing {} rows a second for {:?}", pace.rate, pace.warmup + pace.duration);
    let meter = Meter::begin(ground, &relay);
    let began = Instant::now();
    tokio::select! {
        written = writers.on_schedule(pace) => written?,
        told = shared::relay::tell_relays(&db) => match told? {},
    }
    let wrote_for = began.elapsed().as_secs_f64();
    reader.until_quiet(rows, Duration::from_secs(10)).await;
    let used = meter.end(rows);
    relay.until_sent(ground, &mut look).await?;
    let row_bytes = row_bytes(&mut look).await?;
    let received = reader.end()?;
    let latencies = latencies(&writers.committed()[warmup..], &received.first[warmup..]);
    Ok(Paced {
        rate: pace.rate,
        per_commit: pace.per_commit,
        duration_s: rounded(pace.duration.as_secs_f64()),
        rows: rows - warmup,
        row_bytes,
        written_per_s: (rows as f64 / wrote_for).round(),
        p50_ms: percentile(&latencies, 50.0),
        p95_ms: percentile(&latencies, 95.0),
        p99_ms: percentile(&latencies, 99.0),
        max_ms: percentile(&latencies, 100.0),
        missing: received.missing(),
        duplicates: received.duplicates,
        out_of_order: received.out_of_order,
        used,
    })
}

/// Returns the time from the return of each row's commit to its receipt, in milliseconds and sorted. It is 0 if the record
/// came before the commit had returned.
fn latencies(committed: &[Option<Instant>], received: &[Option<Instant>]) -> Vec<f64> {
    let pairs = committed.iter().zip(received);
    let mut all: Vec<f64> = pairs
        .filter_map(|(committed, came)| Some(came.as_ref()?.saturating_duration_since((*committed)?)))
        .map(|latency| latency.as_secs_f64() * 1000.0)
        .collect();
    all.sort_by(f64::total_cmp);
    all
}

fn percentile(sorted: &[f64], percent: f64) -> f64 {
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().map(rounded).unwrap_or_default()
}

fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

async fn row_bytes(db: &mut PgConnection) -> anyhow::Result<i64> {
    let bytes =
        "select coalesce(avg(length(body)), 0)::bigint from (select body from outbox limit 1000) as sample";
    Ok(sqlx::query_scalar(bytes).fetch_one(db).await?)
}

/// The measured process. It is killed when this is dropped.
struct Running(Child);

impl Running {
    /// Waits until the relay has the shard, and returns the time.
    async fn leading(&self, ground: &Ground, db: &mut PgConnection) -> anyhow::Result<Instant> {
        let leading = "select exists (select from relay_checkpoint where epoch > 0)";
        self.until(ground, db, "the relay to begin", leading, Duration::from_millis(2)).await
    }

    /// Waits until the checkpoint is past all rows.
    async fn until_sent(&self, ground: &Ground, db: &mut PgConnection) -> anyhow::Result<()> {
        let sent = "select coalesce((select window_snapshot is null and pg_visible_in_snapshot(
                        (select max(xid::text::bigint)::text::xid8 from outbox where position =
                            (select max(position) from outbox)), acked_snapshot)
                    from relay_checkpoint), false)";
        self.until(ground, db, "the rows to be sent", sent, Duration::from_millis(10)).await.map(drop)
    }

    async fn until(
        &self,
        ground: &Ground,
        db: &mut PgConnection,
        what: &str,
        fact: &'static str,
        every: Duration,
    ) -> anyhow::Result<Instant> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let so: bool =
                sqlx::query_scalar(fact).fetch_one(&mut *db).await.context("the checkpoint can't be read")?;
            if so {
                return Ok(Instant::now());
            }
            if Instant::now() > deadline {
                bail!("waited {PATIENCE:?} for {what}; the relay said\n{}", ground.log());
            }
            tokio::time::sleep(every).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Measures the CPU time of the processes between two moments.
struct Meter {
    relay: u32,
    postgres: Option<u32>,
    kafka: Option<u32>,
    before: [Option<f64>; 3],
}

impl Meter {
    fn begin(ground: &Ground, relay: &Running) -> Self {
        let server = |port| Some(local::port_holder(port)?.process?.pid);
        let mut meter = Self {
            relay: relay.0.id(),
            postgres: server(ground.ports.postgres),
            kafka: server(ground.ports.kafka),
            before: [None; 3],
        };
        meter.before = meter.read();
        meter
    }

    fn read(&self) -> [Option<f64>; 3] {
        [
            usage::cpu_seconds(self.relay),
            self.postgres.and_then(usage::family_cpu_seconds),
            self.kafka.and_then(usage::cpu_seconds),
        ]
    }

    fn end(self, rows: usize) -> Used {
        let after = self.read();
        let each = |index: usize| {
            let used = after[index]? - self.before[index]?;
            Some(rounded(used / rows as f64 * 100_000.0))
        };
        Used {
            cpu_s_per_100k: each(0).unwrap_or_default(),
            rss_mb: usage::rss_mb(self.relay).map(rounded).unwrap_or_default(),
            postgres_cpu_s_per_100k: each(1),
            kafka_cpu_s_per_100k: each(2),
        }
    }
}
