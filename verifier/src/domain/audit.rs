//! The audit trail: only ever appended to. Each entry has a hash over it and the hash of the one before, so that the last one names
//! them all.

use super::state_file::TrailEnd;
use super::{Result, TxView};
use crate::events::Event;
use crate::store::Tx;
use crate::utc;
use aws_lc_rs::digest::{Context, SHA256};
use halfkey_protocol::NodeId;
use halfkey_protocol::document::Place;
use halfkey_protocol::wire::operator::AuditEntry;

/// Who does something, and when.
#[derive(Clone, Copy, Debug)]
pub struct By<'a> {
    /// Common name of the certificate.
    pub actor: &'a str,
    /// Seconds since 1970.
    pub now: u64,
}

/// Longest detail of an entry, in bytes. It is for people; the whole of what a machine said is with the evidence.
const DETAIL: usize = 1 << 10;

/// Appends an entry, in the transaction of what it tells about. Of a detail that is too long it has the beginning.
///
/// # Errors
/// When the database can't be written.
pub fn append(view: &TxView<'_>, by: By<'_>, action: &str, node: Option<NodeId>, detail: &str) -> Result<()> {
    view.rows.hold_trail()?;
    let before = end(view.rows)?;
    let entry = AuditEntry {
        seq: before.number + 1,
        at: by.now,
        actor: by.actor.to_owned(),
        action: action.to_owned(),
        node_id: node.map(|node| node.to_string()),
        detail: shortened("", detail, ""),
    };
    view.rows.insert_audit(&entry, &chained(&before.sha256, &entry))?;
    view.emit(Event::Audited(entry.seq));
    Ok(())
}

/// A detail: a text that can be long, and what an entry has to have before and after it.
pub fn shortened(before: &str, text: &str, after: &str) -> String {
    const REST: &str = " ...";
    let room = DETAIL.saturating_sub(before.len() + after.len());
    match text.len() <= room {
        true => format!("{before}{text}{after}"),
        false => {
            let cut = text.floor_char_boundary(room.saturating_sub(REST.len()));
            format!("{before}{}{REST}{after}", &text[..cut])
        }
    }
}

/// SHA-256 over the hash of the entry before, and each field with its length.
pub fn chained(before: &[u8; 32], entry: &AuditEntry) -> [u8; 32] {
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

/// Entries of one kind about one node in an hour, from which on what says the same once more is counted.
pub const OFTEN: usize = 20;
/// Newest entries of a node that are looked at for these.
const RECENT: u64 = 64;

/// Appends what a machine brought about that proved which it is. The trail keeps all that it has, and such a machine can ask each second:
/// beyond [`OFTEN`] in an hour only the first with this `outcome`, with which `detail` begins, is an entry; the others are
/// counted, as in [`count`].
///
/// # Errors
/// When the database can't be written.
pub fn append_seldom(
    view: &TxView<'_>,
    by: By<'_>,
    action: &str,
    node: NodeId,
    outcome: &str,
    detail: &str,
) -> Result<()> {
    let mut recent = view.rows.audit_entries(None, Some(node), RECENT)?;
    recent.retain(|entry| entry.action == action && entry.at / 3600 == by.now / 3600);
    if recent.len() < OFTEN || !recent.iter().any(|entry| entry.detail.starts_with(outcome)) {
        return append(view, by, action, Some(node), detail);
    }
    count(view, by, action, &node.to_string(), Some(node), detail)
}

/// Sources that are told apart in one hour.
const SOURCES: u64 = 32;
/// Sources that the summary of an hour names.
const NAMED: usize = 4;
/// What the others are called.
const OTHERS: &str = "others";

/// Counts what anybody can do, without a credential: the first from each source in an hour is an entry, how many more
/// there were is one entry per hour. So strangers can't fill the trail.
///
/// # Errors
/// When the database can't be written.
pub fn count(
    view: &TxView<'_>,
    by: By<'_>,
    action: &str,
    source: &str,
    node: Option<NodeId>,
    detail: &str,
) -> Result<()> {
    let (rows, hour) = (view.rows, by.now / 3600);
    if rows.add_count(hour, action, source)? {
        return Ok(());
    }
    close(view, by.now)?;
    let source = if rows.counted_sources(hour, action)? < SOURCES { source } else { OTHERS };
    if source == OTHERS && rows.add_count(hour, action, OTHERS)? {
        return Ok(());
    }
    rows.insert_count(hour, action, source)?;
    append(view, by, action, node, detail)
}

/// Writes down how many more there were in hours that are over.
///
/// # Errors
/// When the database can't be written.
pub fn close(view: &TxView<'_>, now: u64) -> Result<()> {
    let hour = now / 3600;
    let over = view.rows.counts_before(hour)?;
    if over.is_empty() {
        return Ok(());
    }
    for same in over.chunk_by(|a, b| (a.hour, &a.action) == (b.hour, &b.action)) {
        let more: u64 = same.iter().fold(0, |more, row| more.saturating_add(row.count.saturating_sub(1)));
        if more == 0 {
            continue;
        }
        let named: Vec<_> =
            same.iter().take(NAMED).map(|row| format!("{} ({})", row.source, row.count)).collect();
        let since = utc(same[0].hour * 3600);
        let detail = format!("{more} more in the hour from {since}, most from {}", named.join(", "));
        append(view, By { actor: "verifier", now }, &same[0].action, None, &detail)?;
    }
    Ok(view.rows.delete_counts_before(hour)?)
}

/// Entries that are looked at for news at once: of those beyond, who waits hears when it asks again.
const NEWS: u64 = 1000;

/// What happened by entries after this one, that who waits wants to know and no document says.
///
/// # Errors
/// When the database can't be read.
pub fn news(rows: &dyn Tx, after: u64) -> Result<Vec<Event>> {
    let entries = rows.audit_entries(Some(after), None, NEWS)?;
    let decided = entries.iter().filter(|entry| matches!(entry.action.as_str(), "approve" | "deny"));
    let nodes = decided.filter_map(|entry| NodeId::parse(entry.node_id.as_deref()?));
    let nodes = nodes.map(Event::NodeChanged);
    Ok(nodes.chain(entries.last().map(|last| Event::Audited(last.seq))).collect())
}

/// Where it ends: the number of the last entry, and its hash. None is ever deleted.
///
/// # Errors
/// When the database can't be read.
pub fn end(rows: &dyn Tx) -> Result<Place> {
    let last = rows.audit_end()?;
    Ok(last
        .map_or_else(Place::default, |(seq, hash)| Place { number: seq, sha256: hash.unwrap_or_default() }))
}

/// Where it ends, and the hash of entry `at`, if it is that of what the entry says.
///
/// # Errors
/// When the database can't be read.
pub fn trail(rows: &dyn Tx, at: u64) -> Result<TrailEnd> {
    let before = rows.audit_entry(at.saturating_sub(1))?.and_then(|(_, hash)| hash).unwrap_or_default();
    let entry = match rows.audit_entry(at)? {
        Some((entry, Some(hash))) if chained(&before, &entry) == hash => Some(hash),
        Some(_) | None => None,
    };
    Ok(TrailEnd { end: end(rows)?, entry })
}
