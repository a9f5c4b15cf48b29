//! The committed offsets of a consumer group, and how they are set back.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use shared::kafka::Kafka;
use time::OffsetDateTime;

use crate::output::complain;

const ASK: Duration = Duration::from_secs(10);
/// How often it is checked whether the members have left.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// The record that is read again first.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    Time(OffsetDateTime),
    Beginning,
}

/// A consumer group on the broker.
pub struct Group {
    /// The name, with the installation's prefix.
    pub name: String,
    kafka: Kafka,
    consumer: BaseConsumer,
}

/// A partition, and where its offset is set.
#[derive(Debug, PartialEq, Eq)]
struct Move {
    topic: String,
    partition: i32,
    from: i64,
    to: i64,
}

/// The partitions of a group. All are committed anew, because offsets that were committed by the service itself say up to
/// which state of the database they hold.
#[derive(Debug, Default)]
pub struct Moves(Vec<Move>);

impl Moves {
    /// Returns how many records of each topic are read again.
    pub fn by_topic(&self) -> BTreeMap<&str, i64> {
        let mut topics = BTreeMap::new();
        for step in self.0.iter().filter(|step| step.to < step.from) {
            *topics.entry(step.topic.as_str()).or_default() += step.from - step.to;
        }
        topics
    }
}

impl Group {
    /// Returns the names of a service's groups, without the installation's prefix.
    pub fn of(service: &str) -> [String; 2] {
        [service.to_owned(), format!("{service}-background")]
    }

    /// Opens a group. This does not join it.
    pub fn open(kafka: &Kafka, name: String) -> anyhow::Result<Self> {
        let name = kafka.name(&name);
        let consumer = kafka.client().set("group.id", &name).set("enable.auto.commit", "false").create()?;
        Ok(Self { name, kafka: kafka.clone(), consumer })
    }

    /// Waits until the group has no members.
    pub fn await_empty(&self, wait: Duration, service: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + wait;
        let mut said = false;
        loop {
            let members = self.members()?;
            if members.is_empty() {
                return Ok(());
            }
            let hosts = members.join(", ");
            if Instant::now() >= deadline {
                bail!(
                    "the consumer group {} still has members ({hosts}): stop all replicas of {service}, then try again; \
                     nothing was changed",
                    self.name
                );
            }
            if !std::mem::replace(&mut said, true) {
                complain!("waiting for the members of the consumer group {} to leave: {hosts}", self.name);
            }
            thread::sleep(CHECK_INTERVAL);
        }
    }

    /// Returns the members, each with its address.
    fn members(&self) -> anyhow::Result<Vec<String>> {
        let list =
            self.consumer.fetch_group_list(Some(&self.name), ASK).context("the broker did not answer")?;
        let members = list.groups().iter().flat_map(|group| group.members());
        // The names come from other processes, and go to a terminal.
        let shown = |text: &str| text.escape_debug().to_string();
        Ok(members
            .map(|member| format!("{} at {}", shown(member.client_id()), shown(member.client_host())))
            .collect())
    }

    /// Returns the partitions of all topics that the suite may consume.
    fn partitions(&self) -> anyhow::Result<TopicPartitionList> {
        let names: Vec<String> =
            schemas::topics::all().iter().map(|topic| self.kafka.name(&topic.name)).collect();
        let metadata = self.consumer.fetch_metadata(None, ASK).context("the broker did not answer")?;
        let mut list = TopicPartitionList::new();
        for topic in metadata.topics().iter().filter(|topic| names.iter().any(|name| name == topic.name())) {
            for partition in topic.partitions() {
                list.add_partition(topic.name(), partition.id());
            }
        }
        Ok(list)
    }

    /// Returns the partitions that the group has consumed, with those that are not beyond the target.
    pub fn moves(&self, target: Target) -> anyhow::Result<Moves> {
        let committed = self.consumer.committed_offsets(self.partitions()?, ASK);
        let committed = committed.context("the broker did not answer")?;
        let mut moves = Moves::default();
        let mut targets = TopicPartitionList::new();
        for one in committed.elements() {
            // The group has consumed nothing of the others.
            if let Offset::Offset(_) = one.offset() {
                targets.add_partition_offset(one.topic(), one.partition(), target.offset()?)?;
            }
        }
        if targets.count() == 0 {
            return Ok(moves);
        }
        let targets = self.consumer.offsets_for_times(targets, ASK).context("the broker did not answer")?;
        for one in targets.elements() {
            let from = committed.find_partition(one.topic(), one.partition()).map(|one| one.offset());
            if let (Some(Offset::Offset(from)), Offset::Offset(to)) = (from, one.offset()) {
                // Without a record that is young enough the target is the end.
                let (topic, to) = (one.topic().to_owned(), to.min(from));
                moves.0.push(Move { topic, partition: one.partition(), from, to });
            }
        }
        Ok(moves)
    }

    /// Commits the offsets. The broker refuses that while the group has members.
    pub fn commit(&self, moves: &Moves) -> anyhow::Result<()> {
        if moves.0.is_empty() {
            return Ok(());
        }
        let mut list = TopicPartitionList::new();
        for step in &moves.0 {
            list.add_partition_offset(&step.topic, step.partition, Offset::Offset(step.to))?;
        }
        match self.consumer.commit(&list, CommitMode::Sync) {
            Err(KafkaError::ConsumerCommit(
                RDKafkaErrorCode::UnknownMemberId
                | RDKafkaErrorCode::IllegalGeneration
                | RDKafkaErrorCode::RebalanceInProgress,
            )) => bail!(
                "a member has joined the consumer group {}; stop all replicas, then try again",
                self.name
            ),
            other => other.with_context(|| format!("the offsets of {} can't be set", self.name)),
        }
    }
}

impl Target {
    /// Returns the offset that asks the broker for the target.
    fn offset(self) -> anyhow::Result<Offset> {
        Ok(match self {
            // No record is older than this. `Offset::Beginning` would not ask the broker for a number.
            Self::Beginning => Offset::Offset(0),
            Self::Time(time) => Offset::Offset(i64::try_from(time.unix_timestamp_nanos() / 1_000_000)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_counted_by_topic() {
        let step = |topic: &str, partition, from, to| Move { topic: topic.to_owned(), partition, from, to };
        let moves =
            Moves(vec![step("a", 0, 10, 4), step("a", 1, 5, 0), step("b", 0, 3, 2), step("c", 0, 3, 3)]);
        assert_eq!(moves.by_topic(), BTreeMap::from([("a", 11), ("b", 1)]));
    }
}
