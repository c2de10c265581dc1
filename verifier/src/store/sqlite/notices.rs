//! What webhooks are to tell.

use super::{SqliteTx, number, u64_at};
use crate::store::{NoticeRow, Notices, Result};
use rusqlite::{Row, params};

impl Notices for SqliteTx<'_> {
    fn insert_notice(&self, row: &NoticeRow) -> Result<()> {
        const SQL: &str = "INSERT INTO notices (endpoint, message, at, body, attempts, due)
                           VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let NoticeRow { id: _, endpoint, message, at, body, attempts, due } = row;
        let (at, attempts, due) = (number(*at), number(*attempts), number(*due));
        self.change(SQL, params![endpoint, message, at, body, attempts, due]).map(drop)
    }

    fn take_notices(&self, endpoint: &str, now: u64, until: u64, limit: u64) -> Result<Vec<NoticeRow>> {
        const SQL: &str = "UPDATE notices SET due = ?3, attempts = attempts + 1 WHERE id IN
             (SELECT id FROM notices WHERE endpoint = ?1 AND due <= ?2 ORDER BY id LIMIT ?4)
             RETURNING id, endpoint, message, at, body, attempts, due";
        let values = params![endpoint, number(now), number(until), number(limit)];
        let mut taken = self.all(SQL, values, read)?;
        taken.sort_by_key(|row| row.id);
        Ok(taken)
    }

    fn put_off_notice(&self, id: u64, until: u64) -> Result<()> {
        self.change("UPDATE notices SET due = ?2 WHERE id = ?1", [number(id), number(until)]).map(drop)
    }

    fn delete_notice(&self, id: u64) -> Result<()> {
        self.change("DELETE FROM notices WHERE id = ?1", [number(id)]).map(drop)
    }

    fn trim_notices(&self, endpoint: &str, keep: u64) -> Result<u64> {
        const SQL: &str = "DELETE FROM notices WHERE endpoint = ?1 AND id <=
             (SELECT id FROM notices WHERE endpoint = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)";
        Ok(self.change(SQL, params![endpoint, number(keep)])? as u64)
    }

    fn delete_notices_before(&self, at: u64) -> Result<u64> {
        Ok(self.change("DELETE FROM notices WHERE at < ?1", [number(at)])? as u64)
    }

    fn count_notices(&self, endpoint: &str, now: u64) -> Result<(u64, u64)> {
        const SQL: &str =
            "SELECT count(*), count(*) FILTER (WHERE due <= ?2) FROM notices WHERE endpoint = ?1";
        let counted = |row: &Row<'_>| Ok((u64_at(row, 0)?, u64_at(row, 1)?));
        Ok(self.first(SQL, params![endpoint, number(now)], counted)?.unwrap_or_default())
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<NoticeRow> {
    Ok(NoticeRow {
        id: u64_at(row, 0)?,
        endpoint: row.get(1)?,
        message: row.get(2)?,
        at: u64_at(row, 3)?,
        body: row.get(4)?,
        attempts: u64_at(row, 5)?,
        due: u64_at(row, 6)?,
    })
}
