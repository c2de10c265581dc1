//! How many there may be of what is counted at a cost: not each time, but once in many.

use std::sync::atomic::{AtomicU64, Ordering};

/// A part of [`Room::most`] goes at once when it is reached, so that each that goes costs little.
const PARTS: u64 = 128;

/// Room for `most` in a table, and how many of these this process may still put there before they are counted again.
/// Several processes, or transactions of one that run at once, can be above it by a part each, until the next count.
#[derive(Debug)]
pub struct Room {
    most: u64,
    uncounted: AtomicU64,
}

impl Room {
    /// Nothing is counted yet.
    pub fn new(most: u64) -> Self {
        Self { most, uncounted: AtomicU64::new(0) }
    }

    /// How many there may be.
    pub fn most(&self) -> u64 {
        self.most
    }

    /// Whether one more can come without a count.
    pub fn take(&self) -> bool {
        let less = |left: u64| left.checked_sub(1);
        self.uncounted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    /// How many must go before one more comes, of `there` that were counted. Of those above [`Self::most`], which was larger once, so
    /// many at once that it does not take for ever, and no more.
    pub fn to_go(&self, there: u64) -> u64 {
        there.checked_sub(self.most).map_or(0, |above| self.part() + above.min(self.part()))
    }

    /// `there` are left, and one more comes.
    pub fn counted(&self, there: u64) {
        let room = self.most.saturating_sub(there).min(self.part());
        self.uncounted.store(room.saturating_sub(1), Ordering::Relaxed);
    }

    fn part(&self) -> u64 {
        (self.most / PARTS).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_goes_at_once() {
        for (most, there, go) in [
            (0, 0, 1),
            (3, 2, 0),
            (3, 3, 1),
            (3, 9, 2),
            (255, 255, 1),
            (10_000, 9_999, 0),
            (10_000, 10_000, 78),
            (10_000, 10_010, 88),
            (10_000, 1_000_000, 156),
        ] {
            assert_eq!(Room::new(most).to_go(there), go, "{there} of {most}");
        }
    }

    #[test]
    fn so_many_come_without_a_count() {
        let after = |most, there| {
            let room = Room::new(most);
            assert!(!room.take(), "nothing is known yet");
            room.counted(there);
            std::iter::repeat_with(|| room.take()).take_while(|free| *free).count()
        };
        // With the one that comes: up to the limit, and a part at most.
        assert_eq!((after(10_000, 0), after(10_000, 9_922), after(10_000, 9_990)), (77, 77, 9));
        assert_eq!((after(10_000, 9_999), after(10_000, 10_000), after(10_000, 10_001)), (0, 0, 0));
        assert_eq!((after(3, 0), after(0, 0), after(1, 0)), (0, 0, 0), "a small one is counted each time");
    }
}
