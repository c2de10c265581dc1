//! Why something was not done.

use crate::store::StoreError;
use halfkey_evidence::Rejection;
use halfkey_protocol::Reason;
use std::fmt;

/// Why something was not read or not changed. Nothing was changed, but for [`StoreError::Undecided`].
#[derive(Clone, Debug)]
pub enum Error {
    /// What is recorded does not allow it: the reason, and what was expected and found.
    Refused(Reason, String),
    /// The database can't do its work, or is damaged.
    Store(StoreError),
}

/// Shorthand.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A row that this program can't have written.
    pub fn damaged(what: impl Into<String>) -> Self {
        Self::Store(StoreError::Damaged(what.into()))
    }

    /// The database can't do its work.
    pub fn unavailable(what: impl Into<String>) -> Self {
        Self::Store(StoreError::Unavailable(what.into()))
    }
}

impl From<StoreError> for Error {
    fn from(e: StoreError) -> Self {
        Self::Store(e)
    }
}

impl From<Rejection> for Error {
    fn from(e: Rejection) -> Self {
        Self::Refused(e.reason, e.detail)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(reason, what) => write!(f, "{reason}: {what}"),
            Self::Store(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

/// The default, and why, where a row is damaged: what it says is missing then, and what does not need it goes on.
///
/// # Errors
/// Every other one.
pub fn legible<T: Default>(read: Result<T>) -> Result<(T, Option<String>)> {
    match read {
        Ok(found) => Ok((found, None)),
        Err(Error::Store(StoreError::Damaged(why))) => Ok((T::default(), Some(why))),
        Err(e) => Err(e),
    }
}

/// As it is kept in a column.
///
/// # Errors
/// Never, but for a mistake in this program.
pub fn json<T: serde::Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Error::unavailable(format!("our bug: {e}")))
}
