//! One moment by which all must be done.

use std::time::{Duration, Instant};

/// A moment by which something must be done. Copied to whoever helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// In `duration` from now; at most a year, so that no arithmetic overflows.
    pub fn after(duration: Duration) -> Self {
        Self(Instant::now() + duration.min(Duration::from_secs(365 * 86_400)))
    }

    /// This, or `duration` from now if that is sooner.
    pub fn within(self, duration: Duration) -> Self {
        self.min(Self::after(duration))
    }

    /// What is left; zero when it has passed.
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether it has passed.
    pub fn is_over(self) -> bool {
        self.remaining().is_zero()
    }

    /// What is left in whole seconds, rounded up, for people.
    pub fn seconds(self) -> u64 {
        self.remaining().as_millis().div_ceil(1000) as u64
    }

    /// For `poll(2)`: milliseconds, rounded up so that a wait does not end a little early and spin.
    pub fn poll_timeout(self) -> nix::poll::PollTimeout {
        let millis = self.remaining().as_micros().div_ceil(1000);
        nix::poll::PollTimeout::try_from(i32::try_from(millis).unwrap_or(i32::MAX))
            .unwrap_or(nix::poll::PollTimeout::MAX)
    }
}
