//! Reads the topics, from a moment on up to their present ends.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedHeaders, Message};
use rdkafka::{Offset, TopicPartitionList};
use shared::cloudevents::{self, header};
use shared::kafka::Kafka;
use time::OffsetDateTime;
use tokio::sync::oneshot;

use super::{Place, Sum};
use crate::suite::SERVICES;

const ASK: Duration = Duration::from_secs(10);
/// The longest time without a record before the reading fails.
const SILENCE: Duration = Duration::from_secs(30);
/// How much earlier than the first minute the reading begins, because clocks of other machines differ.
const SKEW: Duration = Duration::from_secs(60);
/// The most keys that are listed.
const MOST: usize = 20;

/// The records on the topics, summed up.
#[derive(Debug, Default)]
pub struct Records {
    pub sums: BTreeMap<Place, Sum>,
    /// Places with records that carry no position.
    pub unmarked: BTreeSet<Place>,
    /// The first minute that is complete here.
    pub since: String,
    /// Keys whose records are out of order, with their topic.
    pub disorder: Vec<String>,
}

/// An offset for each partition of each topic.
type Ends = HashMap<(String, i32), i64>;

/// Reads all topics from this moment on, on a thread of its own.
pub(super) async fn read(kafka: &Kafka, from: OffsetDateTime) -> anyhow::Result<Records> {
    let (done, read) = oneshot::channel();
    let kafka = kafka.clone();
    std::thread::Builder::new().name("topics".into()).spawn(move || {
        // Nobody waits for the result if the audit was stopped.
        let _ = done.send(read_all(&kafka, from));
    })?;
    read.await.context("the reader has ended")?
}

fn read_all(kafka: &Kafka, from: OffsetDateTime) -> anyhow::Result<Records> {
    let consumer: BaseConsumer = kafka
        .client()
        .set("group.id", kafka.name("amends-audit"))
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", "50")
        .create()?;
    let mut reading = Reading::new(kafka, from);
    let (list, mut ends) = partitions(&consumer, kafka, from - SKEW)?;
    if ends.is_empty() {
        return Ok(reading.records);
    }
    let kept = earliest(&consumer, &list)?;
    consumer.assign(&list)?;
    let mut came = Instant::now();
    while !ends.is_empty() {
        let Some(record) = consumer.poll(Duration::from_millis(50)) else {
            if came.elapsed() > SILENCE {
                bail!("nothing came for {SILENCE:?}");
            }
            continue;
        };
        // Errors of the client are transient; only a long silence ends the reading.
        let Ok(record) = record else { continue };
        came = Instant::now();
        let place = (record.topic().to_owned(), record.partition());
        let Some(end) = ends.get(&place).copied() else { continue };
        let oldest = kept.get(&place) == Some(&record.offset());
        if record.offset() < end {
            reading.take(record.topic(), record.key().unwrap_or_default(), record.headers(), oldest);
        }
        if record.offset() + 1 >= end {
            ends.remove(&place);
        }
    }
    Ok(reading.records)
}

/// Returns where to begin and where to end. Partitions without records are left out.
fn partitions(
    consumer: &BaseConsumer,
    kafka: &Kafka,
    from: OffsetDateTime,
) -> anyhow::Result<(TopicPartitionList, Ends)> {
    // A topic may have more partitions than were declared.
    let metadata = consumer.fetch_metadata(None, ASK)?;
    let all = |offset| -> anyhow::Result<TopicPartitionList> {
        let mut list = TopicPartitionList::new();
        for topic in schemas::topics::all() {
            let name = kafka.name(&topic.name);
            let known = metadata.topics().iter().find(|known| known.name() == name);
            let known = known.filter(|known| !known.partitions().is_empty());
            for partition in known.with_context(|| format!("there is no topic {name}"))?.partitions() {
                list.add_partition_offset(&name, partition.id(), offset)?;
            }
        }
        Ok(list)
    };
    let millis = i64::try_from(from.unix_timestamp_nanos() / 1_000_000)?;
    let begins = consumer.offsets_for_times(all(Offset::Offset(millis))?, ASK)?;
    let (mut list, mut ends) = (TopicPartitionList::new(), Ends::new());
    for end in consumer.offsets_for_times(all(Offset::End)?, ASK)?.elements() {
        let begin = begins.find_partition(end.topic(), end.partition()).map(|begin| begin.offset());
        if let (Some(Offset::Offset(begin)), Offset::Offset(end_at)) = (begin, end.offset())
            && begin < end_at
        {
            list.add_partition_offset(end.topic(), end.partition(), Offset::Offset(begin))?;
            ends.insert((end.topic().to_owned(), end.partition()), end_at);
        }
    }
    Ok((list, ends))
}

/// Returns the first record of each partition whose earlier records were deleted.
fn earliest(consumer: &BaseConsumer, list: &TopicPartitionList) -> anyhow::Result<Ends> {
    let mut first = TopicPartitionList::new();
    for partition in list.elements() {
        first.add_partition_offset(partition.topic(), partition.partition(), Offset::Beginning)?;
    }
    let mut kept = Ends::new();
    for partition in consumer.offsets_for_times(first, ASK)?.elements() {
        if let Offset::Offset(offset) = partition.offset()
            && offset > 0
        {
            kept.insert((partition.topic().to_owned(), partition.partition()), offset);
        }
    }
    Ok(kept)
}

/// A reading in progress. It remembers the positions of all records, and the last position of each key.
struct Reading {
    prefix: String,
    records: Records,
    seen: HashSet<(usize, i64)>,
    last: HashMap<(usize, u64), i64>,
}

impl Reading {
    fn new(kafka: &Kafka, from: OffsetDateTime) -> Self {
        let records = Records { since: super::minute(from), ..Records::default() };
        Self { prefix: kafka.prefix.clone(), records, seen: HashSet::new(), last: HashMap::new() }
    }

    /// Takes a record. `oldest` means that earlier records of its partition were deleted.
    fn take(&mut self, topic: &str, key: &[u8], headers: Option<&BorrowedHeaders>, oldest: bool) {
        let text = |name| header(headers, name);
        let (Some(source), Some(time)) = (text("ce_source"), text("ce_time")) else { return };
        // Records of programs that are not part of the suite are in no outbox of ours.
        let Some(service) = SERVICES.iter().position(|service| *service == source) else { return };
        let Some(minute) = time.get(..16) else { return };
        if oldest && minute >= self.records.since.as_str() {
            // Records of this minute may be among the deleted ones. `~` sorts behind every digit.
            self.records.since = format!("{minute}~");
        }
        if minute < self.records.since.as_str() {
            return;
        }
        let topic = topic.strip_prefix(self.prefix.as_str()).unwrap_or(topic);
        let place = (source.to_owned(), minute.to_owned(), topic.to_owned());
        let Some(position) = text(cloudevents::POSITION).and_then(|position| position.parse().ok()) else {
            self.records.unmarked.insert(place);
            return;
        };
        // Copies of one message have the same position.
        if !self.seen.insert((service, position)) {
            return;
        }
        let sum = self.records.sums.entry(place).or_default();
        sum.rows += 1;
        sum.positions_xor ^= position;
        let last = self.last.entry((service, hash(topic, key))).or_insert(position);
        if position < *last && self.records.disorder.len() < MOST {
            self.records.disorder.push(format!("{} on {topic}", String::from_utf8_lossy(key)));
        }
        *last = position.max(*last);
    }
}

fn hash(topic: &str, key: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (topic, key).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use rdkafka::message::{Header, OwnedHeaders};

    use super::*;

    fn reading() -> Reading {
        let kafka = Kafka { prefix: "p.".to_owned(), ..Kafka::new("") };
        Reading::new(&kafka, time::macros::datetime!(2026-11-21 10:00 UTC))
    }

    fn take(reading: &mut Reading, key: &str, minute: &str, position: Option<&str>, oldest: bool) {
        let time = format!("2026-11-21T{minute}:00Z");
        let mut headers = OwnedHeaders::new();
        for (key, value) in [
            ("ce_source", Some("order")),
            ("ce_time", Some(time.as_str())),
            (cloudevents::POSITION, position),
        ] {
            let Some(value) = value else { continue };
            headers = headers.insert(Header { key, value: Some(value) });
        }
        reading.take("p.order.events", key.as_bytes(), Some(headers.as_borrowed()), oldest);
    }

    fn place(minute: &str) -> Place {
        ("order".to_owned(), format!("2026-11-21T{minute}"), "order.events".to_owned())
    }

    #[test]
    fn a_message_counts_once_however_often_it_was_sent() {
        let mut reading = reading();
        for position in ["1", "2", "1", "2", "4"] {
            take(&mut reading, "a", "10:01", Some(position), false);
        }
        assert_eq!(reading.records.sums[&place("10:01")], Sum { rows: 3, positions_xor: 7, unsent: 0 });
        assert!(reading.records.disorder.is_empty(), "a repeated run is no disorder");
    }

    #[test]
    fn a_key_that_is_out_of_order_is_named() {
        let mut reading = reading();
        for (key, position) in [("a", "1"), ("b", "5"), ("a", "4"), ("b", "3")] {
            take(&mut reading, key, "10:01", Some(position), false);
        }
        assert_eq!(reading.records.disorder, ["b on order.events"]);
    }

    #[test]
    fn deleted_records_are_not_missed() {
        let mut reading = reading();
        take(&mut reading, "a", "09:59", Some("1"), false);
        take(&mut reading, "a", "10:03", Some("2"), true);
        take(&mut reading, "a", "10:04", Some("3"), false);
        take(&mut reading, "a", "10:05", None, false);
        assert_eq!(reading.records.sums.keys().collect::<Vec<_>>(), [&place("10:04")]);
        assert!(
            reading.records.since.as_str() > "2026-11-21T10:03"
                && reading.records.since.as_str() < "2026-11-21T10:04"
        );
        assert_eq!(reading.records.unmarked, BTreeSet::from([place("10:05")]));
    }
}
