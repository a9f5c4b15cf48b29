//! The consumer's loop: gather a batch, handle it, store the offsets.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use futures::{FutureExt, StreamExt};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{
    BaseConsumer, Consumer as _, ConsumerContext, MessageStream, Rebalance, StreamConsumer,
};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::pause_buffer::PauseBuffer;
use super::stall_detector::StallDetector;
use super::{attempt, park};
use crate::backoff::jittered;
use crate::cloudevents;
use crate::db::Db;
use crate::deadline::bounded;
use crate::fault::{Class, Fault};
use crate::incoming::Incoming;
use crate::kafka::{self, Kafka};
use crate::metric;
use crate::router::MessageRouter;

const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A batch that exhausts the database is halved after this many attempts.
const ATTEMPTS_BEFORE_HALVING: u32 = 2;
/// The largest total of message bodies in one transaction, in bytes. It bounds the memory and the size of a
/// statement.
const MAX_BATCH_BYTES: usize = 16 * 1024 * 1024;
/// The timeout of a seek.
const SEEK_TIMEOUT: Duration = Duration::from_secs(5);
/// A batch of at least this many messages means a high load, and the next batch is filled for [`LINGER`]. A
/// transaction costs nearly the same for thirty messages as for one.
const BUSY: usize = 32;
const LINGER: Duration = Duration::from_millis(16);
/// How long messages that may wait (see [`MessageRouter::may_wait`]) are collected before they are handled.
const DEFERRABLE_LINGER: Duration = Duration::from_millis(50);
/// How often an idle consumer polls. Usually the client wakes it earlier; the poll is a safety net.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// The wait before a removed member joins its group again.
const REJOIN_DELAY: Duration = Duration::from_millis(500);

/// Consumes the topics of a router as one member of a consumer group. Any number of replicas may run one each.
pub struct Consumer {
    db: Db,
    kafka: Kafka,
    router: Arc<MessageRouter>,
    /// The consumer group, without the installation's prefix.
    group: String,
    member: Option<String>,
    /// The largest number of messages in one transaction.
    batch: usize,
    /// Set while the member has its share of the partitions.
    assigned: Arc<AtomicBool>,
}

/// The offset of the next record of each partition.
type Offsets = HashMap<(String, i32), i64>;

/// Work that is repeated until it succeeds.
#[derive(Clone, Copy)]
enum Work<'w> {
    Handle(&'w [&'w Incoming]),
    Park(&'w Incoming, &'w str),
}

struct Context {
    assigned: Arc<AtomicBool>,
    /// Whether the member has joined and has its share of the partitions, which may be empty.
    joined: AtomicBool,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        kafka::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        kafka::report(&error, reason);
    }
}

impl ConsumerContext for Context {
    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let count = consumer.assignment().map_or(0, |list| list.count());
        metric::CONSUMER_PARTITIONS.gauge(&[]).set(count as f64);
        self.joined.store(matches!(rebalance, Rebalance::Assign(_)), Ordering::Release);
        if let Rebalance::Assign(_) = rebalance {
            // An empty share is fine too: a group may have more members than partitions.
            self.assigned.store(true, Ordering::Release);
            info!(partitions = count, "partitions assigned");
        }
    }
}

impl Consumer {
    /// Creates a consumer of the group `group`. It passes the messages to the router's handlers.
    pub fn new(db: Db, kafka: Kafka, group: impl Into<String>, router: Arc<MessageRouter>) -> Self {
        let (group, assigned) = (group.into(), Arc::default());
        Self { db, kafka, router, group, member: None, batch: 500, assigned }
    }

    /// Sets the name of this group member. The name must survive a restart and differ between replicas. A restarted
    /// member then gets its partitions back without a rebalance.
    #[must_use]
    pub fn static_member(self, name: Option<String>) -> Self {
        Self { member: name, ..self }
    }

    /// Sets the largest number of messages in one transaction. The default is 500.
    #[must_use]
    pub fn batch(self, messages: usize) -> Self {
        Self { batch: messages.max(1), ..self }
    }

    /// Returns a flag that is set while the member has its share of the partitions.
    #[cfg(feature = "service")]
    pub(crate) fn assigned(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.assigned)
    }

    /// Runs until `stop`. Before it returns, it finishes the current batch and commits its offsets. The core's tables
    /// must exist; see [`crate::migrations`].
    ///
    /// # Errors
    /// Fails if the settings of the Kafka client are invalid.
    pub async fn run(self, stop: CancellationToken) -> Result<(), KafkaError> {
        let workers = self.router.take_workers().into_iter();
        let workers = workers.map(|(_, work)| work(self.db.clone(), stop.clone()));
        tokio::join!(self.consume(&stop), join_all(workers)).0
    }

    async fn consume(&self, stop: &CancellationToken) -> Result<(), KafkaError> {
        let mut detector = StallDetector::new();
        while !stop.is_cancelled() {
            self.member(&mut detector, stop).await?;
            detector.restart();
            self.assigned.store(false, Ordering::Release);
            stop.run_until_cancelled(tokio::time::sleep(jittered(REJOIN_DELAY))).await;
        }
        Ok(())
    }

    /// Runs one membership in the group. It ends at `stop`, or if the broker removes the member for good. The broker
    /// does that with a static member after the broker itself has crashed. Nothing is lost: records without a stored
    /// offset are delivered again.
    async fn member(&self, detector: &mut StallDetector, stop: &CancellationToken) -> Result<(), KafkaError> {
        let consumer = Arc::new(self.connect()?);
        let topics: Vec<String> = self.router.topics().map(|topic| self.kafka.name(topic)).collect();
        consumer.subscribe(&topics.iter().map(String::as_str).collect::<Vec<_>>())?;
        let mut buffer = PauseBuffer::new(self.batch);
        let mut busy = false;
        while !stop.is_cancelled() && consumer.client().fatal_error().is_none() {
            let mut offsets = Offsets::new();
            let linger = if busy { LINGER } else { Duration::ZERO };
            let batch = self.gather(&consumer, &mut buffer, &mut offsets, linger, stop).await;
            busy = batch.len() >= BUSY;
            if !batch.is_empty() {
                let began = Instant::now();
                metric::CONSUMER_BATCH_MESSAGES.histogram(&[]).record(batch.len() as f64);
                let all: Vec<&Incoming> = batch.iter().collect();
                if !self.commit_or_park(&consumer, &all, &mut buffer, stop).await {
                    // Either a stop came during an outage, or a seek failed. The batch's offsets are not stored, so
                    // it is delivered again.
                    return Ok(());
                }
                metric::CONSUMER_BATCH_SECONDS.histogram(&[]).record(began.elapsed().as_secs_f64());
            }
            store(&consumer, &offsets);
            let joined = consumer.context().joined.load(Ordering::Acquire);
            let check = detector.is_stalled(&self.kafka, &consumer, batch.len() < self.batch, joined);
            if stop.run_until_cancelled(check).await == Some(true) {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "to close it may take for ever: a client that has forgotten one thing may have forgotten more"
                )]
                drop(tokio::task::spawn_blocking(move || drop(consumer)));
                return Ok(());
            }
        }
        if let Some((code, reason)) = consumer.client().fatal_error() {
            warn!(%code, reason, "the broker has put this member out of its group; it joins anew");
        }
        // Dropping the consumer commits the stored offsets and leaves the group.
        Ok(())
    }

    fn connect(&self) -> Result<StreamConsumer<Context>, KafkaError> {
        let mut config = self.kafka.client();
        config
            .set("group.id", self.kafka.name(&self.group))
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("heartbeat.interval.ms", "500")
            .set("session.timeout.ms", "6000")
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.offset.store", "false")
            .set("enable.auto.commit", "true")
            .set("auto.commit.interval.ms", "500")
            .set("fetch.wait.max.ms", "500")
            .set("fetch.error.backoff.ms", "100")
            // The number of bytes limits prefetching. The limit by messages counts all partitions together. At either
            // limit the client's default pause is one second, in which the consumer would run out of records.
            .set("queued.min.messages", "100000")
            .set("queued.max.messages.kbytes", "8192")
            .set("fetch.queue.backoff.ms", "5");
        if let Some(instance) = &self.member {
            config.set("group.instance.id", format!("{}-{instance}", self.kafka.name(&self.group)));
        }
        let (assigned, joined) = (Arc::clone(&self.assigned), AtomicBool::new(false));
        config.create_with_context(Context { assigned, joined })
    }

    /// Waits for the first record, and adds the records that are already there or arrive within `linger`. While the
    /// batch has only messages that may wait, it waits for more.
    async fn gather(
        &self,
        consumer: &StreamConsumer<Context>,
        buffer: &mut PauseBuffer,
        offsets: &mut Offsets,
        linger: Duration,
        stop: &CancellationToken,
    ) -> Vec<Incoming> {
        let mut batch: Vec<Incoming> = Vec::new();
        let mut since = None;
        // How many messages of the batch were checked, and whether all of them may wait.
        let (mut checked, mut all_deferrable) = (0, true);
        let mut stream = consumer.stream();
        let mut bytes = 0;
        for message in buffer.take() {
            offsets.insert((self.kafka.name(&message.topic), message.partition), message.offset + 1);
            bytes += message.body.len();
            batch.push(message);
        }
        let mut taken = batch.len();
        while taken < self.batch && bytes < MAX_BATCH_BYTES {
            all_deferrable =
                all_deferrable && batch[checked..].iter().all(|message| self.router.may_wait(message.kind()));
            checked = batch.len();
            let linger = if all_deferrable && !batch.is_empty() { DEFERRABLE_LINGER } else { linger };
            let wait_for = match taken {
                0 => Wait::First,
                _ if linger.is_zero() => Wait::Available,
                _ => Wait::Until(*since.get_or_insert_with(tokio::time::Instant::now) + linger),
            };
            let next = next(&mut stream, wait_for, stop).await;
            match next {
                Some(Ok(record)) => {
                    taken += 1;
                    bytes += record.payload_len();
                    offsets.insert((record.topic().to_owned(), record.partition()), record.offset() + 1);
                    batch.extend(self.incoming(&record));
                }
                Some(Err(error)) => {
                    // librdkafka recovers without help unless the error is fatal; `member` checks for that.
                    debug!(%error, "the consumer reports");
                    break;
                }
                None => break,
            }
        }
        batch
    }

    /// Returns the message, unless this router ignores it.
    fn incoming(&self, record: &BorrowedMessage<'_>) -> Option<Incoming> {
        let topic = record.topic().strip_prefix(self.kafka.prefix.as_str()).unwrap_or(record.topic());
        let kind = cloudevents::header(record.headers(), cloudevents::TYPE);
        if kind.is_some_and(|kind| self.router.skips(topic, kind)) {
            return None;
        }
        let mut message = Incoming::new(record, topic.to_owned());
        self.router.admit(&mut message).then_some(message)
    }

    /// Repeats until the batch is committed or its bad messages are parked. Returns whether that happened before a
    /// stop.
    async fn commit_or_park(
        &self,
        consumer: &StreamConsumer<Context>,
        batch: &[&Incoming],
        buffer: &mut PauseBuffer,
        stop: &CancellationToken,
    ) -> bool {
        let Some(fault) = self.retried(consumer, buffer, stop, Work::Handle(batch)).await else {
            return false;
        };
        let Err(fault) = fault else { return true };
        let &[message] = batch else {
            let size = if fault.exhausts() { batch.len().div_ceil(2) } else { 1 };
            warn!(messages = batch.len(), %fault, size, "the batch failed and is redone in smaller ones");
            for part in batch.chunks(size) {
                if !Box::pin(self.commit_or_park(consumer, part, buffer, stop)).await {
                    return false;
                }
            }
            return true;
        };
        error!(
            key = %message.key, message = ?message.envelope.as_ref().map(|envelope| envelope.id),
            topic = %message.topic, partition = message.partition, offset = message.offset, %fault,
            "the message failed for good; its key is parked"
        );
        let reason = fault.chain();
        self.retried(consumer, buffer, stop, Work::Park(message, &reason)).await.is_some()
    }

    /// Repeats `work` while its failure is transient. A batch that exhausts the database is returned after a few
    /// attempts, to be halved. Returns `None` if a stop came first.
    async fn retried(
        &self,
        consumer: &StreamConsumer<Context>,
        buffer: &mut PauseBuffer,
        stop: &CancellationToken,
        work: Work<'_>,
    ) -> Option<Result<(), Fault>> {
        let mut backoff = BACKOFF_MIN;
        let mut exhausted = 0;
        loop {
            let ended = match work {
                Work::Handle(batch) => bounded(attempt(&self.db, &self.router, batch)).await,
                Work::Park(message, reason) => bounded(park(&self.db, message, reason)).await,
            };
            if let (Err(fault), Work::Handle(batch)) = (&ended, work)
                && fault.exhausts()
                && batch.len() > 1
            {
                exhausted += 1;
                if exhausted == ATTEMPTS_BEFORE_HALVING {
                    return Some(ended);
                }
            }
            match ended {
                // Parking is repeated after any failure, because a message that is neither handled nor parked is
                // lost.
                Err(fault) if fault.class() == Class::Retry || matches!(work, Work::Park(..)) => {
                    metric::CONSUMER_RETRIES.counter(&[]).increment(1);
                    warn!(%fault, retry_in = ?backoff, "the batch is tried again");
                }
                ended => return Some(ended),
            }
            if stop.is_cancelled() {
                return None;
            }
            if let Err(error) = self.wait_paused(consumer, jittered(backoff), buffer, stop).await {
                warn!(%error, "a partition could not be set back; the member joins anew");
                return None;
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
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

/// How long to wait for the next record of a batch.
enum Wait {
    /// The batch is empty.
    First,
    /// Take only records that are already there.
    Available,
    Until(tokio::time::Instant),
}

/// Returns the next record, or `None` if it does not arrive in time or a stop comes first.
async fn next<'c>(
    stream: &mut MessageStream<'c, Context>,
    wait_for: Wait,
    stop: &CancellationToken,
) -> Option<KafkaResult<BorrowedMessage<'c>>> {
    let until = match wait_for {
        Wait::Available => return stream.next().now_or_never().flatten(),
        Wait::First => tokio::time::Instant::now() + POLL_INTERVAL,
        Wait::Until(until) => until,
    };
    tokio::select! {
        next = tokio::time::timeout_at(until, stream.next()) => next.ok().flatten(),
        () = stop.cancelled() => None,
    }
}

/// Marks the records as done. A partition that was lost in the meantime belongs to its new owner.
fn store(consumer: &StreamConsumer<Context>, offsets: &Offsets) {
    for ((topic, partition), next) in offsets {
        if let Err(error) = consumer.store_offset(topic, *partition, next - 1) {
            info!(topic, partition, %error, "the offset was not stored; the partition has another owner now");
        }
    }
}
