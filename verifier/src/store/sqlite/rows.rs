//! Rows that say by themselves what is allowed carry a tag by the cluster key, which is not in the database: who can only write
//! the database can't make one. A row with its tag that was put back from an older copy is not told by it.
//!
//! SQLite keeps the key, as a function of each connection that this process opened. What is tagged is handed over as it was read
//! or as it will be written; columns, which a trigger or a view in the file could change in between, are not named.

use super::broken;
use crate::keys::ClusterKey;
use crate::store::Result;
use halfkey_protocol::half;
use rusqlite::Connection;
use rusqlite::functions::FunctionFlags;
use std::sync::Arc;

/// Of our own, so that no other use of the cluster key makes such a tag.
const LABEL: &[u8] = b"halfkey database row";

/// What a tag is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An operator approved a boot and it was not used: node, ticket, until when, who.
    Approval,
    /// A certificate is accepted: fingerprint, kind, name.
    Client,
    /// `trust_root_with_next_boot` accepted a proposal: node, id, SHA-256, scope, base boot.
    Trusted,
}

impl Kind {
    fn label(self) -> &'static [u8] {
        match self {
            Self::Approval => b"approval",
            Self::Client => b"client",
            Self::Trusted => b"trusted",
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
