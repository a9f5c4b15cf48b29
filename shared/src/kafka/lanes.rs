//! Which partitions a producer may send ahead to.
//!
//! Several requests for one partition may be under way because the broker refuses one whose sequence numbers do not follow
//! on from those before. It can't do so for a producer that it knows nothing of: if the first request to a partition is
//! refused or lost, as happens while its leader changes, the second is taken nonetheless, and the client concludes from
//! that that the first has arrived too (librdkafka issue 4134, confluent-kafka-go issue 921). So the first record of a
//! partition travels alone.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::producer::{PARTITION_UA, Partitioner};

/// After so long without a record the broker may have forgotten the producer; a day is its default
/// (`producer.id.expiration.ms`).
const REMEMBERED: Duration = Duration::from_secs(3600);

/// The partitions that one producer sends to.
#[derive(Default)]
pub(super) struct Lanes {
    topics: Mutex<HashMap<String, Topic>>,
}

#[derive(Default)]
struct Topic {
    /// How many partitions there are; zero until the client knows.
    partitions: i32,
    /// As far as anything was sent to them. What is sent before their number is known is at [`PARTITION_UA`].
    lanes: HashMap<i32, Lane>,
}

#[derive(Clone, Copy)]
enum Lane {
    /// The first record is under way.
    First,
    /// The broker knew the producer at this time.
    Open(Instant),
}

impl Lanes {
    /// Whether a record with this key may be sent now. If so, it counts as sent.
    pub fn enter(&self, topic: &str, key: &str) -> bool {
        let mut topics = self.lock();
        if !topics.contains_key(topic) {
            topics.insert(topic.to_owned(), Topic::default());
        }
        let Some(topic) = topics.get_mut(topic) else { return false };
        if topic.lanes.contains_key(&PARTITION_UA) {
            return false;
        }
        let partition = topic.partition(key);
        match topic.lanes.get(&partition) {
            Some(Lane::First) => return false,
            Some(Lane::Open(at)) if at.elapsed() < REMEMBERED => {}
            Some(Lane::Open(_)) | None => drop(topic.lanes.insert(partition, Lane::First)),
        }
        true
    }

    /// A record with this key was not sent after all.
    pub fn leave(&self, topic: &str, key: &str) {
        if let Some(topic) = self.lock().get_mut(topic) {
            let partition = topic.partition(key);
            if matches!(topic.lanes.get(&partition), Some(Lane::First)) {
                topic.lanes.remove(&partition);
            }
        }
    }

    /// The broker has acknowledged a record. Whether others may have waited for that.
    pub fn open(&self, topic: &str, partition: i32) -> bool {
        let mut topics = self.lock();
        let Some(topic) = topics.get_mut(topic) else { return false };
        let former = topic.lanes.insert(partition, Lane::Open(Instant::now()));
        topic.lanes.remove(&PARTITION_UA).is_some() || !matches!(former, Some(Lane::Open(_)))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Topic>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Topic {
    fn partition(&self, key: &str) -> i32 {
        if self.partitions == 0 { PARTITION_UA } else { of(key.as_bytes(), self.partitions) }
    }
}

/// The client's own way to divide keys, which other clients of the same library share.
fn of(key: &[u8], partitions: i32) -> i32 {
    (crc32fast::hash(key) % partitions.unsigned_abs()).cast_signed()
}

impl Partitioner for Lanes {
    fn partition(
        &self,
        topic: &str,
        key: Option<&[u8]>,
        partitions: i32,
        _is_available: impl Fn(i32) -> bool,
    ) -> i32 {
        if let Some(topic) = self.lock().get_mut(topic) {
            topic.partitions = partitions;
        }
        of(key.unwrap_or_default(), partitions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learnt(lanes: &Lanes) {
        assert_eq!(lanes.partition("t", Some(b"a"), 4, |_| true), of(b"a", 4));
    }

    #[test]
    fn keys_are_divided_as_the_client_divides_them() {
        // The check value of CRC-32.
        assert_eq!(of(b"123456789", 1_000_000), (0xcbf4_3926_u32 % 1_000_000).cast_signed());
    }

    #[test]
    fn the_first_record_of_a_partition_travels_alone() {
        let lanes = Lanes::default();
        assert!(lanes.enter("t", "a"));
        assert!(!lanes.enter("t", "b"), "it is not known yet which partition that is");
        assert!(lanes.enter("other", "b"));
        learnt(&lanes);
        assert!(!lanes.enter("t", "b"), "still not");
        assert!(lanes.open("t", of(b"a", 4)));
        assert!(lanes.enter("t", "a"));
        assert!(lanes.enter("t", "a"), "it is open");
        let elsewhere = ["b", "c", "d", "e"].into_iter().find(|key| of(key.as_bytes(), 4) != of(b"a", 4));
        let elsewhere = elsewhere.expect("another partition");
        assert!(lanes.enter("t", elsewhere));
        assert!(!lanes.enter("t", elsewhere));
        assert!(!lanes.open("t", of(b"a", 4)), "nobody waited");
        assert!(lanes.open("t", of(elsewhere.as_bytes(), 4)));
        assert!(lanes.enter("t", elsewhere));
    }

    #[test]
    fn a_record_that_was_not_sent_bars_nobody() {
        let lanes = Lanes::default();
        assert!(lanes.enter("t", "a"));
        lanes.leave("t", "a");
        assert!(lanes.enter("t", "a"));
    }
}
