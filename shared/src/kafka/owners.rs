//! Whose topics these are. The topic [`TOPIC`] has a record for each service, with the id of the database whose outbox
//! fills the service's topics and whose inbox remembers what was read from them.
//!
//! Without it, two installations on one cluster with the same prefix would take each other's messages, and both would
//! look healthy. The same goes for a service that gets a new, empty database beside old topics.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use uuid::Uuid;

use super::{Kafka, LogOnly};

/// The topic of the owners, without the installation's prefix. It has one partition and is compacted.
pub const TOPIC: &str = "amends.owners";

/// How long each request to the broker may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The errors of a service that asks whether the topics are its own.
#[derive(Debug, thiserror::Error)]
pub enum OwnersError {
    /// The topics belong to another database.
    #[error(
        "the topics of {service} with the prefix `{prefix}` on this Kafka cluster belong to the database {owner}, \
         and DATABASE_URL names the database {database}. Another installation needs its own TOPIC_PREFIX, or its own \
         cluster in KAFKA_BROKERS. If the first database is gone for good: `amends topics release {service}`"
    )]
    Foreign {
        /// The service that was refused.
        service: String,
        /// The installation's prefix.
        prefix: String,
        /// The id of the database that owns the topics.
        owner: Uuid,
        /// The id of the database that was refused.
        database: Uuid,
    },
    /// The topic of the owners does not exist.
    #[error("the topic {0} is missing; `amends topics apply` creates it")]
    Missing(String),
    /// The broker did not answer, or refused the request.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
}

impl OwnersError {
    /// Returns whether the same question may have another answer later.
    pub fn may_pass(&self) -> bool {
        !matches!(self, Self::Foreign { .. })
    }
}

/// Takes the topics of a service for a database, unless another database has them. It blocks.
///
/// # Errors
/// Fails if another database has them, or if the broker does not answer.
pub fn claim(kafka: &Kafka, service: &str, database: Uuid) -> Result<(), OwnersError> {
    let mut known = owner(kafka, service)?;
    if known.is_none() {
        write(kafka, &key(service, database), Some(b"owner"))?;
        // Of two that came at the same moment, the one whose record is first has them.
        known = owner(kafka, service)?;
    }
    match known {
        Some(owner) if owner == database => Ok(()),
        Some(owner) => {
            let (service, prefix) = (service.to_owned(), kafka.prefix.clone());
            Err(OwnersError::Foreign { service, prefix, owner, database })
        }
        // What was written is not there, so nothing is certain.
        None => Err(KafkaError::MessageConsumption(RDKafkaErrorCode::NoOffset).into()),
    }
}

/// Gives the topics of a service up, so that the next database that comes takes them. Returns the id of the database
/// that had them. It blocks.
///
/// # Errors
/// Fails if the broker does not answer.
pub fn release(kafka: &Kafka, service: &str) -> Result<Option<Uuid>, OwnersError> {
    let owner = owner(kafka, service)?;
    if let Some(owner) = owner {
        write(kafka, &key(service, owner), None)?;
    }
    Ok(owner)
}

/// Each claim has a key of its own. Otherwise compaction would keep the last claim and not the first.
fn key(service: &str, database: Uuid) -> String {
    format!("{service}/{database}")
}

/// Returns the database that has the topics of a service: that of the first claim that was not released.
fn owner(kafka: &Kafka, service: &str) -> Result<Option<Uuid>, OwnersError> {
    let mut claims: Vec<Uuid> = Vec::new();
    read(kafka, |claim, released| {
        let Some(database) = claim.strip_prefix(service).and_then(|rest| rest.strip_prefix('/')) else {
            return;
        };
        let Ok(database) = database.parse() else { return };
        claims.retain(|known| !released || *known != database);
        if !released && !claims.contains(&database) {
            claims.push(database);
        }
    })?;
    Ok(claims.first().copied())
}

/// Reads the topic from its beginning to its present end. `take` gets the key of each record, and whether it deletes
/// the key.
fn read(kafka: &Kafka, mut take: impl FnMut(&str, bool)) -> Result<(), OwnersError> {
    let topic = kafka.name(TOPIC);
    let consumer: BaseConsumer<LogOnly> = kafka
        .client()
        .set("group.id", kafka.name("amends-owners"))
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("fetch.wait.max.ms", "10")
        .create_with_context(LogOnly)?;
    let known = consumer.fetch_metadata(Some(&topic), TIMEOUT)?;
    if known.topics().iter().all(|known| known.partitions().is_empty()) {
        return Err(OwnersError::Missing(topic));
    }
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&topic, 0, Offset::Beginning)?;
    consumer.assign(&list)?;
    let began = Instant::now();
    while began.elapsed() < TIMEOUT {
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            // With one partition, this is the end of everything.
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(()),
            Some(Err(error)) => return Err(error.into()),
            Some(Ok(record)) => {
                if let Some(key) = record.key().and_then(|key| std::str::from_utf8(key).ok()) {
                    take(key, record.payload().is_none());
                }
            }
        }
    }
    Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut).into())
}

#[expect(
    clippy::disallowed_methods,
    reason = "this record is about the topics and belongs to no transaction"
)]
fn write(kafka: &Kafka, key: &str, value: Option<&[u8]>) -> Result<(), OwnersError> {
    let topic = kafka.name(TOPIC);
    let mut config = kafka.client();
    // A claim that is there twice is one claim. A broker that has just started gives out ids for idempotence late.
    config.set("acks", "all").set("enable.idempotence", "false").set("message.timeout.ms", "10000");
    let producer: BaseProducer = config.create()?;
    let mut record = BaseRecord::to(&topic).key(key).partition(0);
    if let Some(value) = value {
        record = record.payload(value);
    }
    producer.send(record).map_err(|(error, _)| error)?;
    // What was not delivered is not there when the topic is read again.
    Ok(producer.flush(TIMEOUT)?)
}
