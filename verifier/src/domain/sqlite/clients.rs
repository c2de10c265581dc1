//! Certificates that are accepted.

use super::{as_u64, damaged, rows};
use crate::domain::{Client, ClientKind, Result};
use rusqlite::Connection;

/// What a certificate may do is never guessed: a kind that is not known is damage.
pub fn client(c: &Connection, row: ClientRow) -> Result<Client> {
    let ClientRow { fingerprint, name, kind, added_at, tag } = row;
    let fields = [fingerprint.as_bytes(), kind.as_bytes(), name.as_bytes()];
    if !rows::is_ours(c, rows::Kind::Client, &fields, tag.as_deref())? {
        let what = format!("table clients, {name:.64?}: kind {kind:.32}, which no halfkey-verifier listed");
        tracing::error!("the database was changed beside this server: {what}");
        return Err(damaged(&what));
    }
    let Some(kind) = ClientKind::parse(&kind) else {
        return Err(damaged(&format!("table clients, {name:.64?}: kind {kind:.32?}")));
    };
    Ok(Client { fingerprint, name, kind, added_at })
}

/// A certificate's row, as it was found.
pub struct ClientRow {
    fingerprint: String,
    name: String,
    kind: String,
    added_at: u64,
    tag: Option<Vec<u8>>,
}

pub fn client_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<ClientRow> {
    let (fingerprint, name, kind) = (row.get(0)?, row.get(1)?, row.get(2)?);
    Ok(ClientRow { fingerprint, name, kind, added_at: as_u64(row.get(3)?), tag: row.get(4)? })
}

pub fn client_tag(c: &Connection, fingerprint: &str, kind: &str, name: &str) -> Result<[u8; 32]> {
    rows::tag(c, rows::Kind::Client, &[fingerprint.as_bytes(), kind.as_bytes(), name.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::super::Sqlite;
    use super::*;
    use crate::domain::Store as _;
    use crate::keys::ClusterKey;

    fn store() -> (tempfile::TempDir, Sqlite) {
        let dir = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&dir.path().join("db"), ClusterKey::from_bytes(&[1; 32])).unwrap();
        (dir, store)
    }

    #[test]
    fn a_client_of_an_unknown_kind_is_damage_and_nobody() {
        let (_dir, store) = store();
        let client = |name: &str, kind| Client {
            fingerprint: name.to_owned(),
            name: name.to_owned(),
            kind,
            added_at: 1,
        };
        store.add_client(&client("ada", ClientKind::Operator)).unwrap();
        store.add_client(&client("peer", ClientKind::Verifier)).unwrap();
        assert_eq!(store.clients().unwrap().len(), 2);
        store.writer().execute("UPDATE clients SET kind = 'operator' WHERE name = 'peer'", []).unwrap();
        for said in [store.client("peer").unwrap_err(), store.clients().unwrap_err()] {
            let said = said.to_string();
            assert!(said.contains("table clients, \"peer\": kind operator, which no"), "{said}");
        }
        store.writer().execute("UPDATE clients SET kind = 'verifier' WHERE name = 'peer'", []).unwrap();
        let tag = client_tag(&store.writer(), "ada", "Operator", "ada").unwrap();
        let change = "UPDATE clients SET kind = 'Operator', tag = ?1 WHERE name = 'ada'";
        store.writer().execute(change, [tag]).unwrap();
        for said in [store.client("ada").unwrap_err(), store.clients().unwrap_err()] {
            let said = said.to_string();
            assert!(said.contains("table clients, \"ada\": kind \"Operator\""), "{said}");
        }
        assert_eq!(store.client("peer").unwrap().unwrap().kind, ClientKind::Verifier);
    }
}
