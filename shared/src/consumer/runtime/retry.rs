//! Repeats a batch until it is committed or its bad messages are parked.

use std::time::{Duration, Instant};

use futures::StreamExt;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Consumer, Context};
use crate::backoff::jittered;
use crate::consumer::pause_buffer::PauseBuffer;
use crate::consumer::{attempt, park};
use crate::deadline::bounded;
use crate::fault::{Class, Fault};
use crate::incoming::Incoming;
use crate::metric;

const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A batch that exhausts the database is halved after this many attempts.
const ATTEMPTS_BEFORE_HALVING: u32 = 2;
/// A batch whose failure does not pass is taken apart after this part of the consumer's patience.
const ALONE_AFTER: u32 = 10;
/// The timeout of a seek.
const SEEK_TIMEOUT: Duration = Duration::from_secs(5);

/// Work that is repeated until it succeeds.
#[derive(Clone, Copy)]
enum Work<'w> {
    /// The messages, and whether they have failed for good before.
    Handle(&'w [&'w Incoming], bool),
    Park(&'w Incoming, &'w str),
}

impl Consumer {
    /// Repeats until the batch is committed or its bad messages are parked. Returns whether that happened before a
    /// stop.
    pub(super) async fn commit_or_park(
        &self,
        consumer: &StreamConsumer<Context>,
        batch: &[&Incoming],
        buffer: &mut PauseBuffer,
        stop: &CancellationToken,
    ) -> bool {
        // The parts that are left, the next one last, and whether their messages have failed for good before.
        let mut parts = vec![(batch, false)];
        while let Some((part, again)) = parts.pop() {
            let work = Work::Handle(part, again);
            let Some(ended) = self.retried(consumer, buffer, stop, work).await else { return false };
            let Err(fault) = ended else { continue };
            match part {
                &[message] if again || fault.class() == Class::Retry => {
                    warn!(
                        key = %message.key, message_id = ?message.id(),
                        topic = %message.topic, partition = message.partition, offset = message.offset, %fault,
                        "the message failed for good and is being parked"
                    );
                    let reason = fault.chain();
                    if self.retried(consumer, buffer, stop, Work::Park(message, &reason)).await.is_none() {
                        return false;
                    }
                }
                // It is tried once more, as those of a larger batch are.
                [_] => parts.push((part, true)),
                _ => {
                    let size = if fault.exhausts() { part.len().div_ceil(2) } else { 1 };
                    warn!(messages = part.len(), %fault, size, "the batch failed and is redone in smaller ones");
                    let again = again || size == 1;
                    parts.extend(part.chunks(size).rev().map(|part| (part, again)));
                }
            }
        }
        true
    }

    /// Repeats `work` while its failure is transient. A batch that exhausts the database is returned after a few
    /// attempts, to be halved. Returns `None` if a stop came first.
    ///
    /// A failure that may pass but does not is in the end the message's own: a batch is taken apart, and one message is
    /// given up when the patience is over and the database commits other work. It must not hold up its partition for ever.
    async fn retried(
        &self,
        consumer: &StreamConsumer<Context>,
        buffer: &mut PauseBuffer,
        stop: &CancellationToken,
        work: Work<'_>,
    ) -> Option<Result<(), Fault>> {
        let mut backoff = BACKOFF_MIN;
        let mut exhausted = 0;
        let began = Instant::now();
        loop {
            let ended = match work {
                Work::Handle(batch, again) => bounded(attempt(&self.db, &self.router, batch, again)).await,
                Work::Park(message, reason) => bounded(park(&self.db, message, reason)).await,
            };
            if let (Err(fault), Work::Handle(batch, _)) = (&ended, work)
                && fault.exhausts()
                && batch.len() > 1
            {
                exhausted += 1;
                if exhausted == ATTEMPTS_BEFORE_HALVING {
                    return Some(ended);
                }
            }
            let failed = match ended {
                // Parking is repeated after any failure, because a message that is neither handled nor parked is
                // lost.
                Err(fault) if fault.class() == Class::Retry || matches!(work, Work::Park(..)) => {
                    metric::CONSUMER_RETRIES.counter(&[]).increment(1);
                    warn!(%fault, retry_in = ?backoff, "the batch is tried again");
                    Some(fault)
                }
                ended => return Some(ended),
            };
            if stop.is_cancelled() {
                return None;
            }
            if let (Some(fault), Work::Handle(batch, _)) = (failed, work) {
                let alone = batch.len() == 1;
                let patience = if alone { self.patience } else { self.patience / ALONE_AFTER };
                if began.elapsed() >= patience && (!alone || self.commits().await) {
                    return Some(Err(fault));
                }
            }
            if let Err(error) = self.wait_paused(consumer, jittered(backoff), buffer, stop).await {
                warn!(%error, "a partition could not be set back; the member joins anew");
                return None;
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Returns whether the database commits work that has nothing to do with a message.
    async fn commits(&self) -> bool {
        bounded(async { Ok(self.db.write(&[]).await?.commit().await?) }).await.is_ok()
    }

    /// Waits while polling, with the partitions paused. Polling keeps the member in its group during a long wait.
    ///
    /// # Errors
    /// Fails if a seek to the first rejected record fails. The membership must end then, because continuing would
    /// skip that record.
    async fn wait_paused(
        &self,
        consumer: &StreamConsumer<Context>,
        wait: Duration,
        buffer: &mut PauseBuffer,
        stop: &CancellationToken,
    ) -> Result<(), KafkaError> {
        let mut partitions = consumer.assignment().unwrap_or_else(|_| TopicPartitionList::new());
        if let Err(error) = consumer.pause(&partitions) {
            warn!(%error, "the partitions could not be paused");
        }
        let mut stream = consumer.stream();
        let over = tokio::time::sleep(wait);
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut over => break,
                () = stop.cancelled() => break,
                next = stream.next() => {
                    // The record was on its way before the pause. It is handled after the current batch.
                    if let Some(Ok(record)) = next {
                        if buffer.has_room(record.topic(), record.partition(), record.offset()) {
                            self.incoming(&record).into_iter().for_each(|message| buffer.push(message));
                        }
                        // The record may belong to a newly assigned partition, so that one is paused too.
                        if let Ok(all) = consumer.assignment() {
                            let _ = consumer.pause(&all);
                            partitions = all;
                        }
                    }
                }
            }
        }
        let owned = consumer.assignment()?;
        for ((topic, partition), offset) in buffer.take_rewinds() {
            // If the partition has a new owner, that owner continues from the stored offset.
            if owned.find_partition(&topic, partition).is_none() {
                continue;
            }
            metric::CONSUMER_SEEKS.counter(&[]).increment(1);
            consumer.seek(&topic, partition, Offset::Offset(offset), SEEK_TIMEOUT)?;
        }
        if let Err(error) = consumer.resume(&partitions) {
            warn!(%error, "the partitions could not be resumed");
        }
        Ok(())
    }
}
