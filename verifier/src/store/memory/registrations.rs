//! Registrations, in memory.

use super::{MemoryTx, Tables, first, is_one};
use crate::store::{RegistrationLine, RegistrationRow, Registrations, Result, SourceRow, Which};
use halfkey_protocol::NodeId;
use std::collections::BTreeMap;

impl Registrations for MemoryTx {
    fn registration(&self, node: NodeId) -> Result<Option<RegistrationRow>> {
        Ok(self.0.borrow().registrations.get(&node.to_string()).cloned())
    }

    fn registration_lines(&self, which: &Which, limit: u64) -> Result<Vec<RegistrationLine>> {
        let tables = self.0.borrow();
        let rows = tables.registrations.iter().filter(|(id, row)| is_one(which, id, &row.label));
        let line = |(id, row): (&String, &RegistrationRow)| RegistrationLine {
            node_id: id.clone(),
            label: row.label.clone(),
            last_seen: row.last_seen,
        };
        Ok(first(limit, rows.map(line)))
    }

    fn put_registration(&self, row: &RegistrationRow) -> Result<()> {
        self.0.borrow_mut().registrations.insert(row.node.to_string(), row.clone());
        Ok(())
    }

    fn keep_registration(&self, node: NodeId) -> Result<bool> {
        let mut tables = self.0.borrow_mut();
        let found = tables.registrations.get_mut(&node.to_string());
        Ok(found.map(|row| row.kept = true).is_some())
    }

    fn delete_registrations(&self, before: u64) -> Result<Vec<String>> {
        let gone = |_: &String, row: &mut RegistrationRow| !row.kept && row.last_seen < before;
        let mut tables = self.0.borrow_mut();
        let (gone, kept) = std::mem::take(&mut tables.registrations)
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|(id, row)| gone(id, &mut row.clone()));
        tables.registrations = kept;
        Ok(gone.into_keys().collect())
    }

    fn unkept_registrations(&self) -> Result<u64> {
        let unkept = self.0.borrow().registrations.values().filter(|row| !row.kept).count();
        self.looks_at(unkept);
        Ok(unkept as u64)
    }

    fn unkept_by_source(&self) -> Result<Vec<SourceRow>> {
        let mut sources: BTreeMap<String, SourceRow> = BTreeMap::new();
        for (number, row) in (0..).zip(self.0.borrow().registrations.values()).filter(|(_, row)| !row.kept) {
            let of_source = sources.entry(row.source.clone()).or_insert_with(|| SourceRow {
                source: row.source.clone(),
                count: 0,
                oldest: u64::MAX,
                oldest_row: 0,
            });
            of_source.count += 1;
            if row.last_seen < of_source.oldest {
                (of_source.oldest, of_source.oldest_row) = (row.last_seen, number);
            }
        }
        self.looks_at(sources.values().map(|row| row.count as usize).sum());
        Ok(sources.into_values().collect())
    }

    fn oldest_unkept(&self, source: &str, limit: u64) -> Result<Vec<(u64, i64)>> {
        let of_source = |tables: &Tables| -> Vec<(u64, i64)> {
            let rows = (0..).zip(tables.registrations.values());
            let rows = rows.filter(|(_, row)| !row.kept && row.source == source);
            rows.map(|(number, row)| (row.last_seen, number)).collect()
        };
        let mut oldest = of_source(&self.0.borrow());
        oldest.sort_unstable();
        // As by an index.
        let oldest = first(limit, oldest.into_iter());
        self.looks_at(oldest.len());
        Ok(oldest)
    }

    fn delete_unkept(&self, rows: &[i64]) -> Result<()> {
        let mut number = 0..;
        let is_one = |_: &String, row: &mut RegistrationRow| {
            number.next().is_some_and(|number| rows.contains(&number)) && !row.kept
        };
        self.0.borrow_mut().registrations.extract_if(.., is_one).for_each(drop);
        Ok(())
    }
}
