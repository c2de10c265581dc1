//! Reading a row. PostgreSQL's numbers are signed; ours are not.

use crate::store::{Result, StoreError};
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

/// A row that was found.
pub struct Found(pub Row);

impl Found {
    /// A column.
    ///
    /// # Errors
    /// `Damaged` if it is of another type, or none where there has to be one.
    pub fn get<'a, T: FromSql<'a>>(&'a self, column: usize) -> Result<T> {
        self.0.try_get(column).map_err(|e| StoreError::Damaged(e.to_string()))
    }

    /// A number. One that is negative is 0, as with SQLite: a time, a count or a number of nothing, and no reason to give up a list
    /// of others.
    ///
    /// # Errors
    /// `Damaged` if it is of another type, or none.
    pub fn u64(&self, column: usize) -> Result<u64> {
        Ok(u64::try_from(self.get::<i64>(column)?).unwrap_or(0))
    }

    /// The same where there may be none.
    ///
    /// # Errors
    /// `Damaged` if it is of another type.
    pub fn some_u64(&self, column: usize) -> Result<Option<u64>> {
        Ok(self.get::<Option<i64>>(column)?.map(|value| u64::try_from(value).unwrap_or(0)))
    }

    /// A counter of a TPM.
    ///
    /// # Errors
    /// `Damaged` if it is none of 32 bits.
    pub fn u32(&self, column: usize) -> Result<u32> {
        self.counter(column, self.get::<i64>(column)?)
    }

    /// The same where there may be none.
    ///
    /// # Errors
    /// As above.
    pub fn some_u32(&self, column: usize) -> Result<Option<u32>> {
        self.get::<Option<i64>>(column)?.map(|value| self.counter(column, value)).transpose()
    }

    /// The clock of a TPM, with all of its 64 bits: root of a machine sets it to what it likes (TPM 2.0 Part 3, TPM2_ClockSet). SQL
    /// does not compare it.
    ///
    /// # Errors
    /// When it is of another type.
    pub fn clock(&self, column: usize) -> Result<Option<u64>> {
        Ok(self.get::<Option<i64>>(column)?.map(i64::cast_unsigned))
    }

    /// SHA-256 of something.
    ///
    /// # Errors
    /// `Damaged` if it has another length.
    pub fn sum(&self, column: usize) -> Result<[u8; 32]> {
        let bytes: &[u8] = self.get(column)?;
        bytes.try_into().map_err(|_| {
            let what = format!("column {}: expected 32 bytes, found {}", self.name(column), bytes.len());
            StoreError::Damaged(what)
        })
    }

    fn counter(&self, column: usize, value: i64) -> Result<u32> {
        u32::try_from(value)
            .map_err(|_| StoreError::Damaged(format!("column {}: number {value}", self.name(column))))
    }

    fn name(&self, column: usize) -> &str {
        self.0.columns().get(column).map_or("?", |column| column.name())
    }
}
