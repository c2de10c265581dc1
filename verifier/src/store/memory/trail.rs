//! The audit trail, in memory.

use super::{MemoryTx, first};
use crate::store::{CountRow, Result, StoreError, Trail};
use halfkey_protocol::NodeId;
use halfkey_protocol::wire::operator::AuditEntry;
use std::cmp::Reverse;

impl Trail for MemoryTx {
    fn hold_trail(&self) -> Result<()> {
        Ok(())
    }

    fn hold_sweep(&self) -> Result<bool> {
        Ok(true)
    }

    fn audit_end(&self) -> Result<Option<(u64, Option<[u8; 32]>)>> {
        Ok(self.0.borrow().audit.last_key_value().map(|(seq, (_, hash))| (*seq, Some(*hash))))
    }

    fn audit_entry(&self, seq: u64) -> Result<Option<(AuditEntry, Option<[u8; 32]>)>> {
        Ok(self.0.borrow().audit.get(&seq).map(|(entry, hash)| (entry.clone(), Some(*hash))))
    }

    fn audit_entries(&self, after: Option<u64>, node: Option<NodeId>, limit: u64) -> Result<Vec<AuditEntry>> {
        let id = node.map(|node| node.to_string());
        let tables = self.0.borrow();
        let of_node = |entry: &&AuditEntry| id.is_none() || entry.node_id == id;
        let entries = tables.audit.values().map(|(entry, _)| entry).filter(of_node);
        Ok(match after {
            Some(after) => first(limit, entries.filter(|entry| entry.seq > after).cloned()),
            None => {
                let mut newest = first(limit, entries.rev().cloned());
                newest.reverse();
                newest
            }
        })
    }

    fn insert_audit(&self, entry: &AuditEntry, hash: &[u8; 32]) -> Result<()> {
        match self.0.borrow_mut().audit.insert(entry.seq, (entry.clone(), *hash)) {
            None => Ok(()),
            Some(_) => Err(StoreError::Unavailable("an entry is there already".to_owned())),
        }
    }

    fn add_count(&self, hour: u64, action: &str, source: &str) -> Result<bool> {
        let mut tables = self.0.borrow_mut();
        let count = tables.counts.get_mut(&(hour, action.to_owned(), source.to_owned()));
        Ok(count.map(|count| *count += 1).is_some())
    }

    fn insert_count(&self, hour: u64, action: &str, source: &str) -> Result<()> {
        self.0.borrow_mut().counts.insert((hour, action.to_owned(), source.to_owned()), 1);
        Ok(())
    }

    fn counted_sources(&self, hour: u64, action: &str) -> Result<u64> {
        let tables = self.0.borrow();
        let same = |(of_hour, of, _): &&(u64, String, String)| (*of_hour, of.as_str()) == (hour, action);
        Ok(tables.counts.keys().filter(same).count() as u64)
    }

    fn counts_before(&self, hour: u64) -> Result<Vec<CountRow>> {
        let tables = self.0.borrow();
        let before = tables.counts.iter().filter(|((of_hour, ..), _)| *of_hour < hour);
        let row = |((hour, action, source), count): (&(u64, String, String), &u64)| CountRow {
            hour: *hour,
            action: action.clone(),
            source: source.clone(),
            count: *count,
        };
        let mut rows: Vec<_> = before.map(row).collect();
        let order = |row: &CountRow| (row.hour, row.action.clone(), Reverse(row.count), row.source.clone());
        rows.sort_by_key(order);
        Ok(rows)
    }

    fn delete_counts_before(&self, hour: u64) -> Result<()> {
        self.0.borrow_mut().counts.retain(|(of_hour, ..), _| *of_hour >= hour);
        Ok(())
    }

    fn set_meta(&self, key: &str, value: u64) -> Result<()> {
        self.0.borrow_mut().meta.insert(key.to_owned(), value);
        Ok(())
    }
}
