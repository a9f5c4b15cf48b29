//! Decides to which partitions a producer may send further records before the first one is acknowledged.
//!
//! Several requests to one partition may be in flight, because the broker refuses a request whose sequence numbers
//! have a gap. It cannot do so for a producer that it does not know. If the first request to a partition is refused
//! or lost, for example while its leader changes, the broker accepts the second one. The client then concludes that
//! the first one has arrived too (librdkafka issue 4134, confluent-kafka-go issue 921).
//! The gate therefore sends the first record of a partition alone.
//!
//! It also chooses the partition of a key. A declared topic uses the declared number of partitions, even if the topic has
//! more. Otherwise added partitions would move keys, and a key's messages in the new partition would overtake those in
//! the old one.

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
    /// The declared numbers of partitions.
    declared: HashMap<String, i32>,
    topics: Mutex<HashMap<String, Topic>>,
}

#[derive(Default)]
struct Topic {
    /// The number of partitions that keys are spread over; zero until it is known.
    partitions: i32,
    /// The gates of the partitions that were used. Until the number of partitions is known, the key is
    /// [`PARTITION_UA`].
    gates: HashMap<i32, Gate>,
}

#[derive(Clone, Copy)]
enum Gate {
    /// The first record is in flight.
    FirstInFlight,
    /// The broker acknowledged a record at this time, so it knows the producer.
    Open(Instant),
}

impl PartitionGate {
    /// Creates the gate of a producer. `declared` has the numbers of partitions by the names of topics.
    pub fn new(declared: HashMap<String, i32>) -> Self {
        Self { declared, topics: Mutex::default() }
    }

    /// Returns the gate of a record with this key, if the record may be sent now. The record then counts as sent.
    pub fn enter(&self, topic: &str, key: &str) -> Option<i32> {
        let mut topics = self.lock();
        if !topics.contains_key(topic) {
            let partitions = self.declared.get(topic).copied().unwrap_or_default();
            topics.insert(topic.to_owned(), Topic { partitions, ..Topic::default() });
        }
        let topic = topics.get_mut(topic)?;
        if topic.gates.contains_key(&PARTITION_UA) {
            return None;
        }
        let gate = topic.gate_of(key);
        match topic.gates.get(&gate) {
            Some(Gate::FirstInFlight) => return None,
            Some(Gate::Open(at)) if at.elapsed() < REMEMBERED => {}
            Some(Gate::Open(_)) | None => drop(topic.gates.insert(gate, Gate::FirstInFlight)),
        }
        Some(gate)
    }

    /// Takes back [`PartitionGate::enter`] for a record that was not sent.
    pub fn leave(&self, topic: &str, entered: i32) {
        if let Some(topic) = self.lock().get_mut(topic) {
            topic.clear(entered);
        }
    }

    /// Opens the gate of `partition` after the broker acknowledged a record that had entered `entered`. Returns
    /// whether other records may have waited for this.
    pub fn open(&self, topic: &str, entered: i32, partition: i32) -> bool {
        let mut topics = self.lock();
        let Some(topic) = topics.get_mut(topic) else { return false };
        let former = topic.gates.insert(partition, Gate::Open(Instant::now()));
        let cleared = topic.clear(entered) | topic.clear(PARTITION_UA);
        cleared || !matches!(former, Some(Gate::Open(_)))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Topic>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Topic {
    fn gate_of(&self, key: &str) -> i32 {
        if self.partitions == 0 { PARTITION_UA } else { partition_of(key.as_bytes(), self.partitions) }
    }

    /// Closes a gate whose first record is in flight. Returns whether it was so.
    fn clear(&mut self, gate: i32) -> bool {
        let first = matches!(self.gates.get(&gate), Some(Gate::FirstInFlight));
        if first {
            self.gates.remove(&gate);
        }
        first
    }
}

/// Returns the partition of a key. It is the client's own rule, which other clients of librdkafka share.
fn partition_of(key: &[u8], partitions: i32) -> i32 {
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
        // If the topic has fewer partitions, the client refuses the record, because another one would be the wrong one.
        let partitions = self.declared.get(topic).copied().unwrap_or(partitions);
        if let Some(topic) = self.lock().get_mut(topic)
            && topic.partitions != partitions
        {
            // This record entered the gate of another partition than the one that it gets now, so it is sent alone.
            if topic.partitions != 0 {
                topic.gates.clear();
                topic.gates.insert(PARTITION_UA, Gate::FirstInFlight);
            }
            topic.partitions = partitions;
        }
        partition_of(key.unwrap_or_default(), partitions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learnt(partition_gate: &PartitionGate) {
        assert_eq!(partition_gate.partition("t", Some(b"a"), 4, |_| true), partition_of(b"a", 4));
    }

    #[test]
    fn keys_are_divided_as_the_client_divides_them() {
        // This is the check value of CRC-32.
        assert_eq!(partition_of(b"123456789", 1_000_000), (0xcbf4_3926_u32 % 1_000_000).cast_signed());
    }

    #[test]
    fn a_declared_topic_keeps_its_number_of_partitions_however_many_it_has() {
        let partition_gate = PartitionGate::new(HashMap::from([("t".to_owned(), 4)]));
        for actual in [4, 8, 2] {
            for key in ["a", "b", "c", "d", "e", "f"] {
                let chosen = partition_gate.partition("t", Some(key.as_bytes()), actual, |_| true);
                assert_eq!(chosen, partition_of(key.as_bytes(), 4), "{key} of {actual}");
            }
        }
        assert_eq!(partition_gate.enter("t", "a"), Some(partition_of(b"a", 4)), "it is known from the start");
    }

    #[test]
    fn the_first_record_of_a_partition_travels_alone() {
        let partition_gate = PartitionGate::default();
        assert_eq!(partition_gate.enter("t", "a"), Some(PARTITION_UA));
        assert_eq!(partition_gate.enter("t", "b"), None, "it is not known yet which partition that is");
        assert_eq!(partition_gate.enter("other", "b"), Some(PARTITION_UA));
        learnt(&partition_gate);
        assert_eq!(partition_gate.enter("t", "b"), None, "still not");
        let gate = partition_of(b"a", 4);
        assert!(partition_gate.open("t", PARTITION_UA, gate));
        assert_eq!(partition_gate.enter("t", "a"), Some(gate));
        assert_eq!(partition_gate.enter("t", "a"), Some(gate), "it is open");
        let elsewhere = ["b", "c", "d", "e"].into_iter().find(|key| partition_of(key.as_bytes(), 4) != gate);
        let elsewhere = elsewhere.expect("another partition");
        let other = partition_gate.enter("t", elsewhere).expect("the first");
        assert_eq!(partition_gate.enter("t", elsewhere), None);
        assert!(!partition_gate.open("t", gate, gate), "nobody waited");
        assert!(partition_gate.open("t", other, other));
        assert_eq!(partition_gate.enter("t", elsewhere), Some(other));
    }

    #[test]
    fn a_record_that_was_not_sent_bars_nobody() {
        let partition_gate = PartitionGate::default();
        let gate = partition_gate.enter("t", "a").expect("the first");
        partition_gate.leave("t", gate);
        assert_eq!(partition_gate.enter("t", "a"), Some(gate));
        learnt(&partition_gate);
        assert!(partition_gate.open("t", gate, partition_of(b"a", 4)));
        partition_gate.leave("t", partition_of(b"a", 4));
        assert!(
            !partition_gate.open("t", partition_of(b"a", 4), partition_of(b"a", 4)),
            "an open gate stays open"
        );
    }

    #[test]
    fn after_a_change_of_the_number_of_partitions_every_lane_opens_again() {
        let partition_gate = PartitionGate::default();
        partition_gate.enter("t", "a");
        learnt(&partition_gate);
        // The client learns of more partitions before it selects the record's partition.
        for (key, entered) in [("a", PARTITION_UA), ("b", partition_of(b"b", 4))] {
            assert!(partition_gate.open("t", entered, partition_of(key.as_bytes(), 8)) || key == "b");
            if key == "a" {
                assert_eq!(partition_gate.enter("t", "b"), Some(partition_of(b"b", 4)));
                assert_eq!(partition_gate.partition("t", Some(b"b"), 8, |_| true), partition_of(b"b", 8));
                assert_eq!(partition_gate.enter("t", "c"), None, "it is sent alone");
            }
        }
        for key in ["a", "b", "c", "d", "e", "f", "g", "h"] {
            let gate = partition_gate.enter("t", key).expect("no gate is closed for ever");
            partition_gate.open("t", gate, gate);
        }
    }
}
