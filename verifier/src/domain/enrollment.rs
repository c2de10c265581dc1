//! Enrollments: open until the node proves that it holds K, then current until a newer one is proved.

use super::document::{self, NewDocument};
use super::model::{Counters, Enrollment, Node, Stage};
use super::{By, Error, Result, TxView, audit, governing, json, legible, proposal, released, seal};
use crate::cache::Cache;
use crate::events::Event;
use crate::store::{EnrollmentRow, EnrollmentState, QuoteRow};
use crate::{CLOCK_TOLERANCE, utc};
use aws_lc_rs::digest::{Context, SHA256};
use halfkey_protocol::document::{Kind, Opened, Place, Scope, proof_of};
use halfkey_protocol::identity::{self, fingerprint};
use halfkey_protocol::keys::half;
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::tpm::qualifying_data::Wanted;
use halfkey_protocol::wire::{self, Credential, Register, SignedDocument, credential_digest};
use halfkey_protocol::{NodeId, Reason};
use std::sync::Arc;

/// A checked enrollment to be stored.
pub struct NewEnrollment<'a> {
    /// Whose.
    pub node: NodeId,
    /// Its UUID.
    pub id: &'a str,
    /// The tenant's label.
    pub label: &'a str,
    /// What the tenant signed.
    pub document: NewDocument<'a>,
    /// The registration that it is for.
    pub registration: &'a Register,
    /// The bank.
    pub bank: PcrBank,
    /// V for the SRK.
    pub c_v: &'a Credential,
    /// U for the EK.
    pub c_u: &'a Credential,
}

/// Stores an enrollment as open. The node is called as it says if none was proved yet.
///
/// # Errors
/// `Revoked`, `Conflict` (older than the current one; its id was used), `Sequence`.
pub fn enroll(view: &TxView<'_>, new: &NewEnrollment<'_>, by: By<'_>) -> Result<()> {
    let mut row = view.node_row(new.node, by.now)?;
    if !view.index.is_proved(new.node) {
        new.label.clone_into(&mut row.label);
    }
    require_not_revoked(view, new.node)?;
    view.rows.put_node(&row)?;
    let NewDocument { opened, signed } = new.document;
    require_newer(view, new.node, opened.created, by.now)?;
    document::append(view, opened, signed, by)?;
    // An earlier one that the node never proved: its halves are of no more use.
    view.rows.replace_enrollment(new.node, EnrollmentState::Open)?;
    let inserted = view.rows.insert_enrollment(&EnrollmentRow {
        id: new.id.to_owned(),
        node: new.node,
        state: EnrollmentState::Open,
        number: opened.place.number,
        tenant_key: signed.tenant_key().to_vec(),
        registration: json(new.registration)?,
        bank: new.bank.name().to_owned(),
        c_v: (Some(new.c_v.id_object.to_vec()), Some(new.c_v.secret.to_vec())),
        c_u: Some(seal::seal(view.key, new.node, new.id, None, new.c_u)?),
        enrolled_at: by.now,
        enrolled_by: by.actor.to_owned(),
        fetched_by: None,
        quote: QuoteRow::default(),
        released: None,
    })?;
    if !inserted {
        return Err(Error::Refused(Reason::Conflict, format!("enrollment {} was used before", new.id)));
    }
    let first_use = view.rows.insert_tenant_key(by.actor, signed.tenant_key(), by.now)?;
    let detail = format!(
        "{:?}: enrollment {}, tenant key {}{}",
        new.label,
        new.id,
        fingerprint(signed.tenant_key()),
        if first_use { " (first use by this operator)" } else { "" }
    );
    view.emit(Event::NodeChanged(new.node));
    audit::append(view, by, "enroll", Some(new.node), &detail)
}

/// Its `created` becomes the floor of the node's clock, which must not go backwards. One
/// that is in the future itself can't be what the next is measured by.
fn require_newer(view: &TxView<'_>, node: NodeId, created: u64, now: u64) -> Result<()> {
    // From a damaged one nothing is known, and this one mends it.
    let (Some(current), _) = legible(of(view, node, EnrollmentState::Current))? else { return Ok(()) };
    if created < current.created && current.created <= now.saturating_add(CLOCK_TOLERANCE) {
        let (found, expected) = (utc(created), utc(current.created));
        let what = format!(
            "the new enrollment was created at {found}, the current one at {expected}: the clock of one of the clients was wrong"
        );
        return Err(Error::Refused(Reason::Conflict, what));
    }
    Ok(())
}

/// An enrollment that can be proved now.
pub struct Provable {
    document: Place,
    label: String,
    tenant_key: Vec<u8>,
}

/// Whether this is the proof of an enrollment that can be proved; nothing if it was proved by it already. Nothing is changed: who
/// has no proof is told so without keeping anybody from writing.
///
/// # Errors
/// `Revoked`, `NotEnrolled`, `Proof`, `EnrollmentUsed`.
pub fn provable(view: &TxView<'_>, node: NodeId, enrollment: &str, proof: &[u8]) -> Result<Option<Provable>> {
    require_not_revoked(view, node)?;
    let unknown =
        || Error::Refused(Reason::NotEnrolled, format!("node {node} has no enrollment {enrollment}"));
    let (state, number) = view.rows.enrollment_state(node, enrollment)?.ok_or_else(unknown)?;
    let signed = view.rows.document(number)?.ok_or_else(unknown)?;
    let damaged = |what: String| Error::damaged(format!("table enrollments, {enrollment:.64}: {what}"));
    // What the proof is compared with is the tenant's word.
    let (opened, said) = halfkey_evidence::signed_document::open_enrollment(&signed)
        .map_err(|e| damaged(format!("document: {e}")))?;
    if opened.scope != Scope::Enrollment(node) || said.enrollment_id != enrollment {
        return Err(damaged("the document is another one's".to_owned()));
    }
    if !half::equal(&half::proof_digest(proof), &said.proof_sha256) {
        return Err(Error::Refused(Reason::Proof, format!("of enrollment {enrollment}")));
    }
    // Another document of its number would be proved by whoever wrote it there.
    let stage = view.index.stage(node, &opened.place).ok_or_else(|| {
        Error::damaged(format!(
            "table documents, {}: it is another one than in the sequence\n  found  {}",
            opened.place.number,
            crate::hex(&opened.place.sha256)
        ))
    })?;
    let used = |what: String| Err(Error::Refused(Reason::EnrollmentUsed, what));
    match (stage, state) {
        (Stage::Open, EnrollmentState::Open) if was_fetched(view, node, enrollment)? => {}
        // Whoever signed it knows K as well: it is the machine's word only once its TPM was given the halves.
        (Stage::Open, EnrollmentState::Open) => {
            let what = format!("of enrollment {enrollment}, which the node has not fetched");
            return Err(Error::Refused(Reason::Proof, what));
        }
        // The answer was lost and the node asks again.
        (Stage::Proved, EnrollmentState::Current) => return Ok(None),
        (Stage::UsedUp, EnrollmentState::Open) => {
            return used(format!("enrollment {enrollment} was open in a database that was restored since"));
        }
        (Stage::Replaced, EnrollmentState::Replaced) => {
            return used(format!("enrollment {enrollment} was replaced by a newer one"));
        }
        (stage @ (Stage::Open | Stage::UsedUp | Stage::Proved | Stage::Replaced), other) => {
            return Err(damaged(format!("state {:?}, and the sequence says {stage:?}", other.as_str())));
        }
    }
    Ok(Some(Provable { document: opened.place, label: said.label, tenant_key: signed.tenant_key().to_vec() }))
}

/// The node holds K: the open enrollment becomes the current one and C_U is deleted. That takes its place in the sequence. Gives
/// nothing if it is there already.
///
/// # Errors
/// Those of [`provable`].
pub fn prove(
    view: &TxView<'_>,
    node: NodeId,
    enrollment: &str,
    proof: &[u8],
    now: u64,
) -> Result<Option<Opened>> {
    let Some(Provable { document, label, tenant_key }) = provable(view, node, enrollment, proof)? else {
        return Ok(None);
    };
    view.rows.replace_enrollment(node, EnrollmentState::Current)?;
    view.rows.prove_enrollment(enrollment, now)?;
    let mut row = view.node_row(node, now)?;
    row.label = label;
    governing::forget_of_others(view, &mut row, &tenant_key)?;
    view.rows.put_node(&row)?;
    if view.index.goes_to_another(node) {
        proposal::forget_of_others(view, node)?;
    } else if view.index.changes_srk(node) {
        proposal::supersede_all(view, node, "the node was enrolled with another SRK: its TPM was cleared")?;
    }
    let by = By { actor: "node", now };
    view.emit(Event::NodeChanged(node));
    audit::append(view, by, "prove", Some(node), &format!("enrollment {enrollment}"))?;
    document::entry(view, Kind::Proof, Scope::Proof(node), proof_of(&document), by).map(Some)
}

/// A boot has got C_U and C_V: from now on they are that boot's, and no row alone makes them another's.
///
/// # Errors
/// When the database can't be written.
pub fn fetched(view: &TxView<'_>, node: &Node, ticket: &str) -> Result<()> {
    let Some(open) = node.open.as_ref().filter(|open| open.fetched_by.is_none()) else { return Ok(()) };
    let of_boot = |c_u| seal::seal(view.key, node.id, &open.id, Some(ticket), c_u);
    let c_u = open.c_u.as_ref().map(of_boot).transpose()?;
    Ok(view.rows.set_fetched(&open.id, ticket, c_u.as_deref())?)
}

/// Whether a boot has fetched the open enrollment. A row that only says so has C_U still as it was enrolled.
fn was_fetched(view: &TxView<'_>, node: NodeId, enrollment: &str) -> Result<bool> {
    let row = view.rows.enrollment(node, EnrollmentState::Open)?.filter(|row| row.id == enrollment);
    let Some(EnrollmentRow { fetched_by: Some(ticket), c_u: Some(c_u), .. }) = row else { return Ok(false) };
    Ok(seal::open(view.key, node, enrollment, Some(&ticket), &c_u).is_some())
}

/// Encrypts C_U by the key in use, and gives the last release the tag by it. Gives how many these were. A row that can't be read is
/// worth nothing by any key.
///
/// # Errors
/// When the database can't be written.
pub fn renew(view: &TxView<'_>, node: NodeId) -> Result<usize> {
    let mut count = 0;
    for state in [EnrollmentState::Open, EnrollmentState::Current] {
        let (row, _) = legible(view.rows.enrollment(node, state).map_err(Error::from))?;
        let Some(EnrollmentRow { id, c_u, fetched_by, released, .. }) = row else { continue };
        let resealed = |c_u: Vec<u8>| seal::resealed(view.key, node, &id, fetched_by.as_deref(), &c_u);
        if let Some(c_u) = c_u.map(resealed).transpose()?.flatten() {
            view.rows.set_c_u(&id, &c_u)?;
            count += 1;
        }
        if let Some(released) = released {
            count += usize::from(released::renew(view, node, &id, released)?);
        }
    }
    Ok(count)
}

/// A row that says less than the sequence takes no revocation back.
fn require_not_revoked(view: &TxView<'_>, node: NodeId) -> Result<()> {
    let by_row = view.known_row(node)?.and_then(|row| row.revoked_because);
    match by_row.or_else(|| view.index.revoked(node).map(str::to_owned)) {
        Some(because) => Err(Error::Refused(Reason::Revoked, because)),
        None => Ok(()),
    }
}

/// The open or the current one of a node, if its row is what the tenant signed.
///
/// # Errors
/// When it is not, or can't be read.
pub fn of(view: &TxView<'_>, node: NodeId, state: EnrollmentState) -> Result<Option<Enrollment>> {
    match view.rows.enrollment(node, state)? {
        Some(row) => read(view, row).map(Some),
        None => Ok(None),
    }
}

fn read(view: &TxView<'_>, row: EnrollmentRow) -> Result<Enrollment> {
    let EnrollmentRow { id, node, .. } = row;
    let wrong = |what: String| Error::damaged(format!("table enrollments, {id:.64}: {what}"));
    let signed =
        view.rows.document(row.number)?.ok_or_else(|| wrong(format!("document {} is gone", row.number)))?;
    // Without counters anything would be newer: none is right only before the first quote.
    let counters = match row.quote {
        QuoteRow { reset: Some(reset), restart: Some(restart), clock: Some(clock) } => {
            Some(Counters { reset, restart, clock })
        }
        QuoteRow { reset: None, restart: None, clock: None } => None,
        QuoteRow { reset, restart, clock } => {
            return Err(wrong(format!("counters {reset:?}, {restart:?} and {clock:?}, not all or none")));
        }
    };
    let bank = PcrBank::from_name(&row.bank).ok_or_else(|| wrong(format!("bank {:.32?}", row.bank)))?;
    // What the row says beside its document counts only if the document says it too.
    let said = said(view.said, &signed, &row.registration).map_err(wrong)?;
    let Said { place, created, scope, enrollment, registration } = &*said;
    let c_u = match row.c_u {
        Some(sealed) => {
            let opened = seal::open(view.key, node, &id, row.fetched_by.as_deref(), &sealed);
            Some(opened.ok_or_else(|| wrong("the C_U is not this server's".to_owned()))?)
        }
        None => None,
    };
    let (Some(id_object), Some(secret)) = row.c_v else { return Err(wrong("no C_V".to_owned())) };
    let c_v = Credential { id_object: id_object.into(), secret: secret.into() };
    if *scope != Scope::Enrollment(node)
        || enrollment.enrollment_id != id
        || enrollment.bank != bank.name()
        || *enrollment.c_v_sha256 != credential_digest(&c_v)
        || c_u.as_ref().is_some_and(|c_u| *enrollment.c_u_sha256 != credential_digest(c_u))
    {
        return Err(wrong("it is not what the tenant signed".to_owned()));
    }
    let challenge =
        enrollment.challenge.array().ok_or_else(|| wrong("a challenge that is none".to_owned()))?;
    let answers = Wanted { tenant_key: identity::sha256(signed.tenant_key()), challenge };
    let proof_sha256 = enrollment.proof_sha256.array();
    let proof_sha256 = proof_sha256.ok_or_else(|| wrong("a digest of a proof that is none".to_owned()))?;
    Ok(Enrollment {
        answers,
        proof_sha256,
        document: *place,
        created: *created,
        registration: registration.clone(),
        bank,
        c_v,
        id,
        signed,
        c_u,
        counters,
        stage: None,
        fetched_by: row.fetched_by,
        released: row.released.and_then(|row| released::read(view, node, &enrollment.enrollment_id, row)),
    })
}

/// What a tenant signed, of an enrollment whose registration it is.
pub struct Said {
    place: Place,
    created: u64,
    scope: Scope,
    enrollment: wire::Enrollment,
    registration: Register,
}

/// Kept of [`Said`], in bytes of documents and registrations: a few thousand.
pub const KEPT: usize = 8 << 20;

/// Verifies and reads the document, and compares the registration with it, above all the AK: whose quotes are believed. A node is looked
/// up three times in a boot, and these bytes come to the same each time: what is kept is found by the digest of all of them, and by
/// nothing else that a row says.
fn said(
    kept: &Cache<Said>,
    signed: &SignedDocument,
    registration: &str,
) -> std::result::Result<Arc<Said>, String> {
    let key = digest_of(signed, registration);
    if let Some(said) = kept.find(&key) {
        return Ok(said);
    }
    let weight = signed.document.len() + registration.len() + 2048;
    let (opened, enrollment) =
        halfkey_evidence::signed_document::open_enrollment(signed).map_err(|e| format!("document: {e}"))?;
    let registration: Register =
        serde_json::from_str(registration).map_err(|e| format!("registration: {e}"))?;
    if !is_name_of(&enrollment.ek_name, &registration.ek_public)
        || !is_name_of(&enrollment.ak_name, &registration.ak_public)
        || !is_name_of(&enrollment.srk_name, &registration.srk_public)
    {
        return Err("it is not what the tenant signed".to_owned());
    }
    let Opened { place, created, scope, .. } = opened;
    let said = Arc::new(Said { place, created, scope, enrollment, registration });
    kept.keep(key, said.clone(), weight);
    Ok(said)
}

/// SHA-256 over each of the fields with its length.
fn digest_of(signed: &SignedDocument, registration: &str) -> [u8; 32] {
    let mut hash = Context::new(&SHA256);
    let mut field = |bytes: &[u8]| {
        hash.update(&(bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    field(registration.as_bytes());
    field(&signed.document);
    for signature in &signed.signatures {
        field(&signature.key);
        field(&signature.signature);
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(hash.finish().as_ref());
    digest
}

/// Whether this is the TPM's name of a public area: nameAlg and digest (TPM 2.0 Part 1, section 16).
fn is_name_of(name: &[u8], public: &[u8]) -> bool {
    PcrBank::ALL.into_iter().any(|hash| {
        let alg = hash.alg().to_be_bytes();
        public.get(2..4) == Some(&alg[..]) && name == [&alg[..], &hash.digest(&[public])].concat()
    })
}
