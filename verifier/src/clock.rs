//! Where the server takes the time from.

use std::sync::Arc;

/// Seconds since 1970, UTC, anew each time it is asked. The program has the system's; a test turns one of its own.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> u64 + Send + Sync>);

impl Clock {
    /// The system's.
    pub fn system() -> Self {
        Self::of(crate::unix_now)
    }

    /// What this says.
    pub fn of(seconds: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(seconds))
    }

    /// Seconds since 1970, UTC.
    pub fn now(&self) -> u64 {
        (self.0)()
    }
}
