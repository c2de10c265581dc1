//! [`Store`] over PostgreSQL: one transaction a request, many at the same time, of any number of servers.
//!
//! Who writes works at `READ COMMITTED`, and holds what it reads until it is over: the sequence of documents together with others, or,
//! to append to it, alone; the nodes that it touches; at the end the audit trail. So each statement finds what was committed before
//! it, which is what a chain of hashes needs, and requests of different nodes wait for each other at its end only. At
//! `SERIALIZABLE` a request would see the trail as it was before it had waited for it, and fail whenever it had.
//!
//! The trail is held from an entry to the commit of it, and flushes would come one after the other if commits waited for theirs. So
//! they don't: a commit lets go of everything first, then waits for a flush of all that is in the log so far, together with others,
//! and only then is anything answered. What depends on a commit that is not flushed is behind it in the log. A reader may see it a
//! moment early; so who writes down beside the database what it saw, reads by a transaction that writes. Documents are on the disk
//! before anybody sees them.
//!
//! What is sent to the database waits for an answer only where it is needed: what a transaction will ask is asked together with its
//! beginning, what it changes goes with its next question, and the last of it with the commit.
//!
//! Boots that come at the same time share a transaction ([`group`]), and what is read for them ([`reading`]).
//!
//! A transaction that the database ends for a conflict, or a connection that breaks before its end, runs again, a few times.

mod address;
mod announce;
mod block;
mod boots;
mod clients;
mod commit;
mod documents;
mod enrollments;
mod evidence;
mod group;
mod import;
mod nodes;
mod notices;
mod policies;
mod proposals;
mod queue;
mod reading;
mod registrations;
mod row;
mod schema;
mod session;
mod shape;
mod standbys;
mod statement;
mod tls;
mod together;
mod trail;
mod tx;

pub use address::{Address, has_password};

use super::{Changes, Heard, NextRead, NextTurn, Pool, Result, Standbys, Store, StoreError, Tells, Then, Tx};
use block::Background;
use commit::{End, commit, undecided};
use group::Groups;
use reading::Readings;
use session::{ANSWER, Failure, Held, PATIENCE, Session, Sessions, ask, discard};
use shape::Shapes;
use statement::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_postgres::error::SqlState;
use tx::{Begun, PgTx};

/// Requests that write at the same time. The most of their time they wait.
const WRITERS: usize = 16;
/// Requests that read at the same time.
const READERS: usize = 8;
/// How often a request runs that others are in the way of.
const RUNS: u32 = 8;
/// How who only reads begins: what is there does not change meanwhile.
const BEGIN_TO_READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
/// The oldest server that has all that is said here.
const OLDEST: i64 = 150_000;

/// A database that any number of servers use.
pub struct Postgres {
    address: Address,
    writers: Arc<Sessions>,
    readers: Arc<Sessions>,
    shapes: Arc<Shapes>,
    groups: Groups,
    readings: Readings,
    // Dropped last: connections end on its threads.
    background: Background,
}

impl Postgres {
    /// Opens a database and brings it to this build's schema.
    ///
    /// # Errors
    /// When it can't be reached, is none that keeps what it commits, or was made by a newer build.
    pub fn open(address: &Address) -> Result<Self> {
        let background = Background::start()?;
        let (writers, readers) = (Sessions::new(address, WRITERS)?, Sessions::new(address, READERS)?);
        let (writers, readers, shapes) = (Arc::new(writers), Arc::new(readers), Arc::<Shapes>::default());
        let runtime = background.handle()?;
        let opened = Self {
            address: address.clone(),
            groups: Groups::new(writers.clone(), shapes.clone(), begin(Changes::Rows), runtime.clone()),
            readings: Readings::new(readers.clone(), shapes.clone(), runtime),
            writers,
            readers,
            shapes,
            background,
        };
        let session = opened.writers.take(&opened.background, Instant::now())?;
        let ready = ask(&opened.background, async {
            let fits = fits(&session).await?;
            Ok(if fits.is_ok() { schema::migrate(&session).await } else { fits })
        });
        ready.map_err(|failed| failed.error).and_then(|ready| ready).map_err(|e| opened.writers.named(e))?;
        Ok(opened)
    }

    /// As [`Store::write_asking`].
    fn write_rows(
        &self,
        changes: Changes,
        first: &dyn Fn(&PgTx<'_>),
        work: &mut dyn FnMut(&PgTx<'_>) -> Then,
    ) -> Result<()> {
        let begin = begin(changes);
        let since = Instant::now();
        for run in 1.. {
            let (session, begun) = self.begin(&self.writers, Some(changes), &begin, since, first)?;
            let tx = PgTx::new(&self.background, &session, &self.shapes, Some(changes), begun);
            let then = catch_unwind(AssertUnwindSafe(|| work(&tx)));
            let (failed, unsaid) = tx.over();
            let then = match then {
                Ok(then) => then,
                Err(panic) => {
                    self.writers.undo(&self.background, session, failed.as_ref());
                    resume_unwind(panic);
                }
            };
            let failed = match failed {
                None if then == Then::RollBack => {
                    self.writers.undo(&self.background, session, None);
                    return Ok(());
                }
                None => match self.commit(session, changes, then, &unsaid) {
                    Ok(()) => return Ok(()),
                    Err(failed) => failed,
                },
                Some(failed) => {
                    self.writers.undo(&self.background, session, Some(&failed));
                    if then == Then::RollBack && !failed.again {
                        // What it made of that is its answer.
                        return Ok(());
                    }
                    failed
                }
            };
            let soon = run < RUNS && since.elapsed() < PATIENCE;
            if !failed.again || !soon || then == Then::CommitNow {
                return Err(self.writers.named(failed.error));
            }
            // Who was in the way is done by then.
            std::thread::sleep(Duration::from_millis(10 * u64::from(run)));
        }
        unreachable!("it ends after some runs")
    }

    /// A connection in a transaction that has asked what `first` asks.
    fn begin(
        &self,
        sessions: &Sessions,
        changes: Option<Changes>,
        sql: &str,
        since: Instant,
        first: &dyn Fn(&PgTx<'_>),
    ) -> Result<(Session, Begun)> {
        sessions.begin(&self.background, since, |session| {
            PgTx::new(&self.background, session, &self.shapes, changes, Begun::default()).begin(sql, first)
        })
    }

    /// Ends a transaction, with what it has not said yet. Of one that no other may take the place of it is found out whether it was
    /// committed.
    fn commit(
        &self,
        session: Session,
        changes: Changes,
        then: Then,
        unsaid: &[Bound],
    ) -> std::result::Result<(), Failure> {
        let trace = match then {
            Then::CommitNow => ask(&self.background, Trace::of(&session)),
            Then::Commit | Then::RollBack => Ok(None),
        };
        let trace = match trace {
            Ok(trace) => trace,
            Err(failed) => {
                discard(session);
                return Err(failed);
            }
        };
        let end = self.background.wait(ANSWER, commit(&session, changes, unsaid.iter()));
        let failed = match end.unwrap_or_else(|| End::Unknown(Failure::late())) {
            End::Committed => return Ok(()),
            End::Undone(failed) => {
                discard(session);
                return Err(failed);
            }
            End::Unknown(failed) => failed,
        };
        discard(session);
        match trace.map(|trace| self.was_committed(&trace)) {
            Some(Ok(true)) => Ok(()),
            Some(Ok(false)) => Err(Failure { again: true, ..failed }),
            Some(Err(_)) | None => Err(Failure { error: undecided(&failed), again: false, gone: true }),
        }
    }

    /// Whether a transaction was committed. Another server may have taken the place of the one that it was at: there its number is
    /// nobody's, or that of another transaction, so only what it left says so.
    fn was_committed(&self, trace: &Trace) -> Result<bool> {
        let since = Instant::now();
        loop {
            let session = self.readers.take(&self.background, since)?;
            match ask(&self.background, trace.found(&session)) {
                Ok(Some(found)) => return Ok(found),
                Ok(None) if since.elapsed() > PATIENCE => {
                    return Err(StoreError::Unavailable(format!("transaction {} does not end", trace.id)));
                }
                Ok(None) => std::thread::sleep(Duration::from_millis(50)),
                Err(failed) if failed.gone && since.elapsed() < PATIENCE => discard(session),
                Err(failed) => return Err(failed.error),
            }
        }
    }
}

/// What a transaction leaves that appends a document.
struct Trace {
    /// Its number.
    id: String,
    /// Number and SHA-256 of the newest document in it.
    document: Option<(i64, Vec<u8>)>,
}

impl Trace {
    /// Of one that is about to be committed. None if it changes nothing.
    async fn of(session: &Session) -> std::result::Result<Option<Self>, tokio_postgres::Error> {
        let sql = "SELECT pg_current_xact_id_if_assigned()::TEXT";
        let id: Option<String> = session.query_one(sql, &[]).await?.try_get(0)?;
        let sql = "SELECT number, sha256 FROM documents ORDER BY number DESC LIMIT 1";
        let newest = session.query_opt(sql, &[]).await?;
        let document = newest.map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).transpose()?;
        Ok(id.map(|id| Self { id, document }))
    }

    /// Whether it is there; none as long as it may come yet.
    async fn found(&self, session: &Session) -> std::result::Result<Option<bool>, tokio_postgres::Error> {
        // The snapshot is no help: its xmax is behind the newest that has ended, and this one may be the only one that runs.
        let status: Option<String> =
            match session.query_one("SELECT pg_xact_status($1::TEXT::XID8)", &[&self.id]).await {
                Ok(row) => row.try_get(0)?,
                // A number that this server has not given yet.
                Err(e) if e.code() == Some(&SqlState::INVALID_PARAMETER_VALUE) => None,
                Err(e) => return Err(e),
            };
        if status.as_deref() == Some("in progress") {
            return Ok(None);
        }
        let Some((number, sha256)) = &self.document else {
            return Ok(Some(status.as_deref() == Some("committed")));
        };
        let sql = "SELECT EXISTS (SELECT FROM documents WHERE number = $1 AND sha256 = $2)";
        session.query_one(sql, &[number, sha256]).await?.try_get(0).map(Some)
    }
}

/// How who changes something begins: with what it holds first.
fn begin(changes: Changes) -> String {
    let held = match changes {
        Changes::Rows => {
            format!("SET LOCAL synchronous_commit = off; SELECT {}", Held::Documents.shared())
        }
        Changes::Documents => format!("SELECT {}", Held::Documents.exclusive()),
    };
    format!("BEGIN ISOLATION LEVEL READ COMMITTED; {held}")
}

/// Whether a server is one that keeps what it commits, as text.
async fn fits(session: &Session) -> std::result::Result<Result<()>, tokio_postgres::Error> {
    let sql = "SELECT current_setting('server_version_num')::BIGINT, current_setting('server_encoding'),
                      current_setting('synchronous_commit')";
    let row = session.query_one(sql, &[]).await?;
    let (version, encoding, commits): (i64, &str, &str) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let refused = |what: String| Ok(Err(StoreError::Unavailable(what)));
    if version < OLDEST {
        return refused(format!("expected PostgreSQL 15 or newer, found version {version}"));
    }
    if encoding != "UTF8" {
        return refused(format!("expected a database with encoding UTF8, found {encoding}"));
    }
    if commits == "off" {
        return refused(
            "expected synchronous_commit to be on for this role and database, found off".to_owned(),
        );
    }
    Ok(Ok(()))
}

impl Store for Postgres {
    fn read(&self, work: &mut dyn FnMut(&dyn Tx)) -> Result<()> {
        self.read_asking(&|_| (), work)
    }

    fn write(&self, changes: Changes, work: &mut dyn FnMut(&dyn Tx) -> Then) -> Result<()> {
        self.write_asking(changes, &|_| (), work)
    }

    fn read_asking(&self, first: &dyn Fn(&dyn Tx), work: &mut dyn FnMut(&dyn Tx)) -> Result<()> {
        let since = Instant::now();
        for run in 1.. {
            let (session, begun) = self.begin(&self.readers, None, BEGIN_TO_READ, since, &|tx| first(tx))?;
            let tx = PgTx::new(&self.background, &session, &self.shapes, None, begun);
            let done = catch_unwind(AssertUnwindSafe(|| work(&tx)));
            let (failed, _) = tx.over();
            // It has changed nothing.
            self.readers.leave(session, failed.as_ref());
            if let Err(panic) = done {
                resume_unwind(panic);
            }
            match failed {
                Some(failed) if failed.again && run < RUNS && since.elapsed() < PATIENCE => {}
                Some(failed) => return Err(self.readers.named(failed.error)),
                None => return Ok(()),
            }
        }
        unreachable!("it ends after some runs")
    }

    fn write_asking(
        &self,
        changes: Changes,
        first: &dyn Fn(&dyn Tx),
        work: &mut dyn FnMut(&dyn Tx) -> Then,
    ) -> Result<()> {
        self.write_rows(changes, &|tx| first(tx), &mut |tx| work(tx))
    }

    fn read_together(&self, first: &dyn Fn(&dyn Tx)) -> Option<NextRead> {
        self.readings.read(&|tx| first(tx))
    }

    fn has_turns(&self) -> bool {
        true
    }

    fn turn(&self, first: &dyn Fn(&dyn Tx)) -> Option<NextTurn> {
        self.groups.turn(&|tx| first(tx))
    }

    /// Deleted rows are in the server's files until it tidies them up, and in its log and backups as long as these are kept. C_U is
    /// encrypted there by a key that is not.
    fn purge(&self) {}

    fn standbys(&self) -> Result<Option<Standbys>> {
        standbys::said(&self.readers, &self.background).map(Some)
    }

    fn join(&self, heard: Heard) -> Option<Tells> {
        Some(announce::join(&self.background, &self.address, heard))
    }

    fn pools(&self) -> Vec<Pool> {
        vec![self.writers.state("write"), self.readers.state("read")]
    }
}

/// A number that is kept.
///
/// # Errors
/// When PostgreSQL has none so large.
fn stored(value: u64) -> Result<i64> {
    i64::try_from(value).map_err(|_| StoreError::Unavailable(format!("a number that can't be kept: {value}")))
}

fn stored_some(value: Option<u64>) -> Result<Option<i64>> {
    value.map(stored).transpose()
}

/// A number that others are compared with: none that is kept is larger than the largest.
fn bound(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
