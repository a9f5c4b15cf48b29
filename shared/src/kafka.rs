//! The broker: client settings, topics, and the relay's publisher.

pub mod owners;
mod partition_gate;
mod publisher;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

pub(crate) use self::publisher::{Batch, Outgoing, Publisher, Refusal};
use crate::fault::{Class, Classified};

/// The timeout of a request to the broker.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The address of the broker, and the names that this installation uses on it.
#[derive(Debug, Clone)]
pub struct Kafka {
    /// The addresses of brokers, `host:port`, separated by commas.
    pub brokers: String,
    /// The prefix of every topic and consumer group, so that several installations can share a cluster.
    pub prefix: String,
    /// The name of the clients in the broker's logs and quotas.
    pub client_id: String,
    /// Further librdkafka settings, for example for TLS and SASL.
    pub settings: BTreeMap<String, String>,
}

/// The declaration of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// The name without the installation's prefix.
    pub name: String,
    /// The number of partitions. Changing it later would move keys to other partitions.
    pub partitions: i32,
    /// How long records are kept. A consumer may be absent for this long.
    pub retention: Duration,
}

/// An error between this process and the broker.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The broker refused a topic, for example because the client may not create topics.
    #[error("the broker refused to create the topic {topic}: {code}")]
    Create {
        /// The name of the topic, with its prefix.
        topic: String,
        /// The error code of the broker.
        code: RDKafkaErrorCode,
    },
    /// The broker did not answer within ten seconds.
    #[error("the broker at {brokers} did not answer")]
    Client {
        /// The configured addresses of the broker.
        brokers: String,
        /// The error of the client.
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
    /// Creates the settings for these brokers (`host:port`, separated by commas), without a prefix and without
    /// further settings.
    pub fn new(brokers: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            prefix: String::new(),
            client_id: "amends".to_owned(),
            settings: BTreeMap::new(),
        }
    }

    /// Returns the name of a topic or group on the broker, with the installation's prefix.
    pub fn name(&self, topic: &str) -> String {
        format!("{}{topic}", self.prefix)
    }

    /// Returns the settings that all clients share.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", &self.client_id)
            // This finds a restarted broker within a second.
            .set("reconnect.backoff.ms", "100")
            .set("reconnect.backoff.max.ms", "1000")
            // This gives up a broker whose host has vanished before an operator must act.
            .set("socket.timeout.ms", "30000")
            .set("socket.nagle.disable", "true")
            .set("log.connection.close", "false");
        for (key, value) in &self.settings {
            config.set(key, value);
        }
        config
    }

    /// Creates the topics that do not exist yet, and the topic that says whose they are ([`owners::TOPIC`]). Existing
    /// topics are not changed.
    ///
    /// # Errors
    /// Fails if the broker does not answer or refuses a topic.
    pub async fn create_topics(&self, topics: &[Topic]) -> Result<(), BrokerError> {
        let client = |source| BrokerError::Client { brokers: self.brokers.clone(), source };
        let admin = self.client().create_with_context::<_, AdminClient<_>>(LogOnly).map_err(client)?;
        let names: Vec<String> = topics.iter().map(|topic| self.name(&topic.name)).collect();
        let retentions: Vec<String> = topics.iter().map(|t| t.retention.as_millis().to_string()).collect();
        let owners = self.name(owners::TOPIC);
        let owners = NewTopic::new(&owners, 1, TopicReplication::Fixed(-1)).set("cleanup.policy", "compact");
        let new: Vec<NewTopic<'_>> = topics
            .iter()
            .zip(names.iter().zip(&retentions))
            .map(|(topic, (name, retention))| {
                // The replication factor is the cluster's default.
                NewTopic::new(name, topic.partitions, TopicReplication::Fixed(-1))
                    .set("retention.ms", retention)
                    .set("cleanup.policy", "delete")
            })
            .chain([owners])
            .collect();
        let options = AdminOptions::new()
            .operation_timeout(Some(REQUEST_TIMEOUT))
            .request_timeout(Some(REQUEST_TIMEOUT));
        for result in admin.create_topics(&new, &options).await.map_err(client)? {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => return Err(BrokerError::Create { topic, code }),
            }
        }
        Ok(())
    }
}

/// A client that only asks which topics exist.
pub(crate) struct TopicChecker {
    kafka: Kafka,
    /// The client is replaced after each request without an answer. A client that gets an empty list of brokers, as
    /// during the registration of the only broker, finds no broker ever again (librdkafka issue 5301).
    client: Mutex<Arc<AdminClient<LogOnly>>>,
    topics: Vec<String>,
}

impl TopicChecker {
    /// Creates a client that checks for these topics.
    pub(crate) fn new(kafka: &Kafka, topics: &[&str]) -> Result<Self, KafkaError> {
        let topics = topics.iter().map(|topic| kafka.name(topic)).collect();
        let client = Mutex::new(Arc::new(kafka.client().create_with_context(LogOnly)?));
        Ok(Self { kafka: kafka.clone(), client, topics })
    }

    /// Returns the needed topics that the broker does not have. Blocks up to `timeout`.
    pub(crate) fn missing(&self, timeout: Duration) -> Result<Vec<String>, KafkaError> {
        let client = Arc::clone(&self.lock());
        let metadata = match client.inner().fetch_metadata(None, timeout) {
            Ok(metadata) => metadata,
            Err(error) => {
                *self.lock() = Arc::new(self.kafka.client().create_with_context(LogOnly)?);
                return Err(error);
            }
        };
        let exists =
            |name: &str| metadata.topics().iter().any(|t| t.name() == name && !t.partitions().is_empty());
        Ok(self.topics.iter().filter(|name| !exists(name)).cloned().collect())
    }

    fn lock(&self) -> MutexGuard<'_, Arc<AdminClient<LogOnly>>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The context of a client that needs no callbacks.
struct LogOnly;

impl ClientContext for LogOnly {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        report(&error, reason);
    }
}

impl ConsumerContext for LogOnly {}

/// Passes on librdkafka's log. During an outage librdkafka logs every attempt on every connection. Therefore only
/// critical lines are passed on as errors; `RUST_LOG=librdkafka=debug` shows the others.
pub(crate) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(target: "librdkafka", facility, "{message}");
        }
        _ => tracing::debug!(target: "librdkafka", facility, "{message}"),
    }
}

/// Logs an error of a whole client, mostly an unreachable broker. At most one such line appears in ten seconds.
pub(crate) fn report(error: &KafkaError, reason: &str) {
    static LAST: Mutex<Option<Instant>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if last.is_none_or(|last| last.elapsed() > Duration::from_secs(10)) {
        *last = Some(Instant::now());
        tracing::warn!(%error, reason, "the Kafka client reports an error; it tries again");
    }
}
