//! The relay's producer: every record's delivery report is counted, in batches whose order is that of the outbox.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, PurgeConfig, ThreadedProducer};
use tokio::sync::Notify;

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
    producer: ThreadedProducer<Deliveries>,
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

struct Deliveries;

/// What comes back with a record's delivery report.
struct Ticket {
    batch: Arc<Batch>,
    position: i64,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        report(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        if let Err((error, record)) = result {
            ticket.batch.refuse(ticket.position, record.topic(), error.clone());
        }
        ticket.batch.one_less();
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

    /// Whether it is closed and every record of it was reported.
    pub(crate) fn done(&self) -> bool {
        self.left.load(Ordering::Acquire) == 0
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
            .create_with_context(Deliveries)?;
        Ok(Self { producer, progress: Arc::default() })
    }

    /// A new run of records.
    pub(crate) fn batch(&self) -> Arc<Batch> {
        Arc::new(Batch {
            left: AtomicUsize::new(1),
            refusal: Mutex::default(),
            progress: Arc::clone(&self.progress),
        })
    }

    /// Hands a record over. Whether it was taken: the queue may be full, and behind a refused record nothing is sent, so
    /// that nothing overtakes it.
    pub(crate) fn send(&self, record: Outgoing<'_>, batch: &Arc<Batch>) -> bool {
        let Outgoing { topic, key, body, headers, position } = record;
        let ticket = Box::new(Ticket { batch: Arc::clone(batch), position });
        let record: BaseRecord<'_, str, [u8], Box<Ticket>> =
            BaseRecord::with_opaque_to(topic, ticket).key(key).payload(body).headers(headers);
        batch.left.fetch_add(1, Ordering::AcqRel);
        #[expect(clippy::disallowed_methods, reason = "the relay is what the ban points to")]
        let sent = self.producer.send(record);
        let Err((error, _)) = sent else { return true };
        batch.one_less();
        if !matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) {
            batch.refuse(position, topic, error);
        }
        false
    }

    /// Waits until a batch is done or has failed.
    pub(crate) async fn progress(&self) {
        self.progress.notified().await;
    }

    /// Forgets what was not sent yet, for a relay that stops or has lost its lease.
    pub(crate) fn abandon(&self) {
        self.producer.purge(PurgeConfig::default().queue().inflight());
    }
}
