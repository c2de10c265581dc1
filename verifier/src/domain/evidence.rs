//! The record of evidence.

use super::{Error, Result, TxView};
use crate::store::EvidenceHead;
use halfkey_protocol::NodeId;
use halfkey_protocol::wire::operator::{EvidenceRecord, EvidenceSummary};
use halfkey_protocol::wire::{Evidence, Outcome, Purpose};

/// Evidence of a node, newest first.
///
/// # Errors
/// When a row is damaged, or can't be read.
pub fn of_node(view: &TxView<'_>, node: NodeId, limit: u64) -> Result<Vec<EvidenceSummary>> {
    view.rows.evidence_of(node, limit)?.into_iter().map(summary).collect()
}

/// One record.
///
/// # Errors
/// When its row is damaged, or can't be read.
pub fn one(view: &TxView<'_>, id: u64) -> Result<Option<EvidenceRecord>> {
    let Some(row) = view.rows.evidence(id)? else { return Ok(None) };
    let evidence: Evidence =
        serde_json::from_str(&row.evidence).map_err(|e| Error::damaged(format!("evidence: {e}")))?;
    let findings =
        serde_json::from_str(&row.findings).map_err(|e| Error::damaged(format!("findings: {e}")))?;
    Ok(Some(EvidenceRecord {
        summary: summary(row.head)?,
        evidence: Evidence {
            event_log: row.event_log.map(Into::into),
            systemd_log: row.systemd_log.map(Into::into),
            ima_log: row.ima_log.map(Into::into),
            ..evidence
        },
        reset_count: row.quote.reset,
        restart_count: row.quote.restart,
        clock: row.quote.clock,
        tpm_firmware: row.tpm_firmware,
        expected_fence: row.expected_fence.map(Into::into),
        findings,
    }))
}

/// Its words are ones that this program writes.
fn summary(head: EvidenceHead) -> Result<EvidenceSummary> {
    let EvidenceHead { id, node_id, at, purpose, outcome, code, message, twin } = head;
    for (column, text, is_known) in [
        ("purpose", &purpose, Purpose::parse(&purpose).is_some()),
        ("outcome", &outcome, Outcome::parse(&outcome).is_some()),
    ] {
        if !is_known {
            return Err(Error::damaged(format!("table evidence, id {id}: {column} {text:.32?}")));
        }
    }
    Ok(EvidenceSummary { id, node_id, at, purpose, outcome, code, message, cloned: twin })
}
