//! Gathers the next batch of messages.

use std::time::Duration;

use futures::{FutureExt, StreamExt};
use rdkafka::consumer::{MessageStream, StreamConsumer};
use rdkafka::error::KafkaResult;
use rdkafka::message::{BorrowedMessage, Message as _};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{Consumer, Context, Offsets};
use crate::cloudevents;
use crate::consumer::pause_buffer::PauseBuffer;
use crate::incoming::Incoming;
use crate::metric;

/// The largest total of message bodies in one transaction, in bytes. It bounds the memory and the size of a
/// statement.
const MAX_BATCH_BYTES: usize = 16 * 1024 * 1024;
/// How long messages that may wait (see [`crate::router::BatchHandler::may_wait`]) are collected before they are handled.
const DEFERRABLE_LINGER: Duration = Duration::from_millis(50);
/// How often an idle consumer polls. Usually the client wakes it earlier; the poll is a safety net.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

impl Consumer {
    /// Waits for the first record, and adds the records that are already there or arrive within `linger`. While the
    /// batch has only messages that may wait, it waits for more.
    pub(super) async fn gather(
        &self,
        consumer: &StreamConsumer<Context>,
        buffer: &mut PauseBuffer,
        offsets: &mut Offsets,
        linger: Duration,
        stop: &CancellationToken,
    ) -> Vec<Incoming> {
        let mut batch: Vec<Incoming> = Vec::new();
        let mut not_consumed = 0;
        let mut stream = consumer.stream();
        let mut bytes = 0;
        for message in buffer.take() {
            offsets.insert((self.kafka.name(&message.topic), message.partition), message.offset + 1);
            bytes += message.body.len();
            batch.push(message);
        }
        let mut taken = batch.len();
        // More messages never make a batch less urgent.
        let (mut since, mut waits) = (None, true);
        while taken < self.batch && bytes < MAX_BATCH_BYTES {
            let available = stream.next().now_or_never().flatten();
            let next = match available {
                Some(next) => Some(next),
                None if taken == 0 => {
                    wait(&mut stream, tokio::time::Instant::now() + POLL_INTERVAL, stop).await
                }
                None => {
                    waits = waits && self.router.may_wait(&batch);
                    let linger = if waits { linger.max(DEFERRABLE_LINGER) } else { linger };
                    if linger.is_zero() {
                        break;
                    }
                    let until = *since.get_or_insert_with(tokio::time::Instant::now) + linger;
                    wait(&mut stream, until, stop).await
                }
            };
            match next {
                Some(Ok(record)) => {
                    taken += 1;
                    bytes += record.payload_len();
                    buffer.positions.took(record.topic(), record.partition(), record.offset());
                    offsets.insert((record.topic().to_owned(), record.partition()), record.offset() + 1);
                    let message = self.incoming(&record);
                    not_consumed += u64::from(message.is_none());
                    batch.extend(message);
                }
                Some(Err(error)) => {
                    // librdkafka recovers without help unless the error is fatal; `member` checks for that.
                    debug!(%error, "the consumer reports");
                    break;
                }
                None => break,
            }
        }
        if not_consumed > 0 {
            metric::MESSAGES_PASSED_OVER.counter(&["not_consumed"]).increment(not_consumed);
        }
        batch
    }

    /// Returns the message, unless this router ignores it.
    pub(super) fn incoming(&self, record: &BorrowedMessage<'_>) -> Option<Incoming> {
        let topic = record.topic().strip_prefix(self.kafka.prefix.as_str()).unwrap_or(record.topic());
        let kind = cloudevents::header(record.headers(), cloudevents::TYPE);
        if kind.is_some_and(|kind| self.router.skips(topic, kind)) {
            return None;
        }
        let mut message = Incoming::new(record, topic.to_owned());
        // A record that cannot be read may answer a step, unless its headers say that it does not concern this service.
        let answers_step = cloudevents::header(record.headers(), cloudevents::OUTCOME).is_some();
        if message.envelope.is_none()
            && !answers_step
            && kind.is_some_and(|kind| self.router.is_foreign(topic, kind))
        {
            return None;
        }
        self.router.admit(&mut message).then_some(message)
    }
}

/// Returns the next record, or `None` if it does not arrive in time or a stop comes first.
async fn wait<'c>(
    stream: &mut MessageStream<'c, Context>,
    until: tokio::time::Instant,
    stop: &CancellationToken,
) -> Option<KafkaResult<BorrowedMessage<'c>>> {
    tokio::select! {
        next = tokio::time::timeout_at(until, stream.next()) => next.ok().flatten(),
        () = stop.cancelled() => None,
    }
}
