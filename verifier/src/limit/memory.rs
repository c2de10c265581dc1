//! Memory for bodies. It is charged for what came, not for what was announced, and who sends too slowly while
//! others wait loses it.

use super::source::{Holder, Source, first_to_go};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// While others wait for memory, who has sent for longer than this ..
const PATIENCE: Duration = Duration::from_secs(2);
/// .. and on average less than so many bytes per second, has to go.
const SLOW: u64 = 16 << 10;
/// How often who waits looks again: senders become slow without telling anybody.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Memory for bodies that arrive at the same time.
pub struct Pool {
    total: usize,
    inner: Mutex<Inner>,
    freed: Notify,
}

#[derive(Default)]
struct Inner {
    used: usize,
    next: u64,
    /// Who may go beyond the total, so that at least one body always comes to its end.
    spare: Option<u64>,
    holders: HashMap<u64, Held>,
}

struct Held {
    source: Source,
    bytes: usize,
    received: u64,
    since: Instant,
    waited: Duration,
    state: State,
    gone: Arc<Notify>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The server waits for it.
    Receives,
    /// It waits for memory.
    Waits,
    /// All is there: it is being worked on.
    Complete,
    /// It was told to go.
    Leaves,
}

/// What one body has; given back on drop.
pub struct Share {
    pool: Arc<Pool>,
    id: u64,
    gone: Arc<Notify>,
}

/// There was no memory in time.
#[derive(Debug)]
pub struct Full;

impl Pool {
    /// With so many bytes. One body at a time may go beyond.
    pub fn new(total: usize) -> Arc<Self> {
        Arc::new(Self { total, inner: Mutex::default(), freed: Notify::new() })
    }

    /// Bytes in use, and all.
    pub fn usage(&self) -> (usize, usize) {
        (self.inner().used, self.total)
    }

    /// For a body from this source; nothing yet.
    pub fn share(self: &Arc<Self>, source: Source) -> Share {
        let gone = Arc::new(Notify::new());
        let held = Held {
            source,
            bytes: 0,
            received: 0,
            since: Instant::now(),
            waited: Duration::ZERO,
            state: State::Receives,
            gone: gone.clone(),
        };
        let mut inner = self.inner();
        let id = inner.next;
        inner.next += 1;
        inner.holders.insert(id, held);
        drop(inner);
        Share { pool: self.clone(), id, gone }
    }

    /// Whether there was room for `more`. If not, who is in the way was told to go.
    fn take(&self, id: u64, more: usize, now: Instant) -> bool {
        let mut inner = self.inner();
        let inner = &mut *inner;
        if inner.holders.get(&id).is_none_or(|held| held.state == State::Leaves) {
            return false;
        }
        if inner.used + more > self.total && inner.spare != Some(id) {
            if inner.spare.is_none() && inner.is_lightest(id) {
                inner.spare = Some(id);
            } else {
                inner.make_room(id, more, now);
                return false;
            }
        }
        let Some(held) = inner.holders.get_mut(&id) else { return false };
        held.bytes += more;
        inner.used += more;
        true
    }

    fn set(&self, id: u64, state: State) {
        if let Some(held) = self.inner().holders.get_mut(&id)
            && held.state != State::Leaves
        {
            held.state = state;
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // The sums are right after each statement that changes them.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Whether no other source that waits holds less than this one's.
    fn is_lightest(&self, id: u64) -> bool {
        let mut sums: HashMap<IpAddr, usize> = HashMap::new();
        for held in self.holders.values() {
            *sums.entry(held.source.prefixes()[0]).or_default() += held.bytes;
        }
        let weight = |held: &Held| sums.get(&held.source.prefixes()[0]).copied().unwrap_or(0);
        let Some(ours) = self.holders.get(&id).map(weight) else { return false };
        self.holders.values().filter(|held| held.state == State::Waits).all(|held| weight(held) >= ours)
    }

    /// Tells the slowest of the source that holds most to go, unless that was done and it is on its way.
    fn make_room(&mut self, id: u64, more: usize, now: Instant) {
        let leaving = |held: &&Held| held.state == State::Leaves;
        if self.holders.values().filter(leaving).map(|held| held.bytes).sum::<usize>() >= more {
            return;
        }
        let slow: Vec<_> = self
            .holders
            .iter()
            .filter(|(other, held)| **other != id && held.state == State::Receives && held.is_slow(now))
            .map(|(other, held)| Holder {
                id: *other,
                source: held.source,
                weight: held.bytes as u64,
                idle: held.age(now),
            })
            .collect();
        if let Some(held) = first_to_go(slow).and_then(|gone| self.holders.get_mut(&gone)) {
            held.state = State::Leaves;
            held.gone.notify_one();
        }
    }
}

impl Held {
    /// How long the server has waited for it.
    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since).saturating_sub(self.waited)
    }

    fn is_slow(&self, now: Instant) -> bool {
        let age = self.age(now);
        age >= PATIENCE && self.received < SLOW * age.as_secs()
    }
}

impl Share {
    /// Waits for `more` bytes, until `deadline`.
    ///
    /// # Errors
    /// When there is no room in time, or this body has to make room.
    pub async fn grow(&self, more: usize, deadline: Instant) -> Result<(), Full> {
        let pool = &self.pool;
        let start = Instant::now();
        loop {
            let mut freed = std::pin::pin!(pool.freed.notified());
            // Before the look: what is freed in between is not missed.
            freed.as_mut().enable();
            let now = Instant::now();
            if pool.take(self.id, more, now) {
                break;
            }
            if now >= deadline {
                return Err(Full);
            }
            pool.set(self.id, State::Waits);
            tokio::select! {
                () = freed => {}
                () = self.gone() => return Err(Full),
                () = tokio::time::sleep_until((now + LOOK_AGAIN).min(deadline).into()) => {}
            }
        }
        pool.set(self.id, State::Receives);
        if let Some(held) = pool.inner().holders.get_mut(&self.id) {
            held.waited += start.elapsed();
        }
        Ok(())
    }

    /// So many bytes came.
    pub fn received(&self, bytes: usize) {
        if let Some(held) = self.pool.inner().holders.get_mut(&self.id) {
            held.received += bytes as u64;
        }
    }

    /// All came: from now on nobody waits for the peer.
    pub fn complete(&self) {
        self.pool.set(self.id, State::Complete);
    }

    /// Ends when this body has to make room for others.
    pub async fn gone(&self) {
        self.gone.notified().await;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut inner = self.pool.inner();
        if let Some(held) = inner.holders.remove(&self.id) {
            inner.used -= held.bytes;
        }
        if inner.spare == Some(self.id) {
            inner.spare = None;
        }
        drop(inner);
        self.pool.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(last: u8) -> Source {
        IpAddr::from([192, 0, 2, last]).into()
    }

    fn now() -> Instant {
        Instant::now()
    }

    #[tokio::test]
    async fn one_body_always_comes_to_its_end() {
        let pool = Pool::new(100);
        let (a, b) = (pool.share(source(1)), pool.share(source(1)));
        a.grow(60, now()).await.unwrap();
        b.grow(40, now()).await.unwrap();
        a.grow(60, now()).await.expect("it has the spare part");
        assert!(b.grow(60, now()).await.is_err(), "and is the only one");
        a.grow(60, now()).await.unwrap();
        let waits =
            tokio::spawn(async move { b.grow(60, now() + Duration::from_secs(60)).await.map(|()| b) });
        drop(a);
        assert!(waits.await.unwrap().is_ok());
        assert_eq!(pool.inner().used, 0);
    }

    #[tokio::test]
    async fn who_sends_slowly_goes_when_others_wait() {
        let pool = Pool::new(100);
        let (slow, fast, done) = (pool.share(source(1)), pool.share(source(2)), pool.share(source(3)));
        for share in [&slow, &fast, &done] {
            share.grow(33, now()).await.unwrap();
        }
        done.complete();
        fast.received(10 << 20);
        let spare = pool.share(source(4));
        spare.grow(60, now()).await.unwrap();
        let newcomer = pool.share(source(4));
        assert!(!pool.take(newcomer.id, 20, now()));
        assert!(!pool.take(newcomer.id, 20, now() + 2 * PATIENCE));
        let state = |share: &Share| pool.inner().holders[&share.id].state;
        assert!(state(&fast) == State::Receives && state(&done) == State::Complete);
        // It and the one with the spare part are slow; the heavier one goes first, and it is enough.
        assert!(state(&spare) == State::Leaves && state(&slow) == State::Receives);
        spare.gone().await;
        drop(spare);
        assert!(pool.take(newcomer.id, 20, now()));
    }

    #[tokio::test]
    async fn of_those_that_wait_the_lightest_is_next() {
        let pool = Pool::new(100);
        let (heavy, light) = (pool.share(source(1)), pool.share(source(2)));
        heavy.grow(90, now()).await.unwrap();
        light.grow(10, now()).await.unwrap();
        pool.set(light.id, State::Waits);
        assert!(!pool.take(heavy.id, 10, now()));
        assert!(pool.take(light.id, 10, now()));
    }
}
