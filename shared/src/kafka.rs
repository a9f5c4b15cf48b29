//! The broker: client settings, topics, and the relay's publisher.

mod partition_gate;
mod publisher;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

pub(crate) use self::publisher::{Batch, Outgoing, Publisher, Refusal};
use crate::fault::{Class, Classified};

/// How long a question to the broker may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the broker is, and how its topics are called here.
#[derive(Debug, Clone)]
pub struct Kafka {
    /// `host:port`, separated by commas.
    pub brokers: String,
    /// Put before every topic and consumer group, so that several installations can share a cluster.
    pub prefix: String,
    /// The name by which the broker's logs and quotas know the clients.
    pub client_id: String,
    /// Further librdkafka settings, for example for TLS and SASL.
    pub settings: BTreeMap<String, String>,
}

/// A topic as it is declared, once, for everybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Without the installation's prefix.
    pub name: String,
    /// Into how many partitions it is divided. More of them later would change which one a key belongs to.
    pub partitions: i32,
    /// How long records are kept; as long may a consumer be away.
    pub retention: Duration,
}

/// What went wrong between here and the broker.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The broker refused a topic, for example because the client may not create any.
    #[error("the broker refused to create the topic {topic}: {code}")]
    Create {
        /// The topic with its prefix.
        topic: String,
        /// What the broker said.
        code: RDKafkaErrorCode,
    },
    /// There was no answer within ten seconds.
    #[error("the broker at {brokers} did not answer")]
    Client {
        /// Where it should be.
        brokers: String,
        /// What the client says.
        #[source]
        source: KafkaError,
    },
}

impl Classified for KafkaError {
    fn class(&self) -> Class {
        Class::Retry
    }
}

impl Kafka {
    /// The brokers at these addresses (`host:port`, separated by commas), without a prefix and further settings.
    pub fn new(brokers: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            prefix: String::new(),
            client_id: "amends".to_owned(),
            settings: BTreeMap::new(),
        }
    }

    /// The name of a topic or group on the broker.
    pub fn name(&self, topic: &str) -> String {
        format!("{}{topic}", self.prefix)
    }

    /// Settings that every client has.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", &self.client_id)
            // A broker that comes back is found within a second.
            .set("reconnect.backoff.ms", "100")
            .set("reconnect.backoff.max.ms", "1000")
            // A broker whose host has vanished is given up before an operator is called.
            .set("socket.timeout.ms", "30000")
            .set("socket.nagle.disable", "true")
            .set("log.connection.close", "false");
        for (key, value) in &self.settings {
            config.set(key, value);
        }
        config
    }

    /// Creates those of the topics that do not exist. Existing ones are left as they are.
    ///
    /// # Errors
    /// If the broker does not answer or refuses a topic.
    pub async fn create_topics(&self, topics: &[Topic]) -> Result<(), BrokerError> {
        let client = |source| BrokerError::Client { brokers: self.brokers.clone(), source };
        let admin = self.client().create_with_context::<_, AdminClient<_>>(Quiet).map_err(client)?;
        let names: Vec<String> = topics.iter().map(|topic| self.name(&topic.name)).collect();
        let retentions: Vec<String> = topics.iter().map(|t| t.retention.as_millis().to_string()).collect();
        let new: Vec<NewTopic<'_>> = topics
            .iter()
            .zip(names.iter().zip(&retentions))
            .map(|(topic, (name, retention))| {
                // The cluster's own default says how often a topic is replicated.
                NewTopic::new(name, topic.partitions, TopicReplication::Fixed(-1))
                    .set("retention.ms", retention)
                    .set("cleanup.policy", "delete")
            })
            .collect();
        let options =
            AdminOptions::new().operation_timeout(Some(ASK_TIMEOUT)).request_timeout(Some(ASK_TIMEOUT));
        for result in admin.create_topics(&new, &options).await.map_err(client)? {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => return Err(BrokerError::Create { topic, code }),
            }
        }
        Ok(())
    }
}

/// A client that only asks: which topics there are.
pub(crate) struct Inquirer {
    kafka: Kafka,
    /// A new one after each question without an answer: a client that was told of a cluster without brokers, as one is that
    /// asks while the only broker registers, finds none ever again (librdkafka issue 5301).
    client: Mutex<Arc<AdminClient<Quiet>>>,
    topics: Vec<String>,
}

impl Inquirer {
    /// For a service that needs these topics.
    pub(crate) fn new(kafka: &Kafka, topics: &[&str]) -> Result<Self, KafkaError> {
        let topics = topics.iter().map(|topic| kafka.name(topic)).collect();
        let client = Mutex::new(Arc::new(kafka.client().create_with_context(Quiet)?));
        Ok(Self { kafka: kafka.clone(), client, topics })
    }

    /// The needed topics that the broker does not have. Blocks up to `timeout`.
    pub(crate) fn missing(&self, timeout: Duration) -> Result<Vec<String>, KafkaError> {
        let client = Arc::clone(&self.lock());
        let metadata = match client.inner().fetch_metadata(None, timeout) {
            Ok(metadata) => metadata,
            Err(error) => {
                *self.lock() = Arc::new(self.kafka.client().create_with_context(Quiet)?);
                return Err(error);
            }
        };
        let there =
            |name: &str| metadata.topics().iter().any(|t| t.name() == name && !t.partitions().is_empty());
        Ok(self.topics.iter().filter(|name| !there(name)).cloned().collect())
    }

    fn lock(&self) -> MutexGuard<'_, Arc<AdminClient<Quiet>>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The context of a client that has nothing of its own to hear.
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        report(&error, reason);
    }
}

/// librdkafka's log. During an outage it tells of every attempt on every connection, so only what is grave is passed
/// on; the rest is there for who asks for it (`RUST_LOG=librdkafka=debug`).
pub(crate) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(target: "librdkafka", facility, "{message}");
        }
        _ => tracing::debug!(target: "librdkafka", facility, "{message}"),
    }
}

/// An error of a client as a whole, mostly that the broker is not there. Told once in ten seconds.
pub(crate) fn report(error: &KafkaError, reason: &str) {
    static LAST: Mutex<Option<Instant>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if last.is_none_or(|last| last.elapsed() > Duration::from_secs(10)) {
        *last = Some(Instant::now());
        tracing::warn!(%error, reason, "trouble with the broker; it is tried again");
    }
}
