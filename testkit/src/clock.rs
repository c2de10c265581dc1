//! A clock that stands still until a test turns it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Copies show the same time.
#[derive(Clone, Debug)]
pub struct TurnedClock(Arc<AtomicU64>);

impl TurnedClock {
    /// Shows these seconds since 1970, UTC.
    pub fn at(seconds: u64) -> Self {
        Self(Arc::new(AtomicU64::new(seconds)))
    }

    /// Seconds since 1970, UTC.
    pub fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    /// So much later.
    pub fn turn(&self, by: Duration) {
        self.0.fetch_add(by.as_secs(), Ordering::SeqCst);
    }

    /// So much earlier: its battery is flat, or somebody set it.
    pub fn turn_back(&self, by: Duration) {
        self.0.fetch_sub(by.as_secs(), Ordering::SeqCst);
    }
}
