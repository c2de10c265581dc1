//! What governs a node.

use crate::store::PolicyRow;

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

impl From<PolicyRow> for PolicyRef {
    fn from(row: PolicyRow) -> Self {
        Self { scope: row.scope, version: row.version, sha256: row.sha256 }
    }
}

/// What a node's boots are judged by. Two that are equal allow the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Governing {
    /// Number of the proof by which the node went to its tenant from another one, 0 if it never did.
    pub since: u64,
    /// The same of its TPM's storage key, too: trust of before counts no more.
    pub trusts_since: u64,
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

impl Governing {
    /// Where trust that is given now counts, if a policy governs the node.
    pub fn trusting(&self) -> Option<TrustedUnder> {
        let policy = self.policy.as_ref()?;
        Some(TrustedUnder { scope: policy.scope.clone(), since: self.trusts_since })
    }
}

/// A proposal that `trust_root_with_next_boot` accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trusted {
    /// Its number.
    pub id: u64,
    /// The policy's boot that it takes shim and boot loader from.
    pub base_boot: Option<String>,
    /// SHA-256 over its content.
    pub sha256: [u8; 32],
}

/// Where trust was given. It counts nowhere else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedUnder {
    /// The scope of the policy that gave it.
    pub scope: String,
    /// [`super::Governing::trusts_since`] of then: whose policy that was, and of which state of the TPM.
    pub since: u64,
}
