//! Group commit. A commit waits for the disk; a request's own work takes a fraction of that. So requests that come at the same time
//! share one transaction, each in a savepoint of its own: what one of them changed can be undone alone, and each is answered when
//! the common commit is on the disk.
//!
//! Nobody waits in order to fill a batch. A request that finds others behind it leaves the transaction open for them, and the last one
//! commits for all.

use super::{broken, say};
use crate::store::{Result, StoreError, Then};
use rusqlite::Connection;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Requests of one transaction: the first one's answer waits for so many others at most.
const MOST: usize = 64;

/// The connection that writes, and who shares its transaction.
pub struct Batch {
    /// Requests that are about to take the connection.
    behind: AtomicUsize,
    writer: Mutex<Writer>,
}

struct Writer {
    connection: Connection,
    /// The transaction that is open.
    open: Option<Open>,
}

struct Open {
    fate: Arc<Fate>,
    requests: usize,
}

/// What became of a transaction, for those that share it.
#[derive(Default)]
struct Fate {
    said: Mutex<Option<Outcome>>,
    changed: Condvar,
}

#[derive(Clone)]
enum Outcome {
    Committed,
    /// It was undone, and whose fault that was is not known.
    Lost(StoreError),
}

impl Fate {
    fn say(&self, outcome: Outcome) {
        *self.said.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        self.changed.notify_all();
    }

    fn wait(&self) -> Outcome {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(outcome) = &*said {
                return outcome.clone();
            }
            said = self.changed.wait(said).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Batch {
    pub fn new(connection: Connection) -> Self {
        Self { behind: AtomicUsize::new(0), writer: Mutex::new(Writer { connection, open: None }) }
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
        let mut writer = self.writer();
        writer.commit();
        work(&writer.connection)
    }

    fn request(&self, work: &mut dyn FnMut(&Connection) -> Then, alone: bool) -> Result<(Then, Outcome)> {
        self.behind.fetch_add(1, Ordering::SeqCst);
        let mut writer = self.writer();
        self.behind.fetch_sub(1, Ordering::SeqCst);
        if alone {
            writer.commit();
        }
        let fate = writer.join()?;
        let then = catch_unwind(AssertUnwindSafe(|| writer.savepoint(work)));
        let last = self.behind.load(Ordering::SeqCst) == 0;
        let full = writer.open.as_ref().is_some_and(|open| open.requests >= MOST);
        if alone || last || full || matches!(then, Ok(Ok(Then::CommitNow))) {
            writer.commit();
        }
        drop(writer);
        match then {
            Err(panic) => resume_unwind(panic),
            Ok(Err(e)) => Err(e),
            Ok(Ok(then)) => Ok((then, fate.wait())),
        }
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        // After a panic the savepoint is undone: the connection is as good as before.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    /// The transaction that is open, or a new one.
    fn join(&mut self) -> Result<Arc<Fate>> {
        if self.open.is_none() {
            say(&self.connection, "BEGIN IMMEDIATE").map_err(broken)?;
        }
        let open = self.open.get_or_insert_with(|| Open { fate: Arc::default(), requests: 0 });
        open.requests += 1;
        Ok(open.fate.clone())
    }

    /// One request: all that it changes, or nothing.
    fn savepoint(&mut self, work: &mut dyn FnMut(&Connection) -> Then) -> Result<Then> {
        say(&self.connection, "SAVEPOINT request").map_err(broken)?;
        let then = catch_unwind(AssertUnwindSafe(|| work(&self.connection)));
        // SQLite undoes the whole transaction when the disk is full.
        if self.connection.is_autocommit() {
            let lost = StoreError::Unavailable("the transaction was undone by the database".to_owned());
            if let Some(open) = self.open.take() {
                open.fate.say(Outcome::Lost(lost));
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
        open.fate.say(match say(&self.connection, "COMMIT") {
            Ok(()) => Outcome::Committed,
            Err(e) => {
                // It may be undone already.
                let _ = self.connection.execute_batch("ROLLBACK");
                Outcome::Lost(broken(e))
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    fn batch() -> Batch {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "PRAGMA foreign_keys = ON;
                 CREATE TABLE whole (id INTEGER PRIMARY KEY);
                 CREATE TABLE part (whole INTEGER REFERENCES whole DEFERRABLE INITIALLY DEFERRED);",
            )
            .unwrap();
        Batch::new(connection)
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
}
