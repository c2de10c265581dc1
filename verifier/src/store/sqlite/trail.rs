//! The audit trail, and counts beside it.

use super::{SqliteTx, id_text, number, shown, shown_u64, text, u64_at};
use crate::store::{CountRow, Result, Trail};
use halfkey_protocol::NodeId;
use halfkey_protocol::wire::operator::AuditEntry;
use rusqlite::{Row, params};

impl Trail for SqliteTx<'_> {
    fn hold_trail(&self) -> Result<()> {
        Ok(())
    }

    fn hold_sweep(&self) -> Result<bool> {
        Ok(true)
    }

    fn audit_end(&self) -> Result<Option<(u64, Option<[u8; 32]>)>> {
        const SQL: &str = "SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1";
        self.first(SQL, [], |row| Ok((u64_at(row, 0)?, hash(row, 1)?)))
    }

    fn audit_entry(&self, seq: u64) -> Result<Option<(AuditEntry, Option<[u8; 32]>)>> {
        const SQL: &str = "SELECT seq, at, actor, action, node_id, detail, hash FROM audit WHERE seq = ?1";
        self.first(SQL, [number(seq)], |row| Ok((entry(row)?, hash(row, 6)?)))
    }

    fn audit_entries(&self, after: Option<u64>, node: Option<NodeId>, limit: u64) -> Result<Vec<AuditEntry>> {
        let of_node = if node.is_some() { "node_id = ?2" } else { "?2 IS NULL" };
        let order = if after.is_some() { "ASC" } else { "DESC" };
        let sql = format!(
            "SELECT seq, at, actor, action, node_id, detail FROM audit WHERE seq > ?1 AND {of_node}
             ORDER BY seq {order} LIMIT ?3"
        );
        let values = params![number(after.unwrap_or(0)), node.map(id_text), number(limit)];
        let mut entries = self.all(&sql, values, entry)?;
        if after.is_none() {
            entries.reverse();
        }
        Ok(entries)
    }

    fn insert_audit(&self, entry: &AuditEntry, hash: &[u8; 32]) -> Result<()> {
        const SQL: &str = "INSERT INTO audit (seq, at, actor, action, node_id, detail, hash)
                           VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        let AuditEntry { seq, at, actor, action, node_id, detail } = entry;
        self.change(SQL, params![number(*seq), number(*at), actor, action, node_id, detail, hash]).map(drop)
    }

    fn add_count(&self, hour: u64, action: &str, source: &str) -> Result<bool> {
        const SQL: &str =
            "UPDATE strangers SET count = count + 1 WHERE hour = ?1 AND action = ?2 AND source = ?3";
        Ok(self.change(SQL, params![number(hour), action, source])? > 0)
    }

    fn insert_count(&self, hour: u64, action: &str, source: &str) -> Result<()> {
        const SQL: &str = "INSERT INTO strangers (hour, action, source, count) VALUES (?1, ?2, ?3, 1)";
        self.change(SQL, params![number(hour), action, source]).map(drop)
    }

    fn counted_sources(&self, hour: u64, action: &str) -> Result<u64> {
        const SQL: &str = "SELECT count(*) FROM strangers WHERE hour = ?1 AND action = ?2";
        Ok(self.first(SQL, params![number(hour), action], |row| u64_at(row, 0))?.unwrap_or(0))
    }

    fn counts_before(&self, hour: u64) -> Result<Vec<CountRow>> {
        const SQL: &str = "SELECT hour, action, source, count FROM strangers WHERE hour < ?1
                           ORDER BY hour, action, count DESC, source";
        self.all(SQL, [number(hour)], |row| {
            Ok(CountRow {
                hour: shown_u64(row, 0)?,
                action: text(row, 1)?,
                source: text(row, 2)?,
                count: shown_u64(row, 3)?,
            })
        })
    }

    fn delete_counts_before(&self, hour: u64) -> Result<()> {
        self.change("DELETE FROM strangers WHERE hour < ?1", [number(hour)]).map(drop)
    }

    fn set_meta(&self, key: &str, value: u64) -> Result<()> {
        const SQL: &str = "INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)";
        self.change(SQL, params![key, number(value)]).map(drop)
    }
}

fn entry(row: &Row<'_>) -> rusqlite::Result<AuditEntry> {
    Ok(AuditEntry {
        seq: u64_at(row, 0)?,
        at: u64_at(row, 1)?,
        // One that is no UTF-8 is another text than its hash is over.
        actor: text(row, 2)?,
        action: text(row, 3)?,
        node_id: shown(row, 4)?,
        detail: text(row, 5)?,
    })
}

fn hash(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<[u8; 32]>> {
    Ok(row.get::<_, Option<Vec<u8>>>(column)?.and_then(|hash| hash.try_into().ok()))
}
