//! The relay: moves committed outbox rows to Kafka, at least once and in order per key.
//!
//! A sequence is drawn before its transaction commits, so a cursor on it would skip rows that commit late. The relay
//! reads by snapshot instead: a batch is what is visible now and was not visible in the snapshot of the batch before,
//! in the order of position. The checkpoint is one row, so there is no update and no delete per message; a slot of
//! the outbox is truncated once the relay is past everything in it. A long transaction delays nobody.
//!
//! A shard is relayed under a lease with an epoch. A relay that lost its lease may repeat messages but can't reorder
//! their first occurrences, because each relay sends a gapless run that starts at or before its checkpoint.

mod checkpoint;
mod slots;

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::checkpoint::{Cursor, Lease, Row};
use crate::cloudevents;
use crate::db::Db;
use crate::kafka::{Kafka, Outgoing, Publisher};
use crate::telemetry;

/// How often the relay looks without having been woken. The wake-up is what makes it quick; this is the safety net
/// for what another process wrote.
const POLL: Duration = Duration::from_millis(100);
/// How stale the checkpoint on disk may be while the relay is busy: what a crash makes it repeat.
const SAVE_EVERY: Duration = Duration::from_millis(100);
/// How often an idle relay renews its lease.
const RENEW_EVERY: Duration = Duration::from_secs(1);
/// How often the relay looks for slots to truncate.
const TIDY_EVERY: Duration = Duration::from_secs(5);
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// How long a stopping relay waits for the broker to acknowledge what it has sent.
const STOP_GRACE: Duration = Duration::from_secs(3);

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
    #[error("the broker refused a record")]
    Broker(#[from] rdkafka::error::KafkaError),
    #[error("an outbox row is not an envelope")]
    Body(#[from] serde_json::Error),
}

/// Relays one shard until `stop`.
pub(crate) struct Relay {
    pub db: Db,
    pub kafka: Kafka,
    pub shard: i16,
    /// Who holds the lease, for the operator.
    pub owner: String,
    /// Most rows in one batch.
    pub batch: i64,
}

impl Relay {
    /// Runs until `stop`, mending what fails with backoff. Ends after a last pass over what was committed.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut backoff = BACKOFF_MIN;
        while !stop.is_cancelled() {
            let began = Instant::now();
            match self.session(&stop).await {
                Ok(()) => return,
                Err(error) => {
                    metrics::counter!("amends_relay_faults_total").increment(1);
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

    /// One connection, one lease, one producer.
    async fn session(&self, stop: &CancellationToken) -> Result<(), RelayError> {
        let mut db = self.db.connect().await?;
        checkpoint::prepare(&mut db).await?;
        let Some((lease, cursor)) = self.await_lease(&mut db, stop).await? else { return Ok(()) };
        info!(shard = self.shard, epoch = lease.epoch, "the relay holds the shard");
        let publisher = Publisher::new(&self.kafka)?;
        let mut pass = Pass { relay: self, lease, cursor, saved: Instant::now(), dirty: false };
        let ended = pass.until_stopped(&mut db, &publisher, stop).await;
        if ended.is_err() {
            publisher.abandon();
        }
        ended?;
        checkpoint::release(&mut db, &pass.lease).await?;
        Ok(())
    }

    async fn await_lease(
        &self,
        db: &mut PgConnection,
        stop: &CancellationToken,
    ) -> Result<Option<(Lease, Cursor)>, RelayError> {
        loop {
            if let Some(held) = checkpoint::acquire(db, self.shard, &self.owner).await? {
                return Ok(Some(held));
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(None),
                () = tokio::time::sleep(RENEW_EVERY / 2) => {}
            }
        }
    }
}

struct Pass<'r> {
    relay: &'r Relay,
    lease: Lease,
    cursor: Cursor,
    saved: Instant,
    dirty: bool,
}

impl Pass<'_> {
    async fn until_stopped(
        &mut self,
        db: &mut PgConnection,
        publisher: &Publisher,
        stop: &CancellationToken,
    ) -> Result<(), RelayError> {
        let wakeup = self.relay.db.relay_wakeup();
        let mut tidied = Instant::now();
        loop {
            // Read before asking whether to stop, so that what was committed before the stop is still sent.
            let stopping = stop.is_cancelled();
            let more = self.step(db, publisher, stop).await?;
            if self.due() || (self.dirty && !more) || stopping {
                self.save(db).await?;
            }
            if stopping && !more {
                return Ok(());
            }
            if tidied.elapsed() > TIDY_EVERY {
                slots::truncate_passed(db).await?;
                tidied = Instant::now();
            }
            if !more {
                tokio::select! {
                    () = wakeup.notified() => {}
                    () = tokio::time::sleep(POLL) => {}
                    () = stop.cancelled(), if !stopping => {}
                }
            }
        }
    }

    fn due(&self) -> bool {
        let every = if self.dirty { SAVE_EVERY } else { RENEW_EVERY };
        self.saved.elapsed() > every
    }

    /// Sends one batch. Whether there may be more at once.
    async fn step(
        &mut self,
        db: &mut PgConnection,
        publisher: &Publisher,
        stop: &CancellationToken,
    ) -> Result<bool, RelayError> {
        let (rows, next) = checkpoint::read(db, &self.lease, &self.cursor, self.relay.batch).await?;
        let count = rows.len();
        if count > 0 {
            let batch = publisher.send(self.records(rows)?).await;
            self.delivered(db, &batch, stop).await?;
            metrics::counter!("amends_relay_published_total").increment(count as u64);
            self.dirty = true;
        }
        let more = next.upto.is_some();
        self.cursor = next;
        Ok(more)
    }

    /// Waits for the broker, and keeps the lease meanwhile: an outage must not look like a dead relay.
    async fn delivered(
        &mut self,
        db: &mut PgConnection,
        batch: &Arc<crate::kafka::Batch>,
        stop: &CancellationToken,
    ) -> Result<(), RelayError> {
        let mut grace = None;
        loop {
            tokio::select! {
                result = batch.wait() => return Ok(result?),
                () = tokio::time::sleep(RENEW_EVERY) => self.save(db).await?,
                () = stop.cancelled(), if grace.is_none() => grace = Some(Instant::now() + STOP_GRACE),
            }
            if grace.is_some_and(|until| Instant::now() > until) {
                return Err(RelayError::Broker(rdkafka::error::KafkaError::Canceled));
            }
        }
    }

    async fn save(&mut self, db: &mut PgConnection) -> Result<(), RelayError> {
        checkpoint::save(db, &self.lease, &self.cursor).await?;
        self.saved = Instant::now();
        self.dirty = false;
        Ok(())
    }

    fn records(&self, rows: Vec<Row>) -> Result<Vec<Outgoing>, RelayError> {
        rows.into_iter()
            .map(|row| {
                let span = telemetry::publish_span(&row.topic, row.traceparent.as_deref());
                let traceparent = telemetry::traceparent_of(&span).or(row.traceparent);
                let headers = cloudevents::headers(&row.body, traceparent.as_deref())?;
                Ok(Outgoing {
                    topic: self.relay.kafka.name(&row.topic),
                    key: row.key,
                    body: row.body,
                    headers,
                })
            })
            .collect()
    }
}
