//! Detects a stalled Kafka client.
//!
//! librdkafka notices when the broker is gone. It does not notice that it has forgotten to fetch a partition, to
//! announce records, or to return to its group. Others have reported the first two after a broker came back
//! (librdkafka issue 4492, rust-rdkafka issues 597 and 665).
//!
//! The last one was observed in this project, after the only broker had been frozen. A client that gets an empty list
//! of brokers, while the broker registers again, finds no broker any more (librdkafka issue 5301). Other clients in
//! the same process continue. Only a new client helps in these cases.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{Consumer, ConsumerContext, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};
use tracing::{info, warn};

use super::positions::{Jump, Partition};
use crate::kafka::{Kafka, TopicChecker, on_own_thread};
use crate::metric;

/// The interval between checks. A partition that is behind at two checks and has not moved in between is stalled.
const CHECK_INTERVAL: Duration = Duration::from_secs(15);
/// After this many checks without a group, or without an answer of the group's coordinator, the client counts as
/// lost. A group may take this long to form. If the broker does not answer other clients either, the count restarts.
const MAX_LOST_CHECKS: u32 = 3;
/// The timeout of a request for the end offsets of partitions.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);
/// The timeout of a search for the broker.
const FIND_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a record is ignored that a new client did not receive either. It may be the marker of a transaction.
const IGNORED_FOR: Duration = Duration::from_secs(600);

/// The consumer's progress at the last check.
pub(super) struct StallDetector {
    checked_at: Instant,
    /// Whether all fetched records were handed over at some moment since the last check.
    was_idle: bool,
    /// The offsets, at the last check, of partitions that had records left.
    behind: HashMap<Partition, i64>,
    /// The number of checks, one after the other, at which the client was lost.
    lost_checks: u32,
    /// The offset and time at which a new client was tried, by partition.
    tried: HashMap<Partition, (i64, Instant)>,
    /// Partitions whose remaining records were deleted before they came.
    deleted: Vec<Jump>,
}

impl StallDetector {
    pub fn new() -> Self {
        Self {
            checked_at: Instant::now(),
            was_idle: false,
            behind: HashMap::new(),
            lost_checks: 0,
            tried: HashMap::new(),
            deleted: Vec::new(),
        }
    }

    /// Begins a new membership.
    pub fn restart(&mut self) {
        *self = Self { tried: std::mem::take(&mut self.tried), ..Self::new() };
    }

    /// Takes the partitions whose remaining records were deleted before they came.
    pub fn take_deleted(&mut self) -> Vec<Jump> {
        std::mem::take(&mut self.deleted)
    }

    /// Returns whether a partition is stalled or the client is lost. `idle` means that the client had no more records
    /// to hand over. `joined` means that the client is in its group.
    pub async fn is_stalled<C: ConsumerContext + 'static>(
        &mut self,
        kafka: &Kafka,
        consumer: &Arc<StreamConsumer<C>>,
        idle: bool,
        joined: bool,
    ) -> bool {
        self.was_idle |= idle;
        if self.checked_at.elapsed() < CHECK_INTERVAL {
            return false;
        }
        self.checked_at = Instant::now();
        let result = self.check(consumer).await;
        if let Err(error) = &result {
            info!(%error, "where the partitions end is not known");
            self.behind.clear();
        }
        let stalled = match result {
            Ok(true) => true,
            Ok(false) if joined => {
                self.lost_checks = 0;
                false
            }
            _ => self.is_lost(&find_broker(kafka, consumer).await),
        };
        if stalled {
            metric::CONSUMER_STALL_RESTARTS.counter(&[]).increment(1);
        }
        stalled
    }

    /// Returns whether a client without a group, or without an answer about its partitions, will not recover.
    fn is_lost(&mut self, broker: &Broker) -> bool {
        self.lost_checks = if matches!(broker, Broker::Gone) { 0 } else { self.lost_checks + 1 };
        let lost = matches!(broker, Broker::Hidden) || self.lost_checks >= MAX_LOST_CHECKS;
        if lost {
            warn!(?broker, "the client does not come back to its group; the member joins anew");
        }
        lost
    }

    async fn check<C: ConsumerContext + 'static>(
        &mut self,
        consumer: &Arc<StreamConsumer<C>>,
    ) -> Result<bool, KafkaError> {
        let behind = call(consumer, behind).await?;
        for ((topic, partition), next) in self.stuck(behind) {
            // The missing records may have been deleted by now.
            let name = topic.clone();
            let watermarks =
                call(consumer, move |client| client.fetch_watermarks(&name, partition, REQUEST_TIMEOUT));
            let (beginning, end) = watermarks.await?;
            if next < beginning {
                let partition = (topic.clone(), partition);
                self.deleted.push(Jump { partition, expected: next, came: beginning });
            }
            if beginning.max(next) < end {
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

    /// Returns the partitions that have not moved since the last check, with the offset of the missing record.
    fn stuck(&mut self, behind: HashMap<Partition, i64>) -> Vec<(Partition, i64)> {
        // While there is a backlog, a partition may have to wait its turn.
        let was_idle = std::mem::take(&mut self.was_idle);
        let before = std::mem::replace(&mut self.behind, behind);
        self.tried.retain(|_, (_, at)| at.elapsed() < IGNORED_FOR);
        let tried = |partition, next| self.tried.get(partition).is_some_and(|(tried, _)| *tried == next);
        let stuck = self.behind.iter().filter(|&(partition, next)| {
            was_idle && before.get(partition) == Some(next) && !tried(partition, *next)
        });
        stuck.map(|(partition, next)| (partition.clone(), *next)).collect()
    }
}

/// Which client finds the broker.
#[derive(Debug)]
enum Broker {
    /// The checked client finds it.
    Found,
    /// Another client finds it, but the checked one does not.
    Hidden,
    /// No client finds it, so a new client would not help.
    Gone,
}

async fn find_broker<C: ConsumerContext + 'static>(
    kafka: &Kafka,
    consumer: &Arc<StreamConsumer<C>>,
) -> Broker {
    if call(consumer, |client| client.fetch_metadata(None, FIND_TIMEOUT)).await.is_ok() {
        return Broker::Found;
    }
    let kafka = kafka.clone();
    let another = move || TopicChecker::new(&kafka, &[]).and_then(|client| client.missing(FIND_TIMEOUT));
    if on_own_thread(CHECK_INTERVAL, another).await.is_ok() { Broker::Hidden } else { Broker::Gone }
}

/// Calls a blocking function of the checked client.
async fn call<C: ConsumerContext + 'static, T: Send + 'static>(
    consumer: &Arc<StreamConsumer<C>>,
    request: impl FnOnce(&StreamConsumer<C>) -> Result<T, KafkaError> + Send + 'static,
) -> Result<T, KafkaError> {
    let consumer = Arc::clone(consumer);
    on_own_thread(CHECK_INTERVAL, move || request(&consumer)).await
}

/// Returns the assigned partitions with records left, each with the offset of the first such record.
fn behind<C: ConsumerContext>(consumer: &StreamConsumer<C>) -> Result<HashMap<Partition, i64>, KafkaError> {
    let assignment = consumer.assignment()?;
    if assignment.count() == 0 {
        return Ok(HashMap::new());
    }
    let (position, committed) = (consumer.position()?, consumer.committed(REQUEST_TIMEOUT)?);
    let mut ends = TopicPartitionList::new();
    for partition in assignment.elements() {
        ends.add_partition_offset(partition.topic(), partition.partition(), Offset::End)?;
    }
    let ends = consumer.offsets_for_times(ends, REQUEST_TIMEOUT)?;
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

    /// Makes a check after a time in which all records were handed over.
    fn check(detector: &mut StallDetector, behind: HashMap<Partition, i64>) -> usize {
        detector.was_idle = true;
        detector.stuck(behind).len()
    }

    #[test]
    fn a_partition_that_has_not_moved_between_two_looks_stands_still() {
        let mut detector = StallDetector::new();
        assert_eq!(check(&mut detector, at(7)), 0, "it may be on its way");
        assert_eq!(check(&mut detector, at(8)), 0, "it moves");
        assert_eq!(check(&mut detector, at(8)), 1);
        assert_eq!(check(&mut detector, HashMap::new()), 0);
        assert_eq!(check(&mut detector, at(8)), 0, "it had caught up in between");
    }

    #[test]
    fn a_client_that_does_not_come_back_to_its_group_is_astray_while_the_broker_answers() {
        let mut detector = StallDetector::new();
        let mut lost = |broker| detector.is_lost(&broker);
        assert_eq!([(); 2].map(|()| lost(Broker::Found)), [false; 2], "the group may be coming together");
        assert_eq!([(); 9].map(|()| lost(Broker::Gone)), [false; 9]);
        assert_eq!([(); 3].map(|()| lost(Broker::Found)), [false, false, true]);
    }

    #[test]
    fn a_client_that_does_not_find_the_broker_which_another_finds_is_given_up_at_once() {
        assert!(StallDetector::new().is_lost(&Broker::Hidden));
    }

    #[test]
    fn a_partition_waits_its_turn_while_there_is_a_backlog() {
        let mut detector = StallDetector::new();
        check(&mut detector, at(7));
        assert_eq!(detector.stuck(at(7)), []);
        assert_eq!(check(&mut detector, at(7)), 1);
    }

    #[test]
    fn a_record_that_a_new_client_does_not_get_either_is_left_alone() {
        let mut detector = StallDetector::new();
        check(&mut detector, at(7));
        assert_eq!(check(&mut detector, at(7)), 1);
        detector.tried.insert(("order.events".to_owned(), 0), (7, Instant::now()));
        detector.restart();
        check(&mut detector, at(7));
        assert_eq!(check(&mut detector, at(7)), 0);
        check(&mut detector, at(9));
        assert_eq!(check(&mut detector, at(9)), 1, "another record");
    }
}
