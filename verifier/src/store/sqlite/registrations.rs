//! The registrar's records.

use super::{as_u64, audit, broken, from_json, id_text, json, number};
use crate::store::{By, NewRegistration, Registration, Result, Saved, StoreError};
use halfkey_protocol::identity::fingerprint;
use halfkey_protocol::{NodeId, Reason};
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};

/// One registration.
pub fn one(c: &Connection, node: NodeId) -> Result<Option<Registration>> {
    c.prepare_cached("SELECT register, registered_at, last_seen FROM registrations WHERE node_id = ?1")
        .and_then(|mut query| query.query_row([id_text(node)], fields).optional())
        .map_err(broken)?
        .map(read)
        .transpose()
}

/// All, by node id.
pub fn all(c: &Connection) -> Result<Vec<Registration>> {
    let mut query = c
        .prepare_cached("SELECT register, registered_at, last_seen FROM registrations ORDER BY node_id")
        .map_err(broken)?;
    let rows = query.query_map([], fields).map_err(broken)?;
    rows.map(|row| row.map_err(broken).and_then(read)).collect()
}

/// Stores what was activated.
pub fn save(tx: &Transaction<'_>, new: &NewRegistration, unenrolled: u64, now: u64) -> Result<Saved> {
    let id = id_text(new.node);
    let known: Option<(Vec<u8>, Vec<u8>)> = tx
        .prepare_cached("SELECT ak_name, srk_name FROM registrations WHERE node_id = ?1")
        .and_then(|mut query| query.query_row([&id], |row| Ok((row.get(0)?, row.get(1)?))).optional())
        .map_err(broken)?;
    let (saved, detail) = match known {
        Some((ak_name, _)) if ak_name != new.ak_name => {
            let what = format!("node {id} is registered with another attestation key");
            return Err(StoreError::Refused(Reason::AkChanged, what));
        }
        Some((_, srk_name)) if srk_name == new.srk_name => (Saved::Same, None),
        Some(_) => (Saved::SrkChanged, Some("storage key changed: the TPM was cleared".to_owned())),
        None => {
            require_room(tx, unenrolled)?;
            (Saved::New, Some(format!("EK {}", fingerprint(&new.register.ek_public))))
        }
    };
    let register = json(&new.register)?;
    tx.prepare_cached(
        "INSERT INTO registrations (node_id, ak_name, srk_name, register, registered_at, last_seen)
         VALUES (?1, ?2, ?3, ?4, ?5, ?5)
         ON CONFLICT (node_id) DO UPDATE SET srk_name = ?3, register = ?4, last_seen = ?5",
    )
    .and_then(|mut insert| insert.execute(params![id, new.ak_name, new.srk_name, register, number(now)]))
    .map_err(broken)?;
    if let Some(detail) = detail {
        let label = &new.register.label;
        let detail = format!("{label:?}: {detail}");
        audit::append(tx, By { actor: "node", now }, "register", Some(new.node), &detail)?;
    }
    Ok(saved)
}

/// A tenant enrolled it.
pub fn keep(tx: &Transaction<'_>, node: NodeId) -> Result<()> {
    match tx
        .execute("UPDATE registrations SET kept = 1 WHERE node_id = ?1", [id_text(node)])
        .map_err(broken)?
    {
        0 => Err(StoreError::Refused(Reason::UnknownNode, format!("node {node} is not registered"))),
        _ => Ok(()),
    }
}

/// Forgets those that no tenant enrolled.
pub fn expire(tx: &Transaction<'_>, before: u64, now: u64) -> Result<u64> {
    let expired: Vec<String> = tx
        .prepare_cached("DELETE FROM registrations WHERE kept = 0 AND last_seen < ?1 RETURNING node_id")
        .and_then(|mut delete| delete.query_map([number(before)], |row| row.get(0))?.collect())
        .map_err(broken)?;
    for id in &expired {
        let by = By { actor: "verifier", now };
        audit::append(tx, by, "expire", NodeId::parse(id), "no tenant enrolled it")?;
    }
    Ok(expired.len() as u64)
}

fn require_room(tx: &Transaction<'_>, unenrolled: u64) -> Result<()> {
    let count = "SELECT count(*) FROM registrations WHERE kept = 0";
    let waiting: i64 = tx.query_row(count, [], |row| row.get(0)).map_err(broken)?;
    if as_u64(waiting) < unenrolled {
        return Ok(());
    }
    let what = format!("{waiting} nodes wait for a tenant, at most {unenrolled} may");
    Err(StoreError::Refused(Reason::RateLimited, what))
}

type Fields = (String, i64, i64);

fn fields(row: &Row<'_>) -> rusqlite::Result<Fields> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
}

fn read((register, registered_at, last_seen): Fields) -> Result<Registration> {
    Ok(Registration {
        register: from_json(&register, "registration")?,
        registered_at: as_u64(registered_at),
        last_seen: as_u64(last_seen),
    })
}
