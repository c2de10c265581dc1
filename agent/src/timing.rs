//! How long each step took, for `unlock --dry-run`.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A step and its duration.
#[derive(Clone, Debug)]
pub struct Step {
    /// What: `network` or `volume`.
    pub area: &'static str,
    /// Which step of that area, for people: `test /dev/vda2`.
    pub what: String,
    /// How long it took, waiting included.
    pub took: Duration,
}

/// Steps of several threads, in the order in which they ended.
#[derive(Clone, Debug, Default)]
pub struct Timeline(Arc<Mutex<Vec<Step>>>);

impl Timeline {
    /// Runs `work` and notes how long it took, whatever came of it.
    pub fn time<T>(&self, area: &'static str, what: &str, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        self.note(area, what, start.elapsed());
        result
    }

    /// Notes a duration.
    pub fn note(&self, area: &'static str, what: &str, took: Duration) {
        if let Ok(mut steps) = self.0.lock() {
            steps.push(Step { area, what: what.to_owned(), took });
        }
    }

    /// All so far.
    pub fn steps(&self) -> Vec<Step> {
        self.0.lock().map(|steps| steps.clone()).unwrap_or_default()
    }
}
