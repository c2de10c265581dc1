//! The registrar's records.

use super::{as_u64, audit, broken, damaged, from_json, id_text, json, number, shown};
use crate::domain::{By, NewRegistration, Registration, RegistrationLine, Result, Saved, StoreError, Which};
use crate::limit::{Holder, Source, first_to_go};
use halfkey_protocol::identity::fingerprint;
use halfkey_protocol::{NodeId, Reason};
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};
use std::net::IpAddr;
use std::time::Duration;

/// One registration.
pub fn one(c: &Connection, node: NodeId) -> Result<Option<Registration>> {
    c.prepare_cached(
        "SELECT register, challenge, registered_at, last_seen FROM registrations WHERE node_id = ?1",
    )
    .and_then(|mut query| query.query_row([id_text(node)], fields).optional())
    .map_err(broken)?
    .map(read)
    .transpose()
}

/// Lines of the list, by node id: a page never reads what the nodes sent.
pub fn list(c: &Connection, which: &Which, limit: u64) -> Result<Vec<RegistrationLine>> {
    let (condition, first, second) = which.condition();
    let sql = format!(
        "SELECT node_id, label, last_seen FROM registrations WHERE {condition} ORDER BY node_id LIMIT ?3"
    );
    let mut query = c.prepare_cached(&sql).map_err(broken)?;
    let rows = query.query_map(params![first, second, number(limit)], |row| {
        Ok(RegistrationLine {
            node_id: shown(row, 0)?.unwrap_or_default(),
            label: shown(row, 1)?.unwrap_or_default(),
            last_seen: as_u64(row.get(2)?),
        })
    });
    rows.and_then(Iterator::collect).map_err(broken)
}

/// Stores what was activated.
pub fn save(
    tx: &Transaction<'_>,
    new: &NewRegistration,
    challenge: &[u8; 32],
    unenrolled: u64,
    now: u64,
) -> Result<Saved> {
    let id = id_text(new.node);
    let known: Option<(Vec<u8>, Vec<u8>, bool)> = tx
        .prepare_cached("SELECT ak_name, srk_name, kept FROM registrations WHERE node_id = ?1")
        .and_then(|mut query| {
            query.query_row([&id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()
        })
        .map_err(broken)?;
    let kept = known.as_ref().is_some_and(|(.., kept)| *kept);
    let (saved, detail) = match known {
        Some((ak_name, ..)) if ak_name != new.ak_name => {
            let what = format!("node {id} is registered with another attestation key");
            return Err(StoreError::Refused(Reason::AkChanged, what));
        }
        Some((_, srk_name, _)) if srk_name == new.srk_name => (Saved::Same, None),
        Some(_) => (Saved::SrkChanged, Some("storage key changed: the TPM was cleared".to_owned())),
        None => {
            make_room(tx, unenrolled, now)?;
            (Saved::New, Some(format!("EK {}", fingerprint(&new.register.ek_public))))
        }
    };
    let register = json(&new.register)?;
    tx.prepare_cached(
        "INSERT INTO registrations (node_id, ak_name, srk_name, register, registered_at, last_seen, label, source,
             challenge)
         VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6, ?7, ?8)
         ON CONFLICT (node_id) DO UPDATE SET srk_name = ?3, register = ?4, last_seen = ?5, label = ?6, source = ?7,
             challenge = ?8",
    )
    .and_then(|mut insert| {
        let (label, source) = (&new.register.label, new.source.host().to_string());
        insert.execute(params![
            id, new.ak_name, new.srk_name, register, number(now), label, source, challenge
        ])
    })
    .map_err(broken)?;
    if let Some(detail) = detail {
        let label = &new.register.label;
        let detail = format!("{label:?}: {detail}");
        let (by, node) = (By { actor: "node", now }, Some(new.node));
        match kept {
            // It proved that it is a TPM that a tenant enrolled.
            true => audit::append(tx, by, "register", node, &detail)?,
            false => audit::count(tx, by, "register", &new.source.site(), node, &detail)?,
        }
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
    if let [first, ..] = &expired[..] {
        let registrations = crate::counted(expired.len(), "registration");
        let detail = format!("{registrations} that no tenant enrolled, the first {first}");
        audit::append(tx, By { actor: "verifier", now }, "expire", None, &detail)?;
    }
    Ok(expired.len() as u64)
}

/// At `unenrolled` records that no tenant enrolled one of them goes: the oldest of the source that has most. Software
/// TPMs cost nothing, so refusing would let whoever makes enough of them keep every machine out.
fn make_room(tx: &Transaction<'_>, unenrolled: u64, now: u64) -> Result<()> {
    let count = "SELECT count(*) FROM registrations WHERE kept = 0";
    let waiting: i64 = tx.query_row(count, [], |row| row.get(0)).map_err(broken)?;
    if as_u64(waiting) < unenrolled {
        return Ok(());
    }
    let sources: Vec<(String, i64, i64)> = tx
        .prepare_cached(
            "SELECT source, count(*), min(last_seen) FROM registrations WHERE kept = 0 GROUP BY source",
        )
        .and_then(|mut query| {
            query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect()
        })
        .map_err(broken)?;
    let holders = sources.iter().zip(0..).filter_map(|((source, count, oldest), id)| {
        let idle = Duration::from_secs(now.saturating_sub(as_u64(*oldest)));
        let source = Source::from(source.parse::<IpAddr>().ok()?);
        Some(Holder { id, source, weight: as_u64(*count), idle })
    });
    let Some((source, ..)) = first_to_go(holders.collect()).and_then(|gone| sources.get(gone as usize))
    else {
        let what = format!("{waiting} nodes wait for a tenant, at most {unenrolled} may");
        return Err(StoreError::Refused(Reason::RateLimited, what));
    };
    tx.prepare_cached(
        "DELETE FROM registrations WHERE node_id =
             (SELECT node_id FROM registrations WHERE kept = 0 AND source = ?1 ORDER BY last_seen LIMIT 1)",
    )
    .and_then(|mut delete| delete.execute([source]))
    .map_err(broken)?;
    let site = Source::from(source.parse::<IpAddr>().map_err(|e| damaged(&e.to_string()))?).site();
    let detail =
        format!("{waiting} nodes wait for a tenant: the oldest from {site}, which has most, was forgotten");
    audit::count(tx, By { actor: "verifier", now }, "evict", &site, None, &detail)
}

type Fields = (String, Vec<u8>, i64, i64);

fn fields(row: &Row<'_>) -> rusqlite::Result<Fields> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
}

fn read((register, challenge, registered_at, last_seen): Fields) -> Result<Registration> {
    Ok(Registration {
        register: from_json(&register, "registration")?,
        challenge: challenge.into(),
        registered_at: as_u64(registered_at),
        last_seen: as_u64(last_seen),
    })
}
