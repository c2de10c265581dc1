//! Requests about policies, groups and proposals.

use super::{Client, about};
use crate::error::Result;
use halfkey_protocol::NodeId;
use halfkey_protocol::wire::SignedDocument;
use halfkey_protocol::wire::operator::{Because, NodeRecord, SequencePart};
use halfkey_protocol::wire::policies::Scope;
use halfkey_protocol::wire::policies::{
    GroupList, NodePolicy, PolicyList, PolicyRecord, ProposalList, ProposalRecord,
};
use std::time::Duration;

/// Pages of proposals that a list may have: whoever has machines enrolled fills them, a verifier that lies does so without end.
const MAX_PAGES: usize = 64;

impl Client {
    /// The newest policy of each scope.
    ///
    /// # Errors
    /// As every request.
    pub fn policies(&self) -> Result<PolicyList> {
        self.get("policies", Duration::ZERO)
    }

    /// A policy; without a version the newest. Not checked: see [`crate::documents::signed`].
    ///
    /// # Errors
    /// As every request.
    pub fn policy(&self, scope: &Scope, version: Option<u64>) -> Result<PolicyRecord> {
        let version = version.map(|version| format!("?version={version}")).unwrap_or_default();
        self.get(&format!("policies/{scope}{version}"), Duration::ZERO)
    }

    /// Submits a policy.
    ///
    /// # Errors
    /// As every request.
    pub fn apply(&self, scope: &Scope, body: &SignedDocument) -> Result<PolicyRecord> {
        self.post(&format!("policies/{scope}"), body)
    }

    /// All that a node is judged by.
    ///
    /// # Errors
    /// As every request.
    pub fn node_policy(&self, id: NodeId) -> Result<NodePolicy> {
        self.get(&format!("nodes/{id}/policy"), Duration::ZERO)
    }

    /// Documents after a number. Not checked: see [`crate::trust::sequence`].
    ///
    /// # Errors
    /// As every request.
    pub fn sequence(&self, after: u64) -> Result<SequencePart> {
        self.get(&format!("sequence?after={after}"), Duration::ZERO)
    }

    /// Puts a node into a group, or into none.
    ///
    /// # Errors
    /// As every request.
    pub fn set_group(&self, id: NodeId, body: &SignedDocument) -> Result<NodeRecord> {
        about(id, self.post(&format!("nodes/{id}/group"), body)?)
    }

    /// All groups.
    ///
    /// # Errors
    /// As every request.
    pub fn groups(&self) -> Result<GroupList> {
        self.get("groups", Duration::ZERO)
    }

    /// Proposals, newest first: page after page, as long as there are not too many of them. Then the list says where it ends.
    ///
    /// # Errors
    /// As every request.
    pub fn proposals(&self, node: Option<NodeId>, waiting: bool) -> Result<ProposalList> {
        let mut list = self.proposals_before(None, node, waiting)?;
        for _ in 1..MAX_PAGES {
            let Some(next) = list.next else { break };
            let page = self.proposals_before(Some(next), node, waiting)?;
            list.proposals.extend(page.proposals);
            list.next = page.next;
        }
        Ok(list)
    }

    /// One page of them: those before a number.
    ///
    /// # Errors
    /// As every request.
    pub fn proposals_before(
        &self,
        before: Option<u64>,
        node: Option<NodeId>,
        waiting: bool,
    ) -> Result<ProposalList> {
        let before = before.map(|number| format!("&before={number}")).unwrap_or_default();
        let node = node.map(|id| format!("&node={id}")).unwrap_or_default();
        self.get(&format!("proposals?waiting={waiting}{before}{node}"), Duration::ZERO)
    }

    /// One proposal.
    ///
    /// # Errors
    /// As every request.
    pub fn proposal(&self, number: u64) -> Result<ProposalRecord> {
        self.get(&format!("proposals/{number}"), Duration::ZERO)
    }

    /// Denies a proposal.
    ///
    /// # Errors
    /// As every request.
    pub fn deny_proposal(&self, number: u64, body: &Because) -> Result<ProposalRecord> {
        self.post(&format!("proposals/{number}/deny"), body)
    }
}
