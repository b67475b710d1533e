//! Answers of the API server, kept for a while.

use std::collections::HashMap;
use std::time::Duration;

/// SHA-256 of what was asked: tokens are not kept, and every key has one size.
pub(super) type Key = [u8; 32];

/// A bounded map whose entries end. Times are [`crate::durable::clock::Now::mono`].
pub(super) struct Cache<V> {
    capacity: usize,
    entries: HashMap<Key, (Duration, V)>,
}

impl<V: Clone> Cache<V> {
    pub fn new(capacity: usize) -> Cache<V> {
        Cache { capacity, entries: HashMap::new() }
    }

    pub fn get(&self, key: &Key, now: Duration) -> Option<V> {
        self.entries.get(key).filter(|(ends, _)| now < *ends).map(|(_, value)| value.clone())
    }

    /// Keeps `value` for `time`. A full cache first drops what has ended, then what ends soonest.
    pub fn put(&mut self, key: Key, value: V, now: Duration, time: Duration) {
        if self.entries.len() >= self.capacity && !self.entries.contains_key(&key) {
            self.entries.retain(|_, (ends, _)| now < *ends);
        }
        if self.entries.len() >= self.capacity && !self.entries.contains_key(&key) {
            let soonest = self.entries.iter().min_by_key(|(_, (ends, _))| *ends).map(|(key, _)| *key);
            soonest.and_then(|key| self.entries.remove(&key));
        }
        self.entries.insert(key, (now.saturating_add(time), value));
    }
}

/// A key of several parts, none of which can run into the next.
pub(super) fn key<'a>(parts: impl IntoIterator<Item = &'a str>) -> Key {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    let mut key = Key::default();
    key.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_ends_at_its_time_and_a_full_cache_drops_what_ends_soonest() {
        let seconds = Duration::from_secs;
        let (a, b, c, d) = (key(["a"]), key(["b"]), key(["c"]), key(["d"]));
        let mut cache = Cache::new(2);
        cache.put(a, 1, seconds(0), seconds(100));
        cache.put(b, 2, seconds(0), seconds(10));
        assert_eq!((cache.get(&a, seconds(9)), cache.get(&b, seconds(9))), (Some(1), Some(2)));
        assert_eq!(cache.get(&b, seconds(10)), None);
        cache.put(c, 3, seconds(5), seconds(20));
        assert_eq!([a, b, c].map(|key| cache.get(&key, seconds(6))), [Some(1), None, Some(3)]);
        cache.put(d, 4, seconds(30), seconds(20));
        assert_eq!([a, c, d].map(|key| cache.get(&key, seconds(31))), [Some(1), None, Some(4)]);
        cache.put(d, 5, seconds(31), seconds(20));
        assert_eq!(cache.entries.len(), 2);
    }

    #[test]
    fn parts_of_a_key_do_not_run_together() {
        assert_ne!(key(["ab", "c"]), key(["a", "bc"]));
        assert_ne!(key(["a"]), key(["a", ""]));
    }
}
