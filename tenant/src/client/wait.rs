//! Waiting for a change of a node, by the audit trail.

use super::Client;
use crate::error::{Error, Result};
use halfkey_protocol::NodeId;
use halfkey_protocol::wire::operator::{AuditEntry, NodeRecord};
use std::thread;
use std::time::{Duration, Instant};

/// A server that answers at once although it should hold the request is not asked more often than this.
pub(crate) const AT_MOST_EVERY: Duration = Duration::from_secs(1);

/// The number of the last entry.
pub fn newest(entries: &[AuditEntry]) -> Option<u64> {
    entries.iter().map(|entry| entry.seq).max()
}

/// Waits until a node's record is as wanted; `None` when the time is over.
///
/// # Errors
/// As every request.
pub fn wait_for(
    client: &Client,
    id: NodeId,
    limit: Duration,
    wanted: impl Fn(&NodeRecord) -> bool,
) -> Result<Option<NodeRecord>> {
    let deadline =
        Instant::now().checked_add(limit).ok_or_else(|| Error::usage("expected a shorter wait"))?;
    // The trail's end first, then the record: a change in between is not missed.
    let mut after = newest(&client.audit(None, 1)?.entries).unwrap_or(0);
    loop {
        let record = client.node(id)?;
        if wanted(&record) {
            return Ok(Some(record));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let asked = Instant::now();
        let list = client.audit_after(Some(id), after, left.max(AT_MOST_EVERY))?;
        if list.entries.is_empty() && asked.elapsed() < AT_MOST_EVERY {
            thread::sleep(AT_MOST_EVERY.min(left));
        }
        after = newest(&list.entries).unwrap_or(after).max(after);
    }
}
