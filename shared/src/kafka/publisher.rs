//! The relay's producer: every record's delivery report is counted, in batches whose order is that of the outbox.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, PurgeConfig, ThreadedProducer};
use tokio::sync::Notify;
use tracing::warn;

use super::partition_gate::PartitionGate;
use super::{Kafka, log, report};

/// What may be set otherwise by `KAFKA_SETTINGS`; what the guarantees rest on may not.
const TUNABLE: [(&str, &str); 2] = [
    ("compression.type", "lz4"),
    // The relay hands over what it has read at one go, so there is nothing to wait for; the client would wait for a
    // millisecond at least.
    ("linger.ms", "0"),
];

/// Sends records and knows of each whether it arrived.
pub(crate) struct Publisher {
    producer: ThreadedProducer<Deliveries, PartitionGate>,
    gate: Arc<PartitionGate>,
    progress: Arc<Notify>,
}

/// A record on its way.
pub(crate) struct Outgoing<'r> {
    pub topic: &'r str,
    pub key: &'r str,
    pub body: &'r [u8],
    pub headers: OwnedHeaders,
    /// Where it stands in the outbox.
    pub position: i64,
}

/// The delivery reports that a run of records still waits for.
pub(crate) struct Batch {
    /// One more than the reports that are open, until the batch is closed.
    left: AtomicUsize,
    refusal: Mutex<Option<Refusal>>,
    progress: Arc<Notify>,
}

/// Why a record did not arrive.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub position: i64,
    pub topic: String,
    pub error: KafkaError,
}

impl Refusal {
    /// Whether repeating can't help until somebody mends the topic, its rights or the record.
    pub(crate) fn for_good(&self) -> bool {
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

/// What comes back with a record's delivery report.
struct Ticket {
    batch: Arc<Batch>,
    position: i64,
    lane: i32,
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
                if self.gate.open(record.topic(), ticket.lane, record.partition()) {
                    ticket.batch.progress.notify_one();
                }
            }
            // Of a batch that the broker says to have already, the client counts the offsets up from -1: its first is refused,
            // and with it all are sent again.
            Ok(record) => {
                let (topic, partition) = (record.topic(), record.partition());
                warn!(
                    topic,
                    partition,
                    "no broker has said where the record is that the client presumes to have arrived; it is sent again, perhaps behind later ones"
                );
                let presumed = KafkaError::MessageProduction(RDKafkaErrorCode::OutOfOrderSequenceNumber);
                ticket.batch.refuse(ticket.position, topic, presumed);
            }
            Err((error, record)) => ticket.batch.refuse(ticket.position, record.topic(), error.clone()),
        }
        ticket.batch.one_less();
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

    fn one_less(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.progress.notify_one();
        }
    }

    /// Says that nothing more will be sent with it.
    pub(crate) fn close(&self) {
        self.one_less();
    }

    /// The first failure, if any: what is behind it must be abandoned.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many reports are open.
    pub(crate) fn open(&self) -> usize {
        self.left.load(Ordering::Acquire)
    }

    /// Whether it is closed and every record of it has arrived.
    pub(crate) fn done(&self) -> bool {
        // In this order: a refusal is written down before its record counts as reported.
        self.left.load(Ordering::Acquire) == 0 && self.refusal().is_none()
    }
}

impl Publisher {
    /// A producer. If it is `careful` each record travels in a request of its own, so that a refusal tells of this record
    /// alone: a broker refuses a request as a whole.
    pub(crate) fn new(kafka: &Kafka, careful: bool) -> Result<Self, KafkaError> {
        let mut config = kafka.client();
        for (name, value) in TUNABLE {
            if !kafka.settings.contains_key(name) {
                config.set(name, value);
            }
        }
        if careful {
            config.set("batch.num.messages", "1");
        }
        let gate = Arc::new(PartitionGate::default());
        let producer = config
            .set("acks", "all")
            .set("enable.idempotence", "true")
            // Where a record is refused for good, nothing behind it may be sent.
            .set("enable.gapless.guarantee", "true")
            // The relay keeps the records until they are acknowledged; giving up early would only reorder them.
            .set("message.timeout.ms", "0")
            // The relay bounds what is under way by itself, far below these.
            .set("queue.buffering.max.messages", "100000")
            .set("queue.buffering.max.kbytes", "65536")
            .create_with_context(Deliveries { gate: Arc::clone(&gate) })?;
        Ok(Self { producer, gate, progress: Arc::default() })
    }

    /// A new run of records.
    pub(crate) fn batch(&self) -> Arc<Batch> {
        Arc::new(Batch {
            left: AtomicUsize::new(1),
            refusal: Mutex::default(),
            progress: Arc::clone(&self.progress),
        })
    }

    /// Hands a record over. Whether it was taken: the queue may be full, the partition's first record may still be under way,
    /// and behind a refused record nothing is sent, so that nothing overtakes it.
    pub(crate) fn send(&self, record: Outgoing<'_>, batch: &Arc<Batch>) -> bool {
        let Outgoing { topic, key, body, headers, position } = record;
        let Some(lane) = self.gate.enter(topic, key) else { return false };
        let ticket = Box::new(Ticket { batch: Arc::clone(batch), position, lane });
        let record: BaseRecord<'_, str, [u8], Box<Ticket>> =
            BaseRecord::with_opaque_to(topic, ticket).key(key).payload(body).headers(headers);
        batch.left.fetch_add(1, Ordering::AcqRel);
        #[expect(clippy::disallowed_methods, reason = "the relay is what the ban points to")]
        let sent = self.producer.send(record);
        let Err((error, _)) = sent else { return true };
        self.gate.leave(topic, lane);
        batch.one_less();
        if !matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) {
            batch.refuse(position, topic, error);
        }
        false
    }

    /// Waits until a batch is done or has failed, or a partition's first record has arrived.
    pub(crate) async fn progress(&self) {
        self.progress.notified().await;
    }

    /// Forgets what was not sent yet, for a relay that stops or has lost its lease.
    pub(crate) fn abandon(&self) {
        self.producer.purge(PurgeConfig::default().queue().inflight());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rdkafka::consumer::{BaseConsumer, Consumer};
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{DefaultProducerContext, Partitioner as _};
    use rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION as NOT_LEADER;
    use rdkafka::{Offset, TopicPartitionList};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    struct Broker(MockCluster<'static, DefaultProducerContext>);

    impl Broker {
        /// With one partition, which does not look at sequence numbers: as a broker that does not know the producer.
        fn start() -> Self {
            let cluster = MockCluster::new(1).expect("a broker");
            cluster.create_topic("t", 1, 1).expect("a topic");
            // So that all requests are under way before the first is answered.
            cluster.broker_round_trip_time(1, Duration::from_millis(100)).expect("a slow broker");
            Self(cluster)
        }

        fn kafka(&self) -> Kafka {
            Kafka::new(self.0.bootstrap_servers())
        }

        /// The keys of so many records, in their order.
        fn keys(&self, count: usize) -> Vec<String> {
            let consumer: BaseConsumer =
                self.kafka().client().set("group.id", "g").create().expect("a consumer");
            let mut list = TopicPartitionList::new();
            list.add_partition_offset("t", 0, Offset::Beginning).expect("a partition");
            consumer.assign(&list).expect("an assignment");
            let next = || consumer.poll(PATIENCE).expect("a record").expect("a record");
            let key = |key: Option<&[u8]>| String::from_utf8_lossy(key.unwrap_or_default()).into_owned();
            (0..count).map(|_| key(next().key())).collect()
        }
    }

    /// Sends records, each in a request of its own, of which the broker refuses the first; tells how that ended.
    async fn send(broker: &Broker, publisher: &Publisher) -> Arc<Batch> {
        broker.0.request_errors(rdkafka::types::RDKafkaApiKey::Produce, &[NOT_LEADER]);
        let batch = publisher.batch();
        for (position, key) in (1..).zip(["a", "b", "c"]) {
            let record = || Outgoing { topic: "t", key, body: b"{}", headers: OwnedHeaders::new(), position };
            while !publisher.send(record(), &batch) && batch.refusal().is_none() {
                tokio::time::timeout(PATIENCE, publisher.progress()).await.expect("progress");
            }
        }
        batch.close();
        while batch.open() > 0 {
            tokio::time::timeout(PATIENCE, publisher.progress()).await.expect("progress");
        }
        batch
    }

    #[test]
    fn a_batch_with_a_refused_record_is_never_done() {
        let batch = Batch { left: AtomicUsize::new(2), refusal: Mutex::default(), progress: Arc::default() };
        batch.refuse(1, "t", KafkaError::Canceled);
        batch.one_less();
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
        assert!(!refusal.for_good(), "{refusal:?}");
        assert_eq!((refusal.position, broker.keys(1)), (1, vec!["b".to_owned()]));
    }
}
