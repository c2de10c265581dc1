//! A bounded cache: what was used longest ago is forgotten first.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// By SHA-256.
pub struct Cache<T> {
    most: usize,
    inner: Mutex<Inner<T>>,
}

struct Inner<T> {
    entries: HashMap<[u8; 32], Kept<T>>,
    weight: usize,
    uses: u64,
}

struct Kept<T> {
    entry: Arc<T>,
    weight: usize,
    used: u64,
}

impl<T> Cache<T> {
    /// An empty one. `most`: all entries together, in bytes of what they come from; parsed they are a few times as large.
    pub fn of(most: usize) -> Self {
        Self { most, inner: Mutex::new(Inner { entries: HashMap::new(), weight: 0, uses: 0 }) }
    }

    /// What is kept under this key.
    pub fn find(&self, key: &[u8; 32]) -> Option<Arc<T>> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.uses += 1;
        let uses = inner.uses;
        let kept = inner.entries.get_mut(key)?;
        kept.used = uses;
        Some(kept.entry.clone())
    }

    /// Keeps it; forgets the older half when there is too much.
    pub fn keep(&self, key: [u8; 32], entry: Arc<T>, weight: usize) {
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
}
