//! What an operator says of a node as a whole: revoked or not, held or not. Each takes its place in the sequence. What takes
//! something from a node any operator says who is listed; what gives it back, the node's tenant by a signature.

use super::document::{NewDocument, append_of_tenant, entry};
use super::{By, Error, Notice, NoticeKind, Result, TxView, audit};
use crate::events::Event;
use crate::store::NodeRow;
use halfkey_protocol::document::{Kind, Opened, Scope};
use halfkey_protocol::identity::fingerprint;
use halfkey_protocol::{NodeId, Reason};

/// Nothing is released any more. Approvals are void, also after [`restore`]. Without a label: of a node of which nothing is known but
/// by its row or by the sequence. Gives the entry of the sequence.
///
/// # Errors
/// `NotFound`.
pub fn revoke(
    view: &TxView<'_>,
    node: NodeId,
    label: Option<&str>,
    because: &str,
    by: By<'_>,
) -> Result<Opened> {
    let label = label.or_else(|| view.index.label(node));
    if label.is_none() && !view.has_row(node)? {
        return Err(Error::Refused(Reason::NotFound, format!("there is no node {node}")));
    }
    let mut row = view.node_row(node, by.now)?;
    row.revoked_because = Some(because.to_owned());
    if row.label.is_empty() {
        row.label = label.unwrap_or_default().to_owned();
    }
    view.rows.put_node(&row)?;
    view.tell(Notice {
        kind: NoticeKind::Revoked,
        node,
        label: row.label,
        reason: None,
        evidence: None,
        by: Some(by.actor.to_owned()),
        trace: None,
        at: by.now,
    });
    view.rows.delete_boots(node)?;
    view.emit(Event::Revoked(node));
    audit::append(view, by, "revoke", Some(node), because)?;
    entry(view, Kind::Revocation, Scope::Revocation(node), said(because, by), by)
}

/// Takes that back.
///
/// # Errors
/// `Conflict`, `PolicySignature` (by another key than the node's tenant's), `Sequence`.
pub fn restore(view: &TxView<'_>, node: NodeId, document: NewDocument<'_>, by: By<'_>) -> Result<()> {
    let by_row = view.known_row(node)?.is_some_and(|row| row.revoked_because.is_some());
    if !by_row && !view.index.is_revoked(node) {
        return Err(Error::Refused(Reason::Conflict, format!("node {node} is not revoked")));
    }
    append_of_tenant(view, document, by)?;
    let mut row = view.node_row(node, by.now)?;
    row.revoked_because = None;
    view.rows.put_node(&row)?;
    view.emit(Event::Decided(node));
    audit::append(view, by, "restore", Some(node), &signed(document))
}

/// Its boots are denied from now on, so that they ask for the passphrase at once and with the disk closed. Somebody
/// else's hold is taken over: the trail has both. Where the sequence has an enrollment its row may be gone, and come back.
///
/// # Errors
/// `NotEnrolled`.
pub fn hold(view: &TxView<'_>, node: NodeId, because: &str, by: By<'_>) -> Result<Opened> {
    if !view.has_row(node)? && !view.index.is_enrolled(node) {
        return Err(Error::Refused(Reason::NotEnrolled, format!("node {node} has no boots to hold")));
    }
    let mut row = view.node_row(node, by.now)?;
    row.held_by = Some(by.actor.to_owned());
    row.held_because = Some(because.to_owned());
    view.rows.put_node(&row)?;
    view.emit(Event::Decided(node));
    audit::append(view, by, "hold", Some(node), because)?;
    entry(view, Kind::Hold, Scope::Hold(node), said(because, by), by)
}

/// Takes that back.
///
/// # Errors
/// `Conflict`, `PolicySignature` (by another key than the node's tenant's), `Sequence`.
pub fn release(view: &TxView<'_>, node: NodeId, document: NewDocument<'_>, by: By<'_>) -> Result<()> {
    let held = |row: NodeRow| row.held_by.is_some() || row.held_because.is_some();
    if !view.known_row(node)?.is_some_and(held) && !view.index.is_held(node) {
        return Err(Error::Refused(Reason::Conflict, format!("node {node} is not held")));
    }
    append_of_tenant(view, document, by)?;
    let mut row = view.node_row(node, by.now)?;
    row.held_by = None;
    row.held_because = None;
    view.rows.put_node(&row)?;
    view.emit(Event::Decided(node));
    audit::append(view, by, "release", Some(node), &signed(document))
}

/// Why, and who signed it.
fn signed(NewDocument { opened, signed }: NewDocument<'_>) -> String {
    let key = fingerprint(signed.tenant_key());
    format!("{}, document {}, tenant key {key}", opened.body, opened.place.number)
}

/// Who and why, as an entry says it.
fn said(because: &str, by: By<'_>) -> String {
    format!("{}: {because}", by.actor)
}
