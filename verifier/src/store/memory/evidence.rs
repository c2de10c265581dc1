//! Evidence, in memory.

use super::{MemoryTx, first};
use crate::store::{Evidence, EvidenceHead, EvidenceRow, Result};
use halfkey_protocol::NodeId;
use std::collections::BTreeMap;

impl MemoryTx {
    /// Numbers of a node's evidence of one kind, newest first.
    fn kind(&self, node: NodeId, authentic: bool, outcome: &str) -> Vec<u64> {
        let tables = self.0.borrow();
        let id = node.to_string();
        let of_kind = tables.evidence.values().filter(|row| {
            (row.head.node_id.as_str(), row.authentic, row.head.outcome.as_str()) == (&id, authentic, outcome)
        });
        let mut numbers: Vec<_> = of_kind.map(|row| row.head.id).collect();
        numbers.reverse();
        numbers
    }
}

impl Evidence for MemoryTx {
    fn insert_evidence(&self, row: &EvidenceRow) -> Result<u64> {
        let mut tables = self.0.borrow_mut();
        tables.last_evidence += 1;
        let id = tables.last_evidence;
        let head = EvidenceHead { id, ..row.head.clone() };
        tables.evidence.insert(id, EvidenceRow { head, ..row.clone() });
        Ok(id)
    }

    fn evidence(&self, id: u64) -> Result<Option<EvidenceRow>> {
        Ok(self.0.borrow().evidence.get(&id).cloned())
    }

    fn evidence_of(&self, node: NodeId, limit: u64) -> Result<Vec<EvidenceHead>> {
        let tables = self.0.borrow();
        let id = node.to_string();
        let rows = tables.evidence.values().rev().filter(|row| row.head.node_id == id);
        Ok(first(limit, rows.map(|row| row.head.clone())))
    }

    fn trim_evidence(
        &self,
        node: NodeId,
        authentic: bool,
        outcome: &str,
        keep: u64,
        except: &[u64],
    ) -> Result<()> {
        let old = self.kind(node, authentic, outcome).into_iter();
        for number in old.skip(usize::try_from(keep).unwrap_or(usize::MAX)) {
            if !except.contains(&number) {
                self.0.borrow_mut().evidence.remove(&number);
            }
        }
        Ok(())
    }

    fn trim_logs(&self, node: NodeId, authentic: bool, outcome: &str, bytes: u64) -> Result<()> {
        let numbers = self.kind(node, authentic, outcome);
        let mut tables = self.0.borrow_mut();
        // Each is kept once.
        let mut seen = BTreeMap::new();
        let mut total = 0;
        for number in numbers {
            let Some(row) = tables.evidence.get_mut(&number) else { continue };
            for log in [&mut row.ima_log, &mut row.systemd_log, &mut row.event_log] {
                let Some(found) = log else { continue };
                let stays = *seen.entry(found.clone()).or_insert_with(|| {
                    total += found.len() as u64;
                    total <= bytes
                });
                if !stays {
                    *log = None;
                }
            }
        }
        Ok(())
    }
}
