//! `approve`, `deny`, `revoke`, `restore`: what an operator decides.

use crate::app::App;
use crate::ask::confirm;
use crate::client::Client;
use crate::error::{Error, Exit, Result};
use crate::text::clean;
use crate::{resolve, show, time, watch};
use halfkey_protocol::NodeId;
use halfkey_protocol::wire::operator::{Approve, Because, Deny, NodeRecord, PendingBoot};
use std::time::Duration;

/// A reason is one line of an audit trail.
const MAX_BECAUSE: usize = 500;

/// `halfkey approve`.
pub struct Approval<'a> {
    /// NODE
    pub node: &'a str,
    /// Keep the reference values.
    pub once: bool,
    /// Wait for a boot.
    pub wait: Option<Duration>,
    /// Do not ask.
    pub yes: bool,
}

/// Shows the boot that waits, asks, approves exactly that one.
///
/// # Errors
/// `NothingPending` when no boot waits; `Failed` when it can't be approved or the answer is no.
pub fn approve(app: &App, how: &Approval) -> Result<()> {
    let (client, id) = find(app, how.node)?;
    let record = match how.wait {
        None => client.node(id)?,
        Some(limit) => watch::wait_for(&client, id, limit, |record| record.pending.is_some())?
            .ok_or_else(|| nothing_pending(id))?,
    };
    let pending = record.pending.as_ref().ok_or_else(|| nothing_pending(id))?;
    app.out.note(&show::pending(&record, pending, time::now()));
    if !pending.approvable {
        return Err(Error::failed(format!("this boot can't be approved: {}", clean(&pending.code)))
            .hint("only differences from the reference values can be; see the message above"));
    }
    if !how.yes {
        confirm(if how.once {
            "Release this boot once, and keep the reference values as they are?"
        } else {
            "Release this boot, and compare later boots with it?"
        })?;
    }
    // The ticket names the boot that was shown: one that came in between is not meant.
    let after = client.approve(id, &Approve { ticket: pending.ticket.clone(), once: how.once })?;
    done(app, &after, "approved")
}

/// Denies the boot that waits.
///
/// # Errors
/// `NothingPending` when no boot waits.
pub fn deny(app: &App, node: &str, because: &str) -> Result<()> {
    let because = reason(because)?;
    let (client, id) = find(app, node)?;
    let record = client.node(id)?;
    let PendingBoot { ticket, .. } = record.pending.ok_or_else(|| nothing_pending(id))?;
    done(app, &client.deny(id, &Deny { ticket, because })?, "denied")
}

/// Revokes a node.
///
/// # Errors
/// As every request.
pub fn revoke(app: &App, node: &str, because: &str) -> Result<()> {
    let because = reason(because)?;
    let (client, id) = find(app, node)?;
    done(app, &client.revoke(id, &Because { because })?, "revoked")
}

/// Undoes a revocation.
///
/// # Errors
/// As every request.
pub fn restore(app: &App, node: &str, because: &str) -> Result<()> {
    let because = reason(because)?;
    let (client, id) = find(app, node)?;
    done(app, &client.restore(id, &Because { because })?, "restored")
}

fn find(app: &App, node: &str) -> Result<(Client, NodeId)> {
    let client = app.client(&app.home.bundle()?)?;
    let id = resolve::resolve(&client, node)?;
    Ok((client, id))
}

fn done(app: &App, record: &NodeRecord, what: &str) -> Result<()> {
    app.out.value(record, || format!("{what} {}", show::name(&record.summary)))
}

fn reason(text: &str) -> Result<String> {
    if text.trim().is_empty() || text.chars().count() > MAX_BECAUSE || clean(text) != text {
        return Err(Error::usage(format!("expected a reason of one line, at most {MAX_BECAUSE} characters"))
            .hint("--because 'stolen on 21 November'"));
    }
    Ok(text.trim().to_owned())
}

fn nothing_pending(id: NodeId) -> Error {
    Error::new(Exit::NothingPending, format!("no boot of node {id} waits for an operator")).hint(
        "`halfkey evidence` shows how its last boots were judged; `halfkey approve --wait` waits for one",
    )
}
