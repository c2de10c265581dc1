//! Boots that wait, and what was decided, in memory.

use super::MemoryTx;
use crate::store::{BootRow, Boots, Each, Result};
use halfkey_protocol::NodeId;
use std::cmp::Reverse;

impl Boots for MemoryTx {
    fn boot(&self, node: NodeId, ticket: &str) -> Result<Option<BootRow>> {
        Ok(self.0.borrow().boots.get(&(node.to_string(), ticket.to_owned())).cloned())
    }

    fn undecided_boots(&self, node: NodeId) -> Result<Each<BootRow>> {
        let tables = self.0.borrow();
        let waits = |row: &&BootRow| row.node == node && row.decision.is_none();
        let mut rows: Vec<_> = tables.boots.values().filter(waits).cloned().collect();
        rows.sort_by_key(|row| Reverse(row.evidence_id));
        Ok(rows.into_iter().map(Ok).collect())
    }

    fn put_boot(&self, row: &BootRow) -> Result<()> {
        self.0.borrow_mut().boots.insert((row.node.to_string(), row.ticket.clone()), row.clone());
        Ok(())
    }

    fn delete_boot(&self, node: NodeId, ticket: &str) -> Result<()> {
        self.0.borrow_mut().boots.remove(&(node.to_string(), ticket.to_owned()));
        Ok(())
    }

    fn delete_boots(&self, node: NodeId) -> Result<()> {
        self.0.borrow_mut().boots.retain(|_, row| row.node != node);
        Ok(())
    }

    fn trim_boots(&self, node: NodeId, keep: u64) -> Result<()> {
        let mut numbers = self.evidence_of_boots(node)?;
        numbers.sort_unstable_by_key(|number| Reverse(*number));
        let Some(last) = numbers.get(usize::try_from(keep).unwrap_or(usize::MAX)).copied() else {
            return Ok(());
        };
        self.0.borrow_mut().boots.retain(|_, row| row.node != node || row.evidence_id > last);
        Ok(())
    }

    fn delete_expired_boots(&self, now: u64) -> Result<()> {
        self.0.borrow_mut().boots.retain(|_, row| row.expires > now);
        Ok(())
    }

    fn evidence_of_boots(&self, node: NodeId) -> Result<Vec<u64>> {
        let tables = self.0.borrow();
        Ok(tables.boots.values().filter(|row| row.node == node).map(|row| row.evidence_id).collect())
    }
}
