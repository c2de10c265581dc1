//! Nodes and their enrollments.

use super::{
    as_u64, audit, broken, damaged, documents, from_json, id_text, json, number, policies, proposals, rows,
    shown,
};
use crate::domain::sequence::{Index, Sequence, Stage};
use crate::domain::{
    By, Counters, Damage, Enrollment, Governing, NewDocument, NewEnrollment, Node, NodeLine, ReleasedBoot,
    Result, StoreError, Which, legible, node_state,
};
use crate::{CLOCK_TOLERANCE, utc};
use halfkey_evidence::policy::{Matched, Origin};
use halfkey_protocol::document::{self, Deployment, Kind, Opened, Scope};
use halfkey_protocol::identity::{self, fingerprint};
use halfkey_protocol::keys::half;
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::tpm::qualifying_data::Wanted;
use halfkey_protocol::wire::operator::{Held, TpmFirmware};
use halfkey_protocol::wire::{Credential, Register, SignedDocument, credential_digest};
use halfkey_protocol::{NodeId, Reason};
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};

/// One node, compared with what was signed about it.
pub fn one(c: &Connection, node: NodeId, index: &Index) -> Result<Option<Node>> {
    let mut found = unchecked(c, node, index.since(node))?;
    if let Some(found) = &mut found {
        index.check(found);
    }
    Ok(found)
}

/// The same as the rows say, for a transaction whose document the sequence has not got yet. Documents for this node up to `since`
/// are a former tenant's.
pub fn unchecked(c: &Connection, node: NodeId, since: u64) -> Result<Option<Node>> {
    const SQL: &str = "SELECT label, revoked_because, group_name, last_seen, last_outcome, last_code,
                              held_by, held_because,
                              tpm_firmware, tpm_firmware_before, tpm_firmware_since, group_number
                       FROM nodes WHERE node_id = ?1";
    let found = c.prepare_cached(SQL).and_then(|mut query| {
        let read = |row: &Row<'_>| {
            let group: (Option<String>, Option<i64>) = (shown(row, 2)?, row.get(11)?);
            let node = Node {
                id: node,
                label: shown(row, 0)?.unwrap_or_default(),
                revoked: shown(row, 1)?,
                held: None,
                tpm_firmware: None,
                current: None,
                open: None,
                governing: Governing::default(),
                damage: None,
                last_seen: as_u64(row.get(3)?),
                last_outcome: shown(row, 4)?,
                last_code: shown(row, 5)?,
            };
            let held: (Option<String>, Option<String>) = (shown(row, 6)?, shown(row, 7)?);
            let firmware: (Option<String>, Option<String>, Option<i64>) =
                (shown(row, 8)?, shown(row, 9)?, row.get(10)?);
            Ok((node, group, held, firmware))
        };
        query.query_row([id_text(node)], read).optional()
    });
    let Some((mut found, (group, membership), held, firmware)) = found.map_err(broken)? else {
        return Ok(None);
    };
    found.held = match held {
        (None, None) => None,
        // Half of a hold is one.
        (by, because) => Some(Held { by: by.unwrap_or_default(), because: because.unwrap_or_default() }),
    };
    let mut damage = None;
    found.tpm_firmware = match firmware {
        (Some(version), before, Some(since)) => Some(TpmFirmware { version, before, since: as_u64(since) }),
        (None, None, None) => None,
        (None, Some(_), _) | (None, _, Some(_)) | (Some(_), _, None) => {
            let why = format!("table nodes, {node}: tpm_firmware and since when, not both or none");
            damage = Some(Damage::Governing(why));
            None
        }
    };
    // A damaged row allows nothing. Nor does it forbid: who wrote it must not keep others from revoking the node or enrolling it again.
    let (current, why_current) = legible(enrollment(c, node, "current"))?;
    let (open, why_open) = legible(enrollment(c, node, "open"))?;
    let key = current.as_ref().or(open.as_ref()).map(|enrollment| enrollment.signed.tenant_key());
    let governing = policies::governing(c, node, group, membership.map(as_u64), since, key);
    let (governing, why) = legible(governing)?;
    damage = why.map(Damage::Governing).or(damage);
    damage = why_open.or(why_current).map(Damage::Enrollment).or(damage);
    Ok(Some(Node { governing, current, open, damage, ..found }))
}

/// Lines of the list, by node id, with what was signed about them. Those with a name or an id that begins so: first what
/// documents name, else rows could hide it; of these, first what is called so and was proved, which not every operator can sign.
pub fn list(c: &Connection, which: &Which, limit: u64, now: u64, index: &Index) -> Result<Vec<NodeLine>> {
    let rows = lines(c, which, limit, now, index)?;
    let Which::Named(name) = which else { return Ok(rows) };
    let mut named: Vec<NodeId> = index.named(name).collect();
    named.sort_by_key(|node| (index.label(*node) != Some(name), !index.is_proved(*node), *node));
    named.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let mut found = Vec::new();
    for node in &named {
        let row = lines(c, &Which::One(*node), 1, now, index)?.pop();
        found.push(row.unwrap_or_else(|| without_row(*node, index)));
    }
    found.extend(rows.into_iter().filter(|row| !named.contains(&row.id)));
    Ok(found)
}

/// What documents say of a node whose row was deleted.
fn without_row(id: NodeId, index: &Index) -> NodeLine {
    let mut line = NodeLine {
        id,
        label: String::new(),
        state: node_state(false, false, false),
        pending: false,
        held: false,
        cloned: false,
        last_seen: 0,
        last_outcome: None,
        last_code: None,
    };
    index.amend(&mut line);
    line
}

/// Lines as the rows are found. One whose id is none is no node's, and on no page.
fn lines(c: &Connection, which: &Which, limit: u64, now: u64, index: &Index) -> Result<Vec<NodeLine>> {
    let (condition, first, second) = which.condition();
    let sql = format!(
            "SELECT node_id, label, revoked_because IS NOT NULL,
                    EXISTS (SELECT 1 FROM enrollments e WHERE e.node_id = n.node_id AND e.state = 'open'),
                    EXISTS (SELECT 1 FROM enrollments e WHERE e.node_id = n.node_id AND e.state = 'current'),
                    EXISTS (SELECT 1 FROM boots b WHERE b.node_id = n.node_id AND b.decision IS NULL AND b.expires > ?4),
                    last_seen, last_outcome, last_code, held_by IS NOT NULL,
                    EXISTS (SELECT 1 FROM enrollments e WHERE e.node_id = n.node_id AND e.state = 'current'
                                AND e.released_twin IS NOT NULL)
             FROM nodes n WHERE {condition} AND node_id GLOB '{}' ORDER BY node_id LIMIT ?3",
            [8, 4, 4, 4, 12].map(|digits| "[0-9a-f]".repeat(digits)).join("-")
        );
    let mut query = c.prepare_cached(&sql).map_err(broken)?;
    let rows = query.query_map(params![first, second, number(limit), number(now)], |row| {
        let line = |id| -> rusqlite::Result<NodeLine> {
            Ok(NodeLine {
                id,
                label: shown(row, 1)?.unwrap_or_default(),
                state: node_state(row.get(2)?, row.get(3)?, row.get(4)?),
                pending: row.get(5)?,
                last_seen: as_u64(row.get(6)?),
                last_outcome: shown(row, 7)?,
                last_code: shown(row, 8)?,
                held: row.get(9)?,
                cloned: row.get(10)?,
            })
        };
        NodeId::parse(&shown(row, 0)?.unwrap_or_default()).map(line).transpose()
    });
    let found: Vec<Option<NodeLine>> = rows.and_then(Iterator::collect).map_err(broken)?;
    let mut lines: Vec<NodeLine> = found.into_iter().flatten().collect();
    lines.iter_mut().for_each(|line| index.amend(line));
    Ok(lines)
}

/// Stores an enrollment as open. The node is called as it says if none was proved yet.
pub fn enroll(tx: &Transaction<'_>, new: &NewEnrollment<'_>, index: &Index, by: By<'_>) -> Result<()> {
    let node = id_text(new.node);
    let label = Some(new.label).filter(|_| !index.is_proved(new.node));
    upsert(tx, new.node, label, by.now)?;
    require_not_revoked(tx, new.node, index.revoked(new.node))?;
    let NewDocument { opened, signed } = new.document;
    require_newer(tx, new.node, opened.created, by.now)?;
    documents::append(tx, opened, signed, by)?;
    // An earlier one that the node never proved: its halves are of no more use.
    tx.execute(
        "UPDATE enrollments SET state = 'replaced', c_v_id = NULL, c_v_secret = NULL, c_u = NULL
         WHERE node_id = ?1 AND state = 'open'",
        [&node],
    )
    .map_err(broken)?;
    let inserted = tx.execute(
        "INSERT OR IGNORE INTO enrollments
             (enrollment_id, node_id, state, number, tenant_key, registration, bank,
              c_v_id, c_v_secret, c_u, enrolled_at, enrolled_by)
         VALUES (?1, ?2, 'open', ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        params![
            new.id,
            node,
            number(opened.place.number),
            signed.tenant_key(),
            json(new.registration)?,
            new.bank.name(),
            new.c_v.id_object.0,
            new.c_v.secret.0,
            rows::seal(tx, new.node, new.id, new.c_u)?,
            number(by.now),
            by.actor,
        ],
    );
    if inserted.map_err(broken)? == 0 {
        let what = format!("enrollment {} was used before", new.id);
        return Err(StoreError::Refused(Reason::Conflict, what));
    }
    let first_use = tx
        .execute(
            "INSERT OR IGNORE INTO tenant_keys (operator, tenant_key, first_used) VALUES (?1, ?2, ?3)",
            params![by.actor, signed.tenant_key(), number(by.now)],
        )
        .map_err(broken)?
        == 1;
    let detail = format!(
        "{:?}: enrollment {}, tenant key {}{}",
        new.label,
        new.id,
        fingerprint(signed.tenant_key()),
        if first_use { " (first use by this operator)" } else { "" }
    );
    audit::append(tx, by, "enroll", Some(new.node), &detail)
}

/// Its `created` becomes the floor of the node's clock, which must not go backwards. One
/// that is in the future itself can't be what the next is measured by.
fn require_newer(tx: &Transaction<'_>, node: NodeId, created: u64, now: u64) -> Result<()> {
    // From a damaged one nothing is known, and this one mends it.
    let (Some(current), _) = legible(enrollment(tx, node, "current"))? else { return Ok(()) };
    if created < current.created && current.created <= now.saturating_add(CLOCK_TOLERANCE) {
        let (found, expected) = (utc(created), utc(current.created));
        let what = format!(
            "the new enrollment was created at {found}, the current one at {expected}: the clock of one of the clients was wrong"
        );
        return Err(StoreError::Refused(Reason::Conflict, what));
    }
    Ok(())
}

/// The node holds K: that takes its place in the sequence, as [`entry`] does. Gives nothing if it is there already.
pub fn prove(
    tx: &Transaction<'_>,
    node: NodeId,
    enrollment: &str,
    proof: &[u8],
    sequence: &Sequence,
    now: u64,
) -> Result<Option<Opened>> {
    let index = sequence.index();
    require_not_revoked(tx, node, index.revoked(node))?;
    const SQL: &str = "SELECT state, d.signatures, d.document, fetched_by IS NOT NULL
                       FROM enrollments e JOIN documents d ON d.number = e.number
                       WHERE enrollment_id = ?1 AND node_id = ?2";
    let found: Option<(String, SignedDocument, bool)> = tx
        .prepare_cached(SQL)
        .and_then(|mut query| {
            let read = |row: &Row<'_>| Ok((row.get(0)?, documents::signed(row, 1)?, row.get(3)?));
            query.query_row([enrollment, &id_text(node)], read).optional()
        })
        .map_err(broken)?;
    let Some((state, signed, fetched)) = found else {
        let what = format!("node {node} has no enrollment {enrollment}");
        return Err(StoreError::Refused(Reason::NotEnrolled, what));
    };
    // What the proof is compared with is the tenant's word.
    let (opened, said) = halfkey_evidence::document::open_enrollment(&signed)
        .map_err(|e| damaged(&format!("table enrollments, {enrollment:.64}: document: {e}")))?;
    if opened.scope != Scope::Enrollment(node) || said.enrollment_id != enrollment {
        return Err(damaged(&format!("table enrollments, {enrollment:.64}: the document is another one's")));
    }
    if !half::equal(&half::proof_digest(proof), &said.proof_sha256) {
        return Err(StoreError::Refused(Reason::Proof, format!("of enrollment {enrollment}")));
    }
    // Another document of its number would be proved by whoever wrote it there.
    let stage = index.stage(node, &opened.place).ok_or_else(|| {
        damaged(&format!(
            "table documents, {}: it is another one than in the sequence\n  found  {}",
            opened.place.number,
            crate::hex(&opened.place.sha256)
        ))
    })?;
    match (stage, state.as_str()) {
        (Stage::Open, "open") if fetched => {}
        // Whoever signed it knows K as well: it is the machine's word only once its TPM was given the halves.
        (Stage::Open, "open") => {
            let what = format!("of enrollment {enrollment}, which the node has not fetched");
            return Err(StoreError::Refused(Reason::Proof, what));
        }
        // The answer was lost and the node asks again.
        (Stage::Proved, "current") => return Ok(None),
        (Stage::UsedUp, "open") => {
            let what = format!("enrollment {enrollment} was open in a database that was restored since");
            return Err(StoreError::Refused(Reason::EnrollmentUsed, what));
        }
        (Stage::Replaced, "replaced") => {
            let what = format!("enrollment {enrollment} was replaced by a newer one");
            return Err(StoreError::Refused(Reason::EnrollmentUsed, what));
        }
        (stage @ (Stage::Open | Stage::UsedUp | Stage::Proved | Stage::Replaced), other) => {
            return Err(damaged(&format!(
                "table enrollments, {enrollment:.64}: state {other:.32?}, and the sequence says {stage:?}"
            )));
        }
    }
    tx.execute(
        "UPDATE enrollments SET state = 'replaced', c_v_id = NULL, c_v_secret = NULL
         WHERE node_id = ?1 AND state = 'current'",
        [id_text(node)],
    )
    .and_then(|_| {
        tx.execute(
            "UPDATE enrollments SET state = 'current', c_u = NULL, proved_at = ?2
             WHERE enrollment_id = ?1",
            params![enrollment, super::number(now)],
        )
    })
    .map_err(broken)?;
    upsert(tx, node, Some(&said.label), now)?;
    policies::forget_of_others(tx, node, enrollment, index)?;
    if index.goes_to_another(node) {
        proposals::forget_of_others(tx, node)?;
    }
    let by = By { actor: "node", now };
    audit::append(tx, by, "prove", Some(node), &format!("enrollment {enrollment}"))?;
    let body = document::proof_of(&opened.place);
    entry(tx, Kind::Proof, Scope::Proof(node), body, sequence.deployment(), by).map(Some)
}

/// Nothing is released any more. Approvals are void, also after [`restore`]. Gives the entry of the sequence.
pub fn revoke(
    tx: &Transaction<'_>,
    node: NodeId,
    label: &str,
    because: &str,
    deployment: Deployment,
    by: By<'_>,
) -> Result<Opened> {
    upsert(tx, node, None, by.now)?;
    tx.execute(
        "UPDATE nodes SET revoked_because = ?2, label = iif(label = '', ?3, label) WHERE node_id = ?1",
        params![id_text(node), because, label],
    )
    .and_then(|_| tx.execute("DELETE FROM boots WHERE node_id = ?1", [id_text(node)]))
    .map_err(broken)?;
    audit::append(tx, by, "revoke", Some(node), because)?;
    entry(tx, Kind::Revocation, Scope::Revocation(node), said(because, by), deployment, by)
}

/// Takes that back. `revoked` is what the sequence says of the node. Gives the entry of the sequence.
pub fn restore(
    tx: &Transaction<'_>,
    node: NodeId,
    because: &str,
    revoked: bool,
    deployment: Deployment,
    by: By<'_>,
) -> Result<Opened> {
    let restored = tx.execute(
        "UPDATE nodes SET revoked_because = NULL WHERE node_id = ?1 AND revoked_because IS NOT NULL",
        [id_text(node)],
    );
    if restored.map_err(broken)? == 0 && !revoked {
        return Err(StoreError::Refused(Reason::Conflict, format!("node {node} is not revoked")));
    }
    audit::append(tx, by, "restore", Some(node), because)?;
    entry(tx, Kind::Restoration, Scope::Revocation(node), said(because, by), deployment, by)
}

/// Deletes C_U of whatever enrollment has one, whatever its row says of itself. That they are used up is the state file's word
/// ([`Stage::UsedUp`]).
pub fn delete_c_u(tx: &Transaction<'_>) -> Result<()> {
    tx.execute("UPDATE enrollments SET c_u = NULL WHERE c_u IS NOT NULL", []).map(|_| ()).map_err(broken)
}

/// What an operator says, and that an enrollment was proved, takes its place between the documents: else its row could be put back
/// unseen.
fn entry(
    tx: &Transaction<'_>,
    kind: Kind,
    scope: Scope,
    body: String,
    deployment: Deployment,
    by: By<'_>,
) -> Result<Opened> {
    let text = document::next(kind, &scope, deployment, &documents::head(tx)?, by.now, body);
    let signed = SignedDocument { document: json(&text)?.into_bytes().into(), signatures: Vec::new() };
    let opened = halfkey_evidence::document::open(&signed)
        .map_err(|flaw| StoreError::Unavailable(format!("our bug: {flaw}")))?;
    documents::append(tx, &opened, &signed, by)?;
    Ok(opened)
}

/// Who and why, as an entry says it.
fn said(because: &str, by: By<'_>) -> String {
    format!("{}: {because}", by.actor)
}

/// Its boots are denied from now on, so that they ask for the passphrase at once and with the disk closed. Somebody
/// else's hold is taken over: the trail has both. `enrolled` is what the sequence says of the node: then its row may be gone, and
/// come back.
pub fn hold(
    tx: &Transaction<'_>,
    node: NodeId,
    because: &str,
    enrolled: bool,
    deployment: Deployment,
    by: By<'_>,
) -> Result<Opened> {
    if enrolled {
        upsert(tx, node, None, by.now)?;
    }
    let held = tx.execute(
        "UPDATE nodes SET held_by = ?2, held_because = ?3 WHERE node_id = ?1",
        params![id_text(node), by.actor, because],
    );
    if held.map_err(broken)? == 0 {
        return Err(StoreError::Refused(Reason::NotEnrolled, format!("node {node} has no boots to hold")));
    }
    audit::append(tx, by, "hold", Some(node), because)?;
    entry(tx, Kind::Hold, Scope::Hold(node), said(because, by), deployment, by)
}

/// Takes that back.
pub fn release(
    tx: &Transaction<'_>,
    node: NodeId,
    because: &str,
    held: bool,
    deployment: Deployment,
    by: By<'_>,
) -> Result<Opened> {
    let released = tx.execute(
        "UPDATE nodes SET held_by = NULL, held_because = NULL
         WHERE node_id = ?1 AND coalesce(held_by, held_because) IS NOT NULL",
        [id_text(node)],
    );
    if released.map_err(broken)? == 0 && !held {
        return Err(StoreError::Refused(Reason::Conflict, format!("node {node} is not held")));
    }
    audit::append(tx, by, "release", Some(node), because)?;
    entry(tx, Kind::Release, Scope::Hold(node), said(because, by), deployment, by)
}

/// The node's enrollment accepted a quote with these.
pub fn set_counters(tx: &Transaction<'_>, enrollment: &str, counters: Counters) -> Result<()> {
    tx.prepare_cached(
        "UPDATE enrollments SET reset_count = ?2, restart_count = ?3, clock = ?4 WHERE enrollment_id = ?1",
    )
    .and_then(|mut update| {
        let clock = number(counters.clock);
        update.execute(params![enrollment, counters.reset, counters.restart, clock])
    })
    .map(|_| ())
    .map_err(broken)
}

/// What the node's TPM says of its firmware. A change is recorded: an update by its owner, or another TPM's answers.
pub fn set_firmware(tx: &Transaction<'_>, node: &Node, version: u64, evidence: u64, now: u64) -> Result<()> {
    let found = firmware(version);
    let before = node.tpm_firmware.as_ref().map(|firmware| firmware.version.as_str());
    if before == Some(found.as_str()) {
        return Ok(());
    }
    tx.execute(
        "UPDATE nodes SET tpm_firmware = ?2, tpm_firmware_before = ?3, tpm_firmware_since = ?4 WHERE node_id = ?1",
        params![id_text(node.id), found, before, number(now)],
    )
    .map_err(broken)?;
    let Some(before) = before else { return Ok(()) };
    let detail = format!("firmware of the TPM: {before} before, {found} now (evidence {evidence})");
    audit::append(tx, By { actor: "verifier", now }, "tpm_firmware", Some(node.id), &detail)
}

/// A firmware version as it is recorded and shown.
pub fn firmware(version: u64) -> String {
    format!("{version:#018x}")
}

/// This boot was released.
pub fn set_released(tx: &Transaction<'_>, enrollment: &str, boot: &ReleasedBoot) -> Result<()> {
    tx.prepare_cached(
        "UPDATE enrollments SET released_evidence = ?2, released_reset = ?3, released_restart = ?4,
                                released_fence = ?5, released_boot = ?6, released_twin = ?7,
                                released_proposal = ?8
         WHERE enrollment_id = ?1",
    )
    .and_then(|mut update| {
        let (evidence, twin) = (number(boot.evidence_id), boot.twin.map(number));
        let name = boot.boot.as_ref().map(|matched| matched.name.as_str());
        let proposal = boot.boot.as_ref().and_then(|matched| match matched.origin {
            Origin::Document => None,
            Origin::Proposal(id) => Some(number(id)),
        });
        let ReleasedBoot { reset, restart, fence, .. } = boot;
        update.execute(params![enrollment, evidence, reset, restart, fence, name, twin, proposal])
    })
    .map(|_| ())
    .map_err(broken)
}

/// Makes the node's row, if there is none; sets the label, if one is given.
pub fn upsert(tx: &Transaction<'_>, node: NodeId, label: Option<&str>, now: u64) -> Result<()> {
    tx.execute(
        "INSERT INTO nodes (node_id, label, last_seen) VALUES (?1, coalesce(?2, ''), ?3)
         ON CONFLICT (node_id) DO UPDATE SET label = coalesce(?2, label)",
        params![id_text(node), label, number(now)],
    )
    .map(|_| ())
    .map_err(broken)
}

/// A row that says less than the sequence takes no revocation back.
fn require_not_revoked(tx: &Transaction<'_>, node: NodeId, by_sequence: Option<&str>) -> Result<()> {
    let because: Option<Option<String>> = tx
        .prepare_cached("SELECT revoked_because FROM nodes WHERE node_id = ?1")
        .and_then(|mut query| query.query_row([id_text(node)], |row| shown(row, 0)).optional())
        .map_err(broken)?;
    match because.flatten().or_else(|| by_sequence.map(str::to_owned)) {
        Some(because) => Err(StoreError::Refused(Reason::Revoked, because)),
        None => Ok(()),
    }
}

fn enrollment(c: &Connection, node: NodeId, state: &str) -> Result<Option<Enrollment>> {
    const SQL: &str =
        "SELECT enrollment_id, d.signatures, d.document, d.number, registration, bank, c_v_id, c_v_secret,
                              c_u, fetched_by, reset_count, restart_count, clock,
                              released_evidence, released_reset, released_restart, released_fence, released_boot,
                              released_twin, released_proposal
                       FROM enrollments e LEFT JOIN documents d ON d.number = e.number WHERE node_id = ?1 AND state = ?2";
    let read = |row: &Row<'_>| {
        let credential = |index| -> rusqlite::Result<Option<Credential>> {
            let fields: (Option<Vec<u8>>, Option<Vec<u8>>) = (row.get(index)?, row.get(index + 1)?);
            Ok(fields
                .0
                .zip(fields.1)
                .map(|(id, secret)| Credential { id_object: id.into(), secret: secret.into() }))
        };
        let counters: (Option<u32>, Option<u32>, Option<i64>) = (row.get(10)?, row.get(11)?, row.get(12)?);
        let signed = documents::signed(row, 1)?;
        let texts: (String, String, String) = (row.get(0)?, row.get(4)?, row.get(5)?);
        let fetched_by = row.get::<_, Option<String>>(9)?;
        Ok((
            texts,
            signed,
            credential(6)?,
            row.get::<_, Option<Vec<u8>>>(8)?,
            fetched_by,
            counters,
            released(row)?,
        ))
    };
    let found = c
        .prepare_cached(SQL)
        .and_then(|mut query| query.query_row([&id_text(node), state], read).optional())
        .map_err(broken)?;
    let Some(((id, registration, bank), signed, c_v, c_u, fetched_by, counters, released)) = found else {
        return Ok(None);
    };
    let wrong = |what: String| damaged(&format!("table enrollments, {id:.64}: {what}"));
    // Without counters anything would be newer: none is right only before the first quote.
    let counters = match counters {
        (Some(reset), Some(restart), Some(clock)) => {
            let clock = u64::try_from(clock).map_err(|_| wrong(format!("clock {clock}")))?;
            Some(Counters { reset, restart, clock })
        }
        (None, None, None) => None,
        (reset, restart, clock) => {
            return Err(wrong(format!("counters {reset:?}, {restart:?} and {clock:?}, not all or none")));
        }
    };
    let bank = PcrBank::from_name(&bank).ok_or_else(|| wrong(format!("bank {bank:.32?}")))?;
    // What the row says beside its document counts only if the document says it too.
    let (opened, said) =
        halfkey_evidence::document::open_enrollment(&signed).map_err(|e| wrong(format!("document: {e}")))?;
    let c_u = match c_u {
        Some(sealed) => {
            let opened = rows::open(c, node, &id, &sealed)?;
            Some(opened.ok_or_else(|| wrong("the C_U is not this server's".to_owned()))?)
        }
        None => None,
    };
    let c_v = c_v.ok_or_else(|| wrong("no C_V".to_owned()))?;
    let registration: Register =
        from_json(&registration, &format!("table enrollments, {id:.64}: registration"))?;
    // Above all the AK: whose quotes are believed.
    if opened.scope != Scope::Enrollment(node)
        || said.enrollment_id != id
        || said.bank != bank.name()
        || !is_name_of(&said.ek_name, &registration.ek_public)
        || !is_name_of(&said.ak_name, &registration.ak_public)
        || !is_name_of(&said.srk_name, &registration.srk_public)
        || *said.c_v_sha256 != credential_digest(&c_v)
        || c_u.as_ref().is_some_and(|c_u| *said.c_u_sha256 != credential_digest(c_u))
    {
        return Err(wrong("it is not what the tenant signed".to_owned()));
    }
    let challenge = said.challenge.array().ok_or_else(|| wrong("a challenge that is none".to_owned()))?;
    let answers = Wanted { tenant_key: identity::sha256(signed.tenant_key()), challenge };
    Ok(Some(Enrollment {
        answers,
        document: opened.place,
        created: opened.created,
        registration,
        bank,
        c_v,
        id,
        signed,
        c_u,
        counters,
        stage: None,
        fetched_by,
        released,
    }))
}

/// Whether this is the TPM's name of a public area: nameAlg and digest (TPM 2.0 Part 1, section 16).
fn is_name_of(name: &[u8], public: &[u8]) -> bool {
    PcrBank::ALL.into_iter().any(|hash| {
        let alg = hash.alg().to_be_bytes();
        public.get(2..4) == Some(&alg[..]) && name == [&alg[..], &hash.digest(&[public])].concat()
    })
}

fn released(row: &Row<'_>) -> rusqlite::Result<Option<ReleasedBoot>> {
    let Some(evidence_id) = row.get::<_, Option<i64>>(13)? else { return Ok(None) };
    let origin = row.get::<_, Option<i64>>(19)?.map_or(Origin::Document, |id| Origin::Proposal(as_u64(id)));
    let boot = row.get::<_, Option<String>>(17)?.map(|name| Matched { name, origin });
    Ok(Some(ReleasedBoot {
        evidence_id: as_u64(evidence_id),
        reset: row.get(14)?,
        restart: row.get(15)?,
        fence: row.get(16)?,
        boot,
        twin: row.get::<_, Option<i64>>(18)?.map(as_u64),
    }))
}
