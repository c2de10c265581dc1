//! `halfkey enroll`: a new key for a node whose TPM was checked here.

use crate::ask::confirm;
use crate::cli::{Bank, EnrollArgs};
use crate::client::{resolve, wait};
use crate::commands::node;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::home::key::TenantKey;
use crate::render::text::{clean, clean_short};
use crate::render::time;
use crate::trust::checks::{self, EkTrust};
use crate::trust::sequence::SequenceHead;
use aws_lc_rs::rand;
use halfkey_evidence::credential;
use halfkey_evidence::ek::{Trust, TrustedEk};
use halfkey_evidence::registration::CheckedRegistration;
use halfkey_evidence::signed_document::open_enrollment;
use halfkey_protocol::document::{Kind, Scope};
use halfkey_protocol::keys::half::{Half, Key, proof_digest};
use halfkey_protocol::wire::operator::{Enroll, NodeRecord, NodeState};
use halfkey_protocol::wire::{Credential, Enrollment, credential_digest};
use halfkey_protocol::{Bytes, NodeId};
use zeroize::Zeroizing;

/// Labels are for people: a longer one fits no table.
const MAX_LABEL: usize = 64;

/// Checks the node, asks, enrolls it, and perhaps waits for the machine.
///
/// # Errors
/// `Untrusted` when a check fails; see [`crate::error::Exit`] for the rest.
pub fn run(context: &Context, args: &EnrollArgs) -> Result<()> {
    let bundle = context.home.bundle()?;
    let client = context.client(&bundle)?;
    let key = context.home.tenant_key()?;
    let id = resolve::resolve(&client, &args.node)?;
    // Before the record: what others sign for the node while the question is on the screen is not signed over.
    let mut head = SequenceHead::fetch(context, &bundle, &client)?;
    let record = client.node(id)?;
    let checked = checks::registration(id, &record)?;
    let trusted = checks::trusted_ek(&checked, &record, ek_trust(args)?, &context.out)?;
    let server = checks::server(&context.home, &bundle, client.info()?, args.trust_release.as_deref())?;
    let challenge = checks::challenge(&record)?;
    let label = label(args.label.as_deref(), &record)?;

    context.out.note(&introduction(&checked, &trusted, &record, &label, &key));
    if !args.yes {
        confirm("Is this the EK fingerprint on the machine's console, and shall the node be enrolled?")?;
    }
    // Before the document leaves: a crash in between must not lose what was promised.
    server.pin(&context.home)?;
    let made = make(&checked, &trusted, &server, &challenge, &label, args.bank)?;
    let after = head.sign(&key, Kind::Enrollment, &Scope::Enrollment(id), &made.document()?, |signed| {
        let body = Enroll { signed: signed.clone(), c_u: made.c_u.clone(), c_v: made.c_v.clone() };
        let after = client.enroll(id, &body)?;
        if after.newest() != Some(signed) {
            return Err(Error::untrusted("the server took the enrollment, but shows another one for this node")
                .hint("someone else may have enrolled it at the same moment: look at `halfkey audit --node` and enroll again"));
        }
        Ok(after)
    })?;
    let after = match args.wait {
        None => after,
        Some(limit) => {
            context.out.note("enrolled; waiting for the machine to finish its side");
            wait::wait_for(&client, id, limit, |record| record.summary.state == NodeState::Enrolled)?
                .ok_or_else(|| {
                    Error::failed(format!(
                        "the node is enrolled here, but the machine did not finish within {} s",
                        limit.as_secs()
                    ))
                    .hint(next_step(&key))
                })?
        }
    };
    context.out.value(&after, || node::shown(&after, None, Some(&key), &context.style(), time::now()))?;
    if after.summary.state != NodeState::Enrolled {
        context.out.note(&format!("next: {}", next_step(&key)));
    }
    Ok(())
}

fn ek_trust(args: &EnrollArgs) -> Result<EkTrust<'_>> {
    match (&args.trust.ek_roots, &args.trust.trust_ek) {
        (Some(folder), _) => Ok(EkTrust::Roots(folder)),
        (None, Some(typed)) => Ok(EkTrust::Fingerprint(typed)),
        (None, None) => Err(Error::usage("neither --ek-roots nor --trust-ek is given")),
    }
}

/// An enrollment that is to be signed, and the credentials that it names.
pub struct Made {
    enrollment: Enrollment,
    c_u: Credential,
    c_v: Credential,
}

impl Made {
    fn document(&self) -> Result<String> {
        serde_json::to_string(&self.enrollment).map_err(|e| Error::failed(format!("our bug: {e}")))
    }
}

/// Draws K, U and V, makes their credentials. K, U and V are wiped on return.
///
/// Takes the proof that the EK is trusted: an enrollment without one can't be made.
///
/// # Errors
/// When a credential can't be made for these keys, or there is no randomness.
pub fn make(
    checked: &CheckedRegistration,
    trusted: &TrustedEk,
    server: &checks::CheckedServer,
    challenge: &[u8; 32],
    label: &str,
    bank: Bank,
) -> Result<Made> {
    if trusted.node_id() != checked.node_id() {
        return Err(Error::untrusted("the trust in the EK is for another node"));
    }
    let random = || Half::random().map_err(|e| Error::failed(format!("no randomness for a key: {e}")));
    // U and V at random and K from them is the same as K and V at random and U from them.
    let (u, v) = (random()?, random()?);
    let c_u = credential::make_for_ek(checked.ek(), checked.ak_name(), u.expose())?;
    let c_v = credential::make_for_srk(checked, checked.ak_name(), v.expose())?;
    let proof = Zeroizing::new(Key::combine(&u, &v).proof());
    drop((u, v));
    let enrollment = Enrollment {
        enrollment_id: random_uuid()?,
        challenge: Bytes::from(&challenge[..]),
        ek_name: Bytes::from(checked.ek_name()),
        ak_name: Bytes::from(checked.ak_name()),
        srk_name: Bytes::from(checked.srk_name()),
        c_u_sha256: credential_digest(&c_u).into(),
        c_v_sha256: credential_digest(&c_v).into(),
        release_public: server.release_public.clone(),
        bank: bank.as_str().to_owned(),
        proof_sha256: proof_digest(&*proof).into(),
        ca: server.ca.clone(),
        servers: server.servers.clone(),
        label: label.to_owned(),
    };
    Ok(Made { enrollment, c_u, c_v })
}

fn label(given: Option<&str>, record: &NodeRecord) -> Result<String> {
    let (label, whose) = match given {
        Some(label) => (label, "--label"),
        // The tenant's of before, or the one that the node suggests.
        None => (record.summary.label.as_str(), "the node's label"),
    };
    if label.trim() != label || label.is_empty() || label.chars().count() > MAX_LABEL || clean(label) != label
    {
        return Err(Error::usage(format!(
            "{whose} is `{}`: expected 1 to {MAX_LABEL} printable characters, no blanks around them",
            clean_short(label, MAX_LABEL)
        ))
        .hint("give another one with --label"));
    }
    Ok(label.to_owned())
}

/// Whether the enrollment in use answers the challenge that the registrar shows. The machine makes another for the next one.
fn answered(record: &NodeRecord) -> bool {
    let enrollment = record.newest().and_then(|signed| open_enrollment(signed).ok());
    enrollment.is_some_and(|(_, enrollment)| enrollment.challenge == record.challenge)
}

fn introduction(
    checked: &CheckedRegistration,
    trusted: &TrustedEk,
    record: &NodeRecord,
    label: &str,
    key: &TenantKey,
) -> String {
    let why = match trusted.trust() {
        Trust::Chain { issuer } => {
            format!("certificate by {}; this proves a TPM, not that it is yours", clean_short(issuer, 200))
        }
        Trust::Pinned => "fingerprint as you gave it; its certificate was not looked at".to_owned(),
    };
    let mut text = format!(
        "node             {}\nlabel            {label}\nEK fingerprint   {}\nEK trusted by    {why}\n\
         checked          templates of EK, AK and SRK; the AK certified the SRK; the id is this EK's\n\
         tenant key       {}",
        checked.node_id(),
        checked.ek_fingerprint(),
        key.fingerprint(),
    );
    if record.enrollment.is_some() {
        text.push_str(
            "\nwarning: this node was enrolled before. A new enrollment has a new key: the machine boots by the old one \
             until `halfkey-agent enroll` has run there again",
        );
        if record.summary.state == NodeState::Enrolled && answered(record) {
            text.push_str(
                "\nwarning: the machine has not registered since, and would refuse this enrollment: run \
                 `halfkey-agent enroll` there first",
            );
        }
    }
    text
}

fn next_step(key: &TenantKey) -> String {
    format!("`halfkey-agent enroll` finishes on the machine, with --tenant-key {}", key.fingerprint())
}

/// A UUID, version 4.
fn random_uuid() -> Result<String> {
    let mut id = [0; 16];
    rand::fill(&mut id).map_err(|_| Error::failed("no randomness for an enrollment id"))?;
    id[6] = id[6] & 0x0f | 0x40;
    id[8] = id[8] & 0x3f | 0x80;
    Ok(NodeId(id).to_string())
}

#[cfg(test)]
mod tests {
    use super::random_uuid;

    #[test]
    fn enrollment_ids_are_version_4_and_differ() {
        let (a, b) = (random_uuid().unwrap(), random_uuid().unwrap());
        assert_ne!(a, b);
        assert_eq!((a.len(), &a[14..15]), (36, "4"));
    }
}
