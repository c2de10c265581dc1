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
mod tests;
