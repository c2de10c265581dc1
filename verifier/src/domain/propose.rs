//! A proposal comes in and is decided on.

use super::model::{Counters, Node, ProposalDecision, StoredProposal};
use super::policy_source::PolicySource;
use super::{By, Error, Result, TxView, audit, json, legible, node, proposal, retention};
use crate::events::Event;
use crate::store::ProposalRow;
use halfkey_evidence::Rejection;
use halfkey_protocol::wire::Proposal;
use halfkey_protocol::wire::policies::ProposalState;
use halfkey_protocol::{NodeId, Reason};

/// A proposal to be decided on.
pub struct ProposalRequest<'a> {
    /// Whose.
    pub node: NodeId,
    /// Seconds since 1970.
    pub now: u64,
    /// SHA-256 over the proposal's content: the same again is one.
    pub sha256: [u8; 32],
    /// The content, if it could be read.
    pub proposal: Option<&'a Proposal>,
}

/// What a decision on a proposal goes by: read in the transaction that records it.
#[derive(Clone, Debug)]
pub struct ProposalSnapshot {
    /// The node.
    pub node: Node,
    /// The same proposal, if it was made before.
    pub known: Option<StoredProposal>,
    /// How often a proposal of the node was trusted under the scope of its policy, since it is its tenant's.
    pub trusted_before: u64,
}

/// What is to be recorded about a proposal.
#[derive(Clone, Debug)]
pub struct ProposalRuling {
    /// Which enrollment the counters belong to.
    pub enrollment_id: String,
    /// Accepted counters.
    pub counters: Option<Counters>,
    /// Where it stands, or why it is refused.
    pub decision: std::result::Result<ProposalDecision, Rejection>,
    /// Number of the evidence that opened the boot it comes from.
    pub from_evidence: u64,
    /// The policy's boot that it takes shim and boot loader from.
    pub base_boot: Option<String>,
}

/// What decides on a proposal.
pub type Rule<'a> = &'a mut dyn FnMut(&ProposalSnapshot, &dyn PolicySource) -> Result<ProposalRuling>;

/// Decides on a proposal and records it, its counters and its audit entry, or nothing. Gives its number, if it was stored.
///
/// # Errors
/// `NotEnrolled`, and what `rule` says.
pub fn propose(
    view: &TxView<'_>,
    request: &ProposalRequest<'_>,
    rule: Rule<'_>,
) -> Result<(ProposalRuling, Option<u64>)> {
    let node = node::one(view, request.node)?.ok_or_else(|| {
        Error::Refused(Reason::NotEnrolled, format!("node {} is not enrolled", request.node))
    })?;
    let (before, known) = earlier(view, request)?;
    // The number is the tenant's for the node: who clears its TPM begins no new one.
    let (under, since) = (node.governing.trusting(), node.governing.since);
    let trusted_before = match &under {
        Some(under) => view.rows.times_trusted(request.node, &under.scope, since)?,
        None => 0,
    };
    let snapshot = ProposalSnapshot { node, known, trusted_before };
    let ruling = rule(&snapshot, view)?;
    if let Some(counters) = ruling.counters {
        view.rows.set_quoted(&ruling.enrollment_id, &counters.into())?;
    }
    view.emit(Event::NodeChanged(request.node));
    let by = By { actor: "node", now: request.now };
    let (decision, proposal) = match (&ruling.decision, request.proposal) {
        (Ok(decision), Some(proposal)) => (decision, proposal),
        (Ok(_), None) => return Err(Error::unavailable("our bug: a ruling on no proposal")),
        (Err(rejection), _) => {
            let refused = format!("refused {}: ", rejection.reason.code());
            let detail = format!("{refused}{rejection}");
            match ruling.counters.is_some() {
                true => audit::append_seldom(view, by, "propose", request.node, &refused, &detail)?,
                // Anybody can send it in a node's name, or send again what the node sent.
                false => {
                    let source = request.node.to_string();
                    audit::count(view, by, "propose", &source, Some(request.node), &detail)?;
                }
            }
            return Ok((ruling, None));
        }
    };
    let state = state_of(decision, snapshot.known.as_ref());
    let by_trust = matches!(decision, ProposalDecision::Trusted(_));
    // Trust that it still has is not given anew, and does not make it newer than what was trusted meanwhile.
    let kept = by_trust && snapshot.known.as_ref().is_some_and(|known| known.keeps_trust(under.as_ref()));
    let at = match &before {
        Some(before) if kept => before.at,
        _ if by_trust => after_all_trusted(view, request)?,
        _ => request.now,
    };
    if let (true, Some(under)) = (by_trust && !kept, &under) {
        view.rows.add_trusted(request.node, &under.scope, since)?;
    }
    // Where it was trusted last.
    let (scope, trusted_since) = match (by_trust, under, before) {
        (true, Some(under), _) => (Some(under.scope), Some(under.since)),
        (false, _, Some(before)) => (before.trusted_scope, before.trusted_since),
        (true, None, _) | (false, _, None) => (None, None),
    };
    let mut row = ProposalRow {
        id: 0,
        node_id: request.node.to_string(),
        sha256: request.sha256,
        at,
        state: state.as_str().to_owned(),
        message: decision.message().to_owned(),
        from_evidence: ruling.from_evidence,
        base_boot: ruling.base_boot.clone(),
        by_trust,
        trusted_scope: scope,
        trusted_since,
        // Not what a row has of it: the tag is over what the node sent.
        content: json(proposal)?,
        tag: None,
        made: None,
    };
    row.made = Some(proposal::made(view, &row).to_vec());
    let id = view.rows.put_proposal(&row)?;
    row.id = id;
    proposal::tag(view, &row)?;
    // In front, where no name of a machine's is.
    let outcome = format!("{} from evidence {}: ", state.as_str(), ruling.from_evidence);
    let detail = format!("{outcome}proposal {id} {:?}: {}", proposal.name, decision.message());
    audit::append_seldom(view, by, "propose", request.node, &outcome, &detail)?;
    let newly = snapshot.known.is_none_or(|known| known.record.state != state);
    if newly && matches!(state, ProposalState::Accepted | ProposalState::Trusted) {
        let by = By { actor: "verifier", now: request.now };
        let detail = format!("proposal {id}: {}", decision.message());
        audit::append(view, by, "proposal_accept", Some(request.node), &detail)?;
    }
    proposal::supersede_waiting(view, request.node, &proposal.name, id)?;
    retention::trim_proposals(view, request.node)?;
    Ok((ruling, Some(id)))
}

/// The time of a proposal that is trusted now: later than what was trusted before, also within a second.
fn after_all_trusted(view: &TxView<'_>, request: &ProposalRequest<'_>) -> Result<u64> {
    let heads = view.rows.proposal_heads(request.node)?;
    let last = heads.iter().filter(|head| head.by_trust).map(|head| head.at).max();
    Ok(last.map_or(request.now, |last| request.now.max(last.saturating_add(1))))
}

/// The same proposal, if it was made before and its row can be read. The column that finds it is not what its tag is over: the content is.
/// One that can't be read, or is another, is written anew; whoever damages it must not keep the node from proposing.
fn earlier(
    view: &TxView<'_>,
    request: &ProposalRequest<'_>,
) -> Result<(Option<ProposalRow>, Option<StoredProposal>)> {
    let read = || {
        let row = view.rows.proposal_with(request.node, &request.sha256)?;
        let row = row.filter(|row| proposal::sha256_of(row) == request.sha256);
        let known = row.clone().map(|row| proposal::read(view, row)).transpose()?;
        Ok((row, known))
    };
    let (found, damage) = legible(read())?;
    if let Some(why) = damage {
        tracing::error!(node = %request.node, "the database is damaged: {why}");
    }
    Ok(found)
}

/// What has been booted stays so. Trust that it has is not given anew.
fn state_of(decision: &ProposalDecision, known: Option<&StoredProposal>) -> ProposalState {
    match (decision, known) {
        (ProposalDecision::Accepted(_), Some(known)) if known.record.state == ProposalState::Booted => {
            ProposalState::Booted
        }
        (ProposalDecision::Trusted(_), Some(known))
            if known.record.state == ProposalState::Booted && known.by_trust =>
        {
            ProposalState::Booted
        }
        (
            ProposalDecision::Accepted(_)
            | ProposalDecision::Trusted(_)
            | ProposalDecision::Waits(_)
            | ProposalDecision::OnceBooted(_),
            Some(_) | None,
        ) => decision.state(),
    }
}
