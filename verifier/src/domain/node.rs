//! Nodes: what the rows say of one, compared with what was signed about it.

use super::index::Index;
use super::model::{Damage, Node, node_state};
use super::{By, Result, TxView, audit, enrollment, governing, legible};
use crate::store::{EnrollmentState, NodeLineRow, NodeRow, Which};
use halfkey_protocol::NodeId;
use halfkey_protocol::wire::operator::{Held, NodeSummary, TpmFirmware};

/// One node, compared with what was signed about it.
///
/// # Errors
/// When it can't be read.
pub fn one(view: &TxView<'_>, node: NodeId) -> Result<Option<Node>> {
    let mut found = unchecked(view, node)?;
    if let Some(found) = &mut found {
        view.index.check(found);
    }
    Ok(found)
}

/// The same as the rows say, for a transaction whose document the sequence has not got yet.
///
/// # Errors
/// When it can't be read.
pub fn unchecked(view: &TxView<'_>, node: NodeId) -> Result<Option<Node>> {
    let Some(row) = view.rows.node(node)? else { return Ok(None) };
    let mut damage = None;
    let tpm_firmware = firmware_of(&row).unwrap_or_else(|why| {
        damage = Some(Damage::Governing(why));
        None
    });
    // A damaged row allows nothing. Nor does it forbid: who wrote it must not keep others from revoking the node or enrolling it again.
    let (current, why_current) = legible(enrollment::of(view, node, EnrollmentState::Current))?;
    let (open, why_open) = legible(enrollment::of(view, node, EnrollmentState::Open))?;
    let key = current.as_ref().or(open.as_ref()).map(|enrollment| enrollment.signed.tenant_key());
    let governing = governing::of(view, node, row.group_number, key);
    let (governing, why) = legible(governing)?;
    damage = why.map(Damage::Governing).or(damage);
    damage = why_open.or(why_current).map(Damage::Enrollment).or(damage);
    Ok(Some(Node {
        id: node,
        label: row.label,
        revoked: row.revoked_because,
        held: match (row.held_by, row.held_because) {
            (None, None) => None,
            // Half of a hold is one.
            (by, because) => Some(Held { by: by.unwrap_or_default(), because: because.unwrap_or_default() }),
        },
        tpm_firmware,
        current,
        open,
        governing,
        damage,
        last_seen: row.last_seen,
        last_outcome: row.last_outcome,
        last_code: row.last_code,
    }))
}

fn firmware_of(row: &NodeRow) -> std::result::Result<Option<TpmFirmware>, String> {
    match (&row.tpm_firmware, &row.tpm_firmware_before, row.tpm_firmware_since) {
        (Some(version), before, Some(since)) => {
            Ok(Some(TpmFirmware { version: version.clone(), before: before.clone(), since }))
        }
        (None, None, None) => Ok(None),
        (None, Some(_), _) | (None, _, Some(_)) | (Some(_), _, None) => {
            Err(format!("table nodes, {}: tpm_firmware and since when, not both or none", row.id))
        }
    }
}

/// Lines of the list, by node id, with what was signed about them. Those with a name or an id that begins so: first what
/// documents name, else rows could hide it; of these, first what is called so and was proved, which not every operator can sign.
///
/// # Errors
/// When the database can't be read.
pub fn list(view: &TxView<'_>, which: &Which, limit: u64, now: u64) -> Result<Vec<NodeSummary>> {
    let rows = view.rows.node_lines(which, limit, now)?;
    let Which::Named(name) = which else {
        return Ok(rows.into_iter().map(|row| summary(view.index, row)).collect());
    };
    let index = view.index;
    let mut named: Vec<NodeId> = index.named(name).collect();
    named.sort_by_key(|node| (index.label(*node) != Some(name), !index.is_proved(*node), *node));
    named.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let mut found = Vec::new();
    for node in &named {
        let row = view.rows.node_lines(&Which::One(*node), 1, now)?.pop();
        // Documents speak of a node whose row was deleted, too.
        found.push(row.unwrap_or_else(|| NodeLineRow::blank(*node)));
    }
    found.extend(rows.into_iter().filter(|row| !named.contains(&row.id)));
    Ok(found.into_iter().map(|row| summary(index, row)).collect())
}

/// A row, and what was signed about the node.
fn summary(index: &Index, row: NodeLineRow) -> NodeSummary {
    let mut line = NodeSummary {
        id: row.id.to_string(),
        label: row.label,
        state: node_state(row.revoked, row.open, row.current),
        pending: row.pending,
        held: row.held,
        cloned: row.cloned,
        last_seen: row.last_seen,
        last_outcome: row.last_outcome,
        last_code: row.last_code,
    };
    index.amend(row.id, &mut line);
    line
}

/// What the node's TPM says of its firmware. A change is recorded: an update by its owner, or another TPM's answers.
///
/// # Errors
/// When the database can't be written.
pub fn note_firmware(view: &TxView<'_>, node: &Node, version: u64, evidence: u64, now: u64) -> Result<()> {
    let found = firmware(version);
    let before = node.tpm_firmware.as_ref().map(|firmware| firmware.version.as_str());
    if before == Some(found.as_str()) {
        return Ok(());
    }
    let mut row = view.node_row(node.id, now)?;
    row.tpm_firmware = Some(found.clone());
    row.tpm_firmware_before = before.map(str::to_owned);
    row.tpm_firmware_since = Some(now);
    view.rows.put_node(&row)?;
    let Some(before) = before else { return Ok(()) };
    let detail = format!("firmware of the TPM: {before} before, {found} now (evidence {evidence})");
    audit::append(view, By { actor: "verifier", now }, "tpm_firmware", Some(node.id), &detail)
}

/// A firmware version as it is recorded and shown.
pub fn firmware(version: u64) -> String {
    format!("{version:#018x}")
}
