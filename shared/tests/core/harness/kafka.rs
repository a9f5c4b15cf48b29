//! A look at a test's topics, and ways to write to them that only tests have.

use std::time::{Duration, Instant};

use futures::future::join_all;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Message, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};

use super::PATIENCE;
use super::commands::Asked;
use super::place::Place;

const ASK: Duration = Duration::from_secs(30);

impl Place {
    fn reader(&self, group: &str) -> BaseConsumer {
        let kafka = self.kafka();
        let mut config = kafka.client();
        config.set("group.id", kafka.name(group)).set("enable.auto.commit", "false");
        config.create().expect("a consumer")
    }

    fn partitions(&self) -> impl Iterator<Item = (String, i32)> {
        self.topics
            .iter()
            .flat_map(|(topic, partitions)| (0..*partitions).map(|p| (self.kafka().name(topic), p)))
    }

    /// Everything that is on the topics now, each partition in its order.
    pub fn records(&self) -> Vec<OwnedMessage> {
        let consumer = self.reader("test-reader");
        let mut list = TopicPartitionList::new();
        let mut expected = 0;
        for (topic, partition) in self.partitions() {
            let (low, high) = consumer.fetch_watermarks(&topic, partition, ASK).expect("watermarks");
            expected += high - low;
            list.add_partition_offset(&topic, partition, Offset::Beginning).expect("a partition");
        }
        consumer.assign(&list).expect("an assignment");
        let deadline = Instant::now() + PATIENCE;
        let mut records = Vec::new();
        while (records.len() as i64) < expected {
            assert!(Instant::now() < deadline, "{} of {expected} records came", records.len());
            if let Some(Ok(record)) = consumer.poll(Duration::from_millis(100)) {
                records.push(BorrowedMessage::detach(&record));
            }
        }
        records
    }

    /// Whether a group has committed everything that is on these of the topics, as far as the broker tells.
    pub fn has_caught_up(&self, group: &str, topics: &[&str]) -> bool {
        let consumer = self.reader(group);
        let topics: Vec<String> = topics.iter().map(|topic| self.kafka().name(topic)).collect();
        let mut list = TopicPartitionList::new();
        for (topic, partition) in self.partitions().filter(|(topic, _)| topics.contains(topic)) {
            list.add_partition(&topic, partition);
        }
        let Ok(committed) = consumer.committed_offsets(list, ASK) else { return false };
        committed.elements().iter().all(|element| {
            let marks = consumer.fetch_watermarks(element.topic(), element.partition(), ASK);
            let Ok((low, end)) = marks else { return false };
            // Nothing was committed: that is fine where nothing is there.
            let committed = if let Offset::Offset(offset) = element.offset() { offset } else { low };
            committed >= end
        })
    }

    /// Writes a record, as somebody else's service might.
    pub async fn produce(&self, topic: &str, key: &str, value: &[u8]) {
        self.send(&self.kafka().name(topic), key.as_bytes(), value, OwnedHeaders::new()).await;
    }

    /// Writes records to their topics once more, as a producer that retries would.
    pub async fn send_again(&self, records: &[OwnedMessage]) {
        for record in records {
            let headers = record.headers().cloned().unwrap_or_else(OwnedHeaders::new);
            let (key, value) = (record.key().unwrap_or_default(), record.payload().unwrap_or_default());
            self.send(record.topic(), key, value, headers).await;
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the test plays a producer that does what ours never would"
    )]
    async fn send(&self, topic: &str, key: &[u8], value: &[u8], headers: OwnedHeaders) {
        let record = FutureRecord::to(topic).key(key).payload(value).headers(headers);
        self.producer.send(record, ASK).await.unwrap_or_else(|(error, _)| panic!("{error}"));
    }

    /// Sends messages as one record batch, so that a service gets them as one batch, in this order.
    pub async fn send_together(&self, messages: &[Asked]) {
        self.send_to(0, messages).await;
    }

    /// [`Place::send_together`] to this partition of their topics, which need not be the one of their keys.
    #[expect(clippy::disallowed_methods, reason = "the test plays the relay of whoever sends commands")]
    pub async fn send_to(&self, partition: i32, messages: &[Asked]) {
        let mut config = self.kafka().client();
        let producer: FutureProducer = config.set("linger.ms", "200").create().expect("a producer");
        let sent = messages.iter().map(|message| {
            let (topic, producer) = (self.kafka().name(message.topic), producer.clone());
            async move {
                let record =
                    FutureRecord::to(&topic).key(&message.key).payload(&message.body).partition(partition);
                producer.send(record, ASK).await.map(drop).map_err(|(error, _)| error)
            }
        });
        for sent in join_all(sent).await {
            sent.expect("sent");
        }
    }
}
