//! Reading the topics, and writing to them as only tests do.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers, Message, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{Offset, TopicPartitionList};
use shared::kafka::{Kafka, Topic};

use super::{PATIENCE, Suite};

const ASK: Duration = Duration::from_secs(10);

impl Suite {
    pub fn kafka(&self) -> Kafka {
        Kafka { prefix: format!("{}.", self.name), ..Kafka::new(self.servers.kafka_brokers()) }
    }

    fn reader(&self, group: &str) -> BaseConsumer {
        let kafka = self.kafka();
        kafka
            .client()
            .set("group.id", kafka.name(group))
            .set("enable.auto.commit", "false")
            .create()
            .expect("a consumer")
    }

    /// Returns the number of partitions that a topic has, which may be more than were declared.
    pub fn partitions_of(&self, topic: &str) -> i32 {
        let name = self.kafka().name(topic);
        let metadata = self.reader("test-reader").fetch_metadata(None, ASK).expect("metadata");
        let topic = metadata.topics().iter().find(|topic| topic.name() == name);
        topic.map_or(0, |topic| i32::try_from(topic.partitions().len()).expect("few"))
    }

    fn partitions(consumer: &BaseConsumer, kafka: &Kafka) -> Option<Vec<(String, i32)>> {
        let metadata = consumer.fetch_metadata(None, ASK).ok()?;
        let of = |topic: Topic| {
            let name = kafka.name(&topic.name);
            let known = metadata.topics().iter().find(|known| known.name() == name);
            let partitions = known.map_or(0, |known| i32::try_from(known.partitions().len()).expect("few"));
            (0..partitions).map(move |partition| (topic.name.clone(), partition))
        };
        Some(schemas::topics::all().into_iter().flat_map(of).collect())
    }

    /// Returns all records that are on the topics now, each topic in its order.
    pub fn records(&self) -> Vec<OwnedMessage> {
        let consumer = self.reader("test-reader");
        let mut list = TopicPartitionList::new();
        let mut expected = 0;
        for (topic, partition) in Self::partitions(&consumer, &self.kafka()).expect("metadata") {
            let name = self.kafka().name(&topic);
            let (low, high) = consumer.fetch_watermarks(&name, partition, ASK).expect("watermarks");
            expected += high - low;
            list.add_partition_offset(&name, partition, Offset::Beginning).expect("a partition");
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

    /// Writes records to their topics again, as a producer that retries does.
    pub async fn send_again(&self, records: &[OwnedMessage]) {
        for record in records {
            let key = record.key().unwrap_or_default();
            let headers = record.headers().cloned().unwrap_or_else(OwnedHeaders::new);
            self.send(record.topic(), key, record.payload().unwrap_or_default(), headers).await;
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the test plays a producer that does what ours never would"
    )]
    pub async fn send(&self, topic: &str, key: &[u8], payload: &[u8], headers: OwnedHeaders) {
        let producer: FutureProducer = self.kafka().client().create().expect("a producer");
        let record = FutureRecord::to(topic).key(key).payload(payload).headers(headers);
        producer.send(record, ASK).await.unwrap_or_else(|(error, _)| panic!("{error}"));
    }

    /// Returns how far a service's group has read its topics, if the broker answers.
    pub fn marks(&self, service: &str) -> Option<Vec<Mark>> {
        let mut marks = Vec::new();
        for group in Group::all(service) {
            marks.extend(self.marks_by(&self.reader(&group.name()), group)?);
        }
        Some(marks)
    }

    fn marks_by(&self, consumer: &BaseConsumer, group: Group<'_>) -> Option<Vec<Mark>> {
        let mut list = TopicPartitionList::new();
        let partitions = Self::partitions(consumer, &self.kafka())?.into_iter();
        for (topic, partition) in partitions.filter(|(topic, _)| group.reads(topic)) {
            list.add_partition(&self.kafka().name(&topic), partition);
        }
        let committed = consumer.committed_offsets(list, ASK).ok()?;
        let mark = |element: &TopicPartitionListElem<'_>| {
            let (low, end) = consumer.fetch_watermarks(element.topic(), element.partition(), ASK).ok()?;
            // Nothing was committed, which is right if there are no records.
            let committed = if let Offset::Offset(offset) = element.offset() { offset } else { low };
            Some(Mark { place: format!("{}/{}", element.topic(), element.partition()), committed, end })
        };
        committed.elements().iter().map(mark).collect()
    }

    /// Waits until a service has handled all records of its topics.
    pub async fn caught_up(&self, service: &str) {
        let readers = Group::all(service).map(|group| (self.reader(&group.name()), group));
        self.until(&format!("{service} to catch up"), async |suite| {
            readers.iter().all(|(reader, group)| {
                let marks = suite.marks_by(reader, *group);
                marks.is_some_and(|marks| marks.iter().all(|mark| mark.committed >= mark.end))
            })
        })
        .await;
    }
}

impl Suite {
    /// Waits until a service's read models have everything that is on their topics now, whatever comes meanwhile.
    pub async fn read_models_are_up_to_now(&self, service: &str) {
        let group = Group { service, background: true };
        let reader = self.reader(&group.name());
        self.until("the ends of the topics", async |suite| suite.marks_by(&reader, group).is_some()).await;
        let marks = self.marks_by(&reader, group).expect("the broker has just answered");
        let ends: HashMap<String, i64> = marks.into_iter().map(|mark| (mark.place, mark.end)).collect();
        self.until(&format!("the read models of {service}"), async |suite| {
            let marks = suite.marks_by(&reader, group);
            marks.is_some_and(|marks| marks.iter().all(|mark| mark.committed >= ends[&mark.place]))
        })
        .await;
    }
}

/// How far a group has read a partition.
pub struct Mark {
    pub place: String,
    pub committed: i64,
    pub end: i64,
}

/// A service's consumer group. Each service has one for what somebody waits for, and one for its read models.
#[derive(Clone, Copy)]
struct Group<'s> {
    service: &'s str,
    background: bool,
}

impl<'s> Group<'s> {
    fn all(service: &'s str) -> [Self; 2] {
        [false, true].map(|background| Self { service, background })
    }

    fn name(self) -> String {
        let Self { service, background } = self;
        if background { format!("{service}-background") } else { service.to_owned() }
    }

    fn reads(self, topic: &str) -> bool {
        listens(self.service, topic) && self.background == is_background(self.service, topic)
    }
}

/// Whether nobody waits for what a service does with a topic.
fn is_background(service: &str, topic: &str) -> bool {
    service != "orchestrator" && topic.ends_with(".events")
}

/// Whether a service takes messages from a topic.
pub fn listens(service: &str, topic: &str) -> bool {
    match service {
        "order" => topic == "order.commands" || (topic.ends_with(".events") && topic != "customer.events"),
        "orchestrator" => {
            topic.ends_with(".events") && !matches!(topic, "orchestrator.events" | "customer.events")
        }
        "shipping" => topic == "shipping.commands" || topic == "order.events",
        "notification" => topic == "notification.commands" || topic == "customer.events",
        _ => topic == format!("{service}.commands"),
    }
}

/// Returns the text of a record's header.
pub fn header(record: &OwnedMessage, key: &str) -> Option<String> {
    let headers = record.headers()?;
    let found = headers.iter().find(|header| header.key == key)?;
    found.value.map(|value| String::from_utf8_lossy(value).into_owned())
}
