//! Rates (token buckets), and how many of something one source may have.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Keys that one limiter remembers. Beyond it the full buckets are forgotten,
/// which changes nothing, and then new keys are refused.
const KEYS: usize = 16_384;

/// At most so many per minute for each key, and as many at once.
pub struct Rate<K> {
    per_minute: f64,
    buckets: Mutex<HashMap<K, (f64, Instant)>>,
}

impl<K: Eq + Hash> Rate<K> {
    /// `per_minute` for each key.
    pub fn per_minute(per_minute: u32) -> Self {
        Self { per_minute: f64::from(per_minute.max(1)), buckets: Mutex::default() }
    }

    /// Takes one; `false` if there is none left.
    pub fn take(&self, key: K) -> bool {
        self.take_at(key, Instant::now())
    }

    fn take_at(&self, key: K, now: Instant) -> bool {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let level = |(tokens, since): &(f64, Instant)| {
            let refilled = now.saturating_duration_since(*since).as_secs_f64() * self.per_minute / 60.0;
            (tokens + refilled).min(self.per_minute)
        };
        if buckets.len() >= KEYS && !buckets.contains_key(&key) {
            buckets.retain(|_, bucket| level(bucket) < self.per_minute);
            if buckets.len() >= KEYS {
                return false;
            }
        }
        let bucket = buckets.entry(key).or_insert((self.per_minute, now));
        let tokens = level(bucket);
        let enough = tokens >= 1.0;
        *bucket = (if enough { tokens - 1.0 } else { tokens }, now);
        enough
    }
}

/// Counts what each source has open.
#[derive(Default)]
pub struct Counts {
    taken: Mutex<HashMap<IpAddr, usize>>,
}

/// One of them; given back on drop.
pub struct Counted {
    counts: Arc<Counts>,
    source: IpAddr,
}

impl Counts {
    /// Takes one, of at most `limit`.
    pub fn take(self: &Arc<Self>, source: IpAddr, limit: usize) -> Option<Counted> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(source).or_insert(0);
        if *count >= limit {
            return None;
        }
        *count += 1;
        Some(Counted { counts: self.clone(), source })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut taken = self.counts.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_bucket_empties_and_refills() {
        let rate = Rate::per_minute(2);
        let start = Instant::now();
        assert!(rate.take_at(1, start) && rate.take_at(1, start));
        assert!(!rate.take_at(1, start));
        assert!(rate.take_at(2, start), "another key");
        assert!(!rate.take_at(1, start + Duration::from_secs(29)));
        assert!(rate.take_at(1, start + Duration::from_secs(31)));
    }

    #[test]
    fn memory_is_bounded() {
        let rate = Rate::per_minute(1);
        let start = Instant::now();
        for key in 0..KEYS {
            assert!(rate.take_at(key, start));
        }
        assert!(!rate.take_at(KEYS, start), "all buckets are in use");
        assert!(rate.take_at(KEYS, start + Duration::from_secs(61)), "they are full again");
    }

    #[test]
    fn seats_are_given_back() {
        let host = IpAddr::from([192, 0, 2, 1]);
        let seats = Arc::new(Counts::default());
        let seat = seats.take(host, 1);
        assert!(seat.is_some() && seats.take(host, 1).is_none());
        drop(seat);
        assert!(seats.take(host, 1).is_some());
    }
}
