//! Policies, groups and proposals, as [`super::Store`] keeps them.

use super::{Counters, Node, Result};
use halfkey_evidence::Rejection;
use halfkey_evidence::policy::Matched;
use halfkey_protocol::NodeId;
use halfkey_protocol::document::Opened;
use halfkey_protocol::wire::Proposal;
use halfkey_protocol::wire::SignedDocument;
use halfkey_protocol::wire::operator::{EvidenceRecord, PendingBoot};
use halfkey_protocol::wire::policies::{ProposalRecord, ProposalState};

/// A version of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRef {
    /// What it is for: `node:ID`, `group:NAME`, `additions:ID`, `membership:ID`.
    pub scope: String,
    /// Number of the document in the sequence.
    pub version: u64,
    /// SHA-256 of the signed document.
    pub sha256: [u8; 32],
}

/// A proposal that `trust_root_with_next_boot` accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trusted {
    /// Its number.
    pub id: u64,
    /// The policy's boot that it takes shim and boot loader from.
    pub base_boot: Option<String>,
}

/// Where trust was given. It counts nowhere else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedUnder {
    /// The scope of the policy that gave it.
    pub scope: String,
    /// [`Governing::since`] of then: whose policy that was.
    pub since: u64,
}

impl Governing {
    /// Where trust that is given now counts, if a policy governs the node.
    pub fn trusting(&self) -> Option<TrustedUnder> {
        let policy = self.policy.as_ref()?;
        Some(TrustedUnder { scope: policy.scope.clone(), since: self.since })
    }
}

/// What a node's boots are judged by. Two that are equal allow the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Governing {
    /// Number of the proof by which the node went to its tenant from another one, 0 if it never did: trust of before counts no more.
    pub since: u64,
    /// The node's group.
    pub group: Option<String>,
    /// The document that says so, or that it is in none.
    pub membership: Option<PolicyRef>,
    /// The node's own policy, else the group's.
    pub policy: Option<PolicyRef>,
    /// The version by which the node's own policy was withdrawn, if the group's governs it for that reason.
    pub withdrawn: Option<PolicyRef>,
    /// Its additions.
    pub additions: Option<PolicyRef>,
    /// The document by which they were withdrawn, if it has none for that reason.
    pub without_additions: Option<PolicyRef>,
    /// Under the scope of this policy and since then; newest first.
    pub trusted: Vec<Trusted>,
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
    /// Number of the evidence that was released before it, with the same resetCount and another r.
    pub twin: Option<u64>,
}

/// A checked document to be stored.
#[derive(Clone, Copy)]
pub struct NewDocument<'a> {
    /// Its envelope.
    pub opened: &'a Opened,
    /// Document and signature.
    pub signed: &'a SignedDocument,
}

/// A checked policy to be stored.
pub struct NewPolicy<'a> {
    /// The name that it gives itself; empty if it is a withdrawal.
    pub name: &'a str,
    /// What was signed.
    pub document: NewDocument<'a>,
}

/// A proposal, as it is kept.
#[derive(Clone, Debug)]
pub struct StoredProposal {
    /// What an operator sees.
    pub record: ProposalRecord,
    /// The policy's boot that it takes shim and boot loader from.
    pub base_boot: Option<String>,
    /// It is allowed because `trust_root_with_next_boot` accepted it, and for no other reason.
    pub by_trust: bool,
    /// Where that ever happened: it counts there once.
    pub trusted_under: Option<TrustedUnder>,
}

/// Where a proposal stands by a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stand {
    /// A rule accepts it.
    Accepted(String),
    /// `trust_root_with_next_boot` accepts it.
    Trusted(String),
    /// Nothing does.
    Waits(String),
}

impl Stand {
    /// For people: which rule, or why none.
    pub fn message(&self) -> &str {
        match self {
            Self::Accepted(message) | Self::Trusted(message) | Self::Waits(message) => message,
        }
    }

    /// The state of a proposal that has not been booted.
    pub fn state(&self) -> ProposalState {
        match self {
            Self::Accepted(_) => ProposalState::Accepted,
            Self::Trusted(_) => ProposalState::Trusted,
            Self::Waits(_) => ProposalState::Waiting,
        }
    }
}

/// A proposal to be decided on.
pub struct ProposalCase<'a> {
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
pub struct ProposalStanding {
    /// The node.
    pub node: Node,
    /// The same proposal, if it was made before.
    pub known: Option<StoredProposal>,
    /// How many **other** proposals of the node were ever trusted under the scope of its policy, since it is its tenant's.
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
    pub stand: std::result::Result<Stand, Rejection>,
    /// Number of the evidence that opened the boot it comes from.
    pub from_evidence: u64,
    /// The policy's boot that it takes shim and boot loader from.
    pub base_boot: Option<String>,
}

/// Where documents come from: the database, or a transaction that has just changed them.
pub trait Documents {
    /// What was signed, by its number in the sequence.
    fn signed_document(&self, number: u64) -> Result<Option<SignedDocument>>;
    /// A proposal.
    fn stored_proposal(&self, id: u64) -> Result<Option<StoredProposal>>;
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

/// Looks at recorded boots and at proposals by what governs a node now.
pub trait Reviewer {
    /// Whether the policy now allows this recorded boot.
    fn boot(&self, node: &Node, record: &EvidenceRecord, documents: &dyn Documents) -> Result<bool>;
    /// What an operator is shown of a boot that waits. `record` is the evidence that the row names.
    fn waiting(
        &self,
        node: &Node,
        row: PendingBoot,
        record: &EvidenceRecord,
        documents: &dyn Documents,
    ) -> Result<Waiting>;
    /// Where this proposal now stands. Trust is not given here, only kept.
    fn proposal(&self, node: &Node, proposal: &StoredProposal, documents: &dyn Documents) -> Result<Stand>;
}
