//! Group commit. A commit waits for the disk; a request's own work takes a fraction of that. So requests that come at the same time
//! share one transaction, each in a savepoint of its own: what one of them changed can be undone alone, and each is answered when
//! the common commit is on the disk.
//!
//! Nobody waits in order to fill a batch. A request that finds others behind it leaves the transaction open for them, and the last one
//! commits for all.
//!
//! A request is a thread that waits ([`Batch::run`]), or a task that has its turn and goes on waiting for the commit without a thread
//! ([`Batch::turn`]): boots of a storm are that, as waking a thread for each costs more than its rows.

use super::{BUSY, SqliteTx, broken, say};
use crate::parked::wait;
use crate::store::{Durable, Result, StoreError, Then, Turn, Tx};
use rusqlite::Connection;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::sync::{Mutex, OwnedMutexGuard, watch};

/// Requests of one transaction: the first one's answer waits for so many others at most.
const MOST: usize = 64;

/// The connection that writes, and who shares its transaction.
pub struct Batch {
    shared: Arc<Shared>,
    /// Ends with this.
    committing: Option<JoinHandle<()>>,
}

/// What a turn needs of it.
struct Shared {
    /// Requests that are about to take the connection: who has it leaves the transaction open for them.
    behind: AtomicUsize,
    writer: Arc<Mutex<Writer>>,
    /// A thread that commits for who must not wait for the disk: none of those that others wait on, who may all wait for this very
    /// commit. It ends at none.
    committer: mpsc::Sender<Option<OwnedMutexGuard<Writer>>>,
}

impl Shared {
    /// Has the transaction ended that is open.
    fn end(&self, writer: OwnedMutexGuard<Writer>) {
        // Only a thread that has ended takes it no more.
        if let Err(mpsc::SendError(Some(mut writer))) = self.committer.send(Some(writer)) {
            writer.commit();
        }
    }

    /// The same if nobody else will. Both ask this: who has left the transaction open for those behind and let go of the connection, and
    /// who was behind and goes away. The later of them finds that nobody is behind, and that the connection is free.
    fn end_if_left(&self) {
        fence(Ordering::SeqCst);
        if self.behind.load(Ordering::SeqCst) == 0
            && let Ok(writer) = self.writer.clone().try_lock_owned()
            && writer.open.is_some()
        {
            self.end(writer);
        }
    }
}

struct Writer {
    connection: Connection,
    /// The transaction that is open.
    open: Option<Open>,
}

struct Open {
    fate: watch::Sender<Option<Outcome>>,
    requests: usize,
}

#[derive(Clone)]
enum Outcome {
    Committed,
    /// It was undone, and whose fault that was is not known.
    Lost(StoreError),
}

/// What becomes of a transaction, for those that share it.
struct Fate(watch::Receiver<Option<Outcome>>);

impl Fate {
    async fn known(mut self) -> Outcome {
        let lost = || Outcome::Lost(StoreError::Unavailable("our bug: nobody has committed".to_owned()));
        self.0.wait_for(Option::is_some).await.ok().and_then(|said| said.clone()).unwrap_or_else(lost)
    }
}

/// A request that is about to take the connection.
struct Behind(Arc<Shared>);

impl Behind {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.behind.fetch_add(1, Ordering::SeqCst);
        Self(shared.clone())
    }

    /// It has it.
    fn arrived(self) {
        drop(self);
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        self.0.behind.fetch_sub(1, Ordering::SeqCst);
        // It goes away, unless it has the connection.
        self.0.end_if_left();
    }
}

/// The connection, for one request.
struct BatchTurn {
    shared: Arc<Shared>,
    writer: Option<OwnedMutexGuard<Writer>>,
    /// The transaction ends with this request.
    last: bool,
}

impl Drop for BatchTurn {
    fn drop(&mut self) {
        let Some(writer) = self.writer.take() else { return };
        if writer.open.is_some() && (self.last || writer.is_over(&self.shared.behind)) {
            self.shared.end(writer);
        } else {
            drop(writer);
            self.shared.end_if_left();
        }
    }
}

impl Turn for BatchTurn {
    fn run(mut self: Box<Self>, work: &mut dyn FnMut(&dyn Tx) -> Then) -> Option<Result<Durable>> {
        let writer = self.writer.as_mut()?;
        let fate = writer.join_at_once()?;
        let mut work = |connection: &Connection| work(&SqliteTx(connection));
        // After a panic the savepoint is undone: the connection is as good as before.
        let then = catch_unwind(AssertUnwindSafe(|| writer.savepoint(&mut work)));
        self.last = matches!(then, Ok(Ok(Then::CommitNow)));
        drop(self);
        match then {
            Err(panic) => resume_unwind(panic),
            Ok(Err(e)) => Some(Err(e)),
            Ok(Ok(_)) => Some(Ok(Box::pin(async move {
                match fate.known().await {
                    Outcome::Committed => Ok(()),
                    Outcome::Lost(e) => Err(e),
                }
            }))),
        }
    }
}

impl Drop for Batch {
    /// A connection that is closed after the end of the process is not closed: its write-ahead log would stay.
    fn drop(&mut self) {
        let _ = self.shared.committer.send(None);
        if let Some(committing) = self.committing.take() {
            let _ = committing.join();
        }
    }
}

impl Batch {
    /// # Errors
    /// When there is no thread to be had.
    pub fn new(connection: Connection) -> Result<Self> {
        let writer = Arc::new(Mutex::new(Writer { connection, open: None }));
        let (committer, commits) = mpsc::channel::<Option<OwnedMutexGuard<Writer>>>();
        let committing = thread::Builder::new().name("commits".to_owned()).spawn(move || {
            while let Ok(Some(mut writer)) = commits.recv() {
                writer.commit();
            }
        });
        let committing =
            committing.map_err(|e| StoreError::Unavailable(format!("a thread that commits: {e}")))?;
        let shared = Shared { behind: AtomicUsize::new(0), writer, committer };
        Ok(Self { shared: Arc::new(shared), committing: Some(committing) })
    }

    /// As [`crate::store::Store::turn`].
    pub fn turn(&self) -> impl Future<Output = Box<dyn Turn>> + Send + use<> {
        let (shared, waiting) = (self.shared.clone(), Behind::new(&self.shared));
        async move {
            let writer = shared.writer.clone().lock_owned().await;
            waiting.arrived();
            let turn: Box<dyn Turn> = Box::new(BatchTurn { shared, writer: Some(writer), last: false });
            turn
        }
    }

    /// Runs a request; returns when what it changed is on the disk, or was undone.
    ///
    /// # Errors
    /// When the database can't be written: nothing was changed.
    pub fn run(&self, work: &mut dyn FnMut(&Connection) -> Then) -> Result<()> {
        match self.request(work, false)? {
            (_, Outcome::Committed) => return Ok(()),
            // It has something beside the database to undo first, perhaps a lock that others wait for who hold the connection.
            (Then::CommitNow, Outcome::Lost(e)) => return Err(e),
            // One of the others may have filled the disk.
            (Then::Commit | Then::RollBack, Outcome::Lost(_)) => {}
        }
        match self.request(work, true)? {
            (_, Outcome::Committed) | (Then::RollBack, Outcome::Lost(_)) => Ok(()),
            (Then::Commit | Then::CommitNow, Outcome::Lost(e)) => Err(e),
        }
    }

    /// Something that has no place in a transaction.
    pub fn outside<T>(&self, work: impl FnOnce(&Connection) -> T) -> T {
        let mut writer = wait(self.shared.writer.lock());
        writer.commit();
        work(&writer.connection)
    }

    fn request(&self, work: &mut dyn FnMut(&Connection) -> Then, alone: bool) -> Result<(Then, Outcome)> {
        let waiting = Behind::new(&self.shared);
        let mut writer = wait(self.shared.writer.lock());
        waiting.arrived();
        if alone {
            writer.commit();
        }
        let fate = writer.join()?;
        // After a panic the savepoint is undone: the connection is as good as before.
        let then = catch_unwind(AssertUnwindSafe(|| writer.savepoint(work)));
        let last = alone || matches!(then, Ok(Ok(Then::CommitNow)));
        if last || writer.is_over(&self.shared.behind) {
            writer.commit();
            drop(writer);
        } else {
            drop(writer);
            self.shared.end_if_left();
        }
        match then {
            Err(panic) => resume_unwind(panic),
            Ok(Err(e)) => Err(e),
            Ok(Ok(then)) => Ok((then, wait(fate.known()))),
        }
    }
}

impl Writer {
    /// Joins the transaction that is open, or begins one.
    fn join(&mut self) -> Result<Fate> {
        if self.open.is_none() {
            self.begin(BUSY).map_err(broken)?;
        }
        Ok(self.share())
    }

    /// The same at once. None if that can't be, as another process writes; none as well on any error: who may wait tries again, and
    /// says what there is to say.
    fn join_at_once(&mut self) -> Option<Fate> {
        if self.open.is_none() {
            let begun = self.begin(Duration::ZERO);
            // For what has no transaction. Whoever begins one sets it again, and says if that fails.
            let _ = self.connection.busy_timeout(BUSY);
            begun.ok()?;
        }
        Some(self.share())
    }

    /// Waits for another process that writes, so long.
    fn begin(&self, patience: Duration) -> rusqlite::Result<()> {
        self.connection.busy_timeout(patience)?;
        say(&self.connection, "BEGIN IMMEDIATE")
    }

    fn share(&mut self) -> Fate {
        let new = || Open { fate: watch::Sender::new(None), requests: 0 };
        let open = self.open.get_or_insert_with(new);
        open.requests += 1;
        Fate(open.fate.subscribe())
    }

    /// Nobody is behind for whom the transaction would be left open, or it has enough requests.
    fn is_over(&self, behind: &AtomicUsize) -> bool {
        behind.load(Ordering::SeqCst) == 0 || self.open.as_ref().is_some_and(|open| open.requests >= MOST)
    }

    /// One request: all that it changes, or nothing.
    fn savepoint(&mut self, work: &mut dyn FnMut(&Connection) -> Then) -> Result<Then> {
        say(&self.connection, "SAVEPOINT request").map_err(broken)?;
        let then = catch_unwind(AssertUnwindSafe(|| work(&self.connection)));
        // SQLite undoes the whole transaction when the disk is full.
        if self.connection.is_autocommit() {
            let lost = StoreError::Unavailable("the transaction was undone by the database".to_owned());
            if let Some(open) = self.open.take() {
                open.fate.send_replace(Some(Outcome::Lost(lost)));
            }
            return then.map_or_else(|panic| resume_unwind(panic), Ok);
        }
        let undone = match then {
            Ok(Then::Commit | Then::CommitNow) => Ok(()),
            Ok(Then::RollBack) | Err(_) => say(&self.connection, "ROLLBACK TO request"),
        };
        let ended = undone.and_then(|()| say(&self.connection, "RELEASE request")).map_err(broken);
        match then {
            Ok(then) => ended.map(|()| then),
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Ends the transaction that is open, and says so to who shares it.
    fn commit(&mut self) {
        let Some(open) = self.open.take() else { return };
        let outcome = match say(&self.connection, "COMMIT") {
            Ok(()) => Outcome::Committed,
            Err(e) => {
                // It may be undone already.
                let _ = self.connection.execute_batch("ROLLBACK");
                Outcome::Lost(broken(e))
            }
        };
        open.fate.send_replace(Some(outcome));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::NextTurn;
    use std::sync::Mutex;

    fn batch() -> Batch {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "PRAGMA foreign_keys = ON;
                 CREATE TABLE whole (id INTEGER PRIMARY KEY);
                 CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER);
                 CREATE TABLE part (whole INTEGER REFERENCES whole DEFERRABLE INITIALLY DEFERRED);
                 CREATE TRIGGER bad AFTER INSERT ON meta WHEN NEW.key = 'bad' BEGIN INSERT INTO part VALUES (1); END;",
            )
            .unwrap();
        Batch::new(connection).unwrap()
    }

    /// Each row is a part of nothing: that is noticed at the commit.
    fn fails_at_commit(connection: &Connection) {
        connection.execute_batch("INSERT INTO part VALUES (1)").unwrap();
    }

    fn put(connection: &Connection, id: i64) {
        connection.execute("INSERT INTO whole VALUES (?1)", [id]).unwrap();
    }

    fn count(batch: &Batch) -> i64 {
        batch.outside(|connection| {
            connection.query_row("SELECT count(*) FROM whole", [], |row| row.get(0)).unwrap()
        })
    }

    /// Between its run and the end of its commit a request holds a lock that the others need for theirs.
    #[test]
    fn a_commit_that_fails_lets_go_of_what_others_wait_for() {
        const EACH: i64 = 200;
        let batch = Arc::new(batch());
        let beside = Arc::new(Mutex::new(()));
        let (done, all) = mpsc::channel();
        for thread in 0..3 {
            let (batch, beside, done) = (batch.clone(), beside.clone(), done.clone());
            std::thread::spawn(move || {
                for number in 0..EACH {
                    if thread == 0 {
                        let mut held = None;
                        let failed = batch.run(&mut |connection| {
                            held = None;
                            drop(beside.lock().unwrap());
                            fails_at_commit(connection);
                            held = Some(beside.lock().unwrap());
                            Then::CommitNow
                        });
                        drop(held);
                        assert!(failed.is_err());
                    } else {
                        let put = batch.run(&mut |connection| {
                            drop(beside.lock().unwrap());
                            put(connection, thread * EACH + number);
                            Then::Commit
                        });
                        put.unwrap();
                    }
                }
                done.send(()).unwrap();
            });
        }
        for _ in 0..3 {
            all.recv_timeout(Duration::from_secs(60)).expect("they wait for each other");
        }
        assert_eq!(count(&batch), 2 * EACH, "what shared a transaction with one that failed ran again");
    }

    #[test]
    fn a_request_that_can_t_be_committed_says_so() {
        let batch = batch();
        for then in [Then::Commit, Then::CommitNow] {
            let failed = batch.run(&mut |connection| {
                fails_at_commit(connection);
                then
            });
            assert!(matches!(failed, Err(StoreError::Unavailable(_))), "{failed:?}");
        }
        batch
            .run(&mut |connection| {
                put(connection, 1);
                Then::Commit
            })
            .unwrap();
        assert_eq!(count(&batch), 1);
    }

    /// Requests that wait and such that must not share a connection, and each is answered once what it changed is there.
    #[test]
    fn turns_and_requests_that_wait_share_transactions() {
        const EACH: i64 = 200;
        let batch = Arc::new(batch());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        let turns: Vec<_> = (0..EACH)
            .map(|number| {
                let batch = batch.clone();
                runtime.spawn(async move {
                    let durable = batch.turn().await.run(&mut |tx| match number % 3 {
                        0 => Then::RollBack,
                        _ => {
                            tx.set_meta(&number.to_string(), 1).unwrap();
                            Then::Commit
                        }
                    });
                    durable.expect("nobody else writes").unwrap().await.unwrap();
                })
            })
            .collect();
        for number in 0..EACH {
            batch
                .run(&mut |connection| {
                    put(connection, number);
                    Then::Commit
                })
                .unwrap();
        }
        turns.into_iter().for_each(|turn| runtime.block_on(turn).unwrap());
        assert_eq!(count(&batch), EACH);
        assert_eq!(kept(&batch), (0..EACH).filter(|number| number % 3 != 0).count() as i64);
    }

    fn kept(batch: &Batch) -> i64 {
        batch.outside(|c| c.query_row("SELECT count(*) FROM meta", [], |row| row.get(0)).unwrap())
    }

    /// A turn that does this.
    fn put_meta(turn: Box<dyn Turn>, key: &str) -> Durable {
        let put = turn.run(&mut |tx| {
            tx.set_meta(key, 1).unwrap();
            Then::Commit
        });
        put.expect("nobody else writes").unwrap()
    }

    /// Two turns in the order in which they have it, and the first does not have it yet.
    fn two(batch: &Batch) -> [NextTurn; 2] {
        let held = wait(batch.shared.writer.clone().lock_owned());
        let mut turns: [NextTurn; 2] = [Box::pin(batch.turn()), Box::pin(batch.turn())];
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        turns.iter_mut().for_each(|turn| assert!(turn.as_mut().poll(&mut context).is_pending()));
        drop(held);
        turns
    }

    /// For who goes away while it waits, the one before has left the transaction open.
    #[test]
    fn who_goes_away_before_its_turn_leaves_nobody_waiting() {
        let batch = batch();
        let [first, gone] = two(&batch);
        let durable = put_meta(wait(first), "first");
        drop(gone);
        wait(durable).unwrap();
        // It has its turn already, and does nothing with it.
        let [first, gone] = two(&batch);
        let durable = put_meta(wait(first), "second");
        drop(wait(gone));
        wait(durable).unwrap();
        assert_eq!(kept(&batch), 2);
    }

    #[test]
    fn nobody_waits_for_ever_while_others_come_and_go() {
        let batch = Arc::new(batch());
        let (done, all) = mpsc::channel();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(3).build().unwrap();
        for number in 0..600 {
            let (batch, done) = (batch.clone(), done.clone());
            runtime.spawn(async move {
                match number % 3 {
                    0 => {
                        let mut turn = Box::pin(batch.turn());
                        let gone = std::future::poll_fn(|context| {
                            std::task::Poll::Ready(turn.as_mut().poll(context).is_pending())
                        });
                        gone.await;
                    }
                    1 => drop(batch.turn().await),
                    _ => put_meta(batch.turn().await, &number.to_string()).await.unwrap(),
                }
                done.send(()).unwrap();
            });
        }
        for _ in 0..600 {
            all.recv_timeout(Duration::from_secs(60)).expect("somebody waits for a commit");
        }
        assert_eq!(kept(&batch), 200);
    }

    #[test]
    fn a_commit_that_fails_fails_for_all_that_share_it() {
        let batch = batch();
        let [first, second] = two(&batch);
        let durable = [put_meta(wait(first), "bad"), put_meta(wait(second), "good")].map(wait);
        assert!(
            durable.iter().all(|durable| matches!(durable, Err(StoreError::Unavailable(_)))),
            "{durable:?}"
        );
        assert_eq!(kept(&batch), 0);
        wait(put_meta(wait(batch.turn()), "good")).unwrap();
        assert_eq!(kept(&batch), 1);
    }

    #[test]
    fn a_turn_that_panics_is_undone_and_takes_no_other_with_it() {
        let batch = batch();
        let panics = |turn: Box<dyn Turn>| {
            let ran = catch_unwind(AssertUnwindSafe(|| {
                turn.run(&mut |tx| {
                    tx.set_meta("undone", 1).unwrap();
                    panic!("on purpose")
                })
            }));
            assert!(ran.is_err());
        };
        let [first, second] = two(&batch);
        panics(wait(first));
        wait(put_meta(wait(second), "second")).unwrap();
        let [third, fourth] = two(&batch);
        let durable = put_meta(wait(third), "third");
        panics(wait(fourth));
        wait(durable).unwrap();
        assert_eq!(kept(&batch), 2);
    }

    /// Nothing waits for another process on a thread that must not block, and who may wait does so as before.
    #[test]
    fn a_turn_while_another_process_writes_does_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let open = || Connection::open(&path).unwrap();
        let (batch, other) = (Batch::new(open()).unwrap(), open());
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let ran = wait(batch.turn()).run(&mut |_| unreachable!("the database is another's"));
        assert!(ran.is_none());
        let patience: i64 =
            batch.outside(|c| c.query_row("PRAGMA busy_timeout", [], |row| row.get(0)).unwrap());
        assert_eq!(patience, BUSY.as_millis() as i64);
        other.execute_batch("ROLLBACK").unwrap();
        let durable = wait(batch.turn()).run(&mut |_| Then::Commit);
        wait(durable.unwrap().unwrap()).unwrap();
    }

    /// What can't begin for another reason is left to who may wait, whose answer says it.
    #[test]
    fn a_turn_that_can_t_begin_leaves_the_answer_to_who_may_wait() {
        let batch = batch();
        batch.outside(|connection| connection.execute_batch("BEGIN").unwrap());
        assert!(wait(batch.turn()).run(&mut |_| unreachable!("it has not begun")).is_none());
        let said = batch.run(&mut |_| unreachable!("it has not begun"));
        assert!(matches!(said, Err(StoreError::Unavailable(_))), "{said:?}");
        batch.outside(|connection| connection.execute_batch("ROLLBACK").unwrap());
        let durable = wait(batch.turn()).run(&mut |_| Then::Commit);
        wait(durable.unwrap().unwrap()).unwrap();
    }
}
