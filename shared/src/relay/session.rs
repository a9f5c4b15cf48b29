//! A relay at work: reads ahead of the acknowledgements, and saves behind them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;
use sqlx::PgConnection;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::checkpoint::{self, Cursor, Held, Lease};
use super::gauges::Gauges;
use super::read::{self, Found, READ_MAX};
use super::signals::Signals;
use super::slots::Slots;
use super::{RelayError, ShardRelay, Stop};
use crate::kafka::{Batch, Outgoing, Publisher, Refusal};
use crate::{cloudevents, metric, trace};

/// How often the relay looks without having been woken. The signals are what makes it quick; this is the safety net.
const POLL: Duration = Duration::from_millis(500);
/// From this many rows at a time on, there is so much to send that the next ones are collected for [`LINGER`]: a read, and
/// the requests that come of it, cost nearly the same for thirty rows as for one.
const BUSY: u64 = 32;
const LINGER: Duration = Duration::from_millis(8);
/// How stale the checkpoint on disk may be while the relay is busy: what a crash makes it repeat.
const SAVE_EVERY: Duration = Duration::from_millis(100);
/// How often an idle relay renews its lease, and writes down how far it has seen that there is nothing.
const RENEW_EVERY: Duration = Duration::from_secs(1);
/// How long a stopping relay waits for the broker to acknowledge what it has sent.
const STOP_GRACE: Duration = Duration::from_secs(3);
/// How long nothing may be acknowledged before the client is given up for a new one, which may have forgotten a request in
/// an outage.
const STALLED: Duration = Duration::from_secs(30);
/// Most bytes of messages that are under way; beyond them the relay does not read on.
const UNDER_WAY_MAX: usize = 8 * 1024 * 1024;

/// A shard's relay while it holds the lease.
pub(super) struct RelaySession<'r> {
    relay: &'r ShardRelay,
    pub(super) lease: Lease,
    /// Where the shard stands still, if it does.
    pub(super) stopped: Option<Stop>,
    signals: Signals,
    wrote: watch::Receiver<()>,
    /// All before it was acknowledged: what is saved.
    sent: Cursor,
    /// All before it was handed over.
    ahead: Cursor,
    /// What lies between the two, in order.
    in_flight: VecDeque<InFlightBatch>,
    /// How many records had no acknowledgement when it was last looked, and when one came last.
    open: usize,
    acknowledged: Instant,
    saved: Instant,
    dirty: bool,
    /// Whether the last read found so much that the next may wait.
    busy: bool,
    /// Whether the publisher did not take the last record that it was offered.
    queue_full: bool,
    gauges: Gauges,
    slots: Slots,
    topic: String,
}

/// Rows that were read by one statement and are on their way.
struct InFlightBatch {
    batch: Arc<Batch>,
    rows: u64,
    bytes: usize,
    /// Where the relay stands when they have arrived.
    after: Cursor,
}

impl<'r> RelaySession<'r> {
    pub(super) fn new(relay: &'r ShardRelay, held: Held, signals: Signals) -> Self {
        Self {
            relay,
            lease: held.lease,
            stopped: held.stopped,
            signals,
            wrote: relay.db.relay_wakeup(),
            ahead: held.cursor.clone(),
            sent: held.cursor,
            in_flight: VecDeque::new(),
            open: 0,
            acknowledged: Instant::now(),
            saved: Instant::now(),
            dirty: false,
            busy: false,
            queue_full: false,
            gauges: Gauges::new(relay.shard),
            slots: Slots::default(),
            topic: String::new(),
        }
    }

    pub(super) async fn until_stopped(
        &mut self,
        db: &mut PgConnection,
        publisher: &Publisher,
        stop: &CancellationToken,
    ) -> Result<(), RelayError> {
        let mut grace = None;
        loop {
            // Read before asking whether to stop, so that what was committed before the stop is still sent.
            let stopping = stop.is_cancelled();
            self.collect_acks()?;
            // What was not taken is not offered again before something has arrived.
            let reading = self.room() && (!self.queue_full || self.in_flight.is_empty());
            let unfinished = if reading { self.advance(db, publisher).await? } else { true };
            self.housekeep(db).await?;
            if stopping {
                if !unfinished && self.in_flight.is_empty() {
                    return self.save(db).await;
                }
                let until = *grace.get_or_insert_with(|| Instant::now() + STOP_GRACE);
                if Instant::now() > until {
                    return Err(KafkaError::Canceled.into());
                }
            }
            if !(reading && unfinished && self.room()) {
                self.wait_for_work(publisher, stop, stopping).await?;
            }
        }
    }

    /// Forgets what was handed over but not acknowledged.
    pub(super) fn rewind(&mut self) {
        self.in_flight.clear();
        self.ahead = self.sent.clone();
    }

    /// Stands still at a record that was refused for good, with the reason where operators look, and keeps the lease.
    pub(super) async fn stand_still(
        &mut self,
        db: &mut PgConnection,
        stop: Stop,
        wait: Duration,
        told_to_stop: &CancellationToken,
    ) -> Result<(), RelayError> {
        error!(
            shard = self.lease.shard,
            position = stop.position,
            reason = stop.reason,
            again_in = ?wait,
            "the shard stands still; it goes on by itself once this is mended"
        );
        self.rewind();
        self.stopped = Some(stop);
        self.save(db).await?;
        let until = Instant::now() + wait;
        while Instant::now() < until && !told_to_stop.is_cancelled() {
            tokio::select! {
                () = told_to_stop.cancelled() => {}
                () = tokio::time::sleep(RENEW_EVERY.min(wait)) => {}
            }
            self.housekeep(db).await?;
        }
        Ok(())
    }

    /// Takes what was acknowledged off the front.
    fn collect_acks(&mut self) -> Result<(), RelayError> {
        if let Some(refusal) = self.in_flight.iter().find_map(|run| run.batch.refusal()) {
            return Err(refused(refusal));
        }
        while let Some(run) = self.in_flight.pop_front_if(|run| run.batch.done()) {
            metric::RELAY_PUBLISHED.counter(&[]).increment(run.rows);
            self.passed(run.after);
            self.dirty = true;
        }
        let open = self.in_flight.iter().map(|run| run.batch.open()).sum();
        if open < self.open || self.in_flight.is_empty() {
            self.acknowledged = Instant::now();
        }
        self.open = open;
        if self.acknowledged.elapsed() > STALLED { Err(RelayError::Stalled) } else { Ok(()) }
    }

    /// Everything up to this cursor is on Kafka.
    fn passed(&mut self, cursor: Cursor) {
        self.sent = cursor;
        if self.stopped.take().is_some() {
            info!(shard = self.lease.shard, "the shard goes on");
        }
    }

    /// Whether more may be handed over.
    fn room(&self) -> bool {
        self.in_flight.iter().map(|run| run.bytes).sum::<usize>() < UNDER_WAY_MAX / 2
    }

    /// Reads the next rows and hands them over. Whether there may be more at once.
    async fn advance(&mut self, db: &mut PgConnection, publisher: &Publisher) -> Result<bool, RelayError> {
        let Self { relay, lease, ahead, topic, .. } = self;
        let batch = publisher.batch();
        let (mut rows, mut bytes, mut queue_full, mut wrong) = (0, 0, false, None);
        let next = read::read(db, lease, ahead, relay.batch, |row| {
            if bytes + row.body.len() > READ_MAX && rows > 0 {
                return false;
            }
            let taken = match record(relay, topic, &row) {
                Ok(record) => publisher.send(record, &batch),
                Err(error) => {
                    wrong = Some(unreadable(row.position, &error));
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
        // The rows before the wrong one are sent first, so that they need not be sent again each time it is tried.
        if let Some(stop) = wrong
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
            self.passed(next);
        } else {
            // Past rows that were sent long ago.
            self.sent = next;
            self.dirty = true;
        }
        Ok(self.ahead.window_snapshot.is_some() && !queue_full)
    }

    /// What is due beside sending: the checkpoint, the lease, the measurements, the truncation.
    async fn housekeep(&mut self, db: &mut PgConnection) -> Result<(), RelayError> {
        if self.saved.elapsed() >= if self.dirty { SAVE_EVERY } else { RENEW_EVERY } {
            self.save(db).await?;
        }
        self.gauges.measure(db, &self.lease, &self.sent, self.stopped.is_some()).await?;
        self.slots.truncate_passed(db).await?;
        Ok(())
    }

    async fn save(&mut self, db: &mut PgConnection) -> Result<(), RelayError> {
        checkpoint::save(db, &self.lease, &self.sent, self.stopped.as_ref()).await?;
        self.saved = Instant::now();
        self.dirty = false;
        Ok(())
    }

    /// Waits until there may be something to read, or something is due.
    async fn wait_for_work(
        &mut self,
        publisher: &Publisher,
        stop: &CancellationToken,
        stopping: bool,
    ) -> Result<(), RelayError> {
        if self.busy && !stopping {
            tokio::time::sleep(LINGER).await;
        }
        // A checkpoint that is due is not kept waiting for messages.
        let until = tokio::time::Instant::now() + if self.dirty { SAVE_EVERY } else { POLL };
        let barred = !self.room() || self.queue_full;
        loop {
            tokio::select! {
                _ = self.wrote.changed(), if !barred && !stopping => return Ok(()),
                heard = self.signals.next(), if !barred && !stopping => return heard.map(drop),
                () = publisher.progress(), if !self.in_flight.is_empty() => {
                    self.collect_acks()?;
                    self.queue_full = false;
                    // An acknowledgement alone is no reason to read, unless reading waited for it.
                    if barred && self.room() || stopping && self.in_flight.is_empty() {
                        return Ok(());
                    }
                }
                () = tokio::time::sleep_until(until) => return Ok(()),
                () = stop.cancelled(), if !stopping => return Ok(()),
            }
        }
    }
}

/// The record of a row.
fn record<'a>(
    relay: &ShardRelay,
    topic: &'a mut String,
    row: &Found<'a>,
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
    if !refusal.for_good() {
        return refusal.error.into();
    }
    let Refusal { position, topic, error } = refusal;
    RelayError::Stopped(Stop {
        position,
        reason: format!(
            "the broker refuses the record at position {position} of the outbox for the topic {topic}: {error}; mend the \
             topic's settings or rights"
        ),
    })
}

fn unreadable(position: i64, error: &serde_json::Error) -> Stop {
    Stop {
        position,
        reason: format!(
            "the row at position {position} of the outbox is not an envelope: {error}; mend or delete the row"
        ),
    }
}
