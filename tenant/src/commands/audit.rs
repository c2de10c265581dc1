//! The audit trail as it grows.

use crate::client::{Client, HOLD};
use crate::context::App;
use crate::error::{Error, Exit, Result};
use crate::render;
use halfkey_protocol::NodeId;
use halfkey_protocol::wire::operator::{AuditEntry, NodeRecord};
use std::thread;
use std::time::{Duration, Instant};

/// Between two attempts to reach a server that went away, at most.
const SLOWEST: Duration = Duration::from_secs(30);

/// A server that answers at once although it should hold the request is not asked more often than this.
const AT_MOST_EVERY: Duration = Duration::from_secs(1);

/// Prints entries as they come, until the reader goes away. A server that goes away is
/// waited for: a watch that ends in the night has watched nothing.
///
/// # Errors
/// When the server refuses, or is not the right one any more, or output can't be written.
pub fn follow(app: &App, client: &Client, node: Option<NodeId>, mut after: u64) -> Result<()> {
    let mut pause = AT_MOST_EVERY;
    loop {
        let asked = Instant::now();
        match client.audit_after(node, after, HOLD) {
            Ok(list) => {
                pause = AT_MOST_EVERY;
                if list.entries.is_empty() && asked.elapsed() < AT_MOST_EVERY {
                    thread::sleep(AT_MOST_EVERY);
                }
                for entry in &list.entries {
                    print(app, entry)?;
                }
                after = newest(&list.entries).unwrap_or(after).max(after);
            }
            Err(error) if error.exit == Exit::Unreachable => {
                app.out.note(&format!("{error}; trying again in {} s", pause.as_secs()));
                thread::sleep(pause);
                pause = (pause * 2).min(SLOWEST);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Prints one entry: a line, or a line of JSON.
///
/// # Errors
/// When output can't be written.
pub fn print(app: &App, entry: &AuditEntry) -> Result<()> {
    app.out.line(entry, || render::audit_entry(entry, &app.style()))
}

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
