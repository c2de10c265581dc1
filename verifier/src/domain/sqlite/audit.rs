//! The audit trail: only ever appended to. Each entry has a hash over it and the hash of the one before, so that the last one names
//! them all.

use super::{as_u64, broken, id_text, number, shown};
use crate::domain::kept::Trail;
use crate::domain::{By, Result};
use crate::utc;
use aws_lc_rs::digest::{Context, SHA256};
use halfkey_protocol::NodeId;
use halfkey_protocol::document::Place;
use halfkey_protocol::wire::operator::AuditEntry;
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

/// Appends an entry, in the transaction of what it tells about.
pub fn append(
    tx: &Transaction<'_>,
    by: By<'_>,
    action: &str,
    node: Option<NodeId>,
    detail: &str,
) -> Result<()> {
    let before = end(tx)?;
    let entry = AuditEntry {
        seq: before.number + 1,
        at: by.now,
        actor: by.actor.to_owned(),
        action: action.to_owned(),
        node_id: node.map(id_text),
        detail: detail.to_owned(),
    };
    let hash = chained(&before.sha256, &entry);
    let AuditEntry { seq, at, actor, action, node_id, detail } = entry;
    tx.prepare_cached(
        "INSERT INTO audit (seq, at, actor, action, node_id, detail, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )
    .and_then(|mut insert| {
        insert.execute(params![number(seq), number(at), actor, action, node_id, detail, hash])
    })
    .map(|_| ())
    .map_err(broken)
}

/// SHA-256 over the hash of the entry before, and each field with its length.
fn chained(before: &[u8; 32], entry: &AuditEntry) -> [u8; 32] {
    let AuditEntry { seq, at, actor, action, node_id, detail } = entry;
    let mut context = Context::new(&SHA256);
    let mut field = |bytes: &[u8]| {
        context.update(&(bytes.len() as u64).to_be_bytes());
        context.update(bytes);
    };
    field(before);
    field(&seq.to_be_bytes());
    field(&at.to_be_bytes());
    field(actor.as_bytes());
    field(action.as_bytes());
    // None and an empty one are not the same.
    field(&[u8::from(node_id.is_some())]);
    field(node_id.as_deref().unwrap_or_default().as_bytes());
    field(detail.as_bytes());
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
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

/// Where it ends: the number of the last entry, and its hash. None is ever deleted.
pub fn end(c: &Connection) -> Result<Place> {
    let last = c
        .prepare_cached("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1")
        .and_then(|mut query| query.query_row([], hashed).optional())
        .map_err(broken)?;
    Ok(last
        .map_or_else(Place::default, |(seq, hash)| Place { number: seq, sha256: hash.unwrap_or_default() }))
}

/// Where it ends, and the hash of entry `at`, if it is that of what the entry says.
pub fn trail(c: &Connection, at: u64) -> Result<Trail> {
    let mut query = c.prepare_cached("SELECT seq, hash FROM audit WHERE seq = ?1").map_err(broken)?;
    let mut hash = |seq: u64| -> Result<Option<[u8; 32]>> {
        let found = query.query_row([number(seq)], hashed).optional().map_err(broken)?;
        Ok(found.and_then(|(_, hash)| hash))
    };
    let (before, found) = (hash(at.saturating_sub(1))?.unwrap_or_default(), hash(at)?);
    let entry = list(c, Some(at.saturating_sub(1)), None, 1)?.pop().filter(|entry| entry.seq == at);
    let entry = found.zip(entry).filter(|(hash, entry)| chained(&before, entry) == *hash);
    Ok(Trail { end: end(c)?, entry: entry.map(|(hash, _)| hash) })
}

fn hashed(row: &rusqlite::Row<'_>) -> rusqlite::Result<(u64, Option<[u8; 32]>)> {
    let hash: Option<Vec<u8>> = row.get(1)?;
    Ok((as_u64(row.get(0)?), hash.and_then(|hash| hash.try_into().ok())))
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
            // One that is no UTF-8 is another text than its hash is over.
            actor: shown(row, 2)?.unwrap_or_default(),
            action: shown(row, 3)?.unwrap_or_default(),
            node_id: shown(row, 4)?,
            detail: shown(row, 5)?.unwrap_or_default(),
        })
    });
    let mut entries: Vec<_> = rows.and_then(Iterator::collect).map_err(broken)?;
    if after.is_none() {
        entries.reverse();
    }
    Ok(entries)
}
