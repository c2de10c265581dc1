//! A bounded cache: what was used longest ago is forgotten first.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// By SHA-256, or by another key.
pub struct Cache<T, K = [u8; 32]> {
    most: usize,
    inner: Mutex<Inner<T, K>>,
}

struct Inner<T, K> {
    entries: HashMap<K, Kept<T>>,
    weight: usize,
    uses: u64,
}

struct Kept<T> {
    entry: Arc<T>,
    weight: usize,
    used: u64,
}

impl<T, K: Copy + Eq + Hash + Ord> Cache<T, K> {
    /// An empty one. `most`: all entries together, in bytes of what they come from; parsed they are a few times as large.
    pub fn of(most: usize) -> Self {
        Self { most, inner: Mutex::new(Inner { entries: HashMap::new(), weight: 0, uses: 0 }) }
    }

    /// What is kept under this key.
    pub fn find(&self, key: &K) -> Option<Arc<T>> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.uses += 1;
        let uses = inner.uses;
        let kept = inner.entries.get_mut(key)?;
        kept.used = uses;
        Some(kept.entry.clone())
    }

    /// The same, which is kept no longer.
    pub fn take(&self, key: &K) -> Option<Arc<T>> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = inner.entries.remove(key)?;
        inner.weight -= kept.weight;
        Some(kept.entry)
    }

    /// Keeps it; forgets the older half when there is too much.
    pub fn keep(&self, key: K, entry: Arc<T>, weight: usize) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.uses += 1;
        let kept = Kept { entry, weight, used: inner.uses };
        let before = inner.entries.insert(key, kept).map_or(0, |before| before.weight);
        inner.weight = inner.weight + weight - before;
        if inner.weight <= self.most {
            return;
        }
        // Half at once, so that a fleet with more policies than fit does not sort for each of them.
        let mut by_use: Vec<_> = inner.entries.iter().map(|(key, kept)| (kept.used, *key)).collect();
        by_use.sort_unstable();
        for (_, key) in by_use {
            if inner.weight <= self.most / 2 {
                break;
            }
            let gone = inner.entries.remove(&key).map_or(0, |kept| kept.weight);
            inner.weight -= gone;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 16 << 20;

    #[test]
    fn what_is_used_stays_and_the_whole_is_bounded() {
        let cache = Cache::of(MOST);
        let key = |number: u32| {
            let mut key = [0; 32];
            key[..4].copy_from_slice(&number.to_be_bytes());
            key
        };
        cache.keep(key(0), Arc::new(()), 1 << 20);
        for number in 1..100 {
            cache.keep(key(number), Arc::new(()), 1 << 20);
            assert!(cache.find(&key(0)).is_some(), "it is used all the time");
            assert!(cache.find(&key(number)).is_some(), "the newest");
            assert!(cache.inner.lock().unwrap().weight <= MOST);
        }
        assert!(cache.find(&key(1)).is_none());
        cache.keep(key(99), Arc::new(()), 1 << 20);
        let inner = cache.inner.lock().unwrap();
        assert_eq!(inner.weight, inner.entries.values().map(|kept| kept.weight).sum::<usize>());
    }

    #[test]
    fn what_is_taken_is_there_once_and_weighs_nothing_then() {
        let cache = Cache::of(MOST);
        cache.keep([1; 32], Arc::new(7), 100);
        assert_eq!(cache.take(&[1; 32]).as_deref(), Some(&7));
        assert!(cache.take(&[1; 32]).is_none());
        assert_eq!(cache.inner.lock().unwrap().weight, 0);
    }
}
