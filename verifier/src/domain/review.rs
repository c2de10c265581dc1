//! What is open, looked at again after what governs a node has changed.

use super::boot::{self, BootReviewer};
use super::model::{Node, ProposalDecision, StoredProposal};
use super::policy_source::PolicySource;
use super::{By, Error, Result, TxView, audit, evidence, node, proposal};
use crate::counted;
use crate::store::StoreError;
use halfkey_protocol::NodeId;
use halfkey_protocol::wire::operator::EvidenceRecord;
use halfkey_protocol::wire::policies::ProposalState;
use std::fmt;

/// Looks at recorded boots and at proposals by what governs a node now.
pub trait Reviewer: BootReviewer {
    /// Where this proposal now stands. Trust is not given here, only kept.
    ///
    /// # Errors
    /// When the documents can't be read.
    fn proposal(
        &self,
        node: &Node,
        proposal: &StoredProposal,
        documents: &dyn PolicySource,
    ) -> Result<ProposalDecision>;
    /// Whether this recorded boot is the one that was proposed.
    ///
    /// # Errors
    /// When the documents can't be read.
    fn is_booted(
        &self,
        node: &Node,
        proposal: &StoredProposal,
        record: &EvidenceRecord,
        documents: &dyn PolicySource,
    ) -> Result<bool>;
}

/// What a review changed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reviewed {
    /// Nodes whose boot waits no longer.
    boots: usize,
    /// Proposals that became accepted.
    accepted: usize,
    /// Nodes of which something is damaged, and was not looked at.
    damaged: usize,
}

impl std::ops::AddAssign for Reviewed {
    fn add_assign(&mut self, other: Self) {
        self.boots += other.boots;
        self.accepted += other.accepted;
        self.damaged += other.damaged;
    }
}

/// The end of an audit entry.
impl fmt::Display for Reviewed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { boots, accepted, damaged } = self;
        let boots = match boots {
            1 => "1 boot waits".to_owned(),
            boots => format!("{boots} boots wait"),
        };
        write!(f, "; {boots} no longer, {} accepted", counted(*accepted, "proposal"))?;
        match damaged {
            0 => Ok(()),
            damaged => write!(f, ", {} with damaged rows not looked at", counted(*damaged, "node")),
        }
    }
}

/// Reviews the proposals and the pending boot of one node. A damaged row is in nobody's way: what is signed must count, whoever has
/// damaged a row of one of its nodes. What was not looked at stays as it was, and is judged by the new policy all the same.
///
/// # Errors
/// When the database can't be read or written.
pub fn node(view: &TxView<'_>, id: NodeId, reviewer: &dyn Reviewer, by: By<'_>) -> Result<Reviewed> {
    match look(view, id, reviewer, by) {
        Err(Error::Store(StoreError::Damaged(why))) => {
            tracing::error!(node = %id, why, "not reviewed");
            Ok(Reviewed { damaged: 1, ..Reviewed::default() })
        }
        other => other,
    }
}

fn look(view: &TxView<'_>, id: NodeId, reviewer: &dyn Reviewer, by: By<'_>) -> Result<Reviewed> {
    let mut reviewed = Reviewed::default();
    let (proposals, pending) = (proposal::open(view, id)?, boot::undecided(view, id, by.now)?);
    // Most nodes of a large group.
    if proposals.is_empty() && pending.is_none() {
        return Ok(reviewed);
    }
    let Some(node) = node::unchecked(view, id)? else { return Ok(reviewed) };
    for proposal in proposals {
        let decision = reviewer.proposal(&node, &proposal, view)?;
        let (before, number) = (proposal.record.state, proposal.record.id);
        let after = match (&decision, before) {
            // It has been booted: it stays so, by whatever rule.
            (ProposalDecision::Accepted(_) | ProposalDecision::Trusted(_), ProposalState::Booted) => {
                ProposalState::Booted
            }
            (
                ProposalDecision::Accepted(_)
                | ProposalDecision::Trusted(_)
                | ProposalDecision::Waits(_)
                | ProposalDecision::OnceBooted(_),
                ProposalState::Waiting
                | ProposalState::Accepted
                | ProposalState::Trusted
                | ProposalState::Booted
                | ProposalState::Denied
                | ProposalState::Superseded,
            ) => decision.state(),
        };
        proposal::set(view, number, after, &decision)?;
        if before != after && after == ProposalState::Accepted {
            reviewed.accepted += 1;
            let detail = format!("proposal {number}: {}", decision.message());
            audit::append(view, by, "proposal_accept", Some(id), &detail)?;
        }
    }
    let Some(record) = pending.map(|id| evidence::one(view, id)).transpose()?.flatten() else {
        return Ok(reviewed);
    };
    // Read again: trust may have ended.
    let Some(node) = node::unchecked(view, id)? else { return Ok(reviewed) };
    if reviewer.boot(&node, &record, view)? {
        boot::forget_undecided(view, id)?;
        reviewed.boots += 1;
        learned(view, &node, &record, reviewer)?;
    }
    Ok(reviewed)
}

/// A boot that was announced, denied, and learned: nobody knows when the machine boots it again.
fn learned(view: &TxView<'_>, node: &Node, record: &EvidenceRecord, reviewer: &dyn Reviewer) -> Result<()> {
    let mut booted = Vec::new();
    let announced = |proposal: &StoredProposal| proposal.is_announced() && !proposal.by_trust;
    for proposal in proposal::not_booted(view, node.id)?.into_iter().filter(announced) {
        if reviewer.is_booted(node, &proposal, record, view)? {
            booted.push(proposal.record.id);
        }
    }
    proposal::booted(view, node.id, &booted)
}
