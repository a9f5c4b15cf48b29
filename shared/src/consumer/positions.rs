//! Where each partition is read next, and where a record was not the expected one.

use std::collections::HashMap;

/// A topic's name on the broker, and the number of a partition.
pub(super) type Partition = (String, i32);

/// A place at which the next record came from further behind than expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Jump {
    pub partition: Partition,
    pub expected: i64,
    pub came: i64,
}

/// The offsets of the records that come next, by topic and partition.
#[derive(Default)]
pub(super) struct Positions {
    next: HashMap<String, HashMap<i32, i64>>,
    jumps: Vec<Jump>,
}

impl Positions {
    /// Notes that the record at this offset was taken.
    pub fn took(&mut self, topic: &str, partition: i32, offset: i64) {
        if !self.next.contains_key(topic) {
            self.next.insert(topic.to_owned(), HashMap::new());
        }
        let Some(partitions) = self.next.get_mut(topic) else { return };
        let expected = partitions.insert(partition, offset + 1);
        if let Some(expected) = expected.filter(|expected| *expected < offset) {
            self.jumps.push(Jump { partition: (topic.to_owned(), partition), expected, came: offset });
        }
    }

    /// Notes where a partition is read next, unless a record of it was taken.
    pub fn begin(&mut self, (topic, partition): &Partition, offset: i64) {
        self.next.entry(topic.clone()).or_default().entry(*partition).or_insert(offset);
    }

    /// Forgets a partition, whose records another member may have taken meanwhile.
    pub fn forget(&mut self, (topic, partition): &Partition) {
        self.next.get_mut(topic).map(|partitions| partitions.remove(partition));
        self.jumps.retain(|jump| (&jump.partition.0, &jump.partition.1) != (topic, partition));
    }

    /// Notes jumps that no record has shown yet.
    pub fn jumped(&mut self, jumps: Vec<Jump>) {
        self.jumps.extend(jumps);
    }

    pub fn take_jumps(&mut self) -> Vec<Jump> {
        std::mem::take(&mut self.jumps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_behind_the_expected_one_is_a_jump() {
        let mut positions = Positions::default();
        for offset in [5, 6, 7, 6, 7, 8] {
            positions.took("t", 0, offset);
        }
        positions.took("t", 1, 90);
        assert_eq!(positions.take_jumps(), [], "the first record, and records that come again, are no jump");
        positions.took("t", 0, 12);
        let jump = Jump { partition: ("t".to_owned(), 0), expected: 9, came: 12 };
        assert_eq!(positions.take_jumps(), [jump]);
        positions.took("t", 0, 13);
        assert_eq!(positions.take_jumps(), []);
    }

    #[test]
    fn a_partition_that_comes_back_begins_where_its_group_is() {
        let (mut positions, partition) = (Positions::default(), ("t".to_owned(), 0));
        positions.took("t", 0, 5);
        positions.forget(&partition);
        positions.begin(&partition, 40);
        positions.took("t", 0, 40);
        assert_eq!(positions.take_jumps(), []);
        positions.begin(&partition, 7);
        positions.took("t", 0, 41);
        assert_eq!(positions.take_jumps(), [], "a record that was taken counts more");
    }
}
