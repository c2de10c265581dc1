//! Rows that say by themselves what is allowed carry a tag by the cluster key, which is not in the database: who can only write
//! the database can't make one. A row with its tag that was put back from an older copy is not told by it.
//!
//! C_U is encrypted by the same means: whoever has it and C_V and the TPM has K, and no server is asked.

use super::{Error, Result};
use crate::keys::ClusterKey;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use halfkey_protocol::NodeId;
use halfkey_protocol::keys::half;
use halfkey_protocol::wire::Credential;
use zeroize::Zeroizing;

/// Of our own, so that no other use of the cluster key makes such a tag.
const LABEL: &[u8] = b"halfkey database row";

/// What a tag is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An operator approved a boot and it was not used: node, ticket, until when, who.
    Approval,
    /// A certificate is accepted: fingerprint, kind, name.
    Client,
    /// `trust_root_with_next_boot` accepted a proposal: node, id, SHA-256, scope, since when, base boot.
    Trusted,
    /// A node made a proposal: node, SHA-256 of its content, evidence of the boot that it comes from.
    Proposed,
    /// A boot was released: node, enrollment, evidence, resetCount, restartCount, fence, the policy's boot and its proposal. One of an
    /// earlier boot that was put back is of another resetCount than the quote of today.
    Released,
    /// A server took a document: deployment, number, SHA-256. It names those before it, too.
    Document,
    /// No tag but the key of one enrollment's C_U: node, enrollment.
    HalfKey,
}

impl Kind {
    fn label(self) -> &'static [u8] {
        match self {
            Self::Approval => b"approval",
            Self::Client => b"client",
            Self::Trusted => b"trusted",
            Self::Proposed => b"proposed",
            Self::Released => b"released",
            Self::Document => b"document",
            Self::HalfKey => b"C_U",
        }
    }
}

/// The tag of a row with these fields.
pub fn tag(key: &ClusterKey, kind: Kind, fields: &[&[u8]]) -> [u8; 32] {
    key.tag(&[LABEL, kind.label(), &framed(fields)])
}

/// Whether it is that of these fields.
pub fn is_ours(key: &ClusterKey, kind: Kind, fields: &[&[u8]], found: Option<&[u8]>) -> bool {
    found.is_some_and(|found| key.is_tag(&[LABEL, kind.label(), &framed(fields)], found))
}

/// The tag by the key in use, of a row that has it by another one that is accepted. None if it has the right one, or none at all.
pub fn renewed(key: &ClusterKey, kind: Kind, fields: &[&[u8]], found: Option<&[u8]>) -> Option<[u8; 32]> {
    let new = tag(key, kind, fields);
    let old = is_ours(key, kind, fields, found) && found.is_some_and(|found| !half::equal(&new, found));
    old.then_some(new)
}

fn framed(fields: &[&[u8]]) -> Vec<u8> {
    let mut framed = Vec::new();
    for field in fields {
        framed.extend_from_slice(&(field.len() as u64).to_be_bytes());
        framed.extend_from_slice(field);
    }
    framed
}

/// Encrypts C_U for the database: of an enrollment that nobody has fetched, or that the boot with a ticket has.
///
/// # Errors
/// When the kernel has no randomness to give.
pub fn seal(
    key: &ClusterKey,
    node: NodeId,
    enrollment: &str,
    fetched_by: Option<&str>,
    c_u: &Credential,
) -> Result<Vec<u8>> {
    let failed = || Error::unavailable("C_U could not be encrypted");
    let mut bytes = serde_json::to_vec(c_u).map_err(|_| failed())?;
    let key = half_keys(key, node, enrollment).next().ok_or_else(failed)?;
    let nonce = key
        .seal_in_place_append_tag(named(node, enrollment, fetched_by), &mut bytes)
        .map_err(|_| failed())?;
    Ok([nonce.as_ref().as_slice(), &bytes].concat())
}

/// The way back. None if it is not what this server encrypted for this enrollment, fetched by this boot or by none.
pub fn open(
    key: &ClusterKey,
    node: NodeId,
    enrollment: &str,
    fetched_by: Option<&str>,
    sealed: &[u8],
) -> Option<Credential> {
    half_keys(key, node, enrollment).find_map(|key| open_by(&key, node, enrollment, fetched_by, sealed))
}

/// The same by the key in use, if it is by another one that is accepted. None if there is nothing to do.
///
/// # Errors
/// When the kernel has no randomness to give.
pub fn resealed(
    key: &ClusterKey,
    node: NodeId,
    enrollment: &str,
    fetched_by: Option<&str>,
    sealed: &[u8],
) -> Result<Option<Vec<u8>>> {
    let mut keys = half_keys(key, node, enrollment);
    let used = keys.next();
    if used.is_none_or(|used| open_by(&used, node, enrollment, fetched_by, sealed).is_some()) {
        return Ok(None);
    }
    let opened = keys.find_map(|key| open_by(&key, node, enrollment, fetched_by, sealed));
    opened.map(|c_u| seal(key, node, enrollment, fetched_by, &c_u)).transpose()
}

fn open_by(
    key: &RandomizedNonceKey,
    node: NodeId,
    enrollment: &str,
    fetched_by: Option<&str>,
    sealed: &[u8],
) -> Option<Credential> {
    let (nonce, bytes) = sealed.split_first_chunk::<NONCE_LEN>()?;
    let mut bytes = bytes.to_vec();
    let opened =
        key.open_in_place(Nonce::from(nonce), named(node, enrollment, fetched_by), &mut bytes).ok()?;
    serde_json::from_slice(opened).ok()
}

/// What C_U of an enrollment is encrypted by: the key in use first.
fn half_keys(key: &ClusterKey, node: NodeId, enrollment: &str) -> impl Iterator<Item = RandomizedNonceKey> {
    let framed = framed(&[&node.0, enrollment.as_bytes()]);
    let keys: Vec<_> = key
        .tags(&[LABEL, Kind::HalfKey.label(), &framed])
        .filter_map(|tag| RandomizedNonceKey::new(&AES_256_GCM, &*Zeroizing::new(tag)).ok())
        .collect();
    keys.into_iter()
}

fn named(node: NodeId, enrollment: &str, fetched_by: Option<&str>) -> Aad<String> {
    // The key is of node and enrollment, so only the end tells.
    let fetched = fetched_by.map(|ticket| format!(" fetched by {ticket}")).unwrap_or_default();
    Aad::from(format!("{node} {enrollment}{fetched}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_of_one_kind_and_of_fields_and_by_one_key() {
        let (key, other) = (ClusterKey::from_bytes(&[1; 32]), ClusterKey::from_bytes(&[2; 32]));
        let fields: [&[u8]; 2] = [b"ab", b"c"];
        let right = tag(&key, Kind::Client, &fields);
        assert!(is_ours(&key, Kind::Client, &fields, Some(&right)));
        assert!(!is_ours(&key, Kind::Client, &[b"a", b"bc"], Some(&right)));
        assert!(!is_ours(&key, Kind::Client, &[b"abc"], Some(&right)));
        assert!(!is_ours(&key, Kind::Approval, &fields, Some(&right)));
        assert!(!is_ours(&key, Kind::Client, &fields, Some(&right[..31])));
        assert!(!is_ours(&key, Kind::Client, &fields, None));
        assert!(!is_ours(&other, Kind::Client, &fields, Some(&right)));
    }

    #[test]
    fn c_u_is_of_one_enrollment() {
        let (key, other) = (ClusterKey::from_bytes(&[1; 32]), ClusterKey::from_bytes(&[2; 32]));
        let (node, another) = (NodeId([7; 16]), NodeId([8; 16]));
        let c_u = Credential { id_object: vec![1; 50].into(), secret: vec![2; 256].into() };
        let sealed = seal(&key, node, "first", None, &c_u).unwrap();
        assert_ne!(sealed, seal(&key, node, "first", None, &c_u).unwrap());
        assert_eq!(open(&key, node, "first", None, &sealed).as_ref(), Some(&c_u));
        assert!(open(&key, node, "second", None, &sealed).is_none());
        assert!(open(&key, another, "first", None, &sealed).is_none());
        assert!(open(&other, node, "first", None, &sealed).is_none());
        let fetched = seal(&key, node, "first", Some("a"), &c_u).unwrap();
        assert_eq!(open(&key, node, "first", Some("a"), &fetched).as_ref(), Some(&c_u));
        for other in [None, Some("b"), Some("")] {
            assert!(open(&key, node, "first", other, &fetched).is_none());
        }
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(open(&key, node, "first", None, &changed).is_none());
            assert!(open(&key, node, "first", None, &sealed[..at]).is_none());
        }
    }
}
