//! Every row, as it is, for [`crate::store::moving`].

use super::{Sqlite, broken};
use crate::store::Result;
use crate::store::moving::{Column, Kind, Value, unfit};
use rusqlite::Transaction;
use rusqlite::types::ValueRef;
use std::sync::PoisonError;

impl Sqlite {
    /// Reads all tables as they are at one moment.
    ///
    /// # Errors
    /// When they can't be read, and what `work` says.
    pub fn export(&self, work: &mut dyn FnMut(&Export<'_>) -> Result<()>) -> Result<()> {
        let mut connection = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let tx = connection.transaction().map_err(broken)?;
        work(&Export(tx))
    }
}

/// The tables at that moment.
pub struct Export<'a>(Transaction<'a>);

impl Export<'_> {
    /// Every row of a table.
    ///
    /// # Errors
    /// When one can't be read or has something else in a column, and what `each` says.
    pub fn rows(
        &self,
        table: &str,
        columns: &[Column],
        each: &mut dyn FnMut(Vec<Value>) -> Result<()>,
    ) -> Result<()> {
        let names: Vec<_> = columns.iter().map(|column| column.name.as_str()).collect();
        let sql = format!("SELECT {} FROM {table}", names.join(", "));
        let mut query = self.0.prepare(&sql).map_err(broken)?;
        let mut rows = query.query([]).map_err(broken)?;
        let mut number = 0;
        while let Some(row) = rows.next().map_err(broken)? {
            number += 1;
            let value = |(place, column): (usize, &Column)| {
                let found = row.get_ref(place).map_err(broken)?;
                value(found, column.kind).ok_or_else(|| unfit(table, &column.name, number))
            };
            each(columns.iter().enumerate().map(value).collect::<Result<_>>()?)?;
        }
        Ok(())
    }

    /// The last number that a row of this table was given.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn last_number(&self, table: &str) -> Result<i64> {
        let sql = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = ?1";
        self.0.query_row(sql, [table], |row| row.get(0)).map_err(broken)
    }
}

fn value(found: ValueRef<'_>, kind: Kind) -> Option<Value> {
    Some(match (kind, found) {
        (Kind::Number, ValueRef::Integer(number)) => Value::Number(Some(number)),
        (Kind::Number, ValueRef::Null) => Value::Number(None),
        (Kind::Flag, ValueRef::Integer(number @ (0 | 1))) => Value::Flag(Some(number == 1)),
        (Kind::Flag, ValueRef::Null) => Value::Flag(None),
        (Kind::Text, ValueRef::Text(text)) if !text.contains(&0) => {
            Value::Text(Some(std::str::from_utf8(text).ok()?.to_owned()))
        }
        (Kind::Text, ValueRef::Null) => Value::Text(None),
        (Kind::Bytes, ValueRef::Blob(bytes)) => Value::Bytes(Some(bytes.to_vec())),
        (Kind::Bytes, ValueRef::Null) => Value::Bytes(None),
        _ => return None,
    })
}
