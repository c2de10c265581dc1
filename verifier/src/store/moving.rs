//! Moving the rows of one back end to another, all or none of them.

use super::postgres::Postgres;
use super::sqlite::Sqlite;
use super::{Result, StoreError};

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Whole numbers.
    Number,
    /// Yes or no; 1 or 0 in SQLite.
    Flag,
    /// UTF-8 without NUL.
    Text,
    /// Anything.
    Bytes,
}

/// A column of a table.
#[derive(Clone, Debug)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub kind: Kind,
}

/// What is in a column of a row.
#[derive(Clone, Debug)]
pub enum Value {
    /// A number, or none.
    Number(Option<i64>),
    /// Yes or no, or none.
    Flag(Option<bool>),
    /// A text, or none.
    Text(Option<String>),
    /// Bytes, or none.
    Bytes(Option<Vec<u8>>),
}

/// Tables, those that others refer to first. `strangers` and the others have the same columns everywhere.
pub const TABLES: [&str; 16] = [
    "meta",
    "clients",
    "registrations",
    "strangers",
    "documents",
    "nodes",
    "enrollments",
    "tenant_keys",
    "boots",
    "logs",
    "evidence",
    "policies",
    "proposals",
    "trust_given",
    "audit",
    "notices",
];

/// Tables whose rows have numbers that are given once.
pub const NUMBERED: [&str; 4] = ["logs", "evidence", "proposals", "notices"];

/// Copies every row; gives how many. No server may use either of them.
///
/// # Errors
/// When a row can't be read or kept: then none is.
pub fn copy(from: &Sqlite, to: &Postgres) -> Result<usize> {
    let (mut rows, mut copied) = (0, Ok(()));
    to.import(&mut |import| {
        rows = 0;
        copied = from.export(&mut |export| {
            for table in TABLES {
                let columns = import.columns(table)?;
                export.rows(table, &columns, &mut |values| {
                    rows += 1;
                    import.insert(table, &columns, &values)
                })?;
            }
            for table in NUMBERED {
                import.go_on_from(table, export.last_number(table)?)?;
            }
            Ok(())
        });
        copied.is_ok()
    })?;
    copied.map(|()| rows)
}

/// A row that is not what its table holds.
pub fn unfit(table: &str, column: &str, row: i64) -> StoreError {
    StoreError::Damaged(format!("table {table}, row {row}: what is in {column} can't be moved"))
}
