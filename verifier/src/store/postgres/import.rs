//! Rows as they were elsewhere, for [`crate::store::moving`].

use super::row::Found;
use super::{PgTx, Postgres};
use crate::store::moving::{Column, Kind, Value};
use crate::store::{Changes, Result, StoreError, Then};
use tokio_postgres::types::ToSql;

impl Postgres {
    /// Adds rows in one transaction, which is undone if `work` says no.
    ///
    /// # Errors
    /// When the database can't be written.
    pub fn import(&self, work: &mut dyn FnMut(&Import<'_>) -> bool) -> Result<()> {
        self.write_rows(Changes::Documents, &|_| (), &mut |tx| match work(&Import(tx)) {
            true => Then::Commit,
            false => Then::RollBack,
        })
    }
}

/// The tables, in that transaction.
pub struct Import<'a>(&'a PgTx<'a>);

impl Import<'_> {
    /// Columns of a table, without those that mean nothing elsewhere.
    ///
    /// # Errors
    /// When they can't be read.
    pub fn columns(&self, table: &str) -> Result<Vec<Column>> {
        const SQL: &str = "SELECT column_name::TEXT, data_type::TEXT FROM information_schema.columns
            WHERE table_schema = current_schema() AND table_name = $1
              AND NOT ($1 = 'registrations' AND column_name = 'id')
            ORDER BY ordinal_position";
        self.0.all(SQL, &[&table], |row: &Found| {
            let kind = match row.get::<&str>(1)? {
                "bigint" => Kind::Number,
                "boolean" => Kind::Flag,
                "text" => Kind::Text,
                "bytea" => Kind::Bytes,
                other => return Err(StoreError::Unavailable(format!("our bug: a column of type {other}"))),
            };
            Ok(Column { name: row.get(0)?, kind })
        })
    }

    /// Adds a row.
    ///
    /// # Errors
    /// When it can't be kept.
    pub fn insert(&self, table: &str, columns: &[Column], values: &[Value]) -> Result<()> {
        let names: Vec<_> = columns.iter().map(|column| column.name.as_str()).collect();
        let places: Vec<_> = (1..=columns.len()).map(|place| format!("${place}")).collect();
        let sql = format!(
            "INSERT INTO {table} ({}) OVERRIDING SYSTEM VALUE VALUES ({})",
            names.join(", "),
            places.join(", ")
        );
        let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(bare).collect();
        self.0.change(&sql, &values).map(drop)
    }

    /// The next number of a table is after this one.
    ///
    /// # Errors
    /// When that can't be kept.
    pub fn go_on_from(&self, table: &str, last: i64) -> Result<()> {
        const SQL: &str =
            "SELECT setval(pg_get_serial_sequence($1, 'id')::REGCLASS, greatest($2::BIGINT, 1), $2 > 0)";
        self.0.rows(SQL, &[&table, &last]).map(drop)
    }
}

fn bare(value: &Value) -> &(dyn ToSql + Sync) {
    match value {
        Value::Number(number) => number,
        Value::Flag(flag) => flag,
        Value::Text(text) => text,
        Value::Bytes(bytes) => bytes,
    }
}
