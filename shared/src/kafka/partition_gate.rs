//! Decides to which partitions a producer may send further records before the first one is acknowledged.
//!
//! Several requests to one partition may be in flight, because the broker refuses a request whose sequence numbers
//! have a gap. It cannot do so for a producer that it does not know. If the first request to a partition is refused
//! or lost, for example while its leader changes, the broker accepts the second one. The client then concludes that
//! the first one has arrived too (librdkafka issue 4134, confluent-kafka-go issue 921).
//! The gate therefore sends the first record of a partition alone.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::producer::{PARTITION_UA, Partitioner};

/// After this long without a record the gate assumes that the broker has forgotten the producer. The broker's default
/// is one day (`producer.id.expiration.ms`).
const REMEMBERED: Duration = Duration::from_secs(3600);

/// The partitions of one producer, with the state of each.
#[derive(Default)]
pub(super) struct PartitionGate {
    topics: Mutex<HashMap<String, Topic>>,
}

#[derive(Default)]
struct Topic {
    /// The number of partitions; zero until the client knows it.
    partitions: i32,
    /// The gates of the partitions that were used. Until the number of partitions is known, the key is
    /// [`PARTITION_UA`].
    lanes: HashMap<i32, Lane>,
}

#[derive(Clone, Copy)]
enum Lane {
    /// The first record is in flight.
    First,
    /// The broker acknowledged a record at this time, so it knows the producer.
    Open(Instant),
}

impl PartitionGate {
    /// Returns the gate of a record with this key, if the record may be sent now. The record then counts as sent.
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

    /// Takes back [`PartitionGate::enter`] for a record that was not sent.
    pub fn leave(&self, topic: &str, lane: i32) {
        if let Some(topic) = self.lock().get_mut(topic) {
            topic.clear(lane);
        }
    }

    /// Opens the gate of `partition` after the broker acknowledged a record that had entered `entered`. Returns
    /// whether other records may have waited for this.
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

    /// Closes a gate whose first record is in flight. Returns whether it was so.
    fn clear(&mut self, lane: i32) -> bool {
        let first = matches!(self.lanes.get(&lane), Some(Lane::First));
        if first {
            self.lanes.remove(&lane);
        }
        first
    }
}

/// Returns the partition of a key. It is the client's own rule, which other clients of librdkafka share.
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
            // This record entered the gate of another partition than the one that it gets now, so it is sent alone.
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
        // This is the check value of CRC-32.
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
        // The client learns of more partitions before it selects the record's partition.
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
