//! Clients, in memory.

use super::MemoryTx;
use crate::store::{ClientRow, Clients, Result};

impl Clients for MemoryTx {
    fn client(&self, fingerprint: &str) -> Result<Option<ClientRow>> {
        Ok(self.0.borrow().clients.iter().find(|row| row.fingerprint == fingerprint).cloned())
    }

    fn clients(&self) -> Result<Vec<ClientRow>> {
        let mut rows = self.0.borrow().clients.clone();
        rows.sort_by(|a, b| (&a.kind, &a.name).cmp(&(&b.kind, &b.name)));
        Ok(rows)
    }

    fn insert_client(&self, row: &ClientRow) -> Result<bool> {
        let clients = &mut self.0.borrow_mut().clients;
        let taken = |known: &ClientRow| {
            known.fingerprint == row.fingerprint || (&known.kind, &known.name) == (&row.kind, &row.name)
        };
        if clients.iter().any(taken) {
            return Ok(false);
        }
        clients.push(row.clone());
        Ok(true)
    }

    fn delete_client(&self, name: &str, kind: &str) -> Result<bool> {
        let clients = &mut self.0.borrow_mut().clients;
        let before = clients.len();
        clients.retain(|row| (row.name.as_str(), row.kind.as_str()) != (name, kind));
        Ok(clients.len() < before)
    }
}
