//! A bounded cache: what was used longest ago is forgotten first.

use super::Entry;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// All entries together, in bytes of the documents that they come from; parsed they are a few times as large.
const WEIGHT: usize = 16 << 20;

/// By SHA-256.
#[derive(Default)]
pub struct Cache(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    entries: HashMap<[u8; 32], Kept>,
    weight: usize,
    uses: u64,
}

struct Kept {
    entry: Arc<Entry>,
    weight: usize,
    used: u64,
}

impl Cache {
    /// What is kept under this key.
    pub fn find(&self, key: &[u8; 32]) -> Option<Arc<Entry>> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.uses += 1;
        let uses = inner.uses;
        let kept = inner.entries.get_mut(key)?;
        kept.used = uses;
        Some(kept.entry.clone())
    }

    /// Keeps it; forgets the older half when there is too much.
    pub fn keep(&self, key: [u8; 32], entry: Arc<Entry>, weight: usize) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.uses += 1;
        let kept = Kept { entry, weight, used: inner.uses };
        let before = inner.entries.insert(key, kept).map_or(0, |before| before.weight);
        inner.weight = inner.weight + weight - before;
        if inner.weight <= WEIGHT {
            return;
        }
        // Half at once, so that a fleet with more policies than fit does not sort for each of them.
        let mut by_use: Vec<_> = inner.entries.iter().map(|(key, kept)| (kept.used, *key)).collect();
        by_use.sort_unstable();
        for (_, key) in by_use {
            if inner.weight <= WEIGHT / 2 {
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

    fn entry() -> Arc<Entry> {
        Arc::new(Entry::Signed(Err(String::new())))
    }

    #[test]
    fn what_is_used_stays_and_the_whole_is_bounded() {
        let cache = Cache::default();
        let key = |number: u32| {
            let mut key = [0; 32];
            key[..4].copy_from_slice(&number.to_be_bytes());
            key
        };
        cache.keep(key(0), entry(), 1 << 20);
        for number in 1..100 {
            cache.keep(key(number), entry(), 1 << 20);
            assert!(cache.find(&key(0)).is_some(), "it is used all the time");
            assert!(cache.find(&key(number)).is_some(), "the newest");
            assert!(cache.0.lock().unwrap().weight <= WEIGHT);
        }
        assert!(cache.find(&key(1)).is_none());
        cache.keep(key(99), entry(), 1 << 20);
        let inner = cache.0.lock().unwrap();
        assert_eq!(inner.weight, inner.entries.values().map(|kept| kept.weight).sum::<usize>());
    }
}
