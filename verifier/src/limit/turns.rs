//! Turns of operators at the sequence of documents. What is signed has the number after the newest document, and is refused if another
//! came first; what needs no signature comes after whatever is there. So who submits without a pause would keep all others from ever
//! signing in time, be it a fleet that is revoked for a good reason.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, timeout, timeout_at};

/// Requests of one operator that are at work on the sequence at once. The others wait.
const AT_ONCE: usize = 4;
/// The longest that one waits for those before it of the same operator.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest that the others wait for one whose document came too late: for a workstation that looks where the sequence ends now, and
/// signs again. No revocation takes longer than this for it.
const AGAIN: Duration = Duration::from_secs(3);
/// Who let the others wait for nothing is not waited for again for so long.
const REST: Duration = Duration::from_secs(60);

/// Who may go to the sequence, of one server.
pub struct Turns {
    line: Mutex<Line>,
    /// Changes when somebody else is waited for, or nobody.
    moved: watch::Sender<()>,
}

#[derive(Default)]
struct Line {
    at_work: HashMap<Arc<str>, Arc<Semaphore>>,
    /// Whose document came too late. The others let the first of them go before.
    late: VecDeque<Arc<str>>,
    /// Since when that one is the first.
    since: Option<Instant>,
    /// Until when somebody is not waited for.
    rest: HashMap<Arc<str>, Instant>,
}

/// The turn of a request.
pub struct Turn {
    turns: Arc<Turns>,
    who: Arc<str>,
    _at_work: OwnedSemaphorePermit,
}

/// Too many requests of one operator wait.
#[derive(Debug)]
pub struct Busy;

impl Default for Turns {
    fn default() -> Self {
        Self { line: Mutex::default(), moved: watch::Sender::new(()) }
    }
}

impl Turns {
    /// Waits until a request of this operator may go.
    ///
    /// # Errors
    /// When others of the same operator take too long.
    pub async fn turn(self: &Arc<Self>, who: &Arc<str>) -> Result<Turn, Busy> {
        let at_work = self.with(|line| line.places_of(who));
        let at_work = timeout(PATIENCE, at_work.acquire_owned()).await;
        let at_work = at_work.ok().and_then(Result::ok).ok_or(Busy)?;
        let mut moved = self.moved.subscribe();
        let until = Instant::now() + AGAIN;
        while let Some(over) = self.with(|line| line.waits_for(who, Instant::now())) {
            let woken = timeout_at(over.min(until), moved.changed()).await;
            if woken.is_err() && Instant::now() >= until {
                break;
            }
        }
        Ok(Turn { turns: self.clone(), who: who.clone(), _at_work: at_work })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Line) -> T) -> T {
        work(&mut self.line.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Turn {
    /// What was signed had its place.
    pub fn in_time(&self) {
        self.turns.with(|line| {
            line.rest.remove(&self.who);
            line.leaves(&self.who, Instant::now());
        });
        self.turns.moved.send_replace(());
    }

    /// Another came first: it is signed again, and the others wait for that.
    pub fn too_late(&self) {
        self.turns.with(|line| line.late_by(&self.who, Instant::now()));
    }
}

impl Line {
    fn places_of(&mut self, who: &Arc<str>) -> Arc<Semaphore> {
        // Nobody else holds one of who is not here.
        self.at_work.retain(|_, places| Arc::strong_count(places) > 1);
        self.at_work.entry(who.clone()).or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE))).clone()
    }

    /// Until when another one goes first; none if nobody does.
    fn waits_for(&mut self, who: &Arc<str>, now: Instant) -> Option<Instant> {
        loop {
            let first = self.late.front()?;
            let over = self.since.unwrap_or(now) + AGAIN;
            if first == who {
                return None;
            }
            if now < over {
                return Some(over);
            }
            let first = first.clone();
            self.rest.insert(first.clone(), now + REST);
            self.leaves(&first, now);
        }
    }

    fn late_by(&mut self, who: &Arc<str>, now: Instant) {
        self.rest.retain(|_, until| now < *until);
        if self.late.contains(who) || self.rest.contains_key(who) {
            return;
        }
        if self.late.is_empty() {
            self.since = Some(now);
        }
        self.late.push_back(who.clone());
    }

    fn leaves(&mut self, who: &Arc<str>, now: Instant) {
        let was_first = self.late.front() == Some(who);
        self.late.retain(|late| late != who);
        if was_first {
            self.since = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    type Waits = Pin<Box<dyn Future<Output = Result<Turn, Busy>>>>;

    fn asks(turns: &Arc<Turns>, who: &Arc<str>) -> Waits {
        let (turns, who) = (turns.clone(), who.clone());
        Box::pin(async move { turns.turn(&who).await })
    }

    fn look(waits: &mut Waits) -> Option<Turn> {
        match waits.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(turn) => Some(turn.unwrap()),
            Poll::Pending => None,
        }
    }

    fn some() -> (Arc<Turns>, Arc<str>, Arc<str>) {
        (Arc::default(), "ada".into(), "bob".into())
    }

    #[tokio::test]
    async fn one_operator_has_some_at_work_and_the_others_their_own() {
        let (turns, ada, bob) = some();
        let mut bobs: Vec<Waits> = (0..48).map(|_| asks(&turns, &bob)).collect();
        let mut at_work: Vec<Turn> = bobs.iter_mut().filter_map(look).collect();
        assert_eq!(at_work.len(), AT_ONCE);
        assert!(look(&mut asks(&turns, &ada)).is_some());
        drop(at_work.pop());
        assert!(look(&mut bobs[AT_ONCE]).is_some(), "the one that asked first");
    }

    #[tokio::test]
    async fn who_came_too_late_goes_before_the_others() {
        let (turns, ada, bob) = some();
        let late = look(&mut asks(&turns, &ada)).unwrap();
        late.too_late();
        let mut waits = asks(&turns, &bob);
        assert!(look(&mut waits).is_none());
        let again = look(&mut asks(&turns, &ada)).expect("it is waited for");
        again.in_time();
        look(&mut waits).expect("nobody is any more").too_late();
        assert!(look(&mut asks(&turns, &ada)).is_none(), "then it is the other's turn");
    }

    /// Who makes others wait by documents with a wrong number.
    #[test]
    fn who_lets_the_others_wait_for_nothing_is_not_waited_for_again() {
        let (_, ada, bob) = some();
        let (mut line, start) = (Line::default(), Instant::now());
        line.late_by(&bob, start);
        line.late_by(&bob, start + AGAIN / 2);
        assert_eq!(line.waits_for(&ada, start + AGAIN / 2), Some(start + AGAIN), "it is not longer for that");
        assert_eq!(line.waits_for(&ada, start + AGAIN), None);
        line.late_by(&bob, start + AGAIN);
        assert_eq!(line.waits_for(&ada, start + AGAIN), None);
        line.late_by(&ada, start + AGAIN);
        assert_eq!(line.waits_for(&bob, start + AGAIN), Some(start + AGAIN + AGAIN));
        line.late_by(&bob, start + AGAIN + REST);
        assert_eq!(line.late.len(), 2);
    }
}
