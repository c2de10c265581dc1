//! Rates (token buckets), and how many of something one source may have.

use super::source::Source;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Keys that one limiter remembers. Beyond it the fullest half is forgotten, which changes least: refusing new keys
/// would let whoever has many of them lock the others out.
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

    /// Gives one back that was taken: what it was for was in order.
    pub fn give_back(&self, key: &K) {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((tokens, _)) = buckets.get_mut(key) {
            *tokens = (*tokens + 1.0).min(self.per_minute);
        }
    }

    fn take_at(&self, key: K, now: Instant) -> bool {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let level = |(tokens, since): &(f64, Instant)| {
            let refilled = now.saturating_duration_since(*since).as_secs_f64() * self.per_minute / 60.0;
            (tokens + refilled).min(self.per_minute)
        };
        if buckets.len() >= KEYS && !buckets.contains_key(&key) {
            let mut levels: Vec<f64> = buckets.values().map(level).collect();
            let (_, median, _) = levels.select_nth_unstable_by(KEYS / 2, f64::total_cmp);
            let median = *median;
            buckets.retain(|_, bucket| level(bucket) < median);
        }
        let bucket = buckets.entry(key).or_insert((self.per_minute, now));
        let tokens = level(bucket);
        let enough = tokens >= 1.0;
        *bucket = (if enough { tokens - 1.0 } else { tokens }, now);
        enough
    }
}

/// The factors of a /48 and of a /56, beside a /64 or an IPv4 address.
const WIDER: [u32; 2] = [16, 4];

/// At most so many per minute from one address or /64, four times as many from a /56, sixteen times from a /48.
pub struct SourceRate([Rate<IpAddr>; 3]);

impl SourceRate {
    /// `per_minute` for an address.
    pub fn per_minute(per_minute: u32) -> Self {
        let [site, network] = WIDER.map(|factor| Rate::per_minute(per_minute.saturating_mul(factor)));
        Self([site, network, Rate::per_minute(per_minute)])
    }

    /// Takes one; `false` if there is none left.
    pub fn take(&self, source: Source) -> bool {
        // The narrowest first: a host that is over its limit takes nothing from its neighbours.
        self.0.iter().zip(source.prefixes()).rev().all(|(rate, prefix)| rate.take(prefix))
    }

    /// Gives one back that was taken: what it was for was in order.
    pub fn give_back(&self, source: Source) {
        self.0.iter().zip(source.prefixes()).for_each(|(rate, prefix)| rate.give_back(&prefix));
    }
}

/// Counts what each key has open.
pub struct Counts<K> {
    taken: Mutex<HashMap<K, usize>>,
}

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self { taken: Mutex::default() }
    }
}

/// One of them; given back on drop.
pub struct Counted<K: Eq + Hash> {
    counts: Arc<Counts<K>>,
    key: K,
}

impl<K: Copy + Eq + Hash> Counts<K> {
    /// Takes one, of at most `limit`.
    pub fn take(self: &Arc<Self>, key: K, limit: usize) -> Option<Counted<K>> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(key).or_insert(0);
        if *count >= limit {
            return None;
        }
        *count += 1;
        Some(Counted { counts: self.clone(), key })
    }
}

impl<K: Eq + Hash> Drop for Counted<K> {
    fn drop(&mut self) {
        let mut taken = self.counts.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.key);
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
        assert!(rate.take_at(KEYS, start), "whoever has many keys keeps nobody out");
        assert!(!rate.take_at(KEYS, start));
        assert!(rate.buckets.lock().unwrap().len() <= KEYS);
    }

    #[test]
    fn a_site_is_limited_whatever_networks_it_uses() {
        let rate = SourceRate::per_minute(1);
        let source =
            |site: u16, network: u16| Source::from(IpAddr::from([0x2001, 0xdb8, site, network, 0, 0, 0, 1]));
        assert_eq!((0..100).filter(|network| rate.take(source(0, *network))).count(), 4, "of one /56");
        assert_eq!((0..100).filter(|network| rate.take(source(1, network << 8))).count(), 16, "of one /48");
        rate.give_back(source(1, 0));
        assert!(rate.take(source(1, 0)) && !rate.take(source(1, 0)));
        assert!(rate.take(source(2, 0)));
    }

    #[test]
    fn seats_are_given_back() {
        let host = IpAddr::from([192, 0, 2, 1]);
        let seats = Arc::new(Counts::<IpAddr>::default());
        let permit = seats.take(host, 1);
        assert!(permit.is_some() && seats.take(host, 1).is_none());
        drop(permit);
        assert!(seats.take(host, 1).is_some());
    }
}
