//! Where the server takes the time from.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time since 1970, UTC, anew each time it is asked. The program has the system's; a test turns one of its own.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Duration + Send + Sync>);

impl Clock {
    /// The system's.
    pub fn system() -> Self {
        Self(Arc::new(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()))
    }

    /// What this says, in seconds.
    pub fn of(seconds: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(move || Duration::from_secs(seconds())))
    }

    /// Seconds since 1970, UTC.
    pub fn now(&self) -> u64 {
        (self.0)().as_secs()
    }

    /// The same in millionths of a second.
    pub fn micros(&self) -> u64 {
        u64::try_from((self.0)().as_micros()).unwrap_or(u64::MAX)
    }
}
