//! Rows that say by themselves what is allowed carry a tag by the cluster key, which is not in the database: who can only write
//! the database can't make one. A row with its tag that was put back from an older copy is not told by it.
//!
//! C_U is encrypted by the same means: whoever has it and C_V and the TPM has K, and no server is asked.
//!
//! SQLite keeps the key, as a function of each connection that this process opened. What is tagged is handed over as it was read
//! or as it will be written; columns, which a trigger or a view in the file could change in between, are not named.

use super::{broken, id_text, json};
use crate::domain::{Result, StoreError};
use crate::keys::ClusterKey;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use halfkey_protocol::NodeId;
use halfkey_protocol::keys::half;
use halfkey_protocol::wire::Credential;
use rusqlite::Connection;
use rusqlite::functions::FunctionFlags;
use std::sync::Arc;
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
    /// No tag but the key of one enrollment's C_U: node, enrollment.
    HalfKey,
}

impl Kind {
    fn label(self) -> &'static [u8] {
        match self {
            Self::Approval => b"approval",
            Self::Client => b"client",
            Self::Trusted => b"trusted",
            Self::HalfKey => b"C_U",
        }
    }
}

/// Gives a connection the key.
pub fn install(c: &Connection, key: &Arc<ClusterKey>) -> Result<()> {
    let key = key.clone();
    // Direct only: what the file says of triggers and views can't have anything tagged.
    let flags =
        FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_DIRECTONLY;
    c.create_scalar_function("halfkey_tag", 2, flags, move |context| {
        let (kind, fields) = (context.get_raw(0).as_blob()?, context.get_raw(1).as_blob()?);
        Ok(key.tag(&[LABEL, kind, fields]).to_vec())
    })
    .map_err(broken)
}

/// The tag of a row with these fields.
///
/// # Errors
/// When SQLite fails.
pub fn tag(c: &Connection, kind: Kind, fields: &[&[u8]]) -> Result<[u8; 32]> {
    let mut framed = Vec::new();
    for field in fields {
        framed.extend_from_slice(&(field.len() as u64).to_be_bytes());
        framed.extend_from_slice(field);
    }
    c.prepare_cached("SELECT halfkey_tag(?1, ?2)")
        .and_then(|mut query| query.query_row([kind.label(), &framed], |row| row.get(0)))
        .map_err(broken)
}

/// Whether it is that of these fields.
///
/// # Errors
/// When SQLite fails.
pub fn is_ours(c: &Connection, kind: Kind, fields: &[&[u8]], found: Option<&[u8]>) -> Result<bool> {
    let Some(found) = found else { return Ok(false) };
    Ok(half::equal(&tag(c, kind, fields)?, found))
}

/// Encrypts C_U for the database.
///
/// # Errors
/// When SQLite fails, or the kernel has no randomness to give.
pub fn seal(c: &Connection, node: NodeId, enrollment: &str, c_u: &Credential) -> Result<Vec<u8>> {
    let failed = |_| StoreError::Unavailable("C_U could not be encrypted".to_owned());
    let mut bytes = json(c_u)?.into_bytes();
    let key = half_key(c, node, enrollment)?;
    let nonce = key.seal_in_place_append_tag(named(node, enrollment), &mut bytes).map_err(failed)?;
    Ok([nonce.as_ref().as_slice(), &bytes].concat())
}

/// The way back. None if it is not what this server encrypted for this enrollment.
///
/// # Errors
/// When SQLite fails.
pub fn open(c: &Connection, node: NodeId, enrollment: &str, sealed: &[u8]) -> Result<Option<Credential>> {
    let Some((nonce, bytes)) = sealed.split_first_chunk::<NONCE_LEN>() else { return Ok(None) };
    let mut bytes = bytes.to_vec();
    let key = half_key(c, node, enrollment)?;
    let opened = key.open_in_place(Nonce::from(nonce), named(node, enrollment), &mut bytes);
    Ok(opened.ok().and_then(|json| serde_json::from_slice(json).ok()))
}

fn half_key(c: &Connection, node: NodeId, enrollment: &str) -> Result<RandomizedNonceKey> {
    let key = Zeroizing::new(tag(c, Kind::HalfKey, &[&node.0, enrollment.as_bytes()])?);
    RandomizedNonceKey::new(&AES_256_GCM, &*key)
        .map_err(|_| StoreError::Unavailable("our bug: a key of another length".to_owned()))
}

fn named(node: NodeId, enrollment: &str) -> Aad<String> {
    Aad::from(format!("{} {enrollment}", id_text(node)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_of_one_kind_and_of_fields_and_by_one_key() {
        let open = |key: u8| {
            let c = Connection::open_in_memory().unwrap();
            install(&c, &Arc::new(ClusterKey::from_bytes(&[key; 32]))).unwrap();
            c
        };
        let (c, other) = (open(1), open(2));
        let fields: [&[u8]; 2] = [b"ab", b"c"];
        let right = tag(&c, Kind::Client, &fields).unwrap();
        let is = |c, kind, fields: &[&[u8]], found| is_ours(c, kind, fields, found).unwrap();
        assert!(is(&c, Kind::Client, &fields, Some(&right)));
        assert!(!is(&c, Kind::Client, &[b"a", b"bc"], Some(&right)));
        assert!(!is(&c, Kind::Client, &[b"abc"], Some(&right)));
        assert!(!is(&c, Kind::Approval, &fields, Some(&right)));
        assert!(!is(&c, Kind::Client, &fields, Some(&right[..31])));
        assert!(!is(&c, Kind::Client, &fields, None));
        assert!(!is(&other, Kind::Client, &fields, Some(&right)));
    }

    #[test]
    fn c_u_is_of_one_enrollment() {
        let open_with = |key: u8| {
            let c = Connection::open_in_memory().unwrap();
            install(&c, &Arc::new(ClusterKey::from_bytes(&[key; 32]))).unwrap();
            c
        };
        let (c, other) = (open_with(1), open_with(2));
        let (node, another) = (NodeId([7; 16]), NodeId([8; 16]));
        let c_u = Credential { id_object: vec![1; 50].into(), secret: vec![2; 256].into() };
        let sealed = seal(&c, node, "first", &c_u).unwrap();
        assert_ne!(sealed, seal(&c, node, "first", &c_u).unwrap());
        assert_eq!(open(&c, node, "first", &sealed).unwrap().as_ref(), Some(&c_u));
        assert!(open(&c, node, "second", &sealed).unwrap().is_none());
        assert!(open(&c, another, "first", &sealed).unwrap().is_none());
        assert!(open(&other, node, "first", &sealed).unwrap().is_none());
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(open(&c, node, "first", &changed).unwrap().is_none());
            assert!(open(&c, node, "first", &sealed[..at]).unwrap().is_none());
        }
    }

    #[test]
    fn what_the_file_says_can_t_have_anything_tagged() {
        let c = Connection::open_in_memory().unwrap();
        install(&c, &Arc::new(ClusterKey::from_bytes(&[1; 32]))).unwrap();
        c.execute_batch(
            "CREATE TABLE t (tag BLOB); CREATE TABLE u (x);
             CREATE VIEW v AS SELECT halfkey_tag(x'61', x'62') AS tag;
             CREATE TRIGGER r AFTER INSERT ON u BEGIN INSERT INTO t VALUES (halfkey_tag(x'61', x'62')); END;",
        )
        .unwrap();
        for sql in ["SELECT tag FROM v", "INSERT INTO u VALUES (1)"] {
            let refused = c.execute_batch(sql).unwrap_err().to_string();
            assert!(refused.contains("unsafe use of halfkey_tag"), "{refused}");
        }
    }
}
