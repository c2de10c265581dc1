//! Proposals, in memory.

use super::{MemoryTx, first};
use crate::store::{ProposalChange, ProposalHead, ProposalRow, Proposals, Result};
use halfkey_protocol::NodeId;

impl Proposals for MemoryTx {
    fn proposal(&self, id: u64) -> Result<Option<ProposalRow>> {
        Ok(self.0.borrow().proposals.get(&id).cloned())
    }

    fn proposal_with(&self, node: NodeId, sha256: &[u8; 32]) -> Result<Option<ProposalRow>> {
        let id = node.to_string();
        let tables = self.0.borrow();
        Ok(tables.proposals.values().find(|row| row.node_id == id && row.sha256 == *sha256).cloned())
    }

    fn proposal_numbers(
        &self,
        node: Option<NodeId>,
        states: &[&str],
        before: Option<u64>,
        limit: u64,
    ) -> Result<Vec<u64>> {
        let id = node.map(|node| node.to_string());
        let tables = self.0.borrow();
        let rows = tables.proposals.values().rev().filter(|row| {
            id.as_ref().is_none_or(|id| *id == row.node_id)
                && states.contains(&row.state.as_str())
                && before.is_none_or(|before| row.id < before)
        });
        Ok(first(limit, rows.map(|row| row.id)))
    }

    fn proposal_heads(&self, node: NodeId) -> Result<Vec<ProposalHead>> {
        let id = node.to_string();
        let tables = self.0.borrow();
        let of_node = tables.proposals.values().filter(|row| row.node_id == id);
        let head = |row: &ProposalRow| ProposalHead {
            id: row.id,
            at: row.at,
            state: row.state.clone(),
            from_evidence: row.from_evidence,
            by_trust: row.by_trust,
        };
        let mut heads: Vec<_> = of_node.map(head).collect();
        heads.sort_by_key(|head| (head.at, head.id));
        Ok(heads)
    }

    fn put_proposal(&self, row: &ProposalRow) -> Result<u64> {
        let mut tables = self.0.borrow_mut();
        let same = |known: &&ProposalRow| known.node_id == row.node_id && known.sha256 == row.sha256;
        let known = tables.proposals.values().find(same).map(|known| known.id);
        let id = known.unwrap_or(tables.last_proposal + 1);
        tables.last_proposal = tables.last_proposal.max(id);
        tables.proposals.insert(id, ProposalRow { id, ..row.clone() });
        Ok(id)
    }

    fn set_proposal(&self, id: u64, change: &ProposalChange<'_>) -> Result<()> {
        if let Some(row) = self.0.borrow_mut().proposals.get_mut(&id) {
            change.state.clone_into(&mut row.state);
            if let Some(message) = change.message {
                message.clone_into(&mut row.message);
            }
            row.by_trust = change.by_trust;
            row.tag = change.tag.map(<[u8]>::to_vec);
        }
        Ok(())
    }

    fn delete_proposal(&self, id: u64) -> Result<()> {
        self.0.borrow_mut().proposals.remove(&id);
        Ok(())
    }

    fn delete_trust(&self, node: NodeId) -> Result<()> {
        let id = node.to_string();
        let mut tables = self.0.borrow_mut();
        for row in tables.proposals.values_mut().filter(|row| row.node_id == id) {
            row.by_trust = false;
            row.tag = None;
            row.trusted_scope = None;
            row.trusted_since = None;
        }
        tables.trust_given.retain(|(node, ..), _| *node != id);
        Ok(())
    }

    fn times_trusted(&self, node: NodeId, scope: &str, since: u64) -> Result<u64> {
        let key = (node.to_string(), scope.to_owned(), since);
        Ok(self.0.borrow().trust_given.get(&key).copied().unwrap_or(0))
    }

    fn add_trusted(&self, node: NodeId, scope: &str, since: u64) -> Result<()> {
        let key = (node.to_string(), scope.to_owned(), since);
        *self.0.borrow_mut().trust_given.entry(key).or_default() += 1;
        Ok(())
    }
}
