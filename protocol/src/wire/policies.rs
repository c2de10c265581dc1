//! Operator API, continued: policies, groups and proposals.
//!
//! | method and path | request | answer |
//! | --- | --- | --- |
//! | `GET /v1/operator/policies` | | [`PolicyList`], the newest version of each scope |
//! | `GET /v1/operator/policies/{scope}?version=N` | | [`PolicyRecord`]; without a version the newest |
//! | `POST /v1/operator/policies/{scope}` | [`SignedDocument`] | [`PolicyRecord`] |
//! | `GET /v1/operator/nodes/{id}/policy` | | [`NodePolicy`] |
//! | `POST /v1/operator/nodes/{id}/group` | [`SignedDocument`] | [`super::operator::NodeRecord`] |
//! | `GET /v1/operator/groups` | | [`GroupList`] |
//! | `GET /v1/operator/proposals?node=ID&waiting=true&before=N` | | [`ProposalList`] |
//! | `GET /v1/operator/proposals/{number}` | | [`ProposalRecord`] |
//! | `POST /v1/operator/proposals/{number}/deny` | [`super::operator::Because`] | [`ProposalRecord`] |
//!
//! A waiting proposal is accepted by applying a policy that accepts what it proposes: then it, and every other that the new
//! version covers, is no longer waiting.
//!
//! A scope is `node:ID` (the policy of one node), `group:NAME` (of all nodes of a group) or `additions:ID` (what one node of a
//! group may boot besides).

use super::{Proposal, SignedDocument};
use serde::{Deserialize, Serialize};

pub use crate::document::{MAX_GROUP, Scope, is_group_name};

/// Largest policy document, in bytes.
pub const MAX_POLICY: usize = 256 << 10;
/// A line of `halfkey policy list`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PolicySummary {
    /// What it is for.
    pub scope: String,
    /// Its version: the number of its document in the deployment's one sequence.
    pub version: u64,
    /// The name that it gives itself; empty if this version says that there is none any more.
    pub name: String,
    /// Fingerprint of the tenant key.
    pub tenant_key: String,
    /// SHA-256 of the document, hex.
    pub sha256: String,
    /// When it was applied: seconds since 1970, UTC.
    pub applied_at: u64,
    /// Name of the operator who handed it in.
    pub applied_by: String,
    /// How many nodes it governs.
    pub nodes: u64,
}

/// Answer of `GET policies`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PolicyList {
    /// By scope.
    pub policies: Vec<PolicySummary>,
}

/// A policy, whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PolicyRecord {
    /// The same as in the list.
    pub summary: PolicySummary,
    /// Document and signature.
    pub signed: SignedDocument,
}

/// All that a node's boots are judged by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NodePolicy {
    /// The node's group, if it is in one.
    pub group: Option<String>,
    /// What says so.
    pub membership: Option<SignedDocument>,
    /// The node's own policy, else the group's.
    pub policy: Option<PolicyRecord>,
    /// Its additions.
    pub additions: Option<PolicyRecord>,
    /// Proposals that were accepted by `trust-root-with-next-boot`, newest first: also allowed.
    pub trusted: Vec<ProposalRecord>,
}

/// A group of nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Group {
    /// Its name, unique in the deployment.
    pub name: String,
    /// Version of its policy, if it has one.
    pub version: Option<u64>,
    /// Ids of its nodes.
    pub nodes: Vec<String>,
}

/// Answer of `GET groups`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GroupList {
    /// By name.
    pub groups: Vec<Group>,
}

/// Where a proposal stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ProposalState {
    /// For an operator.
    Waiting,
    /// The policy allows it.
    Accepted,
    /// Accepted by `trust-root-with-next-boot`.
    Trusted,
    /// The node has booted it.
    Booted,
    /// An operator said no.
    Denied,
    /// The node proposed, or booted, something newer.
    Superseded,
}

impl ProposalState {
    /// Each of them.
    pub const ALL: [Self; 6] =
        [Self::Waiting, Self::Accepted, Self::Trusted, Self::Booted, Self::Denied, Self::Superseded];

    /// The name on the wire and in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Accepted => "accepted",
            Self::Trusted => "trusted",
            Self::Booted => "booted",
            Self::Denied => "denied",
            Self::Superseded => "superseded",
        }
    }

    /// From the name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// What a node proposed, and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ProposalRecord {
    /// Its number at the verifier.
    pub id: u64,
    /// Node id.
    pub node_id: String,
    /// When it came: seconds since 1970, UTC.
    pub at: u64,
    /// Where it stands.
    pub state: ProposalState,
    /// Which rule accepts it, why none does, or why it was denied.
    pub message: String,
    /// What was proposed.
    pub proposal: Proposal,
    /// The released boot that it was proposed from: number of its evidence.
    pub from_evidence: u64,
}

/// Answer of `GET proposals`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ProposalList {
    /// Newest first.
    pub proposals: Vec<ProposalRecord>,
    /// There are more: those before this number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// Why a boot is not what the policy allows: one event, or something that is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Finding {
    /// Which PCR, if it is about one.
    pub pcr: Option<u8>,
    /// Number of the event in the firmware's log, from 0; none if something is missing, or it is not of that log.
    pub event: Option<u32>,
    /// What it is, for people: `boot application \EFI\Linux\linux.efi`, `variable SecureBoot`.
    pub what: String,
    /// The rule: `boot "6.1.0-56" image 1 (uki)`, `secure_boot.db`; `no rule` if none speaks of it.
    pub rule: String,
    /// What the rule allows.
    pub expected: String,
    /// What was booted.
    pub found: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(pcr) = self.pcr {
            write!(f, "pcr {pcr}, ")?;
        }
        if let Some(event) = self.event {
            write!(f, "event {event}, ")?;
        }
        write!(f, "{}: {}: expected {}, found {}", self.what, self.rule, self.expected, self.found)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "\nhint: {hint}"))
    }
}
