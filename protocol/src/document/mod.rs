//! The one envelope of everything that a tenant signs, and of the entries that have a place beside it.
//!
//! A deployment is the server that `halfkey-verifier init` made, whatever its certificates become. All its documents are one
//! sequence: each has the number after that of the document before, and names that one's [`sha256`], which says who signed it as
//! well. So nothing can be left out, put back, signed by somebody else or carried to another server without being seen by whoever
//! knows a later one.
//!
//! What an operator says without a tenant's signature (a revocation, a hold), and that a node has proved its enrollment, are entries
//! of the same sequence: the same text, and no signature. What takes one of them back, and what approves a boot, is signed: it gives
//! a node something.
//!
//! Agent and servers have different libraries for JSON and Ed25519: they give [`Backend`], and everything else is here.

mod scope;

pub use scope::{Kind, MAX_GROUP, Scope, is_group_name};

use crate::keys::label;
use crate::wire::{Document, SignedDocument};
use crate::{Bytes, NodeId};
use std::fmt;

/// Version of the envelope.
pub const FORMAT: u32 = 1;
/// Most signatures of a document.
pub const MAX_SIGNATURES: usize = 8;
/// Largest number. Anything reads it as a number, and it leaves room for the next.
pub const MAX_NUMBER: u64 = 1 << 53;

/// Id of a deployment: a random UUID that `halfkey-verifier init` makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Deployment(pub [u8; 16]);

impl Deployment {
    /// From 16 random bytes: a UUID of version 4.
    pub fn from_random(mut random: [u8; 16]) -> Self {
        random[6] = random[6] & 0x0f | 0x40;
        random[8] = random[8] & 0x3f | 0x80;
        Self(random)
    }

    /// Reads the canonical text form: lower case, with dashes.
    pub fn parse(text: &str) -> Option<Self> {
        NodeId::parse(text).map(|NodeId(id)| Self(id))
    }
}

impl fmt::Display for Deployment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        NodeId(self.0).fmt(f)
    }
}

/// Where the sequence of a deployment ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Number of the newest document; 0 if there is none.
    pub number: u64,
    /// What [`sha256`] says of it; zeros if there is none.
    pub sha256: [u8; 32],
}

/// A document whose signatures and form were checked. Whose keys these are, and whether this is its place, is for the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Which kind of document it is.
    pub kind: Kind,
    /// The node or group that it is about.
    pub scope: Scope,
    /// For which deployment.
    pub deployment: Deployment,
    /// Its number and SHA-256.
    pub place: Place,
    /// [`sha256`] of the document before.
    pub previous: [u8; 32],
    /// Seconds since 1970, UTC.
    pub created: u64,
    /// As the kind says.
    pub body: String,
    /// Who signed. Empty for an entry of the server, and only then.
    pub keys: Vec<[u8; 32]>,
}

impl Opened {
    /// The enrollment that this proof is of.
    pub fn proves(&self) -> Option<Place> {
        if self.kind == Kind::Proof { proved(&self.body, self.place.number) } else { None }
    }

    /// Whether this tenant key signed it.
    pub fn is_by(&self, key: &[u8]) -> bool {
        self.keys.iter().any(|signer| signer == key)
    }
}

/// Why a document is not one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// More bytes than allowed.
    TooLarge(usize),
    /// A signature is missing, doubled or wrong.
    Signature(&'static str),
    /// It is signed, and does not say what it must.
    Form(String),
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge(max) => write!(f, "expected a document of at most {max} bytes, found more"),
            Self::Signature(what) => f.write_str(what),
            Self::Form(what) => write!(f, "envelope: {what}"),
        }
    }
}

/// What agent and servers do with different libraries.
pub trait Backend {
    /// Whether this is an Ed25519 signature (RFC 8032) by `key` over `message`.
    fn verify(&self, key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool;
    /// Reads the JSON.
    ///
    /// # Errors
    /// What is wrong with it.
    fn read(&self, text: &str) -> Result<Document, String>;
}

/// What a tenant key signs: label || document. The kind is inside.
pub fn signed_bytes(document: &[u8]) -> Vec<u8> {
    [label::DOCUMENT.as_bytes(), document].concat()
}

/// What the sequence knows a document by: SHA-256(label || its length || document || number of keys || keys), lengths and numbers
/// in eight bytes, big-endian; `keys` in the order of the signatures. Without the keys, anybody could sign the same text again in
/// the place of the one who did, and it would be the document of another tenant.
pub fn sha256(document: &[u8], keys: &[[u8; 32]]) -> [u8; 32] {
    use sha2::{Digest, Sha256};
    let length = |items: usize| (items as u64).to_be_bytes();
    let mut hash = Sha256::new();
    hash.update(label::PLACE);
    hash.update(length(document.len()));
    hash.update(document);
    hash.update(length(keys.len()));
    hash.update(keys.concat());
    hash.finalize().into()
}

/// Verifies every signature, then reads the envelope.
///
/// # Errors
/// The first thing that is wrong.
pub fn open(signed: &SignedDocument, max: usize, backend: &impl Backend) -> Result<Opened, Flaw> {
    if signed.document.len() > max {
        return Err(Flaw::TooLarge(max));
    }
    if signed.signatures.len() > MAX_SIGNATURES {
        return Err(Flaw::Signature("expected at most 8 signatures, found more"));
    }
    let wrong = || Flaw::Signature("expected a signature by the tenant key, found another");
    let message = signed_bytes(&signed.document);
    let mut keys: Vec<[u8; 32]> = Vec::with_capacity(signed.signatures.len());
    for signature in &signed.signatures {
        let key = signature.key.array().ok_or_else(wrong)?;
        if keys.contains(&key) {
            return Err(Flaw::Signature("expected one signature of each key, found two"));
        }
        let bytes = signature.signature.array().ok_or_else(wrong)?;
        if !backend.verify(&key, &message, &bytes) {
            return Err(wrong());
        }
        keys.push(key);
    }
    let opened = read(&signed.document, keys, backend)?;
    if opened.kind.is_signed() == opened.keys.is_empty() {
        return Err(Flaw::Signature(match opened.keys.len() {
            0 => "expected a signature by the tenant key, found none",
            _ => "expected no signature on an entry of the server, found one",
        }));
    }
    Ok(opened)
}

fn read(bytes: &Bytes, keys: Vec<[u8; 32]>, backend: &impl Backend) -> Result<Opened, Flaw> {
    let form = |what: &str| Flaw::Form(what.to_owned());
    let text = std::str::from_utf8(bytes).map_err(|_| form("expected UTF-8"))?;
    let document = backend.read(text).map_err(Flaw::Form)?;
    if document.format != FORMAT {
        return Err(Flaw::Form(format!("expected format {FORMAT}, found {}", document.format)));
    }
    let kind = Kind::parse(&document.kind).ok_or_else(|| form("expected a kind that is known here"))?;
    let scope = Scope::parse(&document.scope)
        .ok_or_else(|| form("expected a scope like node:ID, group:NAME or additions:ID"))?;
    if !kind.fits(&scope) {
        return Err(Flaw::Form(format!("{} can't be for {scope}", kind.with_article())));
    }
    let deployment =
        Deployment::parse(&document.deployment).ok_or_else(|| form("expected a deployment id: a UUID"))?;
    if !(1..=MAX_NUMBER).contains(&document.number) {
        return Err(Flaw::Form(format!(
            "expected a number from 1 to {MAX_NUMBER}, found {}",
            document.number
        )));
    }
    let previous = document.previous.array().ok_or_else(|| form("expected 32 bytes in previous"))?;
    match kind {
        Kind::Withdrawal if !document.body.is_empty() => {
            return Err(form("expected a withdrawal without a text"));
        }
        Kind::Membership if !document.body.is_empty() && !is_group_name(&document.body) => {
            return Err(form("expected the name of a group: 1 to 64 of a-z, 0-9, '-', '_' and '.'"));
        }
        Kind::Proof if proved(&document.body, document.number).is_none() => {
            return Err(form("expected number and SHA-256 of an enrollment before this proof"));
        }
        Kind::Withdrawal
        | Kind::Membership
        | Kind::Policy
        | Kind::Additions
        | Kind::Enrollment
        | Kind::Proof
        | Kind::Revocation
        | Kind::Restoration
        | Kind::Hold
        | Kind::Release
        | Kind::Approval => {}
    }
    let place = Place { number: document.number, sha256: sha256(bytes, &keys) };
    Ok(Opened {
        kind,
        scope,
        deployment,
        place,
        previous,
        created: document.created,
        body: document.body,
        keys,
    })
}

/// The body of a proof of this enrollment: its number in decimal, a space, its [`sha256`] in lower case hex.
pub fn proof_of(enrollment: &Place) -> String {
    use fmt::Write as _;
    let mut body = format!("{} ", enrollment.number);
    for byte in enrollment.sha256 {
        let _ = write!(body, "{byte:02x}");
    }
    body
}

/// What the body of proof `at` names: a document before its own, in no other form than that of [`proof_of`].
fn proved(body: &str, at: u64) -> Option<Place> {
    let (number, hex) = body.split_once(' ')?;
    let (number, hex) = (number.parse().ok()?, hex.as_bytes());
    let mut sha256 = [0; 32];
    if hex.len() != 2 * sha256.len() || !(1..at).contains(&number) {
        return None;
    }
    for (byte, digits) in sha256.iter_mut().zip(hex.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    let place = Place { number, sha256 };
    (proof_of(&place) == body).then_some(place)
}

/// Whether a document comes right after `head` in the sequence of this deployment.
///
/// # Errors
/// What is expected in its place.
pub fn follows(opened: &Opened, head: &Place) -> Result<(), String> {
    if opened.place.number != head.number + 1 {
        return Err(format!("expected number {}, found {}", head.number + 1, opened.place.number));
    }
    if opened.previous != head.sha256 {
        return Err(format!(
            "number {} is not after the document {} that is here",
            opened.place.number, head.number
        ));
    }
    Ok(())
}

/// The envelope of the document after `head`.
pub fn next(
    kind: Kind,
    scope: &Scope,
    deployment: Deployment,
    head: &Place,
    created: u64,
    body: String,
) -> Document {
    Document {
        format: FORMAT,
        kind: kind.as_str().to_owned(),
        scope: scope.to_string(),
        deployment: deployment.to_string(),
        number: head.number + 1,
        previous: head.sha256.into(),
        created,
        body,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::DocumentSignature;
    use proptest::prelude::*;

    /// A signature is right if it begins with its key.
    struct Plain;

    impl Backend for Plain {
        fn verify(&self, key: &[u8; 32], _: &[u8], signature: &[u8; 64]) -> bool {
            signature[..32] == key[..]
        }

        #[cfg(feature = "serde")]
        fn read(&self, text: &str) -> Result<Document, String> {
            serde_json::from_str(text).map_err(|e| e.to_string())
        }

        #[cfg(not(feature = "serde"))]
        fn read(&self, _: &str) -> Result<Document, String> {
            Err("no JSON here".into())
        }
    }

    fn by(key: u8) -> DocumentSignature {
        DocumentSignature { key: vec![key; 32].into(), signature: vec![key; 64].into() }
    }

    #[cfg(feature = "serde")]
    mod envelopes {
        use super::*;

        fn document(change: impl FnOnce(&mut Document)) -> Bytes {
            let scope = Scope::Group("web".into());
            let mut document =
                next(Kind::Policy, &scope, Deployment([5; 16]), &Place::default(), 1, "format = 1".into());
            change(&mut document);
            serde_json::to_vec(&document).unwrap().into()
        }

        fn opened(document: Bytes, signatures: Vec<DocumentSignature>) -> Result<Opened, Flaw> {
            open(&SignedDocument { document, signatures }, 4096, &Plain)
        }

        #[test]
        fn signatures_are_one_to_eight_of_different_keys_and_all_right() {
            let signed = |keys: Vec<DocumentSignature>| opened(document(|_| ()), keys);
            let one = signed(vec![by(1)]).unwrap();
            assert!(one.is_by(&[1; 32]) && !one.is_by(&[2; 32]));
            assert_eq!(signed((0..8).map(by).collect()).unwrap().keys.len(), 8);
            let wrong = DocumentSignature { signature: vec![9; 64].into(), ..by(2) };
            let short = DocumentSignature { key: vec![2; 31].into(), ..by(2) };
            for bad in
                [vec![], (0..9).map(by).collect(), vec![by(1), by(1)], vec![by(1), wrong], vec![by(1), short]]
            {
                assert!(matches!(signed(bad), Err(Flaw::Signature(_))));
            }
        }

        #[test]
        fn an_operators_entry_has_none() {
            let revocation = || {
                document(|d| {
                    (d.kind, d.scope) = ("revocation".into(), Scope::Revocation(NodeId([7; 16])).to_string())
                })
            };
            assert_eq!(opened(revocation(), vec![]).unwrap().kind, Kind::Revocation);
            assert!(matches!(opened(revocation(), vec![by(1)]), Err(Flaw::Signature(_))));
        }

        #[test]
        fn what_gives_a_node_something_has_one() {
            let node = NodeId([7; 16]);
            for (kind, scope) in [
                (Kind::Restoration, Scope::Revocation(node)),
                (Kind::Release, Scope::Hold(node)),
                (Kind::Approval, Scope::Approval(node)),
            ] {
                let given = || document(|d| (d.kind, d.scope) = (kind.as_str().into(), scope.to_string()));
                assert_eq!(opened(given(), vec![by(1)]).unwrap().kind, kind);
                assert!(matches!(opened(given(), vec![]), Err(Flaw::Signature(_))), "{scope}");
            }
        }

        fn proof(number: u64, body: &str) -> Result<Opened, Flaw> {
            let id = NodeId([7; 16]);
            let proof = document(|d| {
                (d.kind, d.scope) = ("proof".into(), Scope::Proof(id).to_string());
                (d.number, d.body) = (number, body.into());
            });
            opened(proof, vec![])
        }

        #[test]
        fn a_proof_names_an_enrollment_before_it() {
            let (eighth, hash) = (Place { number: 8, sha256: [0xa7; 32] }, "a7".repeat(32));
            assert_eq!(proof_of(&eighth), format!("8 {hash}"));
            assert_eq!(proof(9, &format!("8 {hash}")).unwrap().proves(), Some(eighth));
            for (number, named) in [(9, "9"), (9, "10"), (9, "0"), (1, "1")] {
                let body = format!("{named} {hash}");
                assert!(matches!(proof(number, &body), Err(Flaw::Form(_))), "{number} {body}");
            }
            for named in ["", "+8", "08", " 8", "8 ", "8\n", "-8", "8.0", "0x8", "18446744073709551624"] {
                let body = format!("{named} {hash}");
                assert!(matches!(proof(9, &body), Err(Flaw::Form(_))), "{body:?}");
            }
            for hash in
                ["", " ", &hash[1..], &hash[2..], &hash.replace('a', "A"), &hash.replacen("a7", "+7", 1)]
            {
                let body = format!("8 {hash}");
                assert!(matches!(proof(9, &body), Err(Flaw::Form(_))), "{body:?}");
            }
            for more in ["0", "a7", " ", "\n"] {
                let body = format!("8 {hash}{more}");
                assert!(matches!(proof(9, &body), Err(Flaw::Form(_))), "{body:?}");
            }
            assert!(matches!(proof(9, "8"), Err(Flaw::Form(_))), "a number alone is any document's");
            assert_eq!(opened(document(|_| ()), vec![by(1)]).unwrap().proves(), None);
        }

        #[test]
        fn what_an_envelope_says_has_to_fit() {
            let id = NodeId([7; 16]);
            type Change = fn(&mut Document);
            let changes: [Change; 10] = [
                |d| d.format = 2,
                |d| d.kind = "poem".into(),
                |d| d.kind = "enrollment".into(),
                |d| d.kind = "withdrawal".into(),
                |d| d.scope = "group:Web".into(),
                |d| d.deployment = "x".into(),
                |d| d.number = 0,
                |d| d.number = u64::MAX,
                |d| d.previous = vec![0; 31].into(),
                |d| (d.kind, d.scope) = ("membership".into(), Scope::Membership(NodeId([7; 16])).to_string()),
            ];
            for (index, change) in changes.into_iter().enumerate() {
                let flaw = opened(document(change), vec![by(1)]).unwrap_err();
                assert!(matches!(flaw, Flaw::Form(_)), "{index}: {flaw}");
            }
            for group in ["", "web"] {
                let member = document(|d| {
                    (d.kind, d.scope, d.body) =
                        ("membership".into(), Scope::Membership(id).to_string(), group.into());
                });
                assert_eq!(opened(member, vec![by(1)]).unwrap().body, group);
            }
            assert_eq!(opened(vec![b' '; 4097].into(), vec![by(1)]), Err(Flaw::TooLarge(4096)));
        }

        #[test]
        fn one_comes_after_the_other() {
            let first = opened(document(|_| ()), vec![by(1)]).unwrap();
            follows(&first, &Place::default()).unwrap();
            assert!(follows(&first, &first.place).is_err(), "not twice");
            let second = |previous: [u8; 32]| {
                opened(document(|d| (d.number, d.previous) = (2, previous.into())), vec![by(1)]).unwrap()
            };
            follows(&second(first.place.sha256), &first.place).unwrap();
            assert!(follows(&second([1; 32]), &first.place).is_err(), "another one before it");
            assert!(follows(&second(first.place.sha256), &Place::default()).is_err(), "one is missing");
        }

        #[test]
        fn another_signer_is_another_document() {
            let signed = |keys: &[u8]| {
                opened(document(|_| ()), keys.iter().copied().map(by).collect()).unwrap().place.sha256
            };
            let all = [signed(&[1]), signed(&[2]), signed(&[1, 2]), signed(&[2, 1])];
            for (index, place) in all.iter().enumerate() {
                assert!(!all[..index].contains(place), "{index}");
            }
            assert_eq!(signed(&[1]), all[0]);
        }

        proptest! {
            #[test]
            fn a_proof_is_of_one_document_or_none(number in 1..=MAX_NUMBER, named: u64, sha256: [u8; 32], body in "[0-9+-]{0,20} [0-9a-fA-F+]{64}|.{0,80}") {
                let named = Place { number: named % (number + 2), sha256 };
                let right = (1..number).contains(&named.number);
                prop_assert_eq!(proof(number, &proof_of(&named)).ok().map(|opened| opened.proves()), right.then_some(Some(named)));
                if let Ok(opened) = proof(number, &body) {
                    prop_assert_eq!(opened.proves().map(|named| proof_of(&named)), Some(body));
                }
            }

            #[test]
            fn any_bytes_are_refused_and_any_body_survives(bytes: Vec<u8>, body in ".{0,200}") {
                prop_assert!(opened(bytes.into(), vec![by(1)]).is_err());
                let kept = opened(document(|d| d.body = body.clone()), vec![by(1)]).unwrap();
                prop_assert_eq!(kept.body, body);
            }
        }
    }
}
