//! Work that goes on at the same time.

use std::sync::{Mutex, PoisonError};

/// Does `work` for each item, for at most `jobs` at the same time; the first are begun first.
pub fn each<T: Send>(jobs: usize, items: Vec<T>, work: impl Fn(T) + Sync) {
    let queue = Mutex::new(items.into_iter());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(item) = next() {
                    work(item);
                }
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::each;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn all_is_done_once() {
        let sum = AtomicU32::new(0);
        each(3, (1..=10).collect(), |item| {
            sum.fetch_add(item, Ordering::Relaxed);
        });
        assert_eq!(sum.into_inner(), 55);
    }
}
