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
pub(super) struct PartitionGate {
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

impl PartitionGate {
    /// The lane of a record with this key, if it may be sent now. It counts as sent then.
    pub fn enter(&self, topic: &str, key: &str) -> Option<i32> {
        let mut topics = self.lock();
        if !topics.contains_key(topic) {
            topics.insert(topic.to_owned(), Topic::default());
        }
        let topic = topics.get_mut(topic)?;
        if topic.lanes.contains_key(&PARTITION_UA) {
            return None;
        }
        let lane = topic.lane(key);
        match topic.lanes.get(&lane) {
            Some(Lane::First) => return None,
            Some(Lane::Open(at)) if at.elapsed() < REMEMBERED => {}
            Some(Lane::Open(_)) | None => drop(topic.lanes.insert(lane, Lane::First)),
        }
        Some(lane)
    }

    /// A record that had entered a lane was not sent after all.
    pub fn leave(&self, topic: &str, lane: i32) {
        if let Some(topic) = self.lock().get_mut(topic) {
            topic.clear(lane);
        }
    }

    /// The broker has acknowledged a record that had entered a lane, and tells its partition. Whether others may have waited
    /// for that.
    pub fn open(&self, topic: &str, lane: i32, partition: i32) -> bool {
        let mut topics = self.lock();
        let Some(topic) = topics.get_mut(topic) else { return false };
        let former = topic.lanes.insert(partition, Lane::Open(Instant::now()));
        let cleared = topic.clear(lane) | topic.clear(PARTITION_UA);
        cleared || !matches!(former, Some(Lane::Open(_)))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Topic>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Topic {
    fn lane(&self, key: &str) -> i32 {
        if self.partitions == 0 { PARTITION_UA } else { of(key.as_bytes(), self.partitions) }
    }

    /// Nobody's first record is under way in this lane. Whether there was one.
    fn clear(&mut self, lane: i32) -> bool {
        let first = matches!(self.lanes.get(&lane), Some(Lane::First));
        if first {
            self.lanes.remove(&lane);
        }
        first
    }
}

/// The client's own way to divide keys, which other clients of the same library share.
fn of(key: &[u8], partitions: i32) -> i32 {
    (crc32fast::hash(key) % partitions.unsigned_abs()).cast_signed()
}

impl Partitioner for PartitionGate {
    fn partition(
        &self,
        topic: &str,
        key: Option<&[u8]>,
        partitions: i32,
        _is_available: impl Fn(i32) -> bool,
    ) -> i32 {
        if let Some(topic) = self.lock().get_mut(topic)
            && topic.partitions != partitions
        {
            // This record had entered another lane than that of the partition which it gets, and travels alone.
            if topic.partitions != 0 {
                topic.lanes.clear();
                topic.lanes.insert(PARTITION_UA, Lane::First);
            }
            topic.partitions = partitions;
        }
        of(key.unwrap_or_default(), partitions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learnt(lanes: &PartitionGate) {
        assert_eq!(lanes.partition("t", Some(b"a"), 4, |_| true), of(b"a", 4));
    }

    #[test]
    fn keys_are_divided_as_the_client_divides_them() {
        // The check value of CRC-32.
        assert_eq!(of(b"123456789", 1_000_000), (0xcbf4_3926_u32 % 1_000_000).cast_signed());
    }

    #[test]
    fn the_first_record_of_a_partition_travels_alone() {
        let lanes = PartitionGate::default();
        assert_eq!(lanes.enter("t", "a"), Some(PARTITION_UA));
        assert_eq!(lanes.enter("t", "b"), None, "it is not known yet which partition that is");
        assert_eq!(lanes.enter("other", "b"), Some(PARTITION_UA));
        learnt(&lanes);
        assert_eq!(lanes.enter("t", "b"), None, "still not");
        let lane = of(b"a", 4);
        assert!(lanes.open("t", PARTITION_UA, lane));
        assert_eq!(lanes.enter("t", "a"), Some(lane));
        assert_eq!(lanes.enter("t", "a"), Some(lane), "it is open");
        let elsewhere = ["b", "c", "d", "e"].into_iter().find(|key| of(key.as_bytes(), 4) != lane);
        let elsewhere = elsewhere.expect("another partition");
        let other = lanes.enter("t", elsewhere).expect("the first");
        assert_eq!(lanes.enter("t", elsewhere), None);
        assert!(!lanes.open("t", lane, lane), "nobody waited");
        assert!(lanes.open("t", other, other));
        assert_eq!(lanes.enter("t", elsewhere), Some(other));
    }

    #[test]
    fn a_record_that_was_not_sent_bars_nobody() {
        let lanes = PartitionGate::default();
        let lane = lanes.enter("t", "a").expect("the first");
        lanes.leave("t", lane);
        assert_eq!(lanes.enter("t", "a"), Some(lane));
        learnt(&lanes);
        assert!(lanes.open("t", lane, of(b"a", 4)));
        lanes.leave("t", of(b"a", 4));
        assert!(!lanes.open("t", of(b"a", 4), of(b"a", 4)), "an open lane stays open");
    }

    #[test]
    fn after_a_change_of_the_number_of_partitions_every_lane_opens_again() {
        let lanes = PartitionGate::default();
        lanes.enter("t", "a");
        learnt(&lanes);
        // The client has learnt of more partitions by the time that it looks for the record's.
        for (key, entered) in [("a", PARTITION_UA), ("b", of(b"b", 4))] {
            assert!(lanes.open("t", entered, of(key.as_bytes(), 8)) || key == "b");
            if key == "a" {
                assert_eq!(lanes.enter("t", "b"), Some(of(b"b", 4)));
                assert_eq!(lanes.partition("t", Some(b"b"), 8, |_| true), of(b"b", 8));
                assert_eq!(lanes.enter("t", "c"), None, "it travels alone");
            }
        }
        for key in ["a", "b", "c", "d", "e", "f", "g", "h"] {
            let lane = lanes.enter("t", key).expect("no lane is barred for ever");
            lanes.open("t", lane, lane);
        }
    }
}
