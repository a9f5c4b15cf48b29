//! Records that come while the partitions are paused: some are held, what is beyond is read again later.

use std::collections::HashMap;

use crate::incoming::Incoming;

/// Most messages held, in bytes of their bodies. Beyond that their partitions are set back.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// A partition of a topic, by the topic's name on the broker.
pub(super) type Partition = (String, i32);

/// Messages that wait for the batch in hand, and where the partitions go on of which some were not held.
pub(super) struct Held {
    /// Most messages.
    limit: usize,
    messages: Vec<Incoming>,
    bytes: usize,
    back: HashMap<Partition, i64>,
}

impl Held {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, messages: Vec::new(), bytes: 0, back: HashMap::new() }
    }

    /// Whether the record at this place can be taken; if not, its partition is to be set back to it. Behind a record
    /// that was not taken none of its partition is, so that none is overtaken.
    pub(super) fn has_room(&mut self, topic: &str, partition: i32, offset: i64) -> bool {
        let partition = (topic.to_owned(), partition);
        let full = self.messages.len() >= self.limit || self.bytes >= MAX_BYTES;
        if !full && !self.back.contains_key(&partition) {
            return true;
        }
        let first = self.back.entry(partition).or_insert(offset);
        *first = (*first).min(offset);
        false
    }

    pub(super) fn push(&mut self, message: Incoming) {
        self.bytes += message.body.len();
        self.messages.push(message);
    }

    /// Hands the messages over.
    pub(super) fn take(&mut self) -> Vec<Incoming> {
        self.bytes = 0;
        std::mem::take(&mut self.messages)
    }

    /// Where partitions are to be set back to. They are forgotten by it.
    pub(super) fn set_back(&mut self) -> HashMap<Partition, i64> {
        std::mem::take(&mut self.back)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(held: &mut Held, partition: i32, offset: i64) -> bool {
        let room = held.has_room("t", partition, offset);
        if room {
            held.push(Incoming::read(("t".to_owned(), partition, offset), "k".to_owned(), b"{}", None));
        }
        room
    }

    #[test]
    fn what_is_beyond_the_limit_is_read_again_from_the_first_that_was_not_held() {
        let mut held = Held::new(2);
        assert!(offer(&mut held, 0, 10) && offer(&mut held, 1, 50));
        assert!(!offer(&mut held, 0, 11) && !offer(&mut held, 0, 12) && !offer(&mut held, 1, 51));
        assert_eq!(held.take().len(), 2);
        // There is room again, but not for what would overtake a record that was not held.
        assert!(!offer(&mut held, 0, 13));
        assert!(offer(&mut held, 2, 70));
        let back = held.set_back();
        assert_eq!(back, HashMap::from([(("t".to_owned(), 0), 11), (("t".to_owned(), 1), 51)]));
        assert!(offer(&mut held, 0, 11), "once set back, the partition flows on");
    }

    #[test]
    fn large_messages_fill_it_before_the_limit() {
        let mut held = Held::new(1000);
        let large = vec![b' '; 1024 * 1024];
        for offset in 0..8 {
            assert!(held.has_room("t", 0, offset));
            held.push(Incoming::read(("t".to_owned(), 0, offset), "k".to_owned(), &large, None));
        }
        assert!(!held.has_room("t", 0, 8));
    }
}
