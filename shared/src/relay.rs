//! The relay: moves committed outbox rows to Kafka, at least once and in order per key.
//!
//! A sequence is drawn before its transaction commits, so a cursor on it would skip rows that commit late. The relay
//! reads by snapshot instead: a batch is what is visible now and was not visible in the snapshot of the batch before,
//! in the order of position. The checkpoint is one row, so there is no update and no delete per message; a slot of
//! the outbox is truncated once the relay is past everything in it. A long transaction delays nobody.
//!
//! The next batch is read while the former is under way. The checkpoint knows only what the broker has acknowledged,
//! in order; at a failure all behind it is abandoned and sent again from there. What is under way is bounded in bytes,
//! so that an outage of the broker costs no memory.
//!
//! A shard is relayed under a lease with an epoch, so any number of replicas may run it: one relays, the others stand
//! by. A relay that lost its lease may repeat messages but can't reorder their first occurrences, because each relay
//! sends a gapless run that starts at or before its checkpoint. Another replica takes over at once when a relay stops,
//! within a second when its process dies, and within four when its host vanishes or freezes.
//!
//! A record that the broker refuses for good stops its shard and no other. The reason is in the log, in `/readyz`, in
//! the metric `relay_stopped` and in `relay_checkpoint`; the relay goes on trying, and goes on by itself once
//! the topic or its rights are mended.

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

use self::checkpoint::Held;
pub use self::checkpoint::standing_still;
use self::session::RelaySession;
pub use self::signals::tell_relays;
use self::signals::{Heard, Signals};
use crate::db::Db;
use crate::kafka::{Kafka, Publisher};
use crate::metric;

/// How often a relay that stands by looks whether the shard is free.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// How long a stopped shard waits before it tries again: at first, and in the end.
const MEND_MIN: Duration = Duration::from_secs(2);
const MEND_MAX: Duration = Duration::from_secs(30);

/// Why a relay gave up its connection and starts anew.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RelayError {
    #[error("the lease on the shard was lost to another relay")]
    Fenced,
    #[error(
        "the checkpoint belongs to another database cluster: after a restore transaction ids start again and rows \
         could be skipped; check what is on the topics, then `delete from relay_checkpoint` to send the outbox again"
    )]
    OtherCluster,
    #[error("the database did not answer")]
    Database(#[from] sqlx::Error),
    #[error("the broker did not take a record")]
    Broker(#[from] rdkafka::error::KafkaError),
    #[error("the broker has acknowledged nothing for half a minute; a new client asks it")]
    Stalled,
    #[error("{}", .0.reason)]
    Stopped(Stop),
}

/// The record at which a shard stands still.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stop {
    pub position: i64,
    /// For the operator: what is wrong, where, and the way out.
    pub reason: String,
}

/// Moves a service's outbox to Kafka. Any number of replicas may run one.
#[derive(Debug, Clone)]
pub struct Relay {
    db: Db,
    kafka: Kafka,
    batch: u16,
}

impl Relay {
    /// A relay of all shards of this database's outbox.
    pub fn new(db: Db, kafka: Kafka) -> Self {
        Self { db, kafka, batch: 2000 }
    }

    /// The largest number of rows that are read at once; 2000 unless it is set.
    #[must_use]
    pub fn batch(self, rows: u16) -> Self {
        Self { batch: rows.max(1), ..self }
    }

    /// Runs until `stop`, and then until everything that was committed before is on Kafka, for three seconds at most. What
    /// fails is repeated with backoff, so it never ends by itself. The tables must be there: see [`crate::migrations`].
    pub async fn run(self, stop: CancellationToken) {
        let shards = self.shards().into_iter().map(|shard| shard.run(stop.clone()));
        futures::future::join_all(shards).await;
    }

    /// One relay per shard, for a caller that supervises each.
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
    /// Runs until `stop`, mending what fails with backoff. Ends after a last pass over what was committed.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut backoff = BACKOFF_MIN;
        while !stop.is_cancelled() {
            let began = Instant::now();
            match self.session(&stop).await {
                Ok(()) => return,
                Err(error) => {
                    metric::RELAY_FAULTS.counter(&[]).increment(1);
                    warn!(
                        shard = self.shard,
                        error = &error as &dyn std::error::Error,
                        "the relay starts anew"
                    );
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

    /// One connection and one lease.
    async fn session(&self, stop: &CancellationToken) -> Result<(), RelayError> {
        let mut db = self.db.connect().await?;
        prepare(&mut db).await?;
        let mut signals = Signals::of(&self.db, self.shard).await?;
        let Some(held) = self.await_lease(&mut db, &mut signals, stop).await? else { return Ok(()) };
        info!(shard = self.shard, epoch = held.lease.epoch, "the relay holds the shard");
        let mut session = RelaySession::new(self, held, signals);
        self.sessions(&mut session, &mut db, stop).await?;
        checkpoint::release(&mut db, &session.lease).await?;
        Ok(())
    }

    /// One producer after another: a new one after each record that was refused for good.
    async fn sessions(
        &self,
        session: &mut RelaySession<'_>,
        db: &mut PgConnection,
        stop: &CancellationToken,
    ) -> Result<(), RelayError> {
        let mut wait = MEND_MIN;
        let mut careful = session.stopped.is_some();
        loop {
            let publisher = Publisher::new(&self.kafka, careful)?;
            let refused = match session.until_stopped(db, &publisher, stop).await {
                Err(RelayError::Stopped(refused)) => refused,
                Err(error) => {
                    publisher.abandon();
                    return Err(error);
                }
                Ok(()) => return Ok(()),
            };
            publisher.abandon();
            drop(publisher);
            // A broker refuses a request as a whole. Sent one by one, the records show which of them is meant, if any.
            if std::mem::replace(&mut careful, true) {
                wait = if session.stopped.as_ref() == Some(&refused) {
                    (wait * 2).min(MEND_MAX)
                } else {
                    MEND_MIN
                };
                session.stand_still(db, refused, wait, stop).await?;
            } else {
                warn!(
                    shard = self.shard,
                    reason = refused.reason,
                    "a record was refused; they are sent one by one"
                );
                session.rewind();
            }
            if stop.is_cancelled() {
                return Ok(());
            }
        }
    }

    /// Waits for the shard, and meanwhile tells the one that relays it of what this process writes.
    async fn await_lease(
        &self,
        db: &mut PgConnection,
        signals: &mut Signals,
        stop: &CancellationToken,
    ) -> Result<Option<Held>, RelayError> {
        let mut wrote = self.db.relay_wakeup();
        let mut looked: Option<Instant> = None;
        loop {
            if looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY) {
                if let Some(held) = checkpoint::acquire(db, self.shard, self.db.instance()).await? {
                    return Ok(Some(held));
                }
                looked = Some(Instant::now());
            }
            let rest = LOOK_EVERY.saturating_sub(looked.map_or(LOOK_EVERY, |looked| looked.elapsed()));
            tokio::select! {
                () = stop.cancelled() => return Ok(None),
                // Messages that were committed while nobody relayed are found by whoever begins.
                _ = wrote.changed() => signals::tell(db, self.shard).await?,
                heard = signals.next() => if heard? == Heard::Free { looked = None },
                () = tokio::time::sleep(rest) => {}
            }
        }
    }
}

/// Settings of the relay's own connection.
async fn prepare(db: &mut PgConnection) -> Result<(), sqlx::Error> {
    // A checkpoint that a crash of the server loses makes the relay repeat messages, which the inboxes absorb; it
    // loses none, so it need not wait for the disk. The outbox is never analyzed: tell the planner to use its indexes, to
    // plan once, and not to compile what it takes for expensive.
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
