//! What webhooks are to tell.

use super::row::Found;
use super::{PgTx, bound, stored};
use crate::store::{NoticeRow, Notices, Result};

impl Notices for PgTx<'_> {
    fn insert_notice(&self, row: &NoticeRow) -> Result<()> {
        const SQL: &str = "INSERT INTO notices (endpoint, message, at, body, attempts, due)
                           VALUES ($1, $2, $3, $4, $5, $6)";
        let NoticeRow { id: _, endpoint, message, at, body, attempts, due } = row;
        let (at, attempts, due) = (stored(*at)?, stored(*attempts)?, stored(*due)?);
        self.change_later(SQL, &[endpoint, message, &at, body, &attempts, &due])
    }

    /// What another server is taking is left to it.
    fn take_notices(&self, endpoint: &str, now: u64, until: u64, limit: u64) -> Result<Vec<NoticeRow>> {
        const SQL: &str = "UPDATE notices SET due = $3, attempts = attempts + 1 WHERE id IN
             (SELECT id FROM notices WHERE endpoint = $1 AND due <= $2 ORDER BY id LIMIT $4 FOR UPDATE SKIP LOCKED)
             RETURNING id, endpoint, message, at, body, attempts, due";
        let values = (bound(now), stored(until)?, bound(limit));
        let mut taken = self.all(SQL, &[&endpoint, &values.0, &values.1, &values.2], read)?;
        taken.sort_by_key(|row| row.id);
        Ok(taken)
    }

    fn put_off_notice(&self, id: u64, until: u64) -> Result<()> {
        self.change_later("UPDATE notices SET due = $2 WHERE id = $1", &[&bound(id), &stored(until)?])
    }

    fn delete_notice(&self, id: u64) -> Result<()> {
        self.change_later("DELETE FROM notices WHERE id = $1", &[&bound(id)])
    }

    fn trim_notices(&self, endpoint: &str, keep: u64) -> Result<u64> {
        // Two servers that begin at the same time don't wait for each other.
        const SQL: &str = "DELETE FROM notices WHERE id IN
             (SELECT id FROM notices WHERE endpoint = $1 AND id <=
                  (SELECT id FROM notices WHERE endpoint = $1 ORDER BY id DESC LIMIT 1 OFFSET $2)
              FOR UPDATE SKIP LOCKED)";
        self.change(SQL, &[&endpoint, &bound(keep)])
    }

    fn delete_notices_before(&self, at: u64) -> Result<u64> {
        self.change("DELETE FROM notices WHERE at < $1", &[&bound(at)])
    }

    fn count_notices(&self, endpoint: &str, now: u64) -> Result<(u64, u64)> {
        const SQL: &str =
            "SELECT count(*), count(*) FILTER (WHERE due <= $2) FROM notices WHERE endpoint = $1";
        let counted = |row: &Found| Ok((row.u64(0)?, row.u64(1)?));
        Ok(self.first(SQL, &[&endpoint, &bound(now)], counted)?.unwrap_or_default())
    }
}

fn read(row: &Found) -> Result<NoticeRow> {
    Ok(NoticeRow {
        id: row.u64(0)?,
        endpoint: row.get(1)?,
        message: row.get(2)?,
        at: row.u64(3)?,
        body: row.get(4)?,
        attempts: row.u64(5)?,
        due: row.u64(6)?,
    })
}
