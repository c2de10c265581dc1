//! What is open, looked at again after what governs a node has changed.

use super::policies::Within;
use super::{audit, boots, evidence, nodes, proposals};
use crate::counted;
use crate::domain::sequence::Index;
use crate::domain::{By, Result, Reviewer, Stand, StoreError};
use halfkey_protocol::NodeId;
use halfkey_protocol::wire::policies::ProposalState;
use rusqlite::Transaction;
use std::fmt;

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
pub fn node(
    tx: &Transaction<'_>,
    id: NodeId,
    reviewer: &dyn Reviewer,
    index: &Index,
    by: By<'_>,
) -> Result<Reviewed> {
    match look(tx, id, reviewer, index, by) {
        Err(StoreError::Damaged(why)) => {
            tracing::error!(node = %id, why, "not reviewed");
            Ok(Reviewed { damaged: 1, ..Reviewed::default() })
        }
        other => other,
    }
}

fn look(
    tx: &Transaction<'_>,
    id: NodeId,
    reviewer: &dyn Reviewer,
    index: &Index,
    by: By<'_>,
) -> Result<Reviewed> {
    let mut reviewed = Reviewed::default();
    let (proposals, pending) = (proposals::open(tx, id)?, boots::undecided(tx, id, by.now)?);
    // Most nodes of a large group.
    if proposals.is_empty() && pending.is_none() {
        return Ok(reviewed);
    }
    let Some(node) = nodes::unchecked(tx, id, index.since(id))? else { return Ok(reviewed) };
    let documents = Within(tx);
    for proposal in proposals {
        let stand = reviewer.proposal(&node, &proposal, &documents)?;
        let (before, number) = (proposal.record.state, proposal.record.id);
        let after = match (&stand, before) {
            // It has been booted: it stays so, by whatever rule.
            (Stand::Accepted(_) | Stand::Trusted(_), ProposalState::Booted) => ProposalState::Booted,
            (
                Stand::Accepted(_) | Stand::Trusted(_) | Stand::Waits(_),
                ProposalState::Waiting
                | ProposalState::Accepted
                | ProposalState::Trusted
                | ProposalState::Booted
                | ProposalState::Denied
                | ProposalState::Superseded,
            ) => stand.state(),
        };
        proposals::set(tx, number, after, &stand)?;
        if before != after && after == ProposalState::Accepted {
            reviewed.accepted += 1;
            let detail = format!("proposal {number}: {}", stand.message());
            audit::append(tx, by, "proposal_accept", Some(id), &detail)?;
        }
    }
    let Some(record) = pending.map(|id| evidence::one(tx, id)).transpose()?.flatten() else {
        return Ok(reviewed);
    };
    // Read again: trust may have ended.
    let Some(node) = nodes::unchecked(tx, id, index.since(id))? else { return Ok(reviewed) };
    if reviewer.boot(&node, &record, &documents)? {
        boots::forget_undecided(tx, id)?;
        reviewed.boots += 1;
    }
    Ok(reviewed)
}
