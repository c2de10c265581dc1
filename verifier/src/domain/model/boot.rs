//! Boots: what waits, what was decided, what was released.

use super::node::Node;
use super::proposal::StoredProposal;
use crate::store::{QuoteRow, ReleasedRow};
use halfkey_evidence::policy::{Matched, Origin};
use halfkey_protocol::wire::operator::PendingBoot;

/// (resetCount, restartCount, clock) of a quote; the order is the TPM's order of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Counters {
    /// TPM resets.
    pub reset: u32,
    /// Resumes since.
    pub restart: u32,
    /// Milliseconds.
    pub clock: u64,
}

impl From<Counters> for QuoteRow {
    fn from(counters: Counters) -> Self {
        let Counters { reset, restart, clock } = counters;
        Self { reset: Some(reset), restart: Some(restart), clock: Some(clock) }
    }
}

/// The last boot that was released to an enrollment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleasedBoot {
    /// Number of its evidence.
    pub evidence_id: u64,
    /// resetCount of its quote.
    pub reset: u32,
    /// restartCount of its quote.
    pub restart: u32,
    /// What PCR 15 of the SHA-256 bank became with it.
    pub fence: [u8; 32],
    /// The policy's boot that it was; none if an operator approved it.
    pub boot: Option<Matched>,
    /// The boot of the signed policy that this one, if it comes from a proposal, took shim and boot loader from.
    pub base: Option<String>,
    /// Number of the evidence that was released before it, with the same resetCount and restartCount, and another r.
    pub twin: Option<u64>,
}

impl From<ReleasedRow> for ReleasedBoot {
    fn from(row: ReleasedRow) -> Self {
        let ReleasedRow { evidence, reset, restart, fence, boot, proposal, base, twin, tag: _ } = row;
        let origin = proposal.map_or(Origin::Document, Origin::Proposal);
        let boot = boot.map(|name| Matched { name, origin });
        Self { evidence_id: evidence, reset, restart, fence, boot, base, twin }
    }
}

impl From<&ReleasedBoot> for ReleasedRow {
    fn from(boot: &ReleasedBoot) -> Self {
        let proposal = boot.boot.as_ref().and_then(|matched| match matched.origin {
            Origin::Document => None,
            Origin::Proposal(id) => Some(id),
        });
        Self {
            evidence: boot.evidence_id,
            reset: boot.reset,
            restart: boot.restart,
            fence: boot.fence,
            boot: boot.boot.as_ref().map(|matched| matched.name.clone()),
            proposal,
            base: boot.base.clone(),
            twin: boot.twin,
            tag: None,
        }
    }
}

/// What an operator decided about a boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Release it.
    Approved {
        /// Seconds since 1970.
        expires: u64,
        /// It was released.
        used: bool,
    },
    /// Don't.
    Denied {
        /// By whom.
        by: String,
        /// Why.
        because: String,
    },
}

/// A boot that was not released by itself.
#[derive(Clone, Debug)]
pub struct Boot {
    /// What an operator sees.
    pub pending: PendingBoot,
    /// What an operator said.
    pub decision: Option<Decision>,
    /// What the row claims that nobody said.
    pub damage: Option<String>,
}

/// A boot that an operator is to look at.
#[derive(Clone, Debug)]
pub struct NewPending {
    /// Names the boot.
    pub ticket: String,
    /// Whether an operator can approve it.
    pub approvable: bool,
    /// When it is forgotten.
    pub expires: u64,
}

/// What a ruling goes by: read in the transaction that records the ruling.
#[derive(Clone, Debug)]
pub struct NodeSnapshot {
    /// The node.
    pub node: Node,
    /// This very boot, if it was seen before.
    pub boot: Option<Boot>,
    /// Proposals that were accepted or announced, and not booted yet.
    pub proposals: Vec<StoredProposal>,
}

/// What a row says that waits, and its evidence.
#[derive(Clone, Debug, PartialEq)]
pub enum Waiting {
    /// As the evidence says.
    Shown(PendingBoot),
    /// It waits no longer: the policy allows it.
    Allowed,
    /// The evidence is not of that boot, or shows none: why.
    Unproven(String),
}
