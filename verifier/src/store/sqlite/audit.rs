//! The audit trail: only ever appended to.

use super::{as_u64, broken, id_text, number};
use crate::store::{By, Result};
use halfkey_protocol::NodeId;
use halfkey_protocol::wire::operator::AuditEntry;
use rusqlite::{Connection, Transaction, params};

/// Appends an entry, in the transaction of what it tells about.
pub fn append(
    tx: &Transaction<'_>,
    by: By<'_>,
    action: &str,
    node: Option<NodeId>,
    detail: &str,
) -> Result<()> {
    tx.prepare_cached("INSERT INTO audit (at, actor, action, node_id, detail) VALUES (?1, ?2, ?3, ?4, ?5)")
        .and_then(|mut insert| {
            insert.execute(params![number(by.now), by.actor, action, node.map(id_text), detail])
        })
        .map(|_| ())
        .map_err(broken)
}

/// Entries after `after`, or the newest; oldest first.
pub fn list(c: &Connection, after: Option<u64>, node: Option<NodeId>, limit: u64) -> Result<Vec<AuditEntry>> {
    const FIELDS: &str = "SELECT seq, at, actor, action, node_id, detail FROM audit";
    let node = node.map(id_text);
    let condition = match (after.is_some(), node.is_some()) {
        (_, true) => "WHERE seq > ?1 AND node_id = ?2",
        _ => "WHERE seq > ?1 AND ?2 IS NULL",
    };
    let order = if after.is_some() { "ASC" } else { "DESC" };
    let sql = format!("{FIELDS} {condition} ORDER BY seq {order} LIMIT ?3");
    let mut query = c.prepare_cached(&sql).map_err(broken)?;
    let rows = query.query_map(params![number(after.unwrap_or(0)), node, number(limit)], |row| {
        Ok(AuditEntry {
            seq: as_u64(row.get(0)?),
            at: as_u64(row.get(1)?),
            actor: row.get(2)?,
            action: row.get(3)?,
            node_id: row.get(4)?,
            detail: row.get(5)?,
        })
    });
    let mut entries: Vec<_> = rows.and_then(Iterator::collect).map_err(broken)?;
    if after.is_none() {
        entries.reverse();
    }
    Ok(entries)
}
