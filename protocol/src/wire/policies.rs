//! Operator API, continued: policies, groups and proposals.
//!
//! | method and path | request | answer |
//! | --- | --- | --- |
//! | `GET /v1/operator/policies` | | [`PolicyList`], the newest version of each scope |
//! | `GET /v1/operator/policies/{scope}?version=N` | | [`PolicyRecord`]; without a version the newest |
//! | `POST /v1/operator/policies/{scope}` | [`SignedPolicy`] | [`PolicyRecord`] |
//! | `GET /v1/operator/nodes/{id}/policy` | | [`NodePolicy`] |
//! | `POST /v1/operator/nodes/{id}/group` | [`SetGroup`] | [`super::operator::NodeRecord`] |
//! | `GET /v1/operator/groups` | | [`GroupList`] |
//! | `GET /v1/operator/proposals?node=ID&waiting=true` | | [`ProposalList`] |
//! | `GET /v1/operator/proposals/{number}` | | [`ProposalRecord`] |
//! | `POST /v1/operator/proposals/{number}/deny` | [`super::operator::Because`] | [`ProposalRecord`] |
//!
//! A waiting proposal is accepted by applying a policy that accepts what it proposes: then it, and every other that the new
//! version covers, is no longer waiting.
//!
//! A scope is `node:ID` (the policy of one node), `group:NAME` (of all nodes of a group) or `additions:ID` (what one node of a
//! group may boot besides).

use super::Proposal;
use crate::{Bytes, NodeId, label};
use serde::{Deserialize, Serialize};

/// Largest policy document, in bytes.
pub const MAX_POLICY: usize = 256 << 10;
/// Longest name of a group, in bytes: `a-z`, `0-9`, `-`, `_`, `.`.
pub const MAX_GROUP: usize = 64;

/// What a policy is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The policy of one node.
    Node(NodeId),
    /// The policy of all nodes of a group that have none of their own.
    Group(String),
    /// What one node may boot besides.
    Additions(NodeId),
}

impl Scope {
    /// Reads the text form; `None` if it is not canonical.
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once(':')? {
            ("node", id) => NodeId::parse(id).map(Self::Node),
            ("additions", id) => NodeId::parse(id).map(Self::Additions),
            ("group", name) => is_group_name(name).then(|| Self::Group(name.to_owned())),
            _ => None,
        }
    }

    /// The node, if it is for one.
    pub fn node(&self) -> Option<NodeId> {
        match self {
            Self::Node(id) | Self::Additions(id) => Some(*id),
            Self::Group(_) => None,
        }
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Node(id) => write!(f, "node:{id}"),
            Self::Group(name) => write!(f, "group:{name}"),
            Self::Additions(id) => write!(f, "additions:{id}"),
        }
    }
}

/// Whether this can be the name of a group: 1 to [`MAX_GROUP`] of `a-z`, `0-9`, `-`, `_`, `.`.
pub fn is_group_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    (1..=MAX_GROUP).contains(&name.len()) && name.bytes().all(allowed)
}

/// What the tenant key signs, as JSON text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyEnvelope {
    /// Version of this envelope: 1.
    pub format: u32,
    /// What it is for.
    pub scope: String,
    /// Version of the policy, from 1; must be larger than that of any earlier one of this scope.
    pub version: u64,
    /// Seconds since 1970, UTC.
    pub created: u64,
    /// The policy: TOML text. docs/policy.md. Empty if withdrawn.
    pub policy: String,
    /// From this version on the scope has no policy, and a node of it is judged by what is left: its group's. Not for a
    /// group.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub withdrawn: bool,
}

/// A policy with the tenant's signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedPolicy {
    /// [`PolicyEnvelope`] as JSON text: exactly the signed bytes.
    pub document: Bytes,
    /// Ed25519 public key, 32 bytes.
    pub tenant_key: Bytes,
    /// Ed25519 signature, 64 bytes, over [`policy_signed_bytes`].
    pub signature: Bytes,
}

/// What the tenant key signs: label || document.
pub fn policy_signed_bytes(document: &[u8]) -> Vec<u8> {
    [label::POLICY.as_bytes(), document].concat()
}

/// A line of `halfkey policy list`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicySummary {
    /// What it is for.
    pub scope: String,
    /// Its version.
    pub version: u64,
    /// The name that it gives itself; empty if this version says that there is none any more.
    pub name: String,
    /// Fingerprint of the tenant key.
    pub tenant_key: String,
    /// SHA-256 of the document, hex.
    pub sha256: String,
    /// When it was applied.
    pub applied_at: u64,
    /// By whom.
    pub applied_by: String,
    /// How many nodes it governs.
    pub nodes: u64,
}

/// Answer of `GET policies`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicyList {
    /// By scope.
    pub policies: Vec<PolicySummary>,
}

/// A policy, whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicyRecord {
    /// The same as in the list.
    pub summary: PolicySummary,
    /// Document and signature.
    pub signed: SignedPolicy,
}

/// All that a node's boots are judged by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodePolicy {
    /// The node's group, if it is in one.
    pub group: Option<String>,
    /// The node's own policy, else the group's.
    pub policy: Option<PolicyRecord>,
    /// Its additions.
    pub additions: Option<PolicyRecord>,
    /// Proposals that were accepted by `trust-root-with-next-boot`, newest first: also allowed.
    pub trusted: Vec<ProposalRecord>,
}

/// Body of `POST nodes/{id}/group`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetGroup {
    /// None: in no group.
    pub group: Option<String>,
}

/// A group of nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Version of its policy, if it has one.
    pub version: Option<u64>,
    /// Ids of its nodes.
    pub nodes: Vec<String>,
}

/// Answer of `GET groups`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupList {
    /// By name.
    pub groups: Vec<Group>,
}

/// Where a proposal stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
        [Self::Waiting, Self::Accepted, Self::Trusted, Self::Booted, Self::Denied, Self::Superseded]
            .into_iter()
            .find(|state| state.as_str() == text)
    }
}

/// What a node proposed, and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProposalRecord {
    /// Its number.
    pub id: u64,
    /// Node id.
    pub node_id: String,
    /// When.
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
pub struct ProposalList {
    /// Newest first.
    pub proposals: Vec<ProposalRecord>,
}

/// Why a boot is not what the policy allows: one event, or something that is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(pcr) = self.pcr {
            write!(f, "pcr {pcr}, ")?;
        }
        if let Some(event) = self.event {
            write!(f, "event {event}, ")?;
        }
        write!(f, "{}: {}: expected {}, found {}", self.what, self.rule, self.expected, self.found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_has_one_text() {
        let id = NodeId([7; 16]);
        for scope in [Scope::Node(id), Scope::Group("web-1.a_b".into()), Scope::Additions(id)] {
            assert_eq!(Scope::parse(&scope.to_string()), Some(scope));
        }
        let upper = format!("node:{}", id.to_string().replace("07", "0A"));
        let long = format!("group:{}", "a".repeat(MAX_GROUP + 1));
        for text in
            ["", "group", "group:", "group:Web", "group:a b", "group:a:b", "nodes:x", "node:7", &upper, &long]
        {
            assert_eq!(Scope::parse(text), None, "{text}");
        }
    }
}
