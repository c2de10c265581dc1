//! The sequence of documents: only ever appended to.

use super::{By, Error, Result, TxView, seal};
use crate::keys::ClusterKey;
use crate::store::{DocumentRow, Tx};
use halfkey_protocol::Reason;
use halfkey_protocol::document::{self, Deployment, Kind, Opened, Place, Scope};
use halfkey_protocol::wire::SignedDocument;

/// Most bytes of documents in one answer, but for the last of them.
pub const PART: usize = 2 << 20;

/// A checked document to be stored.
#[derive(Clone, Copy)]
pub struct NewDocument<'a> {
    /// Its envelope.
    pub opened: &'a Opened,
    /// Document and signature.
    pub signed: &'a SignedDocument,
}

/// Compare and set: a document has its place right after the newest one.
///
/// # Errors
/// `Sequence`.
pub fn append(view: &TxView<'_>, opened: &Opened, signed: &SignedDocument, by: By<'_>) -> Result<()> {
    let head = view.rows.head()?;
    // The tag says of all before that servers took it: what the database has more by now, put there in this very transaction, none did.
    if head != view.index.head() {
        let what = format!("document {} came beside this server while it wrote", head.number);
        return Err(Error::Refused(Reason::RolledBack, what));
    }
    document::follows(opened, &head).map_err(|what| Error::Refused(Reason::Sequence, what))?;
    let scope = opened.scope.to_string();
    let tag = tag(view.key, view.deployment, &opened.place);
    let row = DocumentRow { place: opened.place, scope: &scope, at: by.now, by: by.actor, signed, tag };
    view.rows.insert_document(&row)?;
    view.appended(opened);
    Ok(())
}

/// That a server of this deployment took the document with this place, and so those before it, whose hashes it is over.
fn tag(key: &ClusterKey, deployment: Deployment, place: &Place) -> [u8; 32] {
    with_fields(deployment, place, |fields| seal::tag(key, seal::Kind::Document, fields))
}

fn with_fields<T>(deployment: Deployment, place: &Place, tell: impl FnOnce(&[&[u8]]) -> T) -> T {
    tell(&[&deployment.0, &place.number.to_be_bytes(), &place.sha256])
}

/// Whether the row of the document with this place says so.
///
/// # Errors
/// When the database can't be read.
pub fn was_taken(rows: &dyn Tx, key: &ClusterKey, deployment: Deployment, place: &Place) -> Result<bool> {
    let found = rows.document_tag(place.number)?;
    let ours = |fields: &[&[u8]]| seal::is_ours(key, seal::Kind::Document, fields, found.as_deref());
    Ok(with_fields(deployment, place, ours))
}

/// Gives the newest the tag by the key in use. It is the one that is looked at. Gives how many that were.
///
/// # Errors
/// When the database can't be written.
pub fn renew(view: &TxView<'_>) -> Result<usize> {
    let head = view.rows.head()?;
    let found = view.rows.document_tag(head.number)?;
    let renewed = |fields: &[&[u8]]| seal::renewed(view.key, seal::Kind::Document, fields, found.as_deref());
    let Some(tag) = with_fields(view.deployment, &head, renewed) else { return Ok(0) };
    view.rows.set_document_tag(head.number, &tag)?;
    Ok(1)
}

/// The same of what gives a node something, which is its tenant's to say.
///
/// # Errors
/// `Sequence`, `PolicySignature`.
pub fn append_of_tenant(view: &TxView<'_>, document: NewDocument<'_>, by: By<'_>) -> Result<()> {
    let NewDocument { opened, signed } = document;
    let refused = |why| Error::Refused(Reason::PolicySignature, why);
    view.index.require_tenant(opened).map_err(refused)?;
    append(view, opened, signed, by)
}

/// What an operator says without a tenant's key, and that an enrollment was proved, takes its place between the documents: else its
/// row could be put back unseen.
///
/// # Errors
/// When the database can't be written.
pub fn entry(view: &TxView<'_>, kind: Kind, scope: Scope, body: String, by: By<'_>) -> Result<Opened> {
    let bug = |what: String| Error::unavailable(format!("our bug: {what}"));
    let text = document::next(kind, &scope, view.deployment, &view.rows.head()?, by.now, body);
    let document = serde_json::to_vec(&text).map_err(|e| bug(e.to_string()))?.into();
    let signed = SignedDocument { document, signatures: Vec::new() };
    let opened = halfkey_evidence::signed_document::open(&signed).map_err(|flaw| bug(flaw.to_string()))?;
    append(view, &opened, &signed, by)?;
    Ok(opened)
}

/// Each document after a number.
///
/// # Errors
/// When they can't be read, and what `work` says.
pub fn each(
    rows: &dyn Tx,
    mut number: u64,
    mut work: impl FnMut(SignedDocument) -> Result<()>,
) -> Result<()> {
    loop {
        let part = rows.documents_after(number, PART)?;
        if part.is_empty() {
            return Ok(());
        }
        for document in part {
            number += 1;
            work(document)?;
        }
    }
}

/// A row without its document.
pub fn missing(at: u64) -> Error {
    Error::damaged(format!("document {at} is gone"))
}
