//! The audit trail: only ever appended to.

use super::{as_u64, broken, id_text, number};
use crate::store::{By, Result};
use crate::utc;
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

/// Sources that are told apart in one hour.
const SOURCES: i64 = 32;
/// Sources that the summary of an hour names.
const NAMED: usize = 4;
/// What the others are called.
const OTHERS: &str = "others";

/// Counts what anybody can do, without a credential: the first from each source in an hour is an entry, how many more
/// there were is one entry per hour. So strangers can't fill the trail.
pub fn count(
    tx: &Transaction<'_>,
    by: By<'_>,
    action: &str,
    source: &str,
    node: Option<NodeId>,
    detail: &str,
) -> Result<()> {
    const ADD: &str =
        "UPDATE strangers SET count = count + 1 WHERE hour = ?1 AND action = ?2 AND source = ?3";
    let hour = number(by.now / 3600);
    let add = |source: &str| {
        tx.prepare_cached(ADD).and_then(|mut add| add.execute(params![hour, action, source])).map_err(broken)
    };
    if add(source)? > 0 {
        return Ok(());
    }
    close(tx, by.now)?;
    let known: i64 = tx
        .prepare_cached("SELECT count(*) FROM strangers WHERE hour = ?1 AND action = ?2")
        .and_then(|mut query| query.query_row(params![hour, action], |row| row.get(0)))
        .map_err(broken)?;
    let source = if known < SOURCES { source } else { OTHERS };
    if source == OTHERS && add(OTHERS)? > 0 {
        return Ok(());
    }
    tx.prepare_cached("INSERT INTO strangers (hour, action, source, count) VALUES (?1, ?2, ?3, 1)")
        .and_then(|mut insert| insert.execute(params![hour, action, source]))
        .map_err(broken)?;
    append(tx, by, action, node, detail)
}

/// Writes down how many more there were in hours that are over.
pub fn close(tx: &Transaction<'_>, now: u64) -> Result<()> {
    let hour = number(now / 3600);
    let over: Vec<(i64, String, String, i64)> = tx
        .prepare_cached("SELECT hour, action, source, count FROM strangers WHERE hour < ?1 ORDER BY hour, action, count DESC")
        .and_then(|mut query| {
            let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
            query.query_map([hour], row)?.collect()
        })
        .map_err(broken)?;
    if over.is_empty() {
        return Ok(());
    }
    for same in over.chunk_by(|a, b| (a.0, &a.1) == (b.0, &b.1)) {
        let more: i64 = same.iter().map(|(.., count)| count - 1).sum();
        if more == 0 {
            continue;
        }
        let named: Vec<_> =
            same.iter().take(NAMED).map(|(_, _, source, count)| format!("{source} ({count})")).collect();
        let since = utc(as_u64(same[0].0) * 3600);
        let detail = format!("{more} more in the hour from {since}, most from {}", named.join(", "));
        append(tx, By { actor: "verifier", now }, &same[0].1, None, &detail)?;
    }
    tx.execute("DELETE FROM strangers WHERE hour < ?1", [hour]).map(drop).map_err(broken)
}

/// How many entries there are. None is ever deleted.
pub fn size(c: &Connection) -> Result<u64> {
    c.prepare_cached("SELECT coalesce(max(seq), 0) FROM audit")
        .and_then(|mut query| query.query_row([], |row| row.get(0)))
        .map(as_u64)
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
