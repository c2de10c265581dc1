//! `halfkey audit` and `watch`: the audit trail, as it is and as it grows.

use crate::client::resolve;
use crate::client::wait::{AT_MOST_EVERY, newest};
use crate::client::{Client, HOLD};
use crate::context::Context;
use crate::error::{Exit, Result};
use crate::render::text::{clean, clean_short};
use crate::render::time::rfc3339;
use crate::render::{Style, paint};
use comfy_table::Color;
use halfkey_protocol::NodeId;
use halfkey_protocol::wire::operator::AuditEntry;
use std::thread;
use std::time::{Duration, Instant};

/// Between two attempts to reach a server that went away, at most.
const SLOWEST: Duration = Duration::from_secs(30);

/// The newest entries of the audit trail; with `follow` also those that come.
///
/// # Errors
/// As every request.
pub fn audit(context: &Context, node: Option<&str>, limit: u32, follow: bool) -> Result<()> {
    let client = context.logged_in()?;
    let node = node.map(|node| resolve::resolve(&client, node)).transpose()?;
    let list = client.audit(node, limit)?;
    if !follow {
        return context.out.value(&list, || {
            let lines: Vec<_> = list.entries.iter().map(|entry| shown(entry, &context.style())).collect();
            if lines.is_empty() { "no entries".to_owned() } else { lines.join("\n") }
        });
    }
    for entry in &list.entries {
        print(context, entry)?;
    }
    self::follow(context, &client, node, newest(&list.entries).unwrap_or(0))
}

/// Entries as they come, after a number or from now on.
///
/// # Errors
/// As every request.
pub fn watch(context: &Context, node: Option<&str>, after: Option<u64>) -> Result<()> {
    let client = context.logged_in()?;
    let node = node.map(|node| resolve::resolve(&client, node)).transpose()?;
    let after = match after {
        Some(after) => after,
        None => newest(&client.audit(None, 1)?.entries).unwrap_or(0),
    };
    context.out.note(&format!("watching from entry {after} on"));
    self::follow(context, &client, node, after)
}

/// Prints entries as they come, until the reader goes away. A server that goes away is
/// waited for: a watch that ends in the night has watched nothing.
///
/// # Errors
/// When the server refuses, or is not the right one any more, or output can't be written.
pub fn follow(context: &Context, client: &Client, node: Option<NodeId>, mut after: u64) -> Result<()> {
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
                    print(context, entry)?;
                }
                after = newest(&list.entries).unwrap_or(after).max(after);
            }
            Err(error) if error.exit == Exit::Unreachable => {
                context.out.note(&format!("{error}; trying again in {} s", pause.as_secs()));
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
pub fn print(context: &Context, entry: &AuditEntry) -> Result<()> {
    context.out.line(entry, || shown(entry, &context.style()))
}

/// One line of the audit trail.
pub fn shown(entry: &AuditEntry, style: &Style) -> String {
    let node = entry.node_id.as_deref().map_or("-".to_owned(), |id| clean_short(id, 36));
    let action = format!("{:15}", clean_short(&entry.action, 16));
    let color = match entry.action.as_str() {
        "refuse" | "revoke" | "hold" | "deny" | "cloned" | "tpm_firmware" | "proposal_deny" => {
            Some(Color::Red)
        }
        "approve" | "restore" | "release" | "enroll" | "policy_apply" | "proposal_accept" => {
            Some(Color::Green)
        }
        _ => None,
    };
    format!(
        "{:6}  {}  {}  {node:36}  {}: {}",
        entry.seq,
        rfc3339(entry.at),
        paint(style, &action, color),
        clean_short(&entry.actor, 64),
        clean(&entry.detail)
    )
}
