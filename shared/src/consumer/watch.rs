//! Notices a client that stands still. librdkafka knows by itself when the broker is gone; what it does not know is that it
//! has forgotten to fetch a partition, or to say that records are there. Both have been reported of it after a broker came
//! back (librdkafka issue 4492, rust-rdkafka issues 597 and 665), and only a new client mends them.

use std::time::{Duration, Instant};

use rdkafka::consumer::{Consumer, ConsumerContext, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};
use tracing::{debug, warn};

use super::runtime::Offsets;

/// How often it looks. What is behind at two looks, and has not moved in between, stands still.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// How long the broker may take to tell where its partitions end.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// How far a consumer has come.
pub(super) struct Watch {
    looked: Instant,
    /// The next record of each partition that anything came from.
    next: Offsets,
    /// Where the partitions stood at the last look that had records they did not get.
    behind: Offsets,
    /// Where a new client was tried. What it does not get either is no message, but the mark of a transaction.
    tried: Offsets,
}

impl Watch {
    pub fn new() -> Self {
        let none = Offsets::new;
        Self { looked: Instant::now(), next: none(), behind: none(), tried: none() }
    }

    /// A new membership begins.
    pub fn restart(&mut self) {
        *self = Self { tried: std::mem::take(&mut self.tried), ..Self::new() };
    }

    /// Takes in what was consumed. Whether there is a partition whose records do not come any more.
    pub fn stands_still<C: ConsumerContext>(
        &mut self,
        consumer: &StreamConsumer<C>,
        consumed: Offsets,
    ) -> bool {
        self.next.extend(consumed);
        let since = self.looked.elapsed();
        if since < LOOK_EVERY {
            return false;
        }
        self.looked = Instant::now();
        let behind = match tokio::task::block_in_place(|| behind(consumer, &self.next)) {
            Ok(behind) => behind,
            Err(error) => {
                debug!(%error, "the ends of the partitions are not known");
                Offsets::new()
            }
        };
        // A look that comes late says that a batch took long, and that nobody has asked for more meanwhile.
        if since > LOOK_EVERY * 2 {
            self.behind.clear();
        }
        let Some(((topic, partition), next)) = self.stuck(behind) else { return false };
        metrics::counter!("amends_consumer_stood_still_total").increment(1);
        warn!(
            topic,
            partition, next, "the client does not get records that are there; the member joins anew"
        );
        true
    }

    /// A partition that stands where it stood at the last look, and the record that it does not get.
    fn stuck(&mut self, behind: Offsets) -> Option<((String, i32), i64)> {
        let before = std::mem::replace(&mut self.behind, behind);
        let stuck = self.behind.iter().find(|&(partition, next)| {
            before.get(partition) == Some(next) && self.tried.get(partition) != Some(next)
        });
        let (partition, next) = stuck?;
        self.tried.insert(partition.clone(), *next);
        Some((partition.clone(), *next))
    }
}

/// The assigned partitions that have records beyond what was consumed and committed, each with the first of those.
fn behind<C: ConsumerContext>(
    consumer: &StreamConsumer<C>,
    consumed: &Offsets,
) -> Result<Offsets, KafkaError> {
    let committed = consumer.committed(ASK_TIMEOUT)?;
    let mut ends = TopicPartitionList::new();
    for partition in consumer.assignment()?.elements() {
        ends.add_partition_offset(partition.topic(), partition.partition(), Offset::End)?;
    }
    let ends = consumer.offsets_for_times(ends, ASK_TIMEOUT)?;
    let mut behind = Offsets::new();
    for end in ends.elements() {
        let Offset::Offset(end_offset) = end.offset() else { continue };
        let key = (end.topic().to_owned(), end.partition());
        let committed = committed.find_partition(&key.0, key.1).map(|partition| partition.offset());
        let committed = if let Some(Offset::Offset(offset)) = committed { offset } else { 0 };
        let mut next = consumed.get(&key).map_or(committed, |next| committed.max(*next));
        if next < end_offset {
            // What it has not got may have been deleted by now.
            let (beginning, end_offset) = consumer.fetch_watermarks(&key.0, key.1, ASK_TIMEOUT)?;
            next = next.max(beginning);
            if next < end_offset {
                behind.insert(key, next);
            }
        }
    }
    Ok(behind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(next: i64) -> Offsets {
        Offsets::from([(("order.events".to_owned(), 0), next)])
    }

    #[test]
    fn a_partition_that_has_not_moved_between_two_looks_is_tried_once_with_a_new_client() {
        let mut watch = Watch::new();
        assert!(watch.stuck(at(7)).is_none(), "it may be on its way");
        assert!(watch.stuck(at(8)).is_none(), "it moves");
        assert!(watch.stuck(at(8)).is_some());
        watch.restart();
        assert!(watch.stuck(at(8)).is_none());
        assert!(watch.stuck(at(8)).is_none(), "no client gets it");
        assert!(watch.stuck(at(9)).is_none());
        assert!(watch.stuck(at(9)).is_some(), "another record");
    }

    #[test]
    fn a_partition_that_has_caught_up_in_between_has_moved() {
        let mut watch = Watch::new();
        assert!(watch.stuck(at(7)).is_none());
        assert!(watch.stuck(Offsets::new()).is_none());
        assert!(watch.stuck(at(7)).is_none());
    }
}
