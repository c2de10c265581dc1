//! Connections, and what their errors mean.

use super::address::Address;
use super::block::Background;
use super::statement::send_only;
use crate::failure::with_causes;
use crate::store::{Result, StoreError};
use deadpool_postgres::{
    Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime, Timeouts,
};
use std::future::Future;
use std::time::{Duration, Instant};
use tokio::time::timeout;
use tokio_postgres::error::SqlState;

/// A connection that a transaction has to itself.
pub type Session = Object;

/// Longest time for a connection to be made, or to become free.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest time for one answer. The server itself gives up before.
pub const ANSWER: Duration = Duration::from_secs(15);
/// How long a request waits for a database that is gone, from its beginning.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Between two attempts to reach it.
const PAUSE: Duration = Duration::from_millis(100);

/// What a transaction holds until it is over, so that nobody else changes it. Whoever takes several takes them in this order, and
/// a node between documents and registrations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Nobody else brings the schema along.
    Schema = 1,
    /// Nobody else appends a document, or, if it is held exclusively, changes anything.
    Documents = 2,
    /// Nobody else makes room for a registration.
    Registrations = 3,
    /// Nobody else appends to the audit trail, or begins a count.
    Trail = 4,
    /// Nobody else forgets what is over. Who does not get it at once does without: it is waited for by nobody.
    Sweep = 5,
}

/// First number of our locks, apart from those of others in the same database: "half" in ASCII.
const OURS: i32 = 0x6861_6c66;

impl Held {
    /// The SQL of it.
    pub fn exclusive(self) -> String {
        format!("pg_advisory_xact_lock({OURS}, {})", self as i32)
    }

    /// The same, if nobody has it: whether it was taken.
    pub fn exclusive_now(self) -> String {
        format!("pg_try_advisory_xact_lock({OURS}, {})", self as i32)
    }

    /// The same, together with others that only share it.
    pub fn shared(self) -> String {
        format!("pg_advisory_xact_lock_shared({OURS}, {})", self as i32)
    }
}

/// Why the database did not do something.
#[derive(Clone, Debug)]
pub struct Failure {
    /// For who asked.
    pub error: StoreError,
    /// Nothing was changed, and the same may succeed now.
    pub again: bool,
    /// The connection is of no use any more.
    pub gone: bool,
}

impl Failure {
    /// Of a request itself: the connection is as good as before.
    pub fn of(what: String) -> Self {
        Self { error: StoreError::Unavailable(what), again: false, gone: false }
    }

    /// There was no answer.
    pub fn late() -> Self {
        let what = format!("no answer within {} s", ANSWER.as_secs());
        Self { error: StoreError::Unavailable(what), again: false, gone: true }
    }
}

/// What an error means here.
pub fn failure(e: &tokio_postgres::Error) -> Failure {
    let Some(said) = e.as_db_error() else {
        return Failure { error: StoreError::Unavailable(with_causes(e)), again: true, gone: true };
    };
    // Its detail may have values of rows.
    let what = said.message().to_owned();
    let code = said.code();
    let conflict = [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED].contains(code);
    // A server that stops or starts, or became one that only copies another; or one that waited too long for us.
    let gone = code.code().starts_with("08")
        || code.code().starts_with("57P")
        || *code == SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT
        || *code == SqlState::READ_ONLY_SQL_TRANSACTION;
    let error = match *code == SqlState::DISK_FULL {
        true => StoreError::Full(what),
        false => StoreError::Unavailable(what),
    };
    Failure { error, again: conflict || gone, gone }
}

/// The connections of one kind of transaction. Who writes waits for others who hold something, and they may wait for who reads: so
/// these have some of their own.
pub struct Sessions {
    pool: Pool,
    name: String,
}

impl Sessions {
    /// None is made yet.
    ///
    /// # Errors
    /// When the settings of the pool are wrong.
    pub fn new(address: &Address, most: usize) -> Result<Self> {
        let method = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(address.config.clone(), address.tls.clone(), method);
        let timeouts = Timeouts { wait: Some(CONNECT), create: Some(CONNECT), recycle: Some(CONNECT) };
        let pool = Pool::builder(manager).max_size(most).timeouts(timeouts).runtime(Runtime::Tokio1).build();
        let pool = pool.map_err(|e| StoreError::Unavailable(format!("our bug: {e}")))?;
        Ok(Self { pool, name: address.name.clone() })
    }

    /// One that answers.
    ///
    /// # Errors
    /// When there is none.
    pub fn take(&self, background: &Background, since: Instant) -> Result<Session> {
        self.begin(background, since, |session| ask(background, session.batch_execute("")))
            .map(|(session, ())| session)
    }

    /// One that was begun with, and what that gave. A database that is gone for a moment is waited for.
    ///
    /// # Errors
    /// When there is none.
    pub fn begin<T>(
        &self,
        background: &Background,
        since: Instant,
        mut start: impl FnMut(&Session) -> std::result::Result<T, Failure>,
    ) -> Result<(Session, T)> {
        loop {
            let failed = match self.one(background, &mut start) {
                Ok(begun) => return Ok(begun),
                Err(failed) => failed,
            };
            if !failed.again || since.elapsed() > PATIENCE {
                return Err(self.named(failed.error));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// One that was not looked at, if there is one in time.
    pub async fn get(&self) -> Option<Session> {
        timeout(ANSWER, self.pool.get()).await.ok()?.ok()
    }

    fn one<T>(
        &self,
        background: &Background,
        start: &mut impl FnMut(&Session) -> std::result::Result<T, Failure>,
    ) -> std::result::Result<(Session, T), Failure> {
        // The pool itself gives up before.
        let session = background.wait(ANSWER, self.pool.get());
        let session = session.ok_or_else(Failure::late)?.map_err(|e| no_session(&e))?;
        match start(&session) {
            Ok(begun) => Ok((session, begun)),
            Err(failed) => {
                discard(session);
                Err(failed)
            }
        }
    }

    /// Ends the transaction of a connection, and gives it back.
    ///
    /// # Errors
    /// When it did not end so.
    pub fn end(
        &self,
        background: &Background,
        session: Session,
        sql: &str,
    ) -> std::result::Result<(), Failure> {
        ask(background, session.batch_execute(sql)).inspect_err(|_| discard(session))
    }

    /// Undoes the transaction of a connection that has failed so, if it has, and gives it back if it is of use.
    pub fn undo(&self, background: &Background, session: Session, failed: Option<&Failure>) {
        match failed {
            // Its transaction ends with it.
            Some(failed) if failed.gone => discard(session),
            Some(_) | None => {
                let _ = self.end(background, session, "ROLLBACK");
            }
        }
    }

    /// Gives a connection back that has only read, unless it failed so that it is of no use: nothing hangs on how that ends, and
    /// whoever has it next finds out if it did not.
    pub fn leave(&self, session: Session, failed: Option<&Failure>) {
        match failed {
            Some(failed) if failed.gone => discard(session),
            Some(_) | None => send_only(session.batch_execute("ROLLBACK")),
        }
    }

    /// How many there are, and who waits.
    pub fn state(&self, kind: &'static str) -> crate::store::Pool {
        let status = self.pool.status();
        crate::store::Pool {
            kind,
            most: status.max_size,
            open: status.size,
            idle: status.available,
            waiting: status.waiting,
        }
    }

    /// With the place of the database.
    pub fn named(&self, e: StoreError) -> StoreError {
        match e {
            StoreError::Unavailable(what) => StoreError::Unavailable(format!("{}: {what}", self.name)),
            StoreError::Undecided(what) => StoreError::Undecided(format!("{}: {what}", self.name)),
            StoreError::Full(what) => StoreError::Full(format!("{}: {what}", self.name)),
            unnamed @ (StoreError::Damaged(_) | StoreError::Newer { .. }) => unnamed,
        }
    }
}

/// Closes a connection of which it is not known what it is in the middle of: nobody else may go on there.
pub fn discard(session: Session) {
    drop(Object::take(session));
}

fn no_session(e: &PoolError) -> Failure {
    match e {
        PoolError::Backend(e) => {
            let failed = failure(e);
            // Who is refused for a password is refused again. All others may be let in: one server too few, or one that starts.
            let refused = e.as_db_error().is_some_and(|said| said.code().code().starts_with("28"));
            let missing = e.as_db_error().is_some_and(|said| *said.code() == SqlState::INVALID_CATALOG_NAME);
            Failure { again: !refused && !missing, ..failed }
        }
        PoolError::Timeout(_) => {
            let what = format!("no connection within {} s", CONNECT.as_secs());
            Failure { error: StoreError::Unavailable(what), again: true, gone: true }
        }
        other => Failure { error: StoreError::Unavailable(other.to_string()), again: false, gone: true },
    }
}

/// Waits for one answer outside of a transaction.
///
/// # Errors
/// When there is none, or it is an error.
pub fn ask<T>(
    background: &Background,
    work: impl Future<Output = std::result::Result<T, tokio_postgres::Error>>,
) -> std::result::Result<T, Failure> {
    match background.wait(ANSWER, work) {
        Some(done) => done.map_err(|e| failure(&e)),
        None => Err(Failure::late()),
    }
}
