//! [`super::Store`] over SQLite: WAL, `synchronous=FULL`, one connection that writes
//! and one that reads beside it.

mod audit;
mod boots;
mod clients;
mod documents;
mod evidence;
mod methods;
mod nodes;
mod opening;
mod policies;
mod proposals;
mod registrations;
mod review;
mod rows;
mod schema;
mod tx;

use super::sequence::Sequence;
use super::{Result, StoreError};
use halfkey_protocol::NodeId;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{Connection, ErrorCode, Row};
use std::sync::{Mutex, RwLock};

/// The database of one host.
pub struct Sqlite {
    // Taken after the writer and before the reader.
    sequence: RwLock<Sequence>,
    reader: Mutex<Connection>,
    // Closed last: who closes last empties and removes the write-ahead log.
    writer: Mutex<Connection>,
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

/// A row that this program can't have written.
fn damaged(what: &str) -> StoreError {
    StoreError::Damaged(what.to_owned())
}

/// A text that is only shown, or compared with what was signed: bytes that are no UTF-8 make it another text, and no reason to give up.
struct Shown(String);

impl FromSql for Shown {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value {
            ValueRef::Text(bytes) => Ok(Self(String::from_utf8_lossy(bytes).into_owned())),
            _ => Err(FromSqlError::InvalidType),
        }
    }
}

fn shown(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<String>> {
    Ok(row.get::<_, Option<Shown>>(column)?.map(|Shown(text)| text))
}

/// SQLite's integers are signed. Times and counts here are far below 2^63.
fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The way back.
fn as_u64(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn id_text(node: NodeId) -> String {
    node.to_string()
}

fn json<T: serde::Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|e| StoreError::Unavailable(format!("our bug: {e}")))
}

fn from_json<T: serde::de::DeserializeOwned>(text: &str, what: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|e| damaged(&format!("{what}: {e}")))
}
