//! The relay: moves committed outbox rows to Kafka, at least once and in order per key.
//!
//! A sequence number is drawn before its transaction commits, so a cursor on it would skip rows that commit late. The
//! relay reads by snapshot instead. A batch consists of the rows that are visible now and were invisible in the
//! snapshot of the previous batch, ordered by position. The checkpoint is one row, so that no message needs an update
//! or a delete. A slot of the outbox is truncated once all its rows are sent. A long transaction delays no other
//! transaction's messages.
//!
//! The next batch is read while the previous one is in flight. The checkpoint covers only rows that the broker has
//! acknowledged, in order. After a failure all rows behind it are abandoned and sent again. The number of bytes in
//! flight is limited, so that an outage of the broker costs no memory.
//!
//! A relay needs a lease with an epoch for its shard. Any number of replicas may run it: one relays, the others stand
//! by. A relay that lost its lease may repeat messages. It cannot reorder their first occurrences, because each relay
//! sends a gapless run that starts at or before its checkpoint. Another replica takes over at once if a relay stops,
//! within a second if its process dies, and within four seconds if its host vanishes or freezes.
//!
//! After a restore from a dump the transaction ids of the rows mean nothing. The relay then sends nothing until an operator
//! has adopted the outbox; see [`adopt`]. A changed number of shards needs no operator: the relay that begins moves the
//! unsent rows to the shards of their keys.
//!
//! A record that the broker refuses for good stops its own shard only. The reason is in the log, in `/readyz`, in the
//! metric `relay_stopped` and in `relay_checkpoint`. The relay keeps trying, and continues once the topic or its
//! permissions are corrected.

mod adoption;
mod blocked;
mod checkpoint;
mod gauges;
mod read;
mod session;
mod signals;
mod slots;

use std::time::{Duration, Instant};

use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use self::adoption::{Adopted, AdoptionError, adopt, preview};
pub use self::blocked::{Blocked, blocked};
pub use self::checkpoint::standing_still;
use self::checkpoint::{AcquiredShard, Attempt};
use self::gauges::BlockedGauge;
use self::session::RelaySession;
pub use self::signals::tell_relays;
use self::signals::{Signal, Signals};
use crate::db::Db;
use crate::kafka::{Kafka, Publisher};
use crate::metric;

/// How often a standby relay checks whether the shard is free.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// How long a stopped shard waits between two attempts: at first, and at most.
const RESUME_MIN: Duration = Duration::from_secs(2);
const RESUME_MAX: Duration = Duration::from_secs(30);

/// The reason why a relay gives up its connection and restarts.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RelayError {
    #[error("the lease on the shard was lost to another relay")]
    Fenced,
    #[error("the outbox has rows with transaction ids that this database cluster has not completed")]
    ForeignRows,
    #[error("the database did not answer")]
    Database(#[from] sqlx::Error),
    #[error("the connection to the database has fallen silent")]
    Silent,
    #[error("the broker did not accept a record")]
    Broker(#[from] rdkafka::error::KafkaError),
    #[error("the broker has acknowledged nothing for half a minute; a new client tries again")]
    Stalled,
    #[error("{}", .0.reason)]
    Stopped(Stop),
}

/// The record at which a shard is stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stop {
    pub position: i64,
    /// For the operator: the problem, its place, and the remedy.
    pub reason: String,
}

/// Moves a service's outbox to Kafka. Any number of replicas may run one each.
#[derive(Debug, Clone)]
pub struct Relay {
    db: Db,
    kafka: Kafka,
    batch: u16,
}

impl Relay {
    /// Creates a relay of all shards of this database's outbox.
    pub fn new(db: Db, kafka: Kafka) -> Self {
        Self { db, kafka, batch: 2000 }
    }

    /// Sets the largest number of rows that are read at once. The default is 2000.
    #[must_use]
    pub fn batch(self, rows: u16) -> Self {
        Self { batch: rows.max(1), ..self }
    }

    /// Runs until `stop`. It then sends all rows that were committed before, for at most three seconds, and returns.
    /// Failures are repeated with backoff, so only `stop` ends it. The core's tables must exist; see
    /// [`mod@crate::migrations`].
    pub async fn run(self, stop: CancellationToken) {
        let shards = self.shards().into_iter().map(|shard| shard.run(stop.clone()));
        futures::future::join_all(shards).await;
    }

    /// Returns one relay per shard, for a caller that supervises each of them.
    pub(crate) fn shards(&self) -> Vec<ShardRelay> {
        let of = |shard| ShardRelay {
            db: self.db.clone(),
            kafka: self.kafka.clone(),
            shard,
            batch: i64::from(self.batch),
        };
        (0..self.db.shards()).map(of).collect()
    }
}

/// Relays one shard until `stop`.
pub(crate) struct ShardRelay {
    pub db: Db,
    pub kafka: Kafka,
    pub shard: i16,
    /// The largest number of rows in one batch.
    pub batch: i64,
}

impl ShardRelay {
    /// Runs until `stop` and restarts with backoff after a failure. At the end it sends the rows that were already
    /// committed.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut backoff = BACKOFF_MIN;
        while !stop.is_cancelled() {
            let began = Instant::now();
            match self.session(&stop).await {
                Ok(()) => return,
                Err(error) => {
                    metric::RELAY_FAULTS.counter(&[]).increment(1);
                    warn!(shard = self.shard, error = &error as &dyn std::error::Error, "the relay restarts");
                }
            }
            if began.elapsed() > BACKOFF_MAX {
                backoff = BACKOFF_MIN;
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(backoff) => {}
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Runs one connection with one lease.
    async fn session(&self, stop: &CancellationToken) -> Result<(), RelayError> {
        let mut db = answered(self.db.connect()).await?;
        answered(prepare(&mut db)).await?;
        let mut signals = answered(Signals::of(&self.db, self.shard)).await?;
        let Some(acquired) = self.await_lease(&mut db, &mut signals, stop).await? else { return Ok(()) };
        info!(shard = self.shard, epoch = acquired.lease.epoch, "the relay holds the shard");
        let mut session = RelaySession::new(self, acquired, signals);
        let ended = self.run_producers(&mut session, &mut db, stop).await;
        // Without the lease the relay finds out at once why it may not begin again.
        if matches!(ended, Ok(()) | Err(RelayError::ForeignRows)) {
            answered(checkpoint::release(&mut db, &session.lease)).await?;
        }
        ended
    }

    /// Runs one producer after another. A record that was refused for good needs a new producer.
    async fn run_producers(
        &self,
        session: &mut RelaySession<'_>,
        db: &mut PgConnection,
        stop: &CancellationToken,
    ) -> Result<(), RelayError> {
        let mut wait = RESUME_MIN;
        let mut careful = session.stopped.is_some();
        loop {
            let publisher = Publisher::new(&self.kafka, careful)?;
            let stop_reason = match session.run(db, &publisher, stop).await {
                Err(RelayError::Stopped(stop_reason)) => stop_reason,
                Err(error) => {
                    publisher.abandon();
                    return Err(error);
                }
                Ok(()) => return Ok(()),
            };
            publisher.abandon();
            drop(publisher);
            // A broker refuses a request as a whole. Records in their own requests show which of them is refused.
            if std::mem::replace(&mut careful, true) {
                wait = if session.stopped.as_ref() == Some(&stop_reason) {
                    (wait * 2).min(RESUME_MAX)
                } else {
                    RESUME_MIN
                };
                session.stop_at(db, stop_reason, wait, stop).await?;
            } else {
                warn!(
                    shard = self.shard,
                    reason = stop_reason.reason,
                    "the broker refused one of the records; they are sent one by one now"
                );
                session.rewind();
            }
            if stop.is_cancelled() {
                return Ok(());
            }
        }
    }

    /// Waits for the lease. In the meantime it notifies the relaying replica of this process's commits.
    async fn await_lease(
        &self,
        db: &mut PgConnection,
        signals: &mut Signals,
        stop: &CancellationToken,
    ) -> Result<Option<AcquiredShard>, RelayError> {
        let mut committed = self.db.relay_wakeup();
        let mut checked_at: Option<Instant> = None;
        let mut gauge = BlockedGauge::new(self.shard);
        loop {
            if checked_at.is_none_or(|checked_at| checked_at.elapsed() >= CHECK_INTERVAL) {
                match checkpoint::acquire(db, &self.db, self.shard).await? {
                    Attempt::Acquired(acquired) => return Ok(Some(acquired)),
                    Attempt::Held => gauge.clear(),
                    Attempt::Blocked(blocked) => gauge.report(&blocked, self.db.source()),
                }
                checked_at = Some(Instant::now());
            }
            let wait_left = CHECK_INTERVAL
                .saturating_sub(checked_at.map_or(CHECK_INTERVAL, |checked_at| checked_at.elapsed()));
            tokio::select! {
                () = stop.cancelled() => return Ok(None),
                // If no replica relays, the next one finds the committed messages without a notification.
                _ = committed.changed() => answered(signals::notify_rows(db, self.shard)).await?,
                signal = signals.next() => if signal? == Signal::Free { checked_at = None },
                () = tokio::time::sleep(wait_left) => {}
            }
        }
    }
}

/// How long a statement of the relay may take. The server ends one that takes thirty seconds.
const SILENCE: Duration = Duration::from_secs(35);

/// Waits for the database with a limit. A connection that has fallen silent without being closed would stop a shard for as
/// long as nobody cuts it.
async fn answered<T, E>(work: impl Future<Output = Result<T, E>>) -> Result<T, RelayError>
where
    RelayError: From<E>,
{
    tokio::time::timeout(SILENCE, work).await.map_or(Err(RelayError::Silent), |ended| Ok(ended?))
}

/// Applies the settings of the relay's own connection.
async fn prepare(db: &mut PgConnection) -> Result<(), sqlx::Error> {
    // The relay need not wait for the disk. If a crash of the server loses a checkpoint, the relay repeats messages,
    // and the inboxes absorb the repetitions. The outbox is never analyzed, so the planner must be forced to use its
    // indexes, to plan once, and not to use JIT compilation.
    for setting in [
        "set synchronous_commit = off",
        "set enable_seqscan = off",
        "set enable_bitmapscan = off",
        "set plan_cache_mode = force_generic_plan",
        "set max_parallel_workers_per_gather = 0",
        "set jit = off",
    ] {
        sqlx::query(setting).execute(&mut *db).await?;
    }
    Ok(())
}
