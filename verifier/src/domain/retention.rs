//! What is forgotten, and what is not: a node that sends nonsense must not push out the record of what was released to it.

use super::{By, Result, TxView, audit};
use crate::counted;
use halfkey_protocol::NodeId;
use halfkey_protocol::wire::Outcome;
use halfkey_protocol::wire::policies::ProposalState;

/// Records per node of quotes that are not the node's: anybody can send those, so
/// they must not push out real ones.
const KEPT_FOREIGN: u64 = 20;

/// Bytes of logs per node, of the newest records: released, pending, and denied ones.
const LOGS: u64 = 32 << 20;
/// The same of denied ones.
pub(super) const DENIED_LOGS: u64 = 8 << 20;

/// Seconds for which webhooks are tried.
const KEPT_NOTICES: u64 = 7 * 86_400;

/// Boots that are remembered per node; the oldest go first.
const KEPT_BOOTS: u64 = 32;

/// Proposals of a node in one state; beyond it the oldest are superseded. Those that are allowed by trust have a
/// bound of their own, in the policy.
const KEPT_PROPOSALS: usize = 16;
/// Proposals of a node that are over and still shown.
const KEPT_OVER: usize = 64;

/// Forgets what is over: registrations that no tenant enrolled, last seen before `registered_before`, and boots that nobody decided
/// on. Gives how many registrations. Where several servers begin at the same time, one does it.
///
/// # Errors
/// When the database can't be written.
pub fn expire(view: &TxView<'_>, registered_before: u64, now: u64) -> Result<u64> {
    if !view.rows.hold_sweep()? {
        return Ok(0);
    }
    let expired = view.rows.delete_registrations(registered_before)?;
    if let [first, ..] = &expired[..] {
        let registrations = counted(expired.len(), "registration");
        let detail = format!("{registrations} that no tenant enrolled, the first {first}");
        audit::append(view, By { actor: "verifier", now }, "expire", None, &detail)?;
    }
    view.rows.delete_expired_boots(now)?;
    let untold = view.rows.delete_notices_before(now.saturating_sub(KEPT_NOTICES))?;
    if untold > 0 {
        tracing::warn!(untold, "what webhooks could not tell for a week is dropped");
    }
    audit::close(view, now)?;
    Ok(expired.len() as u64)
}

/// Deletes evidence of a node that is too old, but not what a pending boot or a waiting proposal stands on. Each outcome is counted
/// alone. Of quotes that are by the node's AK so many records are `kept`.
///
/// # Errors
/// When the database can't be written.
pub fn trim_evidence(
    view: &TxView<'_>,
    node: NodeId,
    authentic: bool,
    outcome: Outcome,
    kept: u64,
) -> Result<()> {
    let keep = if authentic { kept.max(1) } else { KEPT_FOREIGN };
    let mut needed = view.rows.evidence_of_boots(node)?;
    let waiting = ProposalState::Waiting.as_str();
    let proposals = view.rows.proposal_heads(node)?;
    needed.extend(proposals.iter().filter(|head| head.state == waiting).map(|head| head.from_evidence));
    view.rows.trim_evidence(node, authentic, outcome.as_str(), keep, &needed)?;
    // Without its log a boot can still be approved, but nothing can be learned from it.
    let budget = match outcome {
        Outcome::Denied => DENIED_LOGS,
        Outcome::Released | Outcome::Pending => LOGS,
    };
    Ok(view.rows.trim_logs(node, authentic, outcome.as_str(), budget)?)
}

/// Forgets the oldest boots of a node.
///
/// # Errors
/// When the database can't be written.
pub fn trim_boots(view: &TxView<'_>, node: NodeId) -> Result<()> {
    Ok(view.rows.trim_boots(node, KEPT_BOOTS)?)
}

/// Keeps a node from filling the database with proposals. What counts against a limit of trust is never forgotten.
///
/// # Errors
/// When the database can't be written.
pub fn trim_proposals(view: &TxView<'_>, node: NodeId) -> Result<()> {
    let mut heads = view.rows.proposal_heads(node)?;
    heads.reverse();
    let superseded = ProposalState::Superseded.as_str();
    for state in [ProposalState::Waiting, ProposalState::Accepted] {
        let of_state = heads.iter_mut().filter(|head| head.state == state.as_str());
        for head in of_state.skip(KEPT_PROPOSALS) {
            super::proposal::supersede(view, head.id, "the node proposed something newer")?;
            head.state = superseded.to_owned();
            head.by_trust = false;
        }
    }
    let over = [ProposalState::Superseded, ProposalState::Booted, ProposalState::Denied];
    let is_over = |state: &str| over.iter().any(|over| over.as_str() == state);
    let forgettable = heads.iter().filter(|head| !head.by_trust && is_over(&head.state));
    for head in forgettable.skip(KEPT_OVER) {
        view.rows.delete_proposal(head.id)?;
    }
    Ok(())
}
