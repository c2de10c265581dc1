//! What nodes propose.

use super::policy::TrustedUnder;
use halfkey_protocol::wire::policies::{ProposalRecord, ProposalState};

/// A proposal, as it is kept.
#[derive(Clone, Debug)]
pub struct StoredProposal {
    /// What an operator sees.
    pub record: ProposalRecord,
    /// The policy's boot that it takes shim and boot loader from.
    pub base_boot: Option<String>,
    /// It is allowed because `trust_root_with_next_boot` accepted it, and for no other reason.
    pub by_trust: bool,
    /// Where that ever happened: it counts there.
    pub trusted_under: Option<TrustedUnder>,
    /// SHA-256 over its content.
    pub sha256: [u8; 32],
}

impl StoredProposal {
    /// Trusted before, and still: under the policy that governs the node now.
    pub fn keeps_trust(&self, here: Option<&TrustedUnder>) -> bool {
        self.by_trust && here.is_some() && self.trusted_under.as_ref() == here
    }

    /// Of a boot loader that measures its own configuration: it waits for its boot more than for a rule.
    pub fn is_announced(&self) -> bool {
        self.record.proposal.loader.is_some()
    }
}

/// Where a proposal stands by a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProposalDecision {
    /// A rule accepts it.
    Accepted(String),
    /// `trust_root_with_next_boot` accepts it.
    Trusted(String),
    /// Nothing does.
    Waits(String),
    /// Nothing can: its boot loader measures its own configuration, which is known once it was booted.
    OnceBooted(String),
}

impl ProposalDecision {
    /// For people: which rule, or why none.
    pub fn message(&self) -> &str {
        match self {
            Self::Accepted(message)
            | Self::Trusted(message)
            | Self::Waits(message)
            | Self::OnceBooted(message) => message,
        }
    }

    /// The state of a proposal that has not been booted.
    pub fn state(&self) -> ProposalState {
        match self {
            Self::Accepted(_) => ProposalState::Accepted,
            Self::Trusted(_) => ProposalState::Trusted,
            Self::Waits(_) | Self::OnceBooted(_) => ProposalState::Waiting,
        }
    }
}
