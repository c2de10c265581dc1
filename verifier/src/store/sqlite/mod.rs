//! [`Store`] over SQLite: WAL, `synchronous=FULL`, one connection that writes and one that reads beside it.

mod batch;
mod boots;
mod clients;
mod documents;
mod enrollments;
mod evidence;
mod export;
mod nodes;
mod notices;
mod policies;
mod proposals;
mod registrations;
mod schema;
mod trail;

use super::{Changes, NextTurn, Result, Store, StoreError, Then, Tx};
use batch::Batch;
use halfkey_protocol::NodeId;
use rusqlite::config::DbConfig;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, Params, Row};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError, TryLockError};
use std::time::Duration;

/// How long to wait for another process (`operator add`) that writes.
const BUSY: Duration = Duration::from_secs(5);

/// The database of one host.
pub struct Sqlite {
    reader: Mutex<Connection>,
    // Closed last: who closes last empties and removes the write-ahead log.
    writer: Batch,
}

impl Sqlite {
    /// Opens or makes a database and brings it to this build's schema.
    ///
    /// # Errors
    /// When it can't be opened or was made by a newer build.
    pub fn open(path: &Path) -> Result<Self> {
        // SQLite gives its other files the mode of this one.
        let mut options = std::fs::OpenOptions::new();
        options.create(true).append(true).mode(0o600);
        options.open(path).map_err(|e| StoreError::Unavailable(e.to_string()))?;
        let mut writer = connect(path, OpenFlags::default())?;
        // Switching to WAL writes the database: before anything else.
        writer
            .query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0))
            .map_err(broken)
            .and_then(|mode| match mode.as_str() {
                "wal" => Ok(()),
                other => Err(StoreError::Unavailable(format!(
                    "expected journal mode wal, found {other}: {} has to be on a local file system",
                    path.display()
                ))),
            })?;
        schema::migrate(&mut writer)?;
        let reader = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        Ok(Self { reader: Mutex::new(reader), writer: Batch::new(writer)? })
    }

    /// Keeps the database from growing beyond this many pages of 4096 bytes.
    ///
    /// # Errors
    /// When the database can't be asked.
    pub fn limit_pages(&self, pages: u64) -> Result<()> {
        self.writer
            .outside(|connection| connection.pragma_update(None, "max_page_count", number(pages)))
            .map_err(broken)
    }
}

impl Sqlite {
    /// Copies a database that others may use into an empty file, as it is at one moment. What was deleted is not in the copy.
    ///
    /// # Errors
    /// When one of them can't be used, or the second is not empty.
    pub fn copy(from: &Path, to: &Path) -> Result<()> {
        let connection = connect(from, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        let to = to
            .to_str()
            .ok_or_else(|| StoreError::Unavailable(format!("{}: expected a path in UTF-8", to.display())))?;
        connection.execute("VACUUM INTO ?1", [to]).map(drop).map_err(broken)
    }
}

impl Store for Sqlite {
    fn read(&self, work: &mut dyn FnMut(&dyn Tx)) -> Result<()> {
        read(&self.reader.lock().unwrap_or_else(PoisonError::into_inner), work)
    }

    fn read_at_once(&self, work: &mut dyn FnMut(&dyn Tx)) -> Option<Result<()>> {
        let connection = match self.reader.try_lock() {
            Ok(connection) => connection,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(read(&connection, work))
    }

    /// One at a time, whatever it changes.
    fn write(&self, _: Changes, work: &mut dyn FnMut(&dyn Tx) -> Then) -> Result<()> {
        self.writer.run(&mut |connection| work(&SqliteTx(connection)))
    }

    fn has_turns(&self) -> bool {
        true
    }

    fn turn(&self, _: &dyn Fn(&dyn Tx)) -> Option<NextTurn> {
        Some(Box::pin(self.writer.turn()))
    }

    /// What was deleted is in older pages of the log until these are overwritten. A reader may hold them, and the next checkpoint
    /// gets them.
    fn purge(&self) {
        let truncated = self
            .writer
            .outside(|connection| connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())));
        if let Err(e) = truncated {
            tracing::warn!(error = %e, "the write-ahead log could not be emptied");
        }
    }
}

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection> {
    let connection = Connection::open_with_flags(path, flags).map_err(broken)?;
    connection.busy_timeout(BUSY).map_err(broken)?;
    connection.set_prepared_statement_cache_capacity(128);
    // A plan does not go by what is bound, so a statement is prepared once: else SQLite looks at each bound LIMIT, and at what could fit
    // a partial index, and prepares the statement again each time that it is used.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(broken)?;
    // secure_delete: C_U is to be gone when it is deleted. cache_size is in KiB if negative.
    connection
        .execute_batch(
            "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA secure_delete = ON;
             PRAGMA cache_size = -2048; PRAGMA journal_size_limit = 4194304; PRAGMA temp_store = MEMORY;",
        )
        .map_err(broken)?;
    Ok(connection)
}

/// A statement that every request needs: it is prepared once.
fn say(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}

fn read(connection: &Connection, work: &mut dyn FnMut(&dyn Tx)) -> Result<()> {
    let reading = Reading::begin(connection).map_err(broken)?;
    work(&SqliteTx(reading.0));
    Ok(())
}

/// A transaction that changes nothing, until this is dropped.
struct Reading<'a>(&'a Connection);

impl<'a> Reading<'a> {
    fn begin(connection: &'a Connection) -> rusqlite::Result<Self> {
        // One that could not be ended would be older than what is asked for now.
        if !connection.is_autocommit() {
            connection.execute_batch("ROLLBACK")?;
        }
        say(connection, "BEGIN")?;
        Ok(Self(connection))
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let _ = say(self.0, "ROLLBACK");
    }
}

/// A transaction.
struct SqliteTx<'a>(&'a Connection);

impl SqliteTx<'_> {
    /// The first row, read.
    fn first<T>(
        &self,
        sql: &str,
        values: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>> {
        let mut query = self.0.prepare_cached(sql).map_err(broken)?;
        query.query_row(values, read).optional().map_err(broken)
    }

    /// Every row, read.
    fn all<T>(
        &self,
        sql: &str,
        values: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        let mut query = self.0.prepare_cached(sql).map_err(broken)?;
        query.query_map(values, read).and_then(Iterator::collect).map_err(broken)
    }

    /// Every row, each read or not.
    fn each<T>(
        &self,
        sql: &str,
        values: impl Params,
        mut read: impl FnMut(&Row<'_>) -> Result<T>,
    ) -> Result<super::Each<T>> {
        let mut query = self.0.prepare_cached(sql).map_err(broken)?;
        let mut rows = query.query(values).map_err(broken)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().map_err(broken)? {
            found.push(read(row));
        }
        Ok(found)
    }

    /// Changes rows; gives how many.
    fn change(&self, sql: &str, values: impl Params) -> Result<usize> {
        self.0.prepare_cached(sql).and_then(|mut change| change.execute(values)).map_err(broken)
    }
}

/// What an SQLite error means here.
fn broken(e: rusqlite::Error) -> StoreError {
    match e {
        rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::IntegralValueOutOfRange(..)
        | rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::Utf8Error(..) => StoreError::Damaged(e.to_string()),
        _ if e.sqlite_error_code() == Some(ErrorCode::DiskFull) => StoreError::Full(e.to_string()),
        _ => StoreError::Unavailable(e.to_string()),
    }
}

/// A text that is only shown, or compared with what was signed: bytes that are no UTF-8, or another type, make it another text, and
/// no reason to give up.
struct Shown(String);

impl FromSql for Shown {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value {
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
                Ok(Self(String::from_utf8_lossy(bytes).into_owned()))
            }
            ValueRef::Integer(number) => Ok(Self(number.to_string())),
            ValueRef::Real(number) => Ok(Self(number.to_string())),
            ValueRef::Null => Err(FromSqlError::InvalidType),
        }
    }
}

/// Such a text, if there is one.
fn shown(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<String>> {
    Ok(row.get::<_, Option<Shown>>(column)?.map(|Shown(text)| text))
}

/// Such a text; empty where there is none.
fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    Ok(shown(row, column)?.unwrap_or_default())
}

/// A number that is only shown, or sorts what is tidied up: one of another type is 0, and no reason to give up.
fn shown_u64(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(match row.get_ref(column)? {
        ValueRef::Integer(number) => as_u64(number),
        ValueRef::Null | ValueRef::Real(_) | ValueRef::Text(_) | ValueRef::Blob(_) => 0,
    })
}

/// SQLite's integers are signed. Times and counts here are far below 2^63.
fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The way back.
fn as_u64(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn u64_at(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get(column).map(as_u64)
}

fn some_u64_at(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<u64>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(as_u64))
}

/// The clock of a TPM has all of its 64 bits: root of a machine sets it to what it likes (TPM 2.0 Part 3, TPM2_ClockSet), and any
/// other number in its place would let one quote pass twice, or no other one. SQL does not compare it.
fn clock_at(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<u64>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(i64::cast_unsigned))
}

/// What every node id matches: a row of nobody ends no list.
fn node_id_glob() -> String {
    [8, 4, 4, 4, 12].map(|digits| "[0-9a-f]".repeat(digits)).join("-")
}

fn id_text(node: NodeId) -> String {
    node.to_string()
}
