//! Client certificates.

use super::{SqliteTx, number, u64_at};
use crate::store::{ClientRow, Clients, Result};
use rusqlite::{Row, params};

impl Clients for SqliteTx<'_> {
    fn client(&self, fingerprint: &str) -> Result<Option<ClientRow>> {
        const SQL: &str = "SELECT fingerprint, name, kind, added_at, tag FROM clients WHERE fingerprint = ?1";
        self.first(SQL, [fingerprint], read)
    }

    fn clients(&self) -> Result<Vec<ClientRow>> {
        self.all("SELECT fingerprint, name, kind, added_at, tag FROM clients ORDER BY kind, name", [], read)
    }

    fn insert_client(&self, row: &ClientRow) -> Result<bool> {
        const SQL: &str = "INSERT OR IGNORE INTO clients (fingerprint, name, kind, added_at, tag)
                           VALUES (?1, ?2, ?3, ?4, ?5)";
        let ClientRow { fingerprint, name, kind, added_at, tag } = row;
        Ok(self.change(SQL, params![fingerprint, name, kind, number(*added_at), tag])? > 0)
    }

    fn delete_client(&self, name: &str, kind: &str) -> Result<bool> {
        Ok(self.change("DELETE FROM clients WHERE name = ?1 AND kind = ?2", [name, kind])? > 0)
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<ClientRow> {
    Ok(ClientRow {
        fingerprint: row.get(0)?,
        name: row.get(1)?,
        kind: row.get(2)?,
        added_at: u64_at(row, 3)?,
        tag: row.get(4)?,
    })
}
