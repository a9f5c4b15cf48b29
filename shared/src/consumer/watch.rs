//! Notices a client that stands still. librdkafka knows by itself when the broker is gone; what it does not know is that it
//! has forgotten to fetch a partition, or to say that records are there. Both have been reported of it after a broker came
//! back (librdkafka issue 4492, rust-rdkafka issues 597 and 665), and only a new client mends them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::{Consumer, ConsumerContext, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};
use tracing::{debug, warn};

/// How often it looks. What is behind at two looks, and has not moved in between, stands still.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// How long the broker may take to tell where its partitions end.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a record that a new client did not get either is left alone: it may be no message, but a transaction's mark.
const TRIED_FOR: Duration = Duration::from_secs(600);

/// A partition of a topic.
type Partition = (String, i32);

/// How far a consumer has come.
pub(super) struct Watch {
    looked: Instant,
    /// Whether all that had been fetched was handed over at some moment since the last look.
    ran_dry: bool,
    /// Where the partitions stood at the last look that had records they did not get.
    behind: HashMap<Partition, i64>,
    /// Where a new client was tried, and when.
    tried: HashMap<Partition, (i64, Instant)>,
}

impl Watch {
    pub fn new() -> Self {
        Self { looked: Instant::now(), ran_dry: false, behind: HashMap::new(), tried: HashMap::new() }
    }

    /// A new membership begins.
    pub fn restart(&mut self) {
        *self = Self { tried: std::mem::take(&mut self.tried), ..Self::new() };
    }

    /// Whether there is a partition whose records do not come. `dry` says that the client had no more to hand over.
    pub fn stands_still<C: ConsumerContext>(&mut self, consumer: &StreamConsumer<C>, dry: bool) -> bool {
        self.ran_dry |= dry;
        if self.looked.elapsed() < LOOK_EVERY {
            return false;
        }
        self.looked = Instant::now();
        tokio::task::block_in_place(|| self.look(consumer)).unwrap_or_else(|error| {
            debug!(%error, "where the partitions end is not known");
            self.behind.clear();
            false
        })
    }

    fn look<C: ConsumerContext>(&mut self, consumer: &StreamConsumer<C>) -> Result<bool, KafkaError> {
        let behind = behind(consumer)?;
        for ((topic, partition), next) in self.stuck(behind) {
            // What it has not got may have been deleted by now.
            let (beginning, end) = consumer.fetch_watermarks(&topic, partition, ASK_TIMEOUT)?;
            if beginning.max(next) < end {
                metrics::counter!("amends_consumer_stood_still_total").increment(1);
                warn!(
                    topic,
                    partition, next, "the client does not get records that are there; the member joins anew"
                );
                self.tried.insert((topic, partition), (next, Instant::now()));
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The partitions that stand where they stood at the last look, each with the record that it does not get.
    fn stuck(&mut self, behind: HashMap<Partition, i64>) -> Vec<(Partition, i64)> {
        // While there is a backlog, a partition may have to wait for its turn.
        let looking = std::mem::take(&mut self.ran_dry);
        let before = std::mem::replace(&mut self.behind, behind);
        self.tried.retain(|_, (_, at)| at.elapsed() < TRIED_FOR);
        let tried = |partition, next| self.tried.get(partition).is_some_and(|(tried, _)| *tried == next);
        let stuck = self.behind.iter().filter(|&(partition, next)| {
            looking && before.get(partition) == Some(next) && !tried(partition, *next)
        });
        stuck.map(|(partition, next)| (partition.clone(), *next)).collect()
    }
}

/// The assigned partitions that have records beyond what was handed over or committed, each with the first of those.
fn behind<C: ConsumerContext>(consumer: &StreamConsumer<C>) -> Result<HashMap<Partition, i64>, KafkaError> {
    let (position, committed) = (consumer.position()?, consumer.committed(ASK_TIMEOUT)?);
    let mut ends = TopicPartitionList::new();
    for partition in consumer.assignment()?.elements() {
        ends.add_partition_offset(partition.topic(), partition.partition(), Offset::End)?;
    }
    let ends = consumer.offsets_for_times(ends, ASK_TIMEOUT)?;
    let mut behind = HashMap::new();
    for end in ends.elements() {
        let of = |list: &TopicPartitionList| {
            let found = list.find_partition(end.topic(), end.partition());
            found.and_then(|partition| number(partition.offset())).unwrap_or(0)
        };
        let next = of(&position).max(of(&committed));
        if number(end.offset()).is_some_and(|end| next < end) {
            behind.insert((end.topic().to_owned(), end.partition()), next);
        }
    }
    Ok(behind)
}

fn number(offset: Offset) -> Option<i64> {
    if let Offset::Offset(offset) = offset { Some(offset) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(next: i64) -> HashMap<Partition, i64> {
        HashMap::from([(("order.events".to_owned(), 0), next)])
    }

    /// A look after a time in which all was handed over.
    fn look(watch: &mut Watch, behind: HashMap<Partition, i64>) -> usize {
        watch.ran_dry = true;
        watch.stuck(behind).len()
    }

    #[test]
    fn a_partition_that_has_not_moved_between_two_looks_stands_still() {
        let mut watch = Watch::new();
        assert_eq!(look(&mut watch, at(7)), 0, "it may be on its way");
        assert_eq!(look(&mut watch, at(8)), 0, "it moves");
        assert_eq!(look(&mut watch, at(8)), 1);
        assert_eq!(look(&mut watch, HashMap::new()), 0);
        assert_eq!(look(&mut watch, at(8)), 0, "it had caught up in between");
    }

    #[test]
    fn a_partition_waits_its_turn_while_there_is_a_backlog() {
        let mut watch = Watch::new();
        look(&mut watch, at(7));
        assert_eq!(watch.stuck(at(7)), []);
        assert_eq!(look(&mut watch, at(7)), 1);
    }

    #[test]
    fn a_record_that_a_new_client_does_not_get_either_is_left_alone() {
        let mut watch = Watch::new();
        look(&mut watch, at(7));
        assert_eq!(look(&mut watch, at(7)), 1);
        watch.tried.insert(("order.events".to_owned(), 0), (7, Instant::now()));
        watch.restart();
        look(&mut watch, at(7));
        assert_eq!(look(&mut watch, at(7)), 0);
        look(&mut watch, at(9));
        assert_eq!(look(&mut watch, at(9)), 1, "another record");
    }
}
