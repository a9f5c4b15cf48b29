//! Topics: their declarations, their creation, and which of them exist.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::{BrokerError, Kafka, LogOnly, REQUEST_TIMEOUT, owners};

/// The declaration of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// The name without the installation's prefix.
    pub name: String,
    /// The number of partitions over which keys are spread. Changing it later would move keys to other partitions.
    pub partitions: i32,
    /// How long records are kept. A consumer may be absent for this long.
    pub retention: Duration,
}

impl Kafka {
    /// Creates a client that manages topics.
    pub(super) fn admin(&self) -> Result<AdminClient<LogOnly>, BrokerError> {
        self.client().create_with_context(LogOnly).map_err(|source| self.unanswered(source))
    }

    /// Creates the topics that do not exist yet, and the topic that says whose they are ([`owners::TOPIC`]). Existing
    /// topics are not changed.
    ///
    /// # Errors
    /// Fails if the broker does not answer or refuses a topic.
    pub async fn create_topics(&self, topics: &[Topic]) -> Result<(), BrokerError> {
        let admin = self.admin()?;
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
        let created = admin.create_topics(&new, &options()).await;
        for result in created.map_err(|source| self.unanswered(source))? {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => return Err(BrokerError::Create { topic, code }),
            }
        }
        Ok(())
    }
}

/// Returns the timeouts of a request about topics.
pub(super) fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(REQUEST_TIMEOUT)).request_timeout(Some(REQUEST_TIMEOUT))
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
