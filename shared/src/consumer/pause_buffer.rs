//! The buffer for records that arrive while the partitions are paused. Records beyond its limit are read again later.

use std::collections::HashMap;

use super::positions::{Partition, Positions};
use crate::incoming::Incoming;

/// The largest total of message bodies in the buffer, in bytes. Beyond it, partitions seek back.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// Messages that wait behind the current batch, and the offsets at which partitions with rejected records continue.
pub(super) struct PauseBuffer {
    /// The largest number of messages.
    limit: usize,
    messages: Vec<Incoming>,
    bytes: usize,
    rewinds: HashMap<Partition, i64>,
    /// Where each partition is read next.
    pub positions: Positions,
}

impl PauseBuffer {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            messages: Vec::new(),
            bytes: 0,
            rewinds: HashMap::new(),
            positions: Positions::default(),
        }
    }

    /// Returns whether the buffer accepts the record at this offset. After it has rejected a record, it rejects all
    /// later ones of that partition, so that no record overtakes another. The partition must then seek back to the
    /// first rejected record.
    pub(super) fn has_room(&mut self, topic: &str, partition: i32, offset: i64) -> bool {
        let place = (topic.to_owned(), partition);
        let full = self.messages.len() >= self.limit || self.bytes >= MAX_BYTES;
        if !full && !self.rewinds.contains_key(&place) {
            self.positions.took(topic, partition, offset);
            return true;
        }
        let first = self.rewinds.entry(place).or_insert(offset);
        *first = (*first).min(offset);
        false
    }

    pub(super) fn push(&mut self, message: Incoming) {
        self.bytes += message.body.len();
        self.messages.push(message);
    }

    /// Takes all messages out of the buffer.
    pub(super) fn take(&mut self) -> Vec<Incoming> {
        self.bytes = 0;
        std::mem::take(&mut self.messages)
    }

    /// Returns the offsets to which partitions must seek back, and clears them.
    pub(super) fn take_rewinds(&mut self) -> HashMap<Partition, i64> {
        std::mem::take(&mut self.rewinds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(buffer: &mut PauseBuffer, partition: i32, offset: i64) -> bool {
        let accepted = buffer.has_room("t", partition, offset);
        if accepted {
            buffer.push(Incoming::read(("t".to_owned(), partition, offset), "k".to_owned(), b"{}", None));
        }
        accepted
    }

    #[test]
    fn what_is_beyond_the_limit_is_read_again_from_the_first_that_was_not_held() {
        let mut buffer = PauseBuffer::new(2);
        assert!(offer(&mut buffer, 0, 10) && offer(&mut buffer, 1, 50));
        assert!(!offer(&mut buffer, 0, 11) && !offer(&mut buffer, 0, 12) && !offer(&mut buffer, 1, 51));
        assert_eq!(buffer.take().len(), 2);
        // There is room again, but a record must not overtake an earlier rejected one.
        assert!(!offer(&mut buffer, 0, 13));
        assert!(offer(&mut buffer, 2, 70));
        let rewinds = buffer.take_rewinds();
        assert_eq!(rewinds, HashMap::from([(("t".to_owned(), 0), 11), (("t".to_owned(), 1), 51)]));
        assert!(offer(&mut buffer, 0, 11), "once set back, the partition flows on");
    }

    #[test]
    fn large_messages_fill_it_before_the_limit() {
        let mut buffer = PauseBuffer::new(1000);
        let large = vec![b' '; 1024 * 1024];
        for offset in 0..8 {
            assert!(buffer.has_room("t", 0, offset));
            buffer.push(Incoming::read(("t".to_owned(), 0, offset), "k".to_owned(), &large, None));
        }
        assert!(!buffer.has_room("t", 0, 8));
    }
}
