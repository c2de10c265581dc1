//! What an operator says of a node as a whole: revoked or not, held or not. Each takes its place in the sequence. What takes
//! something from a node any operator says who is listed; what gives it back, the node's tenant by a signature.
//!
//! What an operator has said and what still stands is done when it is asked for again: it takes no second place in the sequence.

use super::document::{NewDocument, append_of_tenant, entry};
use super::index::word;
use super::words::REASONS;
use super::{By, Error, Notice, NoticeKind, Result, TxView, audit};
use crate::events::Event;
use crate::store::NodeRow;
use halfkey_protocol::document::{Kind, Opened, Scope};
use halfkey_protocol::identity::fingerprint;
use halfkey_protocol::{NodeId, Reason};

/// Nothing is released any more. Approvals are void, also after [`restore`]. Without a label: of a node of which nothing is known but
/// by its row or by the sequence. Gives the entry of the sequence; none if this operator has said so and it stands, so that only the
/// row is what it should be.
///
/// # Errors
/// `NotFound`; `Conflict` at too many reasons.
pub fn revoke(
    view: &TxView<'_>,
    node: NodeId,
    label: Option<&str>,
    because: &str,
    by: By<'_>,
) -> Result<Option<Opened>> {
    let label = label.or_else(|| view.index.label(node));
    if label.is_none() && !view.has_row(node)? {
        return Err(Error::Refused(Reason::NotFound, format!("there is no node {node}")));
    }
    let scope = Scope::Revocation(node);
    let adds = adds(view, &scope, because, by)?;
    let mut row = view.node_row(node, by.now)?;
    if !adds && row.revoked_because.is_some() {
        return Ok(None);
    }
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
    adds.then(|| entry(view, Kind::Revocation, scope, said(because, by), by)).transpose()
}

/// Whether this operator has revoked the node for just this, and it stands: by the sequence, and by the row as well.
///
/// # Errors
/// When the database can't be read.
pub fn revoked_by(view: &TxView<'_>, node: NodeId, because: &str, by: By<'_>) -> Result<bool> {
    let stands = was_said(view, &Scope::Revocation(node), because, by);
    Ok(stands && view.known_row(node)?.is_some_and(|row| row.revoked_because.is_some()))
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
/// else's hold is taken over: the trail has both. Where the sequence has an enrollment its row may be gone, and come back. Gives the
/// entry of the sequence, as [`revoke`].
///
/// # Errors
/// `NotEnrolled`; `Conflict` at too many reasons.
pub fn hold(view: &TxView<'_>, node: NodeId, because: &str, by: By<'_>) -> Result<Option<Opened>> {
    if !view.has_row(node)? && !view.index.is_enrolled(node) {
        return Err(Error::Refused(Reason::NotEnrolled, format!("node {node} has no boots to hold")));
    }
    let scope = Scope::Hold(node);
    let adds = adds(view, &scope, because, by)?;
    let mut row = view.node_row(node, by.now)?;
    if !adds && held(&row) {
        return Ok(None);
    }
    row.held_by = Some(by.actor.to_owned());
    row.held_because = Some(because.to_owned());
    view.rows.put_node(&row)?;
    view.emit(Event::Decided(node));
    audit::append(view, by, "hold", Some(node), because)?;
    adds.then(|| entry(view, Kind::Hold, scope, said(because, by), by)).transpose()
}

/// Whether this operator holds the node for just this, as [`revoked_by`].
///
/// # Errors
/// When the database can't be read.
pub fn held_by(view: &TxView<'_>, node: NodeId, because: &str, by: By<'_>) -> Result<bool> {
    let stands = was_said(view, &Scope::Hold(node), because, by);
    Ok(stands && view.known_row(node)?.is_some_and(|row| held(&row)))
}

/// Takes that back.
///
/// # Errors
/// `Conflict`, `PolicySignature` (by another key than the node's tenant's), `Sequence`.
pub fn release(view: &TxView<'_>, node: NodeId, document: NewDocument<'_>, by: By<'_>) -> Result<()> {
    if !view.known_row(node)?.is_some_and(|row| held(&row)) && !view.index.is_held(node) {
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

fn held(row: &NodeRow) -> bool {
    row.held_by.is_some() || row.held_because.is_some()
}

/// Whether an operator has said this since it stands.
fn was_said(view: &TxView<'_>, scope: &Scope, because: &str, by: By<'_>) -> bool {
    view.index.said(scope).is_some_and(|words| words.has(&word(&said(because, by))))
}

/// Whether what an operator says tells the tenant something who would take back what stands: somebody else says it as well, or for
/// another reason.
fn adds(view: &TxView<'_>, scope: &Scope, because: &str, by: By<'_>) -> Result<bool> {
    let Some(words) = view.index.said(scope) else { return Ok(true) };
    let word = word(&said(because, by));
    if words.has(&word) {
        return Ok(false);
    }
    if words.reasons_of(&word.by) >= REASONS {
        let what = format!("{scope} stands, and {} has given {REASONS} reasons for it", word.by);
        return Err(Error::Refused(Reason::Conflict, what));
    }
    Ok(true)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Records;
    use crate::keys::ClusterKey;
    use crate::store::memory::Memory;
    use crate::store::{Changes, Store as _, Then};
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    use halfkey_protocol::document::{Deployment, next, signed_bytes};
    use halfkey_protocol::wire::{DocumentSignature, SignedDocument};
    use std::sync::Arc;

    const NODE: NodeId = NodeId([7; 16]);
    const ADA: By<'static> = By { actor: "ada", now: 1 };
    const BOB: By<'static> = By { actor: "bob", now: 1 };

    fn records() -> (Arc<Memory>, Records) {
        let rows = Arc::new(Memory::default());
        let records = Records::over(rows.clone(), ClusterKey::from_bytes(&[1; 32])).unwrap();
        (rows, records)
    }

    fn restore(records: &Records) -> Result<()> {
        let (scope, head) = (Scope::Revocation(NODE), records.head().unwrap());
        let document = next(Kind::Restoration, &scope, Deployment([0; 16]), &head, 1, "found".to_owned());
        let document = serde_json::to_vec(&document).unwrap();
        let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let signature = DocumentSignature {
            key: key.public_key().as_ref().into(),
            signature: key.sign(&signed_bytes(&document)).as_ref().into(),
        };
        let signed = SignedDocument { document: document.into(), signatures: vec![signature] };
        let opened = halfkey_evidence::signed_document::open(&signed).unwrap();
        records.restore(NODE, NewDocument { opened: &opened, signed: &signed }, ADA)
    }

    /// Documents and entries of the trail so far.
    fn size(records: &Records) -> (u64, usize) {
        (records.head().unwrap().number, records.audit(Some(0), None, 999).unwrap().len())
    }

    #[test]
    fn what_was_said_and_stands_is_done() {
        let (_, records) = records();
        let revoke = |because: &str, by| records.revoke(NODE, Some("web1"), because, by);
        let why = || records.node(NODE).unwrap().unwrap().revoked;
        for _ in 0..3 {
            revoke("stolen", ADA).unwrap();
            assert_eq!(size(&records), (1, 1));
        }
        // Somebody else, or for another reason: who would take it back wants to know.
        revoke("stolen", BOB).unwrap();
        revoke("and sold", BOB).unwrap();
        assert_eq!((size(&records), why().as_deref()), ((3, 3), Some("and sold")));
        revoke("stolen", ADA).unwrap();
        assert_eq!((size(&records), why().as_deref()), ((3, 3), Some("and sold")), "it is no news");
        for number in 0..REASONS {
            let said = revoke(&format!("reason {number}"), ADA);
            assert_eq!(said.is_ok(), number < REASONS - 1, "{said:?}");
        }
        let refused = revoke("one more", ADA).unwrap_err();
        assert!(matches!(refused, Error::Refused(Reason::Conflict, _)), "{refused}");
        assert!(why().is_some());
        // One restoration ends all that, and then it can be said again.
        let before = size(&records);
        restore(&records).unwrap();
        assert_eq!(why(), None);
        revoke("stolen", ADA).unwrap();
        assert_eq!(size(&records), (before.0 + 2, before.1 + 2));
        assert_eq!(why().as_deref(), Some("stolen"));
    }

    /// Whoever writes the database took it out of the row.
    #[test]
    fn a_row_that_says_otherwise_is_mended_without_another_entry() {
        let (rows, records) = records();
        records.revoke(NODE, Some("web1"), "stolen", ADA).unwrap();
        let row = || {
            let mut found = None;
            rows.read(&mut |tx| found = tx.node(NODE).unwrap()).unwrap();
            found.unwrap()
        };
        let forged = NodeRow { revoked_because: None, ..row() };
        let put = &mut |tx: &dyn crate::store::Tx| {
            tx.put_node(&forged).unwrap();
            Then::Commit
        };
        rows.write(Changes::Rows, put).unwrap();
        records.revoke(NODE, Some("web1"), "stolen", ADA).unwrap();
        assert_eq!((row().revoked_because.as_deref(), size(&records)), (Some("stolen"), (1, 2)));
    }
}
