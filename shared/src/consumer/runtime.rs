//! The consumer's loop: gather a batch, handle it, store the offsets.

mod coverage;
mod deleted;
mod gather;
mod retry;
mod set_back;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::join_all;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, Rebalance, StreamConsumer};
use rdkafka::error::KafkaError;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::coverage::Coverage;
use self::deleted::Fresh;
use self::set_back::{Mark, store};
use super::pause_buffer::PauseBuffer;
use super::positions::Partition;
use super::stall_detector::StallDetector;
use super::temper::Assigned;
use crate::backoff::jittered;
use crate::db::Db;
use crate::incoming::Incoming;
use crate::kafka::{self, Kafka};
use crate::metric;
use crate::router::{MessageRouter, Temper};

/// A batch of at least this many messages means a high load, and the next batch is filled for [`LINGER`]. A
/// transaction costs nearly the same for thirty messages as for one.
const BUSY: usize = 32;
const LINGER: Duration = Duration::from_millis(16);
/// The wait before a removed member joins its group again.
const REJOIN_DELAY: Duration = Duration::from_millis(500);

/// The default of [`Consumer::patience`].
const PATIENCE: Duration = Duration::from_secs(600);
/// How long a client may take to leave its group. It waits for the broker and for its own callbacks, without a limit of its
/// own.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

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
    /// How long a failure of one message is believed to pass.
    patience: Duration,
    assigned: Arc<Assigned>,
}

/// The reason why a consumer cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ConsumerError {
    /// A consumer of another group has run on this [`Db`] or a clone of it. One of them would take the other's messages for
    /// repetitions.
    #[error(
        "the consumer group {group} uses the inbox of the group {first}, and each would skip what the other has \
         handled; give it a `Db` with another schema (`DbOptions::schema`)"
    )]
    SharedInbox {
        /// The group that was to run.
        group: String,
        /// The group that the inbox belongs to.
        first: String,
    },
    /// The settings of the Kafka client are invalid.
    #[error("the Kafka client cannot be created, or cannot subscribe")]
    Kafka(#[from] KafkaError),
}

/// The offset of the next record of each partition.
type Offsets = HashMap<Partition, i64>;

/// Why a membership has ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// A stop, or what a new membership repairs by itself.
    Plainly,
    /// The client has stalled.
    Stalled,
    /// Partitions of the group belong to nobody.
    Incomplete,
}

struct Context {
    group: String,
    temper: Temper,
    assigned: Arc<Assigned>,
    /// Whether the member has joined and has its share of the partitions, which may be empty.
    joined: AtomicBool,
    /// The partitions that it has got since the consumer looked last.
    newly_assigned: Mutex<Vec<Partition>>,
}

impl Context {
    fn take_assigned(&self) -> Vec<Partition> {
        std::mem::take(&mut self.newly_assigned.lock().unwrap_or_else(PoisonError::into_inner))
    }
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
        metric::CONSUMER_PARTITIONS.gauge(&[&self.group]).set(count as f64);
        self.joined.store(matches!(rebalance, Rebalance::Assign(_)), Ordering::Release);
        if let Rebalance::Assign(new) = rebalance {
            let new = new.elements().into_iter().map(|one| (one.topic().to_owned(), one.partition()));
            self.newly_assigned.lock().unwrap_or_else(PoisonError::into_inner).extend(new);
            // An empty share is fine too: a group may have more members than partitions.
            self.assigned.set(self.temper, true);
            info!(group = self.group, partitions = count, "partitions assigned");
        }
    }
}

impl Consumer {
    /// Creates a consumer of the group `group`. It passes the messages to the router's handlers. Topics that only have
    /// background handlers are read in the group `<group>-background`. Two consumers with different groups must not share
    /// the schema of one [`Db`].
    pub fn new(db: Db, kafka: Kafka, group: impl Into<String>, router: Arc<MessageRouter>) -> Self {
        let idle = |temper| router.topics_of(temper).next().is_none();
        let assigned = Arc::new(Assigned::new(idle(Temper::Prompt), idle(Temper::Background)));
        let group = group.into();
        Self { db, kafka, router, group, member: None, batch: 500, patience: PATIENCE, assigned }
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

    /// Sets how long a failure that may pass holds up its partition, if it concerns one message alone. The message is
    /// parked then. The default is ten minutes.
    #[must_use]
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Returns whether the members have their shares of the partitions.
    #[cfg(feature = "service")]
    pub(crate) fn assigned(&self) -> Arc<Assigned> {
        Arc::clone(&self.assigned)
    }

    /// Runs until `stop`. Before it returns, it finishes the current batch and commits its offsets. The core's tables
    /// must exist; see [`mod@crate::migrations`].
    ///
    /// # Errors
    /// Fails if a consumer of another group has run on this [`Db`] or a clone of it, or if the settings of the Kafka client
    /// are invalid.
    pub async fn run(self, stop: CancellationToken) -> Result<(), ConsumerError> {
        let first = self.db.group_or(&self.group);
        if first != self.group {
            return Err(ConsumerError::SharedInbox { first: first.to_owned(), group: self.group });
        }
        // A consumer that cannot start stops its workers, because they would run for ever.
        let workers_stop = stop.child_token();
        let workers = self.router.take_workers().into_iter();
        let workers = workers.map(|(_, work)| work(self.db.clone(), workers_stop.clone()));
        let consumed = async {
            // A member that fails ends the other one.
            let stop = stop.child_token();
            let consume = async |temper| {
                let ended = self.consume(temper, &stop).await;
                stop.cancel();
                ended
            };
            let (prompt, background) = tokio::join!(consume(Temper::Prompt), consume(Temper::Background));
            workers_stop.cancel();
            prompt.and(background)
        };
        Ok(tokio::join!(consumed, join_all(workers)).0?)
    }

    async fn consume(&self, temper: Temper, stop: &CancellationToken) -> Result<(), KafkaError> {
        if self.router.topics_of(temper).next().is_none() {
            stop.cancelled().await;
            return Ok(());
        }
        let mut detector = StallDetector::new();
        while !stop.is_cancelled() {
            self.member(temper, &mut detector, stop).await?;
            detector.restart();
            self.assigned.set(temper, false);
            stop.run_until_cancelled(tokio::time::sleep(jittered(REJOIN_DELAY))).await;
        }
        Ok(())
    }

    /// Runs one membership in the group. It ends at `stop`, or if the broker removes the member for good. The broker
    /// does that with a static member after the broker itself has crashed. Nothing is lost: records without a stored
    /// offset are delivered again.
    async fn member(
        &self,
        temper: Temper,
        detector: &mut StallDetector,
        stop: &CancellationToken,
    ) -> Result<(), KafkaError> {
        let consumer = Arc::new(self.connect(temper)?);
        let topics: Vec<String> = self.router.topics_of(temper).map(|topic| self.kafka.name(topic)).collect();
        let ended = if Box::pin(self.database_is_up_to_date(&consumer, &topics, stop)).await {
            consumer.subscribe(&topics.iter().map(String::as_str).collect::<Vec<_>>())?;
            self.serve(&consumer, &topics, detector, stop).await
        } else {
            Ended::Plainly
        };
        if ended == Ended::Incomplete {
            coverage::leave(&consumer).await;
        }
        if let Some((code, reason)) = consumer.client().fatal_error() {
            warn!(%code, reason, "the broker has put this member out of its group; it joins anew");
        }
        // Dropping the consumer commits the stored offsets and leaves the group.
        #[expect(
            clippy::disallowed_methods,
            reason = "to close a client blocks its thread, and may take for ever"
        )]
        let closed = tokio::task::spawn_blocking(move || drop(consumer));
        // A client that has forgotten one thing may have forgotten more, so nobody waits for it.
        if ended != Ended::Stalled && tokio::time::timeout(CLOSE_LIMIT, closed).await.is_err() {
            warn!(
                group = self.group,
                "the Kafka client does not close and is abandoned; its records come again"
            );
        }
        Ok(())
    }

    /// Handles records of these topics until `stop`, or until the membership is over.
    async fn serve(
        &self,
        consumer: &Arc<StreamConsumer<Context>>,
        topics: &[String],
        detector: &mut StallDetector,
        stop: &CancellationToken,
    ) -> Ended {
        let mut buffer = PauseBuffer::new(self.batch);
        let (mut busy, mut fresh, mut coverage) = (false, Fresh::default(), Coverage::new());
        let mut mark = Mark::default();
        let group = self.kafka.name(&consumer.context().group);
        while !stop.is_cancelled() && consumer.client().fatal_error().is_none() {
            let mut offsets = Offsets::new();
            let linger = if busy { LINGER } else { Duration::ZERO };
            let batch = self.gather(consumer, &mut buffer, &mut offsets, linger, stop).await;
            busy = batch.len() >= BUSY;
            buffer.positions.jumped(detector.take_deleted());
            let noticed = self.notice_gaps(consumer, &mut buffer.positions, &mut fresh, &mut offsets);
            // Mostly there is nothing to ask, and the batch is handled even if a stop has come.
            let may_handle = tokio::select! { biased; may = noticed => may, () = stop.cancelled() => false };
            if !may_handle {
                return Ended::Plainly;
            }
            if !batch.is_empty() {
                let began = Instant::now();
                metric::CONSUMER_BATCH_MESSAGES.histogram(&[]).record(batch.len() as f64);
                let all: Vec<&Incoming> = batch.iter().collect();
                if !self.commit_or_park(consumer, &all, &mut buffer, stop).await {
                    // Either a stop came during an outage, or a seek failed. The batch's offsets are not stored, so
                    // it is delivered again.
                    return Ended::Plainly;
                }
                metric::CONSUMER_BATCH_SECONDS.histogram(&[]).record(began.elapsed().as_secs_f64());
                if mark.is_due() {
                    // Seldom used, so it need not make every batch's future larger.
                    Box::pin(mark.renew(&self.db, &consumer.context().group)).await;
                }
            }
            store(consumer, &offsets, &mark);
            let joined = consumer.context().joined.load(Ordering::Acquire);
            let check = detector.is_stalled(&self.kafka, consumer, batch.len() < self.batch, joined);
            if stop.run_until_cancelled(check).await == Some(true) {
                return Ended::Stalled;
            }
            let check = coverage.is_incomplete(consumer, &group, topics);
            if stop.run_until_cancelled(check).await == Some(true) {
                return Ended::Incomplete;
            }
        }
        Ended::Plainly
    }

    fn connect(&self, temper: Temper) -> Result<StreamConsumer<Context>, KafkaError> {
        let mut config = self.kafka.client();
        let group = temper.group(&self.group);
        temper.configure(&mut config);
        config
            .set("group.id", self.kafka.name(&group))
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.offset.store", "false")
            .set("enable.auto.commit", "true")
            .set("auto.commit.interval.ms", "1000")
            // A topic that is created after the start is noticed this soon. The client's default is five minutes.
            .set("topic.metadata.refresh.interval.ms", "10000")
            .set("fetch.error.backoff.ms", "100")
            // The number of bytes limits prefetching. The limit by messages counts all partitions together. At either
            // limit the client's default pause is one second, in which the consumer would run out of records.
            .set("queued.min.messages", "100000")
            .set("queued.max.messages.kbytes", "8192")
            .set("fetch.queue.backoff.ms", "5");
        if let Some(instance) = &self.member {
            config.set("group.instance.id", format!("{}-{instance}", self.kafka.name(&group)));
        }
        let (assigned, joined) = (Arc::clone(&self.assigned), AtomicBool::new(false));
        let newly_assigned = Mutex::default();
        config.create_with_context(Context { group, temper, assigned, joined, newly_assigned })
    }
}

#[cfg(test)]
mod tests {
    use sqlx::postgres::PgConnectOptions;

    use super::*;
    use crate::db::DbOptions;

    #[tokio::test]
    async fn a_second_group_on_one_database_is_refused() {
        let db = DbOptions::new("shop").connect(PgConnectOptions::new_without_pgpass());
        let (kafka, router) = (Kafka::new("127.0.0.1:1"), Arc::new(MessageRouter::new()));
        let run = async |group: &str| {
            let stopped = CancellationToken::new();
            stopped.cancel();
            Consumer::new(db.clone(), kafka.clone(), group, Arc::clone(&router)).run(stopped).await
        };
        for group in ["points", "points"] {
            run(group).await.expect("replicas and restarts are of the same group");
        }
        let refused = run("mail").await.expect_err("the inbox is of another group");
        assert!(matches!(refused, ConsumerError::SharedInbox { .. }), "{refused}");
    }
}
