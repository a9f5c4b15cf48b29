//! Clients that find out whether Kafka is ready, and that use it a little.

use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tokio::net::TcpStream;

/// Drops the client's own log messages: while a broker starts, refused connections are expected.
#[derive(Clone)]
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: KafkaError, _: &str) {}
}

impl ConsumerContext for Quiet {}

/// The reason why Kafka is not ready yet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotYet {
    #[error("the port is closed: {0}")]
    Closed(#[from] std::io::Error),
    #[error("the client says: {0}")]
    Client(#[from] KafkaError),
    #[error("topics can't be created: {0}")]
    Topic(rdkafka::types::RDKafkaErrorCode),
}

/// Makes clients of the broker on one port of 127.0.0.1.
pub(crate) struct Probe {
    port: u16,
}

impl Probe {
    pub fn new(port: u16) -> Probe {
        Probe { port }
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", format!("127.0.0.1:{}", self.port));
        config.set("reconnect.backoff.ms", "10").set("reconnect.backoff.max.ms", "50");
        config
    }

    /// Asks whether a topic could be created, without creating it.
    ///
    /// A broker that only listens would refuse: the controller must lead, and the broker must be registered with it.
    pub async fn attempt(&self) -> Result<(), NotYet> {
        TcpStream::connect(("127.0.0.1", self.port)).await?;
        let admin: AdminClient<Quiet> = self.config().create_with_context(Quiet)?;
        let options =
            AdminOptions::new().validate_only(true).request_timeout(Some(Duration::from_millis(2500)));
        let topic = NewTopic::new("readiness", 1, TopicReplication::Fixed(1));
        let outcome = admin.create_topics([&topic], &options).await;
        // To drop the client takes up to 0.1 s, because its polling thread checks only ten times a second whether it
        // may end.
        std::thread::spawn(move || drop(admin));
        match outcome?.pop() {
            Some(Err((_, code))) => Err(NotYet::Topic(code)),
            _ => Ok(()),
        }
    }

    /// Writes some records and reads them in both group protocols, so that the broker loads the classes for that.
    ///
    /// Failures are ignored: they only make the class-data archive smaller.
    #[expect(
        clippy::disallowed_methods,
        reason = "the training broker has no outbox, and its records no readers"
    )]
    pub fn exercise(&self) {
        let topic = "training";
        if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build()
            && let Ok(admin) = self.config().create_with_context::<_, AdminClient<Quiet>>(Quiet)
        {
            let new = NewTopic::new(topic, 2, TopicReplication::Fixed(1)).set("cleanup.policy", "compact");
            let _ = runtime.block_on(admin.create_topics([&new], &AdminOptions::new()));
        }
        let mut config = self.config();
        config.set("enable.idempotence", "true").set("compression.codec", "lz4");
        let Ok(producer) = config.create_with_context::<_, BaseProducer<Quiet>>(Quiet) else {
            return;
        };
        for _ in 0..100 {
            let _ = producer.send(BaseRecord::to(topic).key("key").payload("a payload, a payload"));
        }
        let _ = producer.flush(Duration::from_secs(5));
        for protocol in ["consumer", "classic"] {
            let mut config = self.config();
            config
                .set("group.id", protocol)
                .set("group.protocol", protocol)
                .set("auto.offset.reset", "earliest");
            let Ok(consumer) = config.create_with_context::<_, BaseConsumer<Quiet>>(Quiet) else {
                return;
            };
            let _ = consumer.subscribe(&[topic]);
            let deadline = Instant::now() + Duration::from_secs(5);
            while Instant::now() < deadline
                && consumer.poll(Duration::from_millis(50)).is_none_or(|it| it.is_err())
            {}
        }
    }
}

impl rdkafka::producer::ProducerContext for Quiet {
    type DeliveryOpaque = ();
    fn delivery(&self, _: &rdkafka::message::DeliveryResult<'_>, _: Self::DeliveryOpaque) {}
}
