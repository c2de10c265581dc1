//! Nodes, in memory.

use super::{MemoryTx, first, is_one};
use crate::store::{BootRow, EnrollmentRow, EnrollmentState, NodeLineRow, NodeRow, Nodes, Result, Which};
use halfkey_protocol::NodeId;

impl Nodes for MemoryTx {
    fn node(&self, node: NodeId) -> Result<Option<NodeRow>> {
        Ok(self.0.borrow().nodes.get(&node.to_string()).cloned())
    }

    fn put_node(&self, row: &NodeRow) -> Result<()> {
        self.0.borrow_mut().nodes.insert(row.id.to_string(), row.clone());
        Ok(())
    }

    fn set_seen(&self, node: NodeId, at: u64, outcome: &str, code: Option<&str>) -> Result<()> {
        if let Some(row) = self.0.borrow_mut().nodes.get_mut(&node.to_string()) {
            row.last_seen = at;
            row.last_outcome = Some(outcome.to_owned());
            row.last_code = code.map(str::to_owned);
        }
        Ok(())
    }

    fn node_lines(&self, which: &Which, limit: u64, now: u64) -> Result<Vec<NodeLineRow>> {
        let tables = self.0.borrow();
        let line = |(_, row): (&String, &NodeRow)| {
            let of_state = |state| {
                tables.enrollments.values().find(|found| found.node == row.id && found.state == state)
            };
            let current = of_state(EnrollmentState::Current);
            let twin =
                |found: &EnrollmentRow| found.released.as_ref().is_some_and(|last| last.twin.is_some());
            let waits = |boot: &BootRow| boot.node == row.id && boot.decision.is_none() && boot.expires > now;
            NodeLineRow {
                id: row.id,
                label: row.label.clone(),
                revoked: row.revoked_because.is_some(),
                open: of_state(EnrollmentState::Open).is_some(),
                current: current.is_some(),
                pending: tables.boots.values().any(waits),
                held: row.held_by.is_some(),
                cloned: current.is_some_and(twin),
                last_seen: row.last_seen,
                last_outcome: row.last_outcome.clone(),
                last_code: row.last_code.clone(),
            }
        };
        let rows = tables.nodes.iter().filter(|(id, row)| is_one(which, id, &row.label));
        Ok(first(limit, rows.map(line)))
    }
}
