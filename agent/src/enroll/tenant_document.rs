//! What the tenant signed. Checked as a whole before anything that came with it is used: a lying
//! server could choose K otherwise.

use crate::error::{Error, Kind, Result};
use crate::luks::header::is_uuid;
use crate::net::{Server, tls};
use halfkey_protocol::document::{self, Backend, Flaw, Scope};
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::tpm::name;
use halfkey_protocol::tpm::template;
use halfkey_protocol::wire::{self, Credential, credential_digest};
use halfkey_protocol::{MAX_SERVERS, NodeId, Reason, identity};

/// A document whose signature and contents were checked. Can't be had otherwise.
#[derive(Debug)]
pub struct TenantDocument {
    /// Id of the enrollment: a UUID that the tenant chose.
    pub enrollment_id: String,
    /// The bank that U is sealed to and that quotes are of.
    pub bank: PcrBank,
    /// `TPMT_PUBLIC` of the release key.
    pub release_public: Vec<u8>,
    /// Name of that key: nameAlg and digest (TPM 2.0 Part 1, section 16).
    pub release_name: Vec<u8>,
    /// SHA-256 of the proof of K.
    pub proof_sha256: [u8; 32],
    /// The verifier's CA, PEM.
    pub ca: String,
    /// URLs of the verifiers, at least one.
    pub servers: Vec<Server>,
    /// When the tenant signed it: seconds since 1970, UTC.
    pub created: u64,
}

/// What the document must be about.
pub struct Expected<'a> {
    /// Fingerprint that the operator typed.
    pub tenant_key: &'a str,
    /// This node.
    pub node: NodeId,
    /// Name of its EK.
    pub ek_name: &'a [u8],
    /// Name of its AK.
    pub ak_name: &'a [u8],
    /// Name of its SRK.
    pub srk_name: &'a [u8],
    /// What this machine made for this enrollment.
    pub challenge: &'a [u8; 32],
    /// What came as C_U.
    pub c_u: &'a Credential,
    /// What came as C_V.
    pub c_v: &'a Credential,
    /// Of this running system, in seconds since 1970.
    pub now: u64,
    /// When the newest enrollment that is in use on these volumes was made.
    pub in_use: Option<u64>,
}

/// How much earlier than the tenant's clock this machine's may be.
const AHEAD: u64 = 86_400;

/// Largest document, in bytes: it came in an answer.
const MAX_DOCUMENT: usize = halfkey_protocol::MAX_ANSWER;

struct Agent;

impl Backend for Agent {
    fn verify(&self, key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
        ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, key)
            .verify(message, signature)
            .is_ok()
    }

    fn read(&self, text: &str) -> std::result::Result<wire::Document, String> {
        miniserde::json::from_str(text).map_err(|_| "expected the JSON of a document".into())
    }
}

impl TenantDocument {
    /// Verifies signer, signature and every field.
    ///
    /// # Errors
    /// [`Kind::Refused`], naming the first that is wrong.
    pub fn verify(signed: &wire::SignedDocument, expected: &Expected) -> Result<Self> {
        let key = signed.tenant_key();
        if key.len() != 32 || !identity::fingerprint_matches(expected.tenant_key, key) {
            let found = identity::fingerprint(key);
            return Err(refused(format!("signed by another tenant key: {found}"))
                .hint("compare with what 'halfkey key' prints at the tenant's workstation"));
        }
        let opened = document::open(signed, MAX_DOCUMENT, &Agent).map_err(|flaw| match flaw {
            Flaw::Signature(_) => refused("the signature is wrong".into()),
            other => refused(other.to_string()),
        })?;
        if opened.kind != document::Kind::Enrollment {
            return Err(refused(format!("it is a {}", opened.kind.as_str())));
        }
        let document: wire::Enrollment = miniserde::json::from_str(&opened.body)
            .map_err(|_| refused("what it says is no enrollment".into()))?;
        let wrong = |what: &str| Err(refused(format!("it is about another {what}")));
        if opened.scope != Scope::Enrollment(expected.node) {
            return wrong("node");
        }
        // One of before, with halves that may have been stolen since, answers the challenge of then.
        if *document.challenge != *expected.challenge {
            return Err(refused("it answers another challenge than this machine's".into()).hint(format!(
                "this machine registered anew since the tenant enrolled it, or the server serves an old enrollment; \
                 the tenant runs: halfkey enroll {}; then run this again",
                expected.node
            )));
        }
        if *document.ek_name != *expected.ek_name {
            return wrong("EK");
        }
        if *document.ak_name != *expected.ak_name {
            return wrong("AK");
        }
        if *document.srk_name != *expected.srk_name {
            return wrong("SRK");
        }
        if *document.c_u_sha256 != credential_digest(expected.c_u) {
            return wrong("C_U");
        }
        if *document.c_v_sha256 != credential_digest(expected.c_v) {
            return wrong("C_V");
        }
        let created = opened.created;
        // A verifier that kept an earlier enrollment, with halves that were stolen since, could hand it out again.
        if let Some(in_use) = expected.in_use.filter(|in_use| created < *in_use) {
            return Err(refused(format!(
                "it was created at {}, before the enrollment in use on these volumes, at {}",
                utc(created),
                utc(in_use)
            ))
            .hint("enroll the node again at the tenant's workstation; if its clock was wrong then, first: halfkey-agent unbind"));
        }
        if created > expected.now.saturating_add(AHEAD) {
            return Err(refused(format!(
                "it was created at {}, and this machine's clock says {}",
                utc(created),
                utc(expected.now)
            ))
            .hint("set the clock that is wrong: this machine's, or that of the tenant's workstation"));
        }
        let field = |what: &str| refused(format!("field {what} is not what it must be"));
        template::RELEASE.point(&document.release_public).ok_or_else(|| field("release_public"))?;
        tls::config(&document.ca, 0).map_err(|_| field("ca"))?;
        if document.servers.is_empty() || document.servers.len() > MAX_SERVERS || document.ca.len() > 32 << 10
        {
            return Err(field("servers"));
        }
        if !is_uuid(&document.enrollment_id) {
            return Err(field("enrollment_id"));
        }
        Ok(Self {
            release_name: name::object_name(&document.release_public)
                .ok_or_else(|| field("release_public"))?,
            release_public: document.release_public.0,
            bank: PcrBank::from_name(&document.bank).ok_or_else(|| field("bank"))?,
            proof_sha256: document.proof_sha256.array().ok_or_else(|| field("proof_sha256"))?,
            servers: document
                .servers
                .iter()
                .map(|url| Server::parse(url))
                .collect::<Result<_>>()
                .map_err(|_| field("servers"))?,
            enrollment_id: document.enrollment_id,
            ca: document.ca,
            created,
        })
    }
}

/// A time for people: `2026-11-21 23:28:01 UTC`.
fn utc(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days since 0000-03-01, in eras of 400 years: a leap day is then the last of its year.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = year + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC", rest / 3600, rest / 60 % 60, rest % 60)
}

fn refused(what: String) -> Error {
    Error {
        kind: Kind::Refused,
        message: format!("the tenant's enrollment is not accepted: {what}"),
        hint: None,
        code: Some(Reason::EnrollmentSignature.code().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::{Ed25519KeyPair, KeyPair};

    struct Signed {
        signed: wire::SignedDocument,
        fingerprint: String,
        c_u: Credential,
        c_v: Credential,
    }

    fn signed(change: impl FnOnce(&mut wire::Enrollment)) -> Signed {
        signed_in(change, |_| ())
    }

    fn signed_in(
        change: impl FnOnce(&mut wire::Enrollment),
        envelope: impl FnOnce(&mut wire::Document),
    ) -> Signed {
        let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let credential =
            |tag: u8| Credential { id_object: vec![tag; 60].into(), secret: vec![tag; 70].into() };
        let (c_u, c_v) = (credential(1), credential(2));
        let ca = rcgen::generate_simple_self_signed(vec!["ca".into()]).unwrap().cert.pem();
        let mut document = wire::Enrollment {
            enrollment_id: "0afd6329-fe84-4fc3-be1c-f947e595762f".into(),
            challenge: vec![8; 32].into(),
            ek_name: vec![1; 34].into(),
            ak_name: vec![2; 34].into(),
            srk_name: vec![3; 34].into(),
            c_u_sha256: credential_digest(&c_u).into(),
            c_v_sha256: credential_digest(&c_v).into(),
            release_public: template::RELEASE.public(&[4; 32], &[5; 32]).into(),
            bank: "sha256".into(),
            proof_sha256: vec![6; 32].into(),
            ca,
            servers: vec!["https://v:8443".into()],
            label: "web".into(),
        };
        change(&mut document);
        let body = miniserde::json::to_string(&document);
        let scope = Scope::Enrollment(NodeId([0x80; 16]));
        let head = document::Place { number: 6, sha256: [1; 32] };
        let mut outer = document::next(
            document::Kind::Enrollment,
            &scope,
            document::Deployment([5; 16]),
            &head,
            CREATED,
            body,
        );
        envelope(&mut outer);
        let document = miniserde::json::to_string(&outer).into_bytes();
        let signature = key.sign(&document::signed_bytes(&document)).as_ref().to_vec();
        let tenant_key = key.public_key().as_ref().to_vec();
        let fingerprint = identity::fingerprint(&tenant_key);
        let signed = wire::SignedDocument {
            document: document.into(),
            signatures: vec![wire::DocumentSignature { key: tenant_key.into(), signature: signature.into() }],
        };
        Signed { signed, fingerprint, c_u, c_v }
    }

    const CREATED: u64 = 1_800_000_000;

    fn verify(signed: &Signed, fingerprint: &str) -> Result<TenantDocument> {
        verify_at(signed, fingerprint, CREATED, None)
    }

    fn verify_at(
        signed: &Signed,
        fingerprint: &str,
        now: u64,
        in_use: Option<u64>,
    ) -> Result<TenantDocument> {
        let expected = Expected {
            tenant_key: fingerprint,
            node: NodeId([0x80; 16]),
            ek_name: &[1; 34],
            ak_name: &[2; 34],
            srk_name: &[3; 34],
            challenge: &[8; 32],
            c_u: &signed.c_u,
            c_v: &signed.c_v,
            now,
            in_use,
        };
        TenantDocument::verify(&signed.signed, &expected)
    }

    #[test]
    fn a_genuine_document_is_accepted() {
        let genuine = signed(|_| ());
        assert_eq!(verify(&genuine, &genuine.fingerprint).unwrap().created, CREATED);
    }

    #[test]
    fn an_earlier_one_is_not_accepted_again_nor_one_of_the_future() {
        let genuine = signed(|_| ());
        let at = |now, in_use| verify_at(&genuine, &genuine.fingerprint, now, in_use);
        // The same again is not earlier.
        for in_use in [None, Some(0), Some(CREATED - 1), Some(CREATED)] {
            assert!(at(CREATED, in_use).is_ok(), "{in_use:?}");
        }
        let earlier = at(CREATED, Some(CREATED + 1)).unwrap_err();
        assert!(earlier.message.contains("2027-01-15 08:00:00 UTC"), "{earlier}");
        assert!(earlier.message.contains("2027-01-15 08:00:01 UTC"), "{earlier}");
        assert!(at(CREATED - 86_400, None).is_ok() && at(CREATED + 9 * 86_400, None).is_ok());
        let ahead = at(CREATED - 86_401, None).unwrap_err();
        assert!(ahead.message.contains("2027-01-14 07:59:59 UTC"), "{ahead}");
        let last = signed_in(|_| (), |outer| outer.created = u64::MAX);
        assert!(verify(&last, &last.fingerprint).is_err());
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (951_868_800, "2000-03-01 00:00:00 UTC"),
            (1_767_225_599, "2025-12-31 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(utc(seconds), text);
        }
        utc(u64::MAX);
    }

    #[test]
    fn every_other_is_refused() {
        let genuine = signed(|_| ());
        let other = identity::fingerprint(&[9; 32]);
        assert!(verify(&genuine, &other).unwrap_err().message.contains("another tenant key"));
        for at_end in [false, true] {
            let mut bad = signed(|_| ());
            // Each has a CA of its own, whose signature has no fixed length.
            let damaged = if at_end { bad.signed.document.len() - 1 } else { 0 };
            bad.signed.document.0[damaged] ^= 1;
            assert!(verify(&bad, &bad.fingerprint).unwrap_err().message.contains("signature"));
        }
        let mut swapped = signed(|_| ());
        std::mem::swap(&mut swapped.c_u, &mut swapped.c_v);
        assert!(verify(&swapped, &swapped.fingerprint).unwrap_err().message.contains("C_U"));
        type Change = (&'static str, fn(&mut wire::Enrollment));
        let changes: [Change; 11] = [
            ("another challenge", |d| d.challenge.0[31] ^= 1),
            ("another challenge", |d| d.challenge.0.clear()),
            ("EK", |d| d.ek_name.0[0] ^= 1),
            ("AK", |d| d.ak_name.0[0] ^= 1),
            ("SRK", |d| d.srk_name.0[0] ^= 1),
            ("C_V", |d| d.c_v_sha256.0[0] ^= 1),
            ("release_public", |d| d.release_public.0[5] ^= 1),
            ("bank", |d| d.bank = "sha1".into()),
            ("ca", |d| d.ca.clear()),
            ("servers", |d| d.servers = vec!["http://v".into()]),
            ("enrollment_id", |d| d.enrollment_id = "x".into()),
        ];
        for (what, change) in changes {
            let bad = signed(change);
            let error = verify(&bad, &bad.fingerprint).unwrap_err();
            assert!(error.message.contains(what), "{what}: {error}");
        }
        type Envelope = (&'static str, fn(&mut wire::Document));
        let changes: [Envelope; 4] = [
            ("format", |d| d.format = 2),
            ("node", |d| d.scope = Scope::Enrollment(NodeId([0x81; 16])).to_string()),
            ("membership", |d| {
                d.kind = "membership".into();
                d.scope = Scope::Membership(NodeId([0x80; 16])).to_string();
                d.body.clear();
            }),
            ("previous", |d| d.previous = vec![1].into()),
        ];
        for (what, change) in changes {
            let bad = signed_in(|_| (), change);
            let error = verify(&bad, &bad.fingerprint).unwrap_err();
            assert!(error.message.contains(what), "{what}: {error}");
        }
        let twice = |signed: &mut Signed| signed.signed.signatures.push(signed.signed.signatures[0].clone());
        let mut doubled = signed(|_| ());
        twice(&mut doubled);
        assert!(verify(&doubled, &doubled.fingerprint).is_err());
    }
}
