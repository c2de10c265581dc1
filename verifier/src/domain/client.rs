//! Certificates that are accepted.

use super::{By, Error, Result, TxView, audit, seal};
use crate::store::ClientRow;
use halfkey_protocol::Reason;

/// What a client certificate may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientKind {
    /// `/v1/operator`
    Operator,
    /// `/v1/internal`: the verifier, at its registrar.
    Verifier,
}

impl ClientKind {
    /// The name in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Verifier => "verifier",
        }
    }

    /// From the name in the database; none if it is not one of those.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Operator, Self::Verifier].into_iter().find(|kind| kind.as_str() == text)
    }
}

/// A client certificate that is accepted.
#[derive(Clone, Debug)]
pub struct Client {
    /// [`crate::pki::fingerprint`] of the certificate.
    pub fingerprint: String,
    /// Its common name.
    pub name: String,
    /// What for.
    pub kind: ClientKind,
    /// When it was listed, seconds since 1970.
    pub added_at: u64,
}

/// Whose certificate this is.
///
/// # Errors
/// When its row is damaged, or can't be read.
pub fn one(view: &TxView<'_>, fingerprint: &str) -> Result<Option<Client>> {
    view.rows.client(fingerprint)?.map(|row| read(view, row)).transpose()
}

/// Every certificate that is accepted.
///
/// # Errors
/// When a row is damaged, or can't be read.
pub fn all(view: &TxView<'_>) -> Result<Vec<Client>> {
    view.rows.clients()?.into_iter().map(|row| read(view, row)).collect()
}

/// Accepts a certificate.
///
/// # Errors
/// `Conflict`: the name is taken.
pub fn add(view: &TxView<'_>, new: &Client) -> Result<()> {
    let (kind, name) = (new.kind.as_str(), &new.name);
    let row = ClientRow {
        fingerprint: new.fingerprint.clone(),
        name: name.clone(),
        kind: kind.to_owned(),
        added_at: new.added_at,
        tag: Some(seal::tag(view.key, seal::Kind::Client, &fields(&new.fingerprint, kind, name)).to_vec()),
    };
    if !view.rows.insert_client(&row)? {
        return Err(Error::Refused(Reason::Conflict, format!("there is a {kind} named {name} already")));
    }
    let detail = format!("{kind} {name} with certificate {}", new.fingerprint);
    audit::append(view, By { actor: "verifier", now: new.added_at }, "operator_add", None, &detail)
}

/// Accepts it no longer.
///
/// # Errors
/// `NotFound`.
pub fn remove(view: &TxView<'_>, name: &str, kind: ClientKind, now: u64) -> Result<()> {
    let kind = kind.as_str();
    if !view.rows.delete_client(name, kind)? {
        return Err(Error::Refused(Reason::NotFound, format!("there is no {kind} named {name}")));
    }
    audit::append(view, By { actor: "verifier", now }, "operator_remove", None, &format!("{kind} {name}"))
}

/// Gives rows the tag by the key in use. Gives how many that were.
///
/// # Errors
/// When the database can't be written.
pub fn renew(view: &TxView<'_>) -> Result<usize> {
    let mut count = 0;
    for row in view.rows.clients()? {
        let ClientRow { fingerprint, name, kind, tag, .. } = &row;
        let fields = fields(fingerprint, kind, name);
        let Some(tag) = seal::renewed(view.key, seal::Kind::Client, &fields, tag.as_deref()) else {
            continue;
        };
        view.rows.delete_client(name, kind)?;
        view.rows.insert_client(&ClientRow { tag: Some(tag.to_vec()), ..row })?;
        count += 1;
    }
    Ok(count)
}

/// What a certificate may do is never guessed: a kind that is not known is damage.
fn read(view: &TxView<'_>, row: ClientRow) -> Result<Client> {
    let ClientRow { fingerprint, name, kind, added_at, tag } = row;
    if !seal::is_ours(view.key, seal::Kind::Client, &fields(&fingerprint, &kind, &name), tag.as_deref()) {
        let what = format!("table clients, {name:.64?}: kind {kind:.32}, which no halfkey-verifier listed");
        tracing::error!("the database was changed beside this server: {what}");
        return Err(Error::damaged(what));
    }
    let Some(kind) = ClientKind::parse(&kind) else {
        return Err(Error::damaged(format!("table clients, {name:.64?}: kind {kind:.32?}")));
    };
    Ok(Client { fingerprint, name, kind, added_at })
}

/// What the tag is over.
fn fields<'a>(fingerprint: &'a str, kind: &'a str, name: &'a str) -> [&'a [u8]; 3] {
    [fingerprint.as_bytes(), kind.as_bytes(), name.as_bytes()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Records;
    use crate::keys::ClusterKey;
    use crate::store::{Store as _, Then, memory::Memory};
    use std::sync::Arc;

    #[test]
    fn a_client_of_an_unknown_kind_is_damage_and_nobody() {
        let key = || ClusterKey::from_bytes(&[1; 32]);
        let rows = Arc::new(Memory::default());
        let records = Records::over(rows.clone(), key()).unwrap();
        let client = |name: &str, kind| Client {
            fingerprint: name.to_owned(),
            name: name.to_owned(),
            kind,
            added_at: 1,
        };
        records.add_client(&client("ada", ClientKind::Operator)).unwrap();
        records.add_client(&client("peer", ClientKind::Verifier)).unwrap();
        assert_eq!(records.clients().unwrap().len(), 2);
        let forge = |name: &str, kind: &str, tag: Option<[u8; 32]>| {
            rows.write(crate::store::Changes::Rows, &mut |tx| {
                let mut row = tx.client(name).unwrap().unwrap();
                tx.delete_client(name, &row.kind).unwrap();
                row.kind = kind.to_owned();
                row.tag = tag.map(|tag| tag.to_vec()).or(row.tag);
                tx.insert_client(&row).unwrap();
                Then::Commit
            })
            .unwrap();
        };
        forge("peer", "operator", None);
        for said in [records.client("peer").unwrap_err(), records.clients().unwrap_err()] {
            let said = said.to_string();
            assert!(said.contains("table clients, \"peer\": kind operator, which no"), "{said}");
        }
        forge("peer", "verifier", None);
        // By a server of another version.
        let tag = seal::tag(&key(), seal::Kind::Client, &fields("ada", "Operator", "ada"));
        forge("ada", "Operator", Some(tag));
        for said in [records.client("ada").unwrap_err(), records.clients().unwrap_err()] {
            let said = said.to_string();
            assert!(said.contains("table clients, \"ada\": kind \"Operator\""), "{said}");
        }
        assert_eq!(records.client("peer").unwrap().unwrap().kind, ClientKind::Verifier);
    }
}
