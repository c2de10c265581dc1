//! Following the sequence that a server shows, and what it says of this workstation's own documents.

use crate::client::Client;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::home::key::TenantKey;
use crate::render::text::{clean_short, hex};
use crate::trust::ledger::Ledger;
use halfkey_evidence::signed_document;
use halfkey_protocol::NodeId;
use halfkey_protocol::document::{Deployment, Opened, Place, Scope, follows};
use halfkey_protocol::wire::SignedDocument;
use std::collections::{BTreeMap, HashMap};

/// From which document on a sequence is followed.
#[derive(Clone, Copy)]
pub enum From<'a> {
    /// At the first document.
    First,
    /// At this one, whose number and SHA-256 (hex) are known.
    Known(u64, &'a str),
    /// At the one of this number, whatever it is: what it leads to is known.
    Number(u64),
}

/// Follows the sequence to where the server says that it ends.
///
/// # Errors
/// `Untrusted` when what the server shows is not one sequence of the ledger's deployment, or another one than before; as every
/// request.
pub fn walk(
    client: &Client,
    ledger: &Ledger<'_>,
    from: From<'_>,
    end: &Place,
    mut seen: impl FnMut(&Opened),
) -> Result<Place> {
    let (number, mut last) = match from {
        From::First => (1, Some(Place::default())),
        From::Known(number, _) | From::Number(number) => (number, None),
    };
    while last.is_none_or(|last| last.number < end.number) {
        let part = client.sequence(last.map_or(number - 1, |last| last.number))?.documents;
        if part.is_empty() {
            return Err(broken(&format!(
                "document {} is missing",
                last.map_or(number, |last| last.number + 1)
            )));
        }
        for signed in &part {
            let opened = read(signed, ledger.deployment())?;
            match (&last, from) {
                (Some(before), _) => follows(&opened, before).map_err(|what| broken(&what))?,
                (None, From::Number(_) | From::First) if opened.place.number == number => {}
                (None, From::Known(_, sha256)) if is(&opened.place, number, sha256) => {}
                (None, From::Known(_, sha256)) => {
                    if opened.place.number == number {
                        return Err(ledger.forked(number, sha256, &opened.place));
                    }
                    return Err(broken(&format!(
                        "expected document {number}, found {}",
                        opened.place.number
                    )));
                }
                (None, From::Number(_) | From::First) => {
                    return Err(broken(&format!(
                        "expected document {number}, found {}",
                        opened.place.number
                    )));
                }
            }
            seen(&opened);
            last = Some(opened.place);
        }
    }
    last.ok_or_else(|| broken("it is empty"))
}

fn read(signed: &SignedDocument, deployment: Deployment) -> Result<Opened> {
    let opened =
        signed_document::open(signed).map_err(|flaw| broken(&clean_short(&flaw.to_string(), 120)))?;
    if opened.deployment != deployment {
        return Err(broken(&format!("document {} is for another deployment", opened.place.number)));
    }
    Ok(opened)
}

fn is(place: &Place, number: u64, sha256: &str) -> bool {
    place.number == number && hex(&place.sha256) == sha256
}

fn broken(what: &str) -> Error {
    Error::untrusted(format!("the documents that the server shows are not one sequence: {what}"))
        .hint("somebody changed its database, or put back a part of it; if it was restored from a backup on purpose, see `halfkey accept-rollback`")
}

/// What a part of the sequence says of this workstation's own documents: which its tenant key signed, whichever workstation that
/// was, and where a node went to another key.
pub struct Tenancies {
    key: TenantKey,
    /// By scope: the newest.
    own: BTreeMap<String, Place>,
    /// By number: its SHA-256, and who signed it first.
    enrollments: HashMap<u64, ([u8; 32], NodeId, [u8; 32])>,
    proofs: Vec<Proof>,
}

struct Proof {
    node: NodeId,
    enrollment: Place,
    place: Place,
}

impl Tenancies {
    /// Of the workstation with this key.
    pub fn of(key: TenantKey) -> Self {
        Self { key, own: BTreeMap::new(), enrollments: HashMap::new(), proofs: Vec::new() }
    }

    /// Notes a document.
    pub fn note(&mut self, opened: &Opened) {
        if opened.kind.is_signed() && opened.is_by(self.key.public()) {
            self.own.insert(opened.scope.to_string(), opened.place);
        }
        if let (Scope::Enrollment(node), Some(key)) = (&opened.scope, opened.keys.first()) {
            self.enrollments.insert(opened.place.number, (opened.place.sha256, *node, *key));
        }
        if let (Scope::Proof(node), Some(enrollment)) = (&opened.scope, opened.proves()) {
            self.proofs.push(Proof { node: *node, enrollment, place: opened.place });
        }
    }

    /// Remembers them. Where a node went to another tenant key, what this workstation's key signed for that node alone counts no
    /// more, and is not missed. `known` is the document before the part; what is `missing` is remembered no longer where there is
    /// another one.
    ///
    /// # Errors
    /// `Untrusted` when an enrollment is not of the sequence; when the home folder can't be read or written; as every request.
    pub fn remember(
        &self,
        context: &Context,
        client: &Client,
        ledger: &Ledger<'_>,
        known: From<'_>,
        missing: &[(String, u64)],
    ) -> Result<()> {
        ledger.signed(&self.key, &self.own, missing)?;
        for proof in &self.proofs {
            // Mostly it is of an enrollment by this workstation's own key: that ends nothing.
            if ledger.of_node(proof.node, proof.place.number)?.is_empty()
                || ledger.has_enrolled(proof.node, &proof.enrollment)?
            {
                continue;
            }
            let enrollment = match self.enrollments.get(&proof.enrollment.number) {
                Some(enrollment) => *enrollment,
                None => before(client, ledger, proof.enrollment.number, known)?,
            };
            let (sha256, node, key) = enrollment;
            if sha256 != proof.enrollment.sha256 {
                return Err(broken(&format!(
                    "document {} proves another enrollment {} than there is\n  proved  {}\n  there   {}",
                    proof.place.number,
                    proof.enrollment.number,
                    hex(&proof.enrollment.sha256),
                    hex(&sha256)
                )));
            }
            if node != proof.node {
                return Err(broken(&format!(
                    "document {} proves another node's enrollment",
                    proof.place.number
                )));
            }
            if key == self.key.public() {
                continue;
            }
            let ended = ledger.end(node, &proof.place)?;
            context.out.note(&format!(
                "note: node {node} is enrolled with another tenant key than this workstation's: what was signed here for it alone counts no more ({})",
                ended.join(", ")
            ));
        }
        Ok(())
    }
}

/// An enrollment that is not after `known`: what leads from it to there is followed again.
fn before(
    client: &Client,
    ledger: &Ledger<'_>,
    number: u64,
    known: From<'_>,
) -> Result<([u8; 32], NodeId, [u8; 32])> {
    let wrong = || broken(&format!("document {number} is proved, and is no enrollment of it"));
    let From::Known(end, sha256) = known else { return Err(wrong()) };
    let (mut first, mut arrived) = (None, false);
    let end = Place { number: end, ..Place::default() };
    walk(client, ledger, From::Number(number), &end, |opened| {
        first
            .get_or_insert_with(|| (opened.scope.clone(), opened.place.sha256, opened.keys.first().copied()));
        arrived |= is(&opened.place, end.number, sha256);
    })?;
    match first {
        Some((Scope::Enrollment(node), sha256, Some(key))) if arrived => Ok((sha256, node, key)),
        _ => Err(wrong()),
    }
}
