//! The loop: gather what has arrived, have it handled, store the offsets.

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

use super::held::Held;
use super::watch::Watch;
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
/// How often a batch that exhausts the database is tried before it is halved.
const TRIES_BEFORE_HALVING: u32 = 2;
/// Most bytes in one transaction, so that large messages fill neither the memory nor a statement.
const MAX_BATCH_BYTES: usize = 16 * 1024 * 1024;
/// How long it may take to set a partition back.
const SEEK_TIMEOUT: Duration = Duration::from_secs(5);
/// From this many messages in a batch on, there is so much to do that the next batch is filled for [`LINGER`]: a
/// transaction, and what comes of it, costs nearly the same for thirty messages as for one.
const BUSY: usize = 32;
const LINGER: Duration = Duration::from_millis(16);
/// How long messages wait for others of their kind that nobody waits for.
const PATIENCE: Duration = Duration::from_millis(50);
/// How often a consumer without messages looks by itself whether there are any. The client's wake-up is what makes it quick;
/// this is the safety net.
const POLL: Duration = Duration::from_secs(1);
/// The wait before a member that was thrown out joins again.
const REJOIN: Duration = Duration::from_millis(500);

/// Consumes the topics of a router as one member of a consumer group. Any number of replicas may run one.
pub struct Consumer {
    db: Db,
    kafka: Kafka,
    router: Arc<MessageRouter>,
    /// The consumer group, without the installation's prefix.
    group: String,
    member: Option<String>,
    /// The largest number of messages in one transaction.
    batch: usize,
    /// Set while partitions are assigned.
    assigned: Arc<AtomicBool>,
}

/// Where the next record of each partition is.
type Offsets = HashMap<(String, i32), i64>;

/// What is repeated until it is done.
#[derive(Clone, Copy)]
enum Work<'w> {
    Handle(&'w [&'w Incoming]),
    Park(&'w Incoming, &'w str),
}

struct Context {
    assigned: Arc<AtomicBool>,
    /// Whether the member has its share of the partitions, which may be none.
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
            // Also with none: a member of a group that has more members than partitions is well.
            self.assigned.store(true, Ordering::Release);
            info!(partitions = count, "partitions assigned");
        }
    }
}

impl Consumer {
    /// A consumer of the group `group` that gives what arrives to the router's handlers.
    pub fn new(db: Db, kafka: Kafka, group: impl Into<String>, router: Arc<MessageRouter>) -> Self {
        let (group, assigned) = (group.into(), Arc::default());
        Self { db, kafka, router, group, member: None, batch: 500, assigned }
    }

    /// A name for this member of the group that outlives a restart and differs between replicas. With it a restarted member
    /// gets its partitions back at once, without a rebalance.
    #[must_use]
    pub fn static_member(self, name: Option<String>) -> Self {
        Self { member: name, ..self }
    }

    /// The largest number of messages in one transaction; 500 unless it is set.
    #[must_use]
    pub fn batch(self, messages: usize) -> Self {
        Self { batch: messages.max(1), ..self }
    }

    /// Whether the member has its share of the partitions, as a flag that follows it.
    #[cfg(feature = "service")]
    pub(crate) fn assigned(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.assigned)
    }

    /// Runs until `stop`. The messages in hand are finished and their offsets committed before it returns. The tables must be
    /// there: see [`crate::migrations`].
    ///
    /// # Errors
    /// If the client's settings are wrong.
    pub async fn run(self, stop: CancellationToken) -> Result<(), KafkaError> {
        // A consumer that can't begin must not wait for its workers, which would run on.
        let workers_stop = stop.child_token();
        let workers = self.router.take_workers().into_iter();
        let workers = workers.map(|(_, work)| work(self.db.clone(), workers_stop.clone()));
        let consumed = async {
            let ended = self.consume(&stop).await;
            workers_stop.cancel();
            ended
        };
        tokio::join!(consumed, join_all(workers)).0
    }

    async fn consume(&self, stop: &CancellationToken) -> Result<(), KafkaError> {
        let mut watch = Watch::new();
        while !stop.is_cancelled() {
            self.member(&mut watch, stop).await?;
            watch.restart();
            self.assigned.store(false, Ordering::Release);
            stop.run_until_cancelled(tokio::time::sleep(jittered(REJOIN))).await;
        }
        Ok(())
    }

    /// One membership in the group, until `stop` or until the broker throws the member out for good, as it does with
    /// a static one after a crash of its own. Nothing is lost by that: what was not stored comes again.
    async fn member(&self, watch: &mut Watch, stop: &CancellationToken) -> Result<(), KafkaError> {
        let consumer = Arc::new(self.connect()?);
        let topics: Vec<String> = self.router.topics().map(|topic| self.kafka.name(topic)).collect();
        consumer.subscribe(&topics.iter().map(String::as_str).collect::<Vec<_>>())?;
        let mut held = Held::new(self.batch);
        let mut busy = false;
        while !stop.is_cancelled() && consumer.client().fatal_error().is_none() {
            let mut offsets = Offsets::new();
            let linger = if busy { LINGER } else { Duration::ZERO };
            let batch = self.gather(&consumer, &mut held, &mut offsets, linger, stop).await;
            busy = batch.len() >= BUSY;
            if !batch.is_empty() {
                let began = Instant::now();
                metric::CONSUMER_BATCH_MESSAGES.histogram(&[]).record(batch.len() as f64);
                let all: Vec<&Incoming> = batch.iter().collect();
                if !self.commit_or_park(&consumer, &all, &mut held, stop).await {
                    // Stopped in the middle of an outage, or at odds with the broker about where to go on: nothing of
                    // the batch is stored, it comes again.
                    return Ok(());
                }
                metric::CONSUMER_BATCH_SECONDS.histogram(&[]).record(began.elapsed().as_secs_f64());
            }
            store(&consumer, &offsets);
            let joined = consumer.context().joined.load(Ordering::Acquire);
            let look = watch.stands_still(&self.kafka, &consumer, batch.len() < self.batch, joined);
            if stop.run_until_cancelled(look).await == Some(true) {
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
            // What is fetched ahead is bounded by its bytes. The other bound counts all partitions together, and the client's
            // usual pause at either is a second, in which the consumer runs dry.
            .set("queued.min.messages", "100000")
            .set("queued.max.messages.kbytes", "8192")
            .set("fetch.queue.backoff.ms", "5");
        if let Some(instance) = &self.member {
            config.set("group.instance.id", format!("{}-{instance}", self.kafka.name(&self.group)));
        }
        let (assigned, joined) = (Arc::clone(&self.assigned), AtomicBool::new(false));
        config.create_with_context(Context { assigned, joined })
    }

    /// Waits for the first record and takes with it what else is there, or comes within `linger`. As long as it has only
    /// messages that may wait, it waits for more of them.
    async fn gather(
        &self,
        consumer: &StreamConsumer<Context>,
        held: &mut Held,
        offsets: &mut Offsets,
        linger: Duration,
        stop: &CancellationToken,
    ) -> Vec<Incoming> {
        let mut batch: Vec<Incoming> = Vec::new();
        let mut since = None;
        // How many of the batch were looked at for whether they may wait, and whether all of them may.
        let (mut looked_at, mut patient) = (0, true);
        let mut stream = consumer.stream();
        let mut bytes = 0;
        for message in held.take() {
            offsets.insert((self.kafka.name(&message.topic), message.partition), message.offset + 1);
            bytes += message.body.len();
            batch.push(message);
        }
        let mut taken = batch.len();
        while taken < self.batch && bytes < MAX_BATCH_BYTES {
            patient =
                patient && batch[looked_at..].iter().all(|message| self.router.may_wait(message.kind()));
            looked_at = batch.len();
            let linger = if patient && !batch.is_empty() { PATIENCE } else { linger };
            let patience = match taken {
                0 => Patience::First,
                _ if linger.is_zero() => Patience::WhatIsThere,
                _ => Patience::Until(*since.get_or_insert_with(tokio::time::Instant::now) + linger),
            };
            let next = next(&mut stream, patience, stop).await;
            match next {
                Some(Ok(record)) => {
                    taken += 1;
                    bytes += record.payload_len();
                    offsets.insert((record.topic().to_owned(), record.partition()), record.offset() + 1);
                    batch.extend(self.incoming(&record));
                }
                Some(Err(error)) => {
                    // librdkafka goes on by itself, unless the error is fatal; `member` looks after that.
                    debug!(%error, "the consumer reports");
                    break;
                }
                None => break,
            }
        }
        batch
    }

    /// The message, unless it is of no concern here.
    fn incoming(&self, record: &BorrowedMessage<'_>) -> Option<Incoming> {
        let topic = record.topic().strip_prefix(self.kafka.prefix.as_str()).unwrap_or(record.topic());
        let kind = cloudevents::header(record.headers(), cloudevents::TYPE);
        if kind.is_some_and(|kind| self.router.passes_over(topic, kind)) {
            return None;
        }
        let mut message = Incoming::new(record, topic.to_owned());
        self.router.admit(&mut message).then_some(message)
    }

    /// Repeats until the batch is committed or its bad messages are parked. Whether it was, or a stop came first.
    async fn commit_or_park(
        &self,
        consumer: &StreamConsumer<Context>,
        batch: &[&Incoming],
        held: &mut Held,
        stop: &CancellationToken,
    ) -> bool {
        let Some(fault) = self.retried(consumer, held, stop, Work::Handle(batch)).await else {
            return false;
        };
        let Err(fault) = fault else { return true };
        let &[message] = batch else {
            let size = if fault.exhausts() { batch.len().div_ceil(2) } else { 1 };
            warn!(messages = batch.len(), %fault, size, "the batch failed and is redone in smaller ones");
            for part in batch.chunks(size) {
                if !Box::pin(self.commit_or_park(consumer, part, held, stop)).await {
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
        self.retried(consumer, held, stop, Work::Park(message, &reason)).await.is_some()
    }

    /// Repeats `work` while its failure may pass; a batch that is too much for the database is given back after a few
    /// tries, to be halved. `None` if a stop came first, else how it ended.
    async fn retried(
        &self,
        consumer: &StreamConsumer<Context>,
        held: &mut Held,
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
                if exhausted == TRIES_BEFORE_HALVING {
                    return Some(ended);
                }
            }
            match ended {
                // Parking is repeated whatever it fails with: a message that is neither handled nor parked is lost.
                Err(fault) if fault.class() == Class::Retry || matches!(work, Work::Park(..)) => {
                    metric::CONSUMER_RETRIES.counter(&[]).increment(1);
                    warn!(%fault, retry_in = ?backoff, "the batch is tried again");
                }
                ended => return Some(ended),
            }
            if stop.is_cancelled() {
                return None;
            }
            if let Err(error) = self.wait_paused(consumer, jittered(backoff), held, stop).await {
                warn!(%error, "a partition could not be set back; the member joins anew");
                return None;
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Waits while polling, with the partitions paused, so that the member stays in its group however long it takes.
    ///
    /// # Errors
    /// If a partition could not be set back to the first record that was not held. The membership must end then: what
    /// is read next would leave that record out.
    async fn wait_paused(
        &self,
        consumer: &StreamConsumer<Context>,
        wait: Duration,
        held: &mut Held,
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
                    // A record that was on its way before the pause; it is handled after the batch in hand.
                    if let Some(Ok(record)) = next {
                        if held.has_room(record.topic(), record.partition(), record.offset()) {
                            self.incoming(&record).into_iter().for_each(|message| held.push(message));
                        }
                        // It may be of a partition that was assigned meanwhile: pause that too.
                        if let Ok(all) = consumer.assignment() {
                            let _ = consumer.pause(&all);
                            partitions = all;
                        }
                    }
                }
            }
        }
        let owned = consumer.assignment()?;
        for ((topic, partition), offset) in held.set_back() {
            // Where it has another owner now, that one goes on from what was stored.
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

/// How long the next record of a batch is waited for.
enum Patience {
    /// The batch is empty.
    First,
    /// Not at all.
    WhatIsThere,
    Until(tokio::time::Instant),
}

/// The next record; none if it does not come in time, or at a stop.
async fn next<'c>(
    stream: &mut MessageStream<'c, Context>,
    patience: Patience,
    stop: &CancellationToken,
) -> Option<KafkaResult<BorrowedMessage<'c>>> {
    let until = match patience {
        Patience::WhatIsThere => return stream.next().now_or_never().flatten(),
        Patience::First => tokio::time::Instant::now() + POLL,
        Patience::Until(until) => until,
    };
    tokio::select! {
        next = tokio::time::timeout_at(until, stream.next()) => next.ok().flatten(),
        () = stop.cancelled() => None,
    }
}

/// Marks the records as done. A partition that was lost meanwhile is its new owner's business.
fn store(consumer: &StreamConsumer<Context>, offsets: &Offsets) {
    for ((topic, partition), next) in offsets {
        if let Err(error) = consumer.store_offset(topic, *partition, next - 1) {
            info!(topic, partition, %error, "the offset was not stored; the partition has another owner now");
        }
    }
}
