//! A cache whose entries have different sizes. It is bounded by their sum.

use hashlink::LruCache;
use uuid::Uuid;

/// Recently used values. The least recently used ones make room.
pub(super) struct Cache<T> {
    /// The values with their sizes.
    values: LruCache<Uuid, (T, usize)>,
    bytes: usize,
    most_bytes: usize,
}

impl<T> Cache<T> {
    pub fn new(most_bytes: usize) -> Self {
        Self { values: LruCache::new_unbounded(), bytes: 0, most_bytes }
    }

    pub fn peek(&self, id: &Uuid) -> Option<&T> {
        self.values.peek(id).map(|(value, _)| value)
    }

    pub fn remove(&mut self, id: &Uuid) -> Option<T> {
        let (value, bytes) = self.values.remove(id)?;
        self.bytes -= bytes;
        Some(value)
    }

    /// Adds a value of about so many bytes.
    pub fn insert(&mut self, id: Uuid, value: T, bytes: usize) {
        self.remove(&id);
        self.values.insert(id, (value, bytes));
        self.bytes += bytes;
        while self.bytes > self.most_bytes
            && let Some((_, (_, bytes))) = self.values.remove_lru()
        {
            self.bytes -= bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_values_make_room_by_their_size() {
        let mut cache = Cache::new(100);
        let id = Uuid::from_u128;
        for (number, bytes) in [(1, 40), (2, 40), (3, 10)] {
            cache.insert(id(number), number, bytes);
        }
        cache.insert(id(1), 10, 50);
        assert_eq!((cache.bytes, cache.peek(&id(1))), (100, Some(&10)));
        cache.insert(id(4), 4, 60);
        assert_eq!([1, 2, 3, 4].map(|number| cache.peek(&id(number)).copied()), [None, None, None, Some(4)]);
        assert_eq!((cache.remove(&id(4)), cache.bytes), (Some(4), 0));
        cache.insert(id(5), 5, 101);
        assert_eq!((cache.peek(&id(5)), cache.bytes), (None, 0), "it is too large by itself");
    }
}
