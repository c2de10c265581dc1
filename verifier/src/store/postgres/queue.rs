//! Who waits to share a transaction with others, and who makes groups of them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Requests that wait. While one group is at the server, the next one gathers.
pub struct Queue<W>(Mutex<Waits<W>>);

struct Waits<W> {
    waiting: VecDeque<W>,
    /// Somebody makes groups of them until none waits.
    led: bool,
}

impl<W> Default for Queue<W> {
    fn default() -> Self {
        Self(Mutex::new(Waits { waiting: VecDeque::new(), led: false }))
    }
}

impl<W> Queue<W> {
    /// One more; whoever is given a lead has to make groups.
    pub fn join(self: &Arc<Self>, one: W) -> Option<Lead<W>> {
        let mut waits = self.waits();
        waits.waiting.push_back(one);
        (!std::mem::replace(&mut waits.led, true)).then(|| Lead(Some(self.clone())))
    }

    fn waits(&self) -> MutexGuard<'_, Waits<W>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has to make groups of who waits. Those are left to themselves if it is dropped before none does.
pub struct Lead<W>(Option<Arc<Queue<W>>>);

impl<W> Lead<W> {
    /// The next group, at most so many, in the order in which they came; who does not `fit` beside the others waits for the next one.
    /// None if nobody waits: that was all.
    pub fn next(&mut self, most: usize, fits: impl Fn(&[W], &W) -> bool) -> Option<Vec<W>> {
        let queue = self.0.as_ref()?;
        let mut waits = queue.waits();
        let (mut group, mut left) = (Vec::new(), VecDeque::new());
        while let Some(one) = waits.waiting.pop_front() {
            match group.len() < most && fits(&group, &one) {
                true => group.push(one),
                false => left.push_back(one),
            }
        }
        waits.waiting = left;
        if !group.is_empty() {
            return Some(group);
        }
        waits.led = false;
        drop(waits);
        self.0 = None;
        None
    }
}

impl<W> Drop for Lead<W> {
    fn drop(&mut self) {
        if let Some(queue) = &self.0 {
            let mut waits = queue.waits();
            waits.led = false;
            // Dropped when the lock is free.
            let left = std::mem::take(&mut waits.waiting);
            drop(waits);
            drop(left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_leads_until_none_waits() {
        let queue = Arc::new(Queue::default());
        let mut lead = queue.join(1).unwrap();
        assert!([1, 2, 3].into_iter().all(|one| queue.join(one).is_none()));
        let different = |group: &[i32], one: &i32| !group.contains(one);
        assert_eq!(lead.next(2, different), Some(vec![1, 2]));
        assert_eq!(lead.next(2, different), Some(vec![1, 3]));
        assert_eq!(lead.next(2, different), None);
        let lead = queue.join(4).unwrap();
        assert!(queue.join(5).is_none());
        drop(lead);
        let mut lead = queue.join(6).unwrap();
        assert_eq!(lead.next(2, different), Some(vec![6]), "those before were left to themselves");
    }
}
