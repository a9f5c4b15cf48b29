//! The broker: client settings, topics, and the relay's publisher.

mod client_settings;
mod examine;
pub mod owners;
mod partition_gate;
mod publisher;
mod settings;
mod topics;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

pub use self::client_settings::{ClientSettings, ClientSettingsError, Part};
pub use self::examine::Examination;
pub(crate) use self::publisher::{Batch, Outgoing, Publisher, Refusal};
pub use self::settings::{Difference, Remedy};
pub use self::topics::Topic;
pub(crate) use self::topics::TopicChecker;
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
    pub settings: ClientSettings,
    /// The declarations of topics. The keys of a declared topic are spread over the declared number of partitions,
    /// even if the topic has more. The keys of another topic are spread over all its partitions.
    pub topics: Vec<Topic>,
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
    /// The broker refused to change a topic, for example because the client may not change topics.
    #[error("the broker refused to change the topic {topic}: {code}")]
    Change {
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
            settings: ClientSettings::default(),
            topics: Vec::new(),
        }
    }

    /// Returns the name of a topic or group on the broker, with the installation's prefix.
    pub fn name(&self, topic: &str) -> String {
        format!("{}{topic}", self.prefix)
    }

    fn unanswered(&self, source: KafkaError) -> BrokerError {
        BrokerError::Client { brokers: self.brokers.clone(), source }
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
        for (key, value) in self.settings.iter() {
            config.set(key, value);
        }
        config
    }
}

/// The context of a client that needs no callbacks.
struct LogOnly;

impl ClientContext for LogOnly {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // The end of a partition is what its reader waits for.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF) {
            report(&error, reason);
        }
    }
}

impl ConsumerContext for LogOnly {}

/// Runs a blocking call of a client on its own thread, so that neither a stop nor the caller waits for a missing answer.
pub(crate) async fn on_own_thread<T: Send + 'static>(
    limit: Duration,
    request: impl FnOnce() -> Result<T, KafkaError> + Send + 'static,
) -> Result<T, KafkaError> {
    #[expect(clippy::disallowed_methods, reason = "the client's questions block, and have no other form")]
    let running = tokio::task::spawn_blocking(request);
    match tokio::time::timeout(limit, running).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) | Err(_) => Err(KafkaError::Canceled),
    }
}

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
