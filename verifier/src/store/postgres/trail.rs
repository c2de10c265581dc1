//! The audit trail, and counts beside it.

use super::row::Found;
use super::session::Held;
use super::{PgTx, bound, stored};
use crate::store::{CountRow, Result, Trail};
use halfkey_protocol::NodeId;
use halfkey_protocol::wire::operator::AuditEntry;

/// Where it ends.
pub const END: &str = "SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1";

/// The row of that.
///
/// # Errors
/// When it is damaged.
pub fn end(row: &Found) -> Result<(u64, Option<[u8; 32]>)> {
    Ok((row.u64(0)?, hash(row, 1)?))
}

impl Trail for PgTx<'_> {
    fn hold_trail(&self) -> Result<()> {
        self.hold_trail_once()
    }

    fn hold_sweep(&self) -> Result<bool> {
        let sql = format!("SELECT {}", Held::Sweep.exclusive_now());
        Ok(self.first(&sql, &[], |row| row.get(0))?.unwrap_or(false))
    }

    fn audit_end(&self) -> Result<Option<(u64, Option<[u8; 32]>)>> {
        if let Some(end) = self.trail_end() {
            return Ok(end);
        }
        let found = self.first(END, &[], end)?;
        self.ends_trail(found);
        Ok(found)
    }

    fn audit_entry(&self, seq: u64) -> Result<Option<(AuditEntry, Option<[u8; 32]>)>> {
        const SQL: &str = "SELECT seq, at, actor, action, node_id, detail, hash FROM audit WHERE seq = $1";
        self.first(SQL, &[&bound(seq)], |row| Ok((entry(row)?, hash(row, 6)?)))
    }

    fn audit_entries(&self, after: Option<u64>, node: Option<NodeId>, limit: u64) -> Result<Vec<AuditEntry>> {
        let of_node = if node.is_some() { "node_id = $2" } else { "$2::TEXT IS NULL" };
        let order = if after.is_some() { "ASC" } else { "DESC" };
        let sql = format!(
            "SELECT seq, at, actor, action, node_id, detail FROM audit WHERE seq > $1 AND {of_node}
             ORDER BY seq {order} LIMIT $3"
        );
        let node = node.map(|node| node.to_string());
        let mut entries = self.all(&sql, &[&bound(after.unwrap_or(0)), &node, &bound(limit)], entry)?;
        if after.is_none() {
            entries.reverse();
        }
        Ok(entries)
    }

    fn insert_audit(&self, entry: &AuditEntry, hash: &[u8; 32]) -> Result<()> {
        const SQL: &str = "INSERT INTO audit (seq, at, actor, action, node_id, detail, hash)
                           VALUES ($1, $2, $3, $4, $5, $6, $7)";
        let AuditEntry { seq, at, actor, action, node_id, detail } = entry;
        let (number, at, sum) = (stored(*seq)?, stored(*at)?, hash.as_slice());
        self.change_later(SQL, &[&number, &at, actor, action, node_id, detail, &sum])?;
        self.ends_trail(Some((*seq, Some(*hash))));
        Ok(())
    }

    fn add_count(&self, hour: u64, action: &str, source: &str) -> Result<bool> {
        const SQL: &str = "UPDATE strangers SET count = least(greatest(count, 0), 1000000000) + 1
             WHERE hour = $1 AND action = $2 AND source = $3";
        let hour = stored(hour)?;
        if self.change(SQL, &[&hour, &action, &source])? > 0 {
            return Ok(true);
        }
        // A new count comes with an entry: nobody else begins the same one meanwhile.
        self.hold_trail_once()?;
        Ok(self.change(SQL, &[&hour, &action, &source])? > 0)
    }

    fn insert_count(&self, hour: u64, action: &str, source: &str) -> Result<()> {
        const SQL: &str = "INSERT INTO strangers (hour, action, source, count) VALUES ($1, $2, $3, 1)";
        self.change_later(SQL, &[&stored(hour)?, &action, &source])
    }

    fn counted_sources(&self, hour: u64, action: &str) -> Result<u64> {
        const SQL: &str = "SELECT count(*) FROM strangers WHERE hour = $1 AND action = $2";
        Ok(self.first(SQL, &[&bound(hour), &action], |row| row.u64(0))?.unwrap_or(0))
    }

    fn counts_before(&self, hour: u64) -> Result<Vec<CountRow>> {
        const SQL: &str = "SELECT hour, action, source, count FROM strangers WHERE hour < $1
                           ORDER BY hour, action, count DESC, source";
        // Who reads them writes an entry of them, and deletes them.
        self.hold_trail_once()?;
        self.all(SQL, &[&bound(hour)], |row| {
            Ok(CountRow { hour: row.u64(0)?, action: row.get(1)?, source: row.get(2)?, count: row.u64(3)? })
        })
    }

    fn delete_counts_before(&self, hour: u64) -> Result<()> {
        self.change_later("DELETE FROM strangers WHERE hour < $1", &[&bound(hour)])
    }

    fn set_meta(&self, key: &str, value: u64) -> Result<()> {
        const SQL: &str = "INSERT INTO meta (key, value) VALUES ($1, $2)
                           ON CONFLICT (key) DO UPDATE SET value = $2";
        self.change_later(SQL, &[&key, &stored(value)?])
    }
}

fn entry(row: &Found) -> Result<AuditEntry> {
    Ok(AuditEntry {
        seq: row.u64(0)?,
        at: row.u64(1)?,
        actor: row.get(2)?,
        action: row.get(3)?,
        node_id: row.get(4)?,
        detail: row.get(5)?,
    })
}

fn hash(row: &Found, column: usize) -> Result<Option<[u8; 32]>> {
    Ok(row.get::<Option<Vec<u8>>>(column)?.and_then(|hash| hash.try_into().ok()))
}
