//! Operator API: tenant -> verifier, with a client certificate.
//!
//! | method and path | request | answer |
//! | --- | --- | --- |
//! | `GET /v1/operator/info` | | [`ServerInfo`] |
//! | `GET /v1/operator/sequence?after=NUMBER` | | [`SequencePart`] |
//! | `GET /v1/operator/nodes?after=ID&limit=N` | | [`NodeList`] |
//! | `GET /v1/operator/nodes?name=TEXT&limit=N` | | [`NodeList`]: those with this label, or whose id begins so |
//! | `GET /v1/operator/nodes/{id}` | | [`NodeRecord`] |
//! | `POST /v1/operator/nodes/{id}/enrollment` | [`Enroll`] | [`NodeRecord`] |
//! | `POST /v1/operator/nodes/{id}/approve` | [`SignedDocument`]: an approval | [`NodeRecord`] |
//! | `POST /v1/operator/nodes/{id}/deny` | [`Deny`] | [`NodeRecord`] |
//! | `POST /v1/operator/nodes/{id}/revoke` | [`Because`] | [`NodeRecord`] |
//! | `POST /v1/operator/nodes/{id}/restore` | [`SignedDocument`]: a restoration | [`NodeRecord`] |
//! | `POST /v1/operator/nodes/{id}/hold` | [`Because`] | [`NodeRecord`] |
//! | `POST /v1/operator/nodes/{id}/release` | [`SignedDocument`]: a release | [`NodeRecord`] |
//! | `GET /v1/operator/nodes/{id}/evidence?limit=N` | | [`EvidenceList`] |
//! | `GET /v1/operator/evidence/{number}` | | [`EvidenceRecord`] |
//! | `GET /v1/operator/audit?after=SEQ&node=ID&limit=N` | | [`AuditList`] |
//! | `GET /v1/operator/audit?after=SEQ&wait=SECONDS` | | [`AuditList`], held open until there is something |
//!
//! `after`: entries with a larger number, the oldest `limit` of them. Without `after`: the
//! newest `limit` entries. Both oldest first. `wait` (at most 25) may be combined with `node`.
//!
//! Policies, groups and proposals: [`super::policies`].
//!
//! Times are seconds since 1970, UTC.

use super::policies::{Finding, PolicySummary};
use super::{Credential, Register, SignedDocument};
use crate::Bytes;
use serde::{Deserialize, Serialize};

/// The verifier, as the tenant needs it to write an enrollment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ServerInfo {
    /// Version of the program.
    pub version: String,
    /// Id of the deployment: a UUID that `halfkey-verifier init` made. Every document names it.
    pub deployment: String,
    /// Where its sequence of documents ends.
    pub head: Head,
    /// `TPMT_PUBLIC` of the release key.
    pub release_public: Bytes,
    /// The CA that nodes must pin, PEM.
    pub ca: String,
    /// URLs at which nodes reach the verifier, best first.
    pub servers: Vec<String>,
}

/// The newest document of a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Head {
    /// Its number; 0 if there is none.
    pub number: u64,
    /// Its SHA-256, 32 bytes; zeros if there is none.
    pub sha256: Bytes,
}

/// Answer of `GET sequence`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SequencePart {
    /// Consecutive documents, oldest first; empty after the newest.
    pub documents: Vec<SignedDocument>,
}

/// Where a node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// The TPM is registered; no tenant has enrolled the node.
    Registered,
    /// A tenant enrolled it; the node has not yet proved that it holds K. Also while an
    /// enrolled node is enrolled again: it can boot with the old enrollment until then.
    Enrolling,
    /// Ready to boot.
    Enrolled,
    /// Nothing is released any more.
    Revoked,
}

impl NodeState {
    /// The name on the wire and in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Enrolling => "enrolling",
            Self::Enrolled => "enrolled",
            Self::Revoked => "revoked",
        }
    }

    /// From the name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Registered, Self::Enrolling, Self::Enrolled, Self::Revoked]
            .into_iter()
            .find(|state| state.as_str() == text)
    }
}

/// A line of `halfkey nodes`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NodeSummary {
    /// Node id.
    pub id: String,
    /// The tenant's label, or the suggested one before enrollment.
    pub label: String,
    /// Where it stands.
    pub state: NodeState,
    /// Whether a boot waits for an operator.
    pub pending: bool,
    /// Whether an operator holds it: its boots are denied.
    pub held: bool,
    /// Whether its last boot was released twice, with different r: a lost answer, or two machines with one TPM.
    pub cloned: bool,
    /// When it last registered or attested: seconds since 1970, UTC.
    pub last_seen: u64,
    /// Outcome of the last evidence.
    pub last_outcome: Option<String>,
    /// Its reason code.
    pub last_code: Option<String>,
}

/// Answer of `GET nodes`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NodeList {
    /// By id; by name: first those that a tenant ever did something with.
    pub nodes: Vec<NodeSummary>,
    /// There are more: those after this id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A value for a query, percent-encoded.
pub fn query_value(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// All that the verifier knows of a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NodeRecord {
    /// The same as in the list.
    pub summary: NodeSummary,
    /// What the node sent at registration, for the tenant to check itself; none if it was never enrolled and the registrar has
    /// forgotten it.
    pub registration: Option<Register>,
    /// The newest challenge that its TPM activated, for the enrollment; empty while the registrar can't be asked.
    pub challenge: Bytes,
    /// When it registered: seconds since 1970, UTC.
    pub registered_at: u64,
    /// The current enrollment; the open one if the node has proved none.
    pub enrollment: Option<SignedDocument>,
    /// The open one beside the current one: the node has not proved it yet, and it may be another tenant's.
    pub open: Option<SignedDocument>,
    /// The boot that waits for an operator.
    pub pending: Option<PendingBoot>,
    /// What the node's boots are judged by: its own policy, else that of its group.
    pub policy: Option<PolicySummary>,
    /// Why it is revoked.
    pub revoked_because: Option<String>,
    /// Who holds it and why.
    pub held: Option<Held>,
    /// What its TPM said of its firmware last; none before the first quote.
    pub tpm_firmware: Option<TpmFirmware>,
}

impl NodeRecord {
    /// The enrollment that was handed in last.
    pub fn newest(&self) -> Option<&SignedDocument> {
        self.open.as_ref().or(self.enrollment.as_ref())
    }
}

/// An operator holds a node: its boots are denied until it is released.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Held {
    /// The operator's name.
    pub by: String,
    /// What the operator gave as the reason.
    pub because: String,
}

/// The version of a TPM's firmware (firmwareVersion of its quotes), in the manufacturer's terms: `0x` and 16 digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TpmFirmware {
    /// Now.
    pub version: String,
    /// The one before, if it ever changed.
    pub before: Option<String>,
    /// When this version was first seen: seconds since 1970, UTC.
    pub since: u64,
}

/// A boot that waits for an operator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PendingBoot {
    /// Names this boot: of its quote, as docs/protocol.md says.
    pub ticket: String,
    /// Number of the record of its evidence.
    pub evidence_id: u64,
    /// Why it is pending: a [`crate::Reason`] code.
    pub code: String,
    /// The same for people.
    pub message: String,
    /// Whether an operator can approve it. Fence, signature, counters and revocation never can be.
    pub approvable: bool,
    /// What the policy does not allow; empty if there is no policy.
    pub findings: Vec<Finding>,
    /// When it was first seen: seconds since 1970, UTC.
    pub since: u64,
    /// When the ticket is forgotten: seconds since 1970, UTC.
    pub expires: u64,
}

/// Body of `POST enrollment`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Enroll {
    /// Document and signature.
    pub signed: SignedDocument,
    /// MakeCredential(EK, name(AK), U).
    pub c_u: Credential,
    /// MakeCredential(SRK, name(AK), V).
    pub c_v: Credential,
}

/// Body of `POST deny`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Deny {
    /// Which pending boot.
    pub ticket: String,
    /// For the audit trail and the console of the node.
    pub because: String,
}

/// Body of `POST revoke` and `POST hold`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Because {
    /// For the audit trail.
    pub because: String,
}

/// A line of `halfkey evidence`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EvidenceSummary {
    /// Number of the record.
    pub id: u64,
    /// Node id.
    pub node_id: String,
    /// When it came: seconds since 1970, UTC.
    pub at: u64,
    /// [`super::Purpose`].
    pub purpose: String,
    /// [`super::Outcome`].
    pub outcome: String,
    /// Reason code.
    pub code: Option<String>,
    /// What was expected and what was found.
    pub message: String,
    /// If released for a boot: number of an earlier release with the same resetCount and restartCount, and another r.
    pub cloned: Option<u64>,
}

/// Answer of `GET evidence`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EvidenceList {
    /// Newest first.
    pub evidence: Vec<EvidenceSummary>,
}

/// One record, whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EvidenceRecord {
    /// The same as in the list.
    pub summary: EvidenceSummary,
    /// What the node sent.
    pub evidence: super::Evidence,
    /// resetCount of the quote, if it could be read.
    pub reset_count: Option<u32>,
    /// restartCount of the quote.
    pub restart_count: Option<u32>,
    /// Clock of the quote, milliseconds.
    pub clock: Option<u64>,
    /// firmwareVersion of the quote: `0x` and 16 digits.
    pub tpm_firmware: Option<String>,
    /// What PCR 15 (SHA-256 bank) must be from the opening on, if this evidence was released for a boot.
    pub expected_fence: Option<Bytes>,
    /// What the policy of that time did not allow.
    pub findings: Vec<Finding>,
}

/// An entry of the audit trail.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AuditEntry {
    /// Grows by one with each entry.
    pub seq: u64,
    /// When it was recorded: seconds since 1970, UTC.
    pub at: u64,
    /// The operator's name (common name of the certificate), `node`, or `verifier`.
    pub actor: String,
    /// What happened: `register`, `enroll`, `prove`, `verdict`, `approve`, `deny`, `revoke`, `restore`, `hold`, `release`,
    /// `cloned` (a boot was released twice), `restarted` (the TPM lost its power while the machine was suspended), `tpm_firmware` (its version changed), `refuse`, `policy_apply`, `group_set`, `propose`, `proposal_accept`, `proposal_deny`, `expire` (a registration that no
    /// tenant enrolled), `operator_add`, `operator_remove`.
    pub action: String,
    /// Node id, if it concerns one.
    pub node_id: Option<String>,
    /// For people.
    pub detail: String,
}

/// Answer of `GET audit`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AuditList {
    /// Oldest first.
    pub entries: Vec<AuditEntry>,
}
