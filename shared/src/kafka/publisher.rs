//! The relay's producer. It counts the delivery reports of all records, in batches with the order of the outbox.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext, PurgeConfig};
use tokio::sync::Notify;
use tracing::warn;

use super::partition_gate::PartitionGate;
use super::{Kafka, log, report};

/// Settings that `KAFKA_SETTINGS` may override. The settings behind the guarantees are fixed.
const TUNABLE: [(&str, &str); 2] = [
    ("compression.type", "lz4"),
    // The relay sends all the rows that it has read at once, so waiting would gain nothing. The client's default
    // waits for at least a millisecond.
    ("linger.ms", "0"),
];

/// How long the thread that takes delivery reports waits at a time. The client counts in whole milliseconds, and spins
/// through the rest of the time. The library's own thread therefore burns a hundredth of a core, even while idle. With
/// some microseconds above a whole number, and longer waits, hardly anything is left to spin through.
const POLL: Duration = Duration::from_micros(500_050);

/// Sends records and tracks whether each of them arrived.
pub(crate) struct Publisher {
    producer: Arc<BaseProducer<Deliveries, PartitionGate>>,
    /// Ends the thread that takes delivery reports.
    dropped: Arc<AtomicBool>,
    gate: Arc<PartitionGate>,
    progress: Arc<Notify>,
}

/// A record to send.
pub(crate) struct Outgoing<'r> {
    pub topic: &'r str,
    pub key: &'r str,
    pub body: &'r [u8],
    pub headers: OwnedHeaders,
    /// The position of the row in the outbox.
    pub position: i64,
}

/// A run of records whose delivery reports are counted.
pub(crate) struct Batch {
    /// The number of open reports, plus one until the batch is closed.
    open_reports: AtomicUsize,
    refusal: Mutex<Option<Refusal>>,
    progress: Arc<Notify>,
}

/// The reason why a record did not arrive.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub position: i64,
    pub topic: String,
    pub error: KafkaError,
}

impl Refusal {
    /// Returns whether repeating cannot help until an operator corrects the topic, its permissions or the record.
    pub(crate) fn is_permanent(&self) -> bool {
        use RDKafkaErrorCode as Code;
        matches!(
            self.error.rdkafka_error_code(),
            Some(
                Code::MessageSizeTooLarge
                    | Code::InvalidMessageSize
                    | Code::InvalidMessage
                    | Code::InvalidRecord
                    | Code::InvalidTimestamp
                    | Code::InvalidTopic
                    | Code::PolicyViolation
                    | Code::TopicAuthorizationFailed
                    | Code::ClusterAuthorizationFailed
                    | Code::UnknownTopic
                    | Code::UnknownPartition
                    | Code::UnknownTopicOrPartition
            )
        )
    }
}

struct Deliveries {
    gate: Arc<PartitionGate>,
}

/// The values that a delivery report carries back.
struct Ticket {
    batch: Arc<Batch>,
    position: i64,
    entered: i32,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        report(&error, reason);
    }
}

impl ProducerContext<PartitionGate> for Deliveries {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        match result {
            Ok(record) if record.offset() >= 0 => {
                if self.gate.open(record.topic(), ticket.entered, record.partition()) {
                    ticket.batch.progress.notify_one();
                }
            }
            // The broker reports this batch as a duplicate, and the client then counts the offsets up from -1. The
            // first record is refused here, so that the relay sends all of them again.
            Ok(record) => {
                let (topic, partition) = (record.topic(), record.partition());
                warn!(
                    topic,
                    partition,
                    "the client assumes that a record arrived, but no broker acknowledged it; it is sent again, perhaps behind later ones"
                );
                let presumed = KafkaError::MessageProduction(RDKafkaErrorCode::OutOfOrderSequenceNumber);
                ticket.batch.refuse(ticket.position, topic, presumed);
            }
            Err((error, record)) => ticket.batch.refuse(ticket.position, record.topic(), error.clone()),
        }
        ticket.batch.finish_one();
    }

    fn get_custom_partitioner(&self) -> Option<&PartitionGate> {
        Some(&self.gate)
    }
}

impl Batch {
    fn refuse(&self, position: i64, topic: &str, error: KafkaError) {
        let mut refusal = self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        refusal.get_or_insert_with(|| Refusal { position, topic: topic.to_owned(), error });
        self.progress.notify_one();
    }

    fn finish_one(&self) {
        if self.open_reports.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.progress.notify_one();
        }
    }

    /// Closes the batch: no more records will join it.
    pub(crate) fn close(&self) {
        self.finish_one();
    }

    /// Returns the first failure, if there is one. The records behind it must then be abandoned.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the number of open reports.
    pub(crate) fn open(&self) -> usize {
        self.open_reports.load(Ordering::Acquire)
    }

    /// Returns whether the batch is closed and all its records have arrived.
    pub(crate) fn done(&self) -> bool {
        // The order matters: a refusal is recorded before its record counts as reported.
        self.open_reports.load(Ordering::Acquire) == 0 && self.refusal().is_none()
    }
}

impl Publisher {
    /// Creates a producer. A `careful` one sends each record in its own request. A broker refuses a request as a
    /// whole, so that a refusal then names the right record.
    pub(crate) fn new(kafka: &Kafka, careful: bool) -> Result<Self, KafkaError> {
        let mut config = kafka.client();
        for (name, value) in TUNABLE {
            if !kafka.settings.contains(name) {
                config.set(name, value);
            }
        }
        if careful {
            config.set("batch.num.messages", "1");
        }
        let declared = kafka.topics.iter().map(|topic| (kafka.name(&topic.name), topic.partitions));
        let gate = Arc::new(PartitionGate::new(declared.collect()));
        let producer: BaseProducer<_, _> = config
            .set("acks", "all")
            .set("enable.idempotence", "true")
            // If a record is refused for good, nothing behind it may be sent.
            .set("enable.gapless.guarantee", "true")
            // The relay keeps records until they are acknowledged. Giving up early would only reorder them.
            .set("message.timeout.ms", "0")
            // The relay limits the number of records in flight far below these values.
            .set("queue.buffering.max.messages", "100000")
            .set("queue.buffering.max.kbytes", "65536")
            .create_with_context(Deliveries { gate: Arc::clone(&gate) })?;
        let (producer, dropped) = (Arc::new(producer), Arc::new(AtomicBool::new(false)));
        let (polled, ended) = (Arc::clone(&producer), Arc::clone(&dropped));
        let poll = move || {
            while !ended.load(Ordering::Acquire) {
                polled.poll(POLL);
            }
        };
        let thread = thread::Builder::new().name("delivery reports".to_owned()).spawn(poll);
        thread.map_err(|error| KafkaError::ClientCreation(format!("no thread could be started: {error}")))?;
        Ok(Self { producer, dropped, gate, progress: Arc::default() })
    }

    /// Begins a new run of records.
    pub(crate) fn batch(&self) -> Arc<Batch> {
        Arc::new(Batch {
            open_reports: AtomicUsize::new(1),
            refusal: Mutex::default(),
            progress: Arc::clone(&self.progress),
        })
    }

    /// Hands a record over. Returns whether it was accepted. It is not accepted if the queue is full, or if the
    /// partition's first record is in flight. Behind a refused record nothing is accepted either, so that no record
    /// overtakes it.
    pub(crate) fn send(&self, record: Outgoing<'_>, batch: &Arc<Batch>) -> bool {
        let Outgoing { topic, key, body, headers, position } = record;
        let Some(entered) = self.gate.enter(topic, key) else { return false };
        let ticket = Box::new(Ticket { batch: Arc::clone(batch), position, entered });
        let record: BaseRecord<'_, str, [u8], Box<Ticket>> =
            BaseRecord::with_opaque_to(topic, ticket).key(key).payload(body).headers(headers);
        batch.open_reports.fetch_add(1, Ordering::AcqRel);
        #[expect(clippy::disallowed_methods, reason = "the relay is what the ban points to")]
        let sent = self.producer.send(record);
        let Err((error, _)) = sent else { return true };
        self.gate.leave(topic, entered);
        batch.finish_one();
        if !matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) {
            batch.refuse(position, topic, error);
        }
        false
    }

    /// Waits until a batch is done or has failed, or until a partition's first record has arrived.
    pub(crate) async fn progress(&self) {
        self.progress.notified().await;
    }

    /// Drops all records that were not sent yet. A relay calls this when it stops or has lost its lease.
    pub(crate) fn abandon(&self) {
        self.producer.purge(PurgeConfig::default().queue().inflight());
    }
}

impl Drop for Publisher {
    /// Drops what was not sent; the next producer sends it again. The thread ends within [`POLL`], and destroys the client.
    fn drop(&mut self) {
        self.abandon();
        self.dropped.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::consumer::{BaseConsumer, Consumer};
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{DefaultProducerContext, Partitioner as _};
    use rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION as NOT_LEADER;
    use rdkafka::{Offset, TopicPartitionList};

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(60);

    struct Broker(MockCluster<'static, DefaultProducerContext>);

    impl Broker {
        /// Starts a broker with one partition. It ignores sequence numbers, as a broker does that does not know the
        /// producer.
        fn start() -> Self {
            let cluster = MockCluster::new(1).expect("a broker");
            cluster.create_topic("t", 1, 1).expect("a topic");
            // All requests must be in flight before the first one is answered.
            cluster.broker_round_trip_time(1, Duration::from_millis(100)).expect("a slow broker");
            Self(cluster)
        }

        fn kafka(&self) -> Kafka {
            Kafka::new(self.0.bootstrap_servers())
        }

        /// Returns the keys of the first `count` records, in their order.
        fn keys(&self, count: usize) -> Vec<String> {
            let consumer: BaseConsumer =
                self.kafka().client().set("group.id", "g").create().expect("a consumer");
            let mut list = TopicPartitionList::new();
            list.add_partition_offset("t", 0, Offset::Beginning).expect("a partition");
            consumer.assign(&list).expect("an assignment");
            let next = || consumer.poll(TIMEOUT).expect("a record").expect("a record");
            let key = |key: Option<&[u8]>| String::from_utf8_lossy(key.unwrap_or_default()).into_owned();
            (0..count).map(|_| key(next().key())).collect()
        }
    }

    /// Sends records, each in its own request. The broker refuses the first one. Returns the batch after all reports.
    async fn send(broker: &Broker, publisher: &Publisher) -> Arc<Batch> {
        broker.0.request_errors(rdkafka::types::RDKafkaApiKey::Produce, &[NOT_LEADER]);
        let batch = publisher.batch();
        for (position, key) in (1..).zip(["a", "b", "c"]) {
            let record = || Outgoing { topic: "t", key, body: b"{}", headers: OwnedHeaders::new(), position };
            while !publisher.send(record(), &batch) && batch.refusal().is_none() {
                tokio::time::timeout(TIMEOUT, publisher.progress()).await.expect("progress");
            }
        }
        batch.close();
        while batch.open() > 0 {
            tokio::time::timeout(TIMEOUT, publisher.progress()).await.expect("progress");
        }
        batch
    }

    #[test]
    fn a_batch_with_a_refused_record_is_never_done() {
        let batch =
            Batch { open_reports: AtomicUsize::new(2), refusal: Mutex::default(), progress: Arc::default() };
        batch.refuse(1, "t", KafkaError::Canceled);
        batch.finish_one();
        batch.close();
        assert_eq!((batch.open(), batch.done()), (0, false));
    }

    #[tokio::test]
    async fn a_partitions_first_record_that_is_refused_arrives_before_the_next() {
        let broker = Broker::start();
        let publisher = Publisher::new(&broker.kafka(), true).expect("a producer");
        let batch = send(&broker, &publisher).await;
        assert!(batch.refusal().is_none(), "{:?}", batch.refusal());
        assert_eq!(broker.keys(3), ["a", "b", "c"]);
    }

    #[tokio::test]
    async fn a_record_that_no_broker_has_acknowledged_has_not_arrived() {
        let broker = Broker::start();
        let publisher = Publisher::new(&broker.kafka(), true).expect("a producer");
        // The broker has forgotten a producer that takes itself for known.
        publisher.gate.enter("t", "a");
        publisher.gate.partition("t", Some(b"a"), 1, |_| true);
        publisher.gate.open("t", 0, 0);
        let batch = send(&broker, &publisher).await;
        let refusal = batch.refusal().expect("the client presumes that the first has arrived");
        assert!(!refusal.is_permanent(), "{refusal:?}");
        assert_eq!((refusal.position, broker.keys(1)), (1, vec!["b".to_owned()]));
    }
}
