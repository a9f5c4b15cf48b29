//! A relay at work. It reads ahead of the acknowledgements, and saves the checkpoint behind them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;
use sqlx::PgConnection;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::checkpoint::{self, AcquiredShard, Cursor, Lease};
use super::gauges::Gauges;
use super::read::{self, FoundRow, MAX_READ_BYTES};
use super::signals::Signals;
use super::slots::Slots;
use super::{RelayError, ShardRelay, Stop, answered};
use crate::kafka::{Batch, Outgoing, Publisher, Refusal};
use crate::{cloudevents, metric, trace};

/// How often the relay polls without a signal. Usually a signal wakes it earlier; the poll is a safety net.
const POLL: Duration = Duration::from_millis(500);
/// A read of at least this many rows means a high load, and the next rows are collected for [`LINGER`]. A read and
/// its requests cost nearly the same for thirty rows as for one.
const BUSY: u64 = 32;
const LINGER: Duration = Duration::from_millis(8);
/// How often the relay renews its lease and saves its cursor. After a crash it repeats this much. More often would cost
/// a transaction for every few messages.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// How long a stopping relay waits for the acknowledgements of sent records.
const STOP_GRACE: Duration = Duration::from_secs(3);
/// A client without any acknowledgement for this long is replaced. It may have forgotten a request during an outage.
const STALLED: Duration = Duration::from_secs(30);
/// The largest total of message bodies in flight, in bytes. Beyond it the relay stops reading.
const MAX_BYTES_IN_FLIGHT: usize = 8 * 1024 * 1024;

/// A shard's relay while it holds the lease.
pub(super) struct RelaySession<'r> {
    relay: &'r ShardRelay,
    pub(super) lease: Lease,
    /// The record at which the shard is stopped, if it is.
    pub(super) stopped: Option<Stop>,
    signals: Signals,
    committed: watch::Receiver<()>,
    /// All rows before it are acknowledged. It is the cursor that is saved.
    sent: Cursor,
    /// All rows before it are handed to the producer.
    ahead: Cursor,
    /// The batches between the two cursors, in order.
    in_flight: VecDeque<InFlightBatch>,
    /// The number of unacknowledged records at the last check, and the time of the last acknowledgement.
    open: usize,
    acknowledged: Instant,
    saved: Instant,
    /// Whether the last read was so large that the next one may wait for more rows.
    busy: bool,
    /// Whether the producer refused the last record because its queue was full.
    queue_full: bool,
    gauges: Gauges,
    slots: Slots,
    topic: String,
}

/// Rows of one read whose records are in flight.
struct InFlightBatch {
    batch: Arc<Batch>,
    rows: u64,
    bytes: usize,
    /// The cursor after the acknowledgement of all these rows.
    after: Cursor,
}

impl<'r> RelaySession<'r> {
    pub(super) fn new(relay: &'r ShardRelay, acquired: AcquiredShard, signals: Signals) -> Self {
        Self {
            relay,
            lease: acquired.lease,
            stopped: acquired.stopped,
            signals,
            committed: relay.db.relay_wakeup(),
            ahead: acquired.cursor.clone(),
            sent: acquired.cursor,
            in_flight: VecDeque::new(),
            open: 0,
            acknowledged: Instant::now(),
            saved: Instant::now(),
            busy: false,
            queue_full: false,
            gauges: Gauges::new(relay.shard),
            slots: Slots::default(),
            topic: String::new(),
        }
    }

    pub(super) async fn run(
        &mut self,
        db: &mut PgConnection,
        publisher: &Publisher,
        stop: &CancellationToken,
    ) -> Result<(), RelayError> {
        let mut grace = None;
        loop {
            // The flag is read before the rows, so that everything committed before the stop is still sent.
            let stopping = stop.is_cancelled();
            self.collect_acks()?;
            // After a full queue, the relay offers records again only when something was acknowledged.
            let reading = self.has_room() && (!self.queue_full || self.in_flight.is_empty());
            let unfinished = if reading { answered(self.advance(db, publisher)).await? } else { true };
            answered(self.housekeep(db)).await?;
            if stopping {
                if !unfinished && self.in_flight.is_empty() {
                    return answered(self.save(db)).await;
                }
                let until = *grace.get_or_insert_with(|| Instant::now() + STOP_GRACE);
                if Instant::now() > until {
                    return Err(KafkaError::Canceled.into());
                }
            }
            if !(reading && unfinished && self.has_room()) {
                self.wait_for_work(publisher, stop, stopping).await?;
            }
        }
    }

    /// Drops the rows that were handed over but not acknowledged.
    pub(super) fn rewind(&mut self) {
        self.in_flight.clear();
        self.ahead = self.sent.clone();
    }

    /// Stops at a record that was refused for good. It reports the reason to operators, keeps the lease, and waits.
    pub(super) async fn stop_at(
        &mut self,
        db: &mut PgConnection,
        stop: Stop,
        wait: Duration,
        cancel: &CancellationToken,
    ) -> Result<(), RelayError> {
        error!(
            shard = self.lease.shard,
            position = stop.position,
            reason = stop.reason,
            again_in = ?wait,
            "the shard is stopped; it continues once this is corrected"
        );
        self.rewind();
        self.stopped = Some(stop);
        answered(self.save(db)).await?;
        let until = Instant::now() + wait;
        while Instant::now() < until && !cancel.is_cancelled() {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = tokio::time::sleep(SAVE_EVERY.min(wait)) => {}
            }
            answered(self.housekeep(db)).await?;
        }
        Ok(())
    }

    /// Removes acknowledged batches from the front.
    fn collect_acks(&mut self) -> Result<(), RelayError> {
        if let Some(refusal) = self.in_flight.iter().find_map(|run| run.batch.refusal()) {
            return Err(refused(refusal));
        }
        while let Some(run) = self.in_flight.pop_front_if(|run| run.batch.done()) {
            metric::RELAY_PUBLISHED.counter(&[]).increment(run.rows);
            self.advance_checkpoint(run.after);
        }
        let open = self.in_flight.iter().map(|run| run.batch.open()).sum();
        if open < self.open || self.in_flight.is_empty() {
            self.acknowledged = Instant::now();
        }
        self.open = open;
        if self.acknowledged.elapsed() > STALLED { Err(RelayError::Stalled) } else { Ok(()) }
    }

    /// Advances the checkpoint: everything up to this cursor is on Kafka.
    fn advance_checkpoint(&mut self, cursor: Cursor) {
        self.sent = cursor;
        if self.stopped.take().is_some() {
            info!(shard = self.lease.shard, "the shard continues");
        }
    }

    /// Returns whether more rows may be handed over.
    fn has_room(&self) -> bool {
        self.in_flight.iter().map(|run| run.bytes).sum::<usize>() < MAX_BYTES_IN_FLIGHT / 2
    }

    /// Reads the next rows and hands them over. Returns whether more rows may be ready at once.
    async fn advance(&mut self, db: &mut PgConnection, publisher: &Publisher) -> Result<bool, RelayError> {
        let Self { relay, lease, ahead, topic, .. } = self;
        let batch = publisher.batch();
        let (mut rows, mut bytes, mut queue_full, mut invalid) = (0, 0, false, None);
        let next = read::read(db, lease, ahead, relay.batch, |row| {
            if bytes + row.body.len() > MAX_READ_BYTES && rows > 0 {
                return false;
            }
            let taken = match record(relay, topic, &row) {
                Ok(record) => publisher.send(record, &batch),
                Err(error) => {
                    invalid = Some(unreadable(row.position, &error));
                    false
                }
            };
            if !taken {
                queue_full = true;
                return false;
            }
            rows += 1;
            bytes += row.body.len();
            true
        })
        .await;
        batch.close();
        let next = next?;
        // The rows before the invalid one are sent first, so that the next attempts need not repeat them.
        if let Some(stop) = invalid
            && rows == 0
            && self.in_flight.is_empty()
        {
            return Err(RelayError::Stopped(stop));
        }
        self.ahead = next.clone();
        self.busy = rows >= BUSY;
        self.queue_full = queue_full;
        if rows > 0 || batch.refusal().is_some() {
            self.in_flight.push_back(InFlightBatch { batch, rows, bytes, after: next });
        } else if let Some(last) = self.in_flight.back_mut() {
            last.after = next;
        } else if !queue_full && self.ahead.window_snapshot.is_none() {
            self.advance_checkpoint(next);
        } else {
            // The read only skipped rows that were sent long ago.
            self.sent = next;
        }
        Ok(self.ahead.window_snapshot.is_some() && !queue_full)
    }

    /// Does the periodic work beside sending: checkpoint, lease, gauges and truncation.
    async fn housekeep(&mut self, db: &mut PgConnection) -> Result<(), RelayError> {
        if self.saved.elapsed() >= SAVE_EVERY {
            self.save(db).await?;
        }
        self.gauges.measure(db, &self.lease, &self.sent, self.stopped.is_some()).await?;
        self.slots.truncate_sent(db).await?;
        Ok(())
    }

    async fn save(&mut self, db: &mut PgConnection) -> Result<(), RelayError> {
        checkpoint::save(db, &self.lease, &self.sent, self.stopped.as_ref()).await?;
        self.saved = Instant::now();
        Ok(())
    }

    /// Waits until rows may be ready or other work is due.
    async fn wait_for_work(
        &mut self,
        publisher: &Publisher,
        stop: &CancellationToken,
        stopping: bool,
    ) -> Result<(), RelayError> {
        if self.busy && !stopping {
            tokio::time::sleep(LINGER).await;
        }
        let until = tokio::time::Instant::now() + POLL;
        let paused = !self.has_room() || self.queue_full;
        loop {
            tokio::select! {
                _ = self.committed.changed(), if !paused && !stopping => return Ok(()),
                signal = self.signals.next(), if !paused && !stopping => return signal.map(drop),
                () = publisher.progress(), if !self.in_flight.is_empty() => {
                    self.collect_acks()?;
                    self.queue_full = false;
                    // An acknowledgement alone needs no read, unless the read was waiting for it.
                    if paused && self.has_room() || stopping && self.in_flight.is_empty() {
                        return Ok(());
                    }
                }
                () = tokio::time::sleep_until(until) => return Ok(()),
                () = stop.cancelled(), if !stopping => return Ok(()),
            }
        }
    }
}

/// Makes the record of a row.
fn record<'a>(
    relay: &ShardRelay,
    topic: &'a mut String,
    row: &FoundRow<'a>,
) -> Result<Outgoing<'a>, serde_json::Error> {
    let span = trace::publish_span(row.topic, row.traceparent);
    let own = trace::traceparent_of(&span);
    let headers = cloudevents::headers(row.body, row.position, own.as_deref().or(row.traceparent))?;
    topic.clear();
    topic.push_str(&relay.kafka.prefix);
    topic.push_str(row.topic);
    Ok(Outgoing { topic, key: row.key, body: row.body, headers, position: row.position })
}

fn refused(refusal: Refusal) -> RelayError {
    if !refusal.is_permanent() {
        return refusal.error.into();
    }
    let Refusal { position, topic, error } = refusal;
    RelayError::Stopped(Stop {
        position,
        reason: format!(
            "the broker refuses the record at position {position} of the outbox for the topic {topic}: {error}; correct the \
             topic's settings or permissions"
        ),
    })
}

fn unreadable(position: i64, error: &serde_json::Error) -> Stop {
    Stop {
        position,
        reason: format!(
            "the row at position {position} of the outbox is not an envelope: {error}; correct or delete the row"
        ),
    }
}
