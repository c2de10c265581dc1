//! Client certificates.

use super::row::Found;
use super::{PgTx, stored};
use crate::store::{ClientRow, Clients, Result};

impl Clients for PgTx<'_> {
    fn client(&self, fingerprint: &str) -> Result<Option<ClientRow>> {
        const SQL: &str = "SELECT fingerprint, name, kind, added_at, tag FROM clients WHERE fingerprint = $1";
        self.first(SQL, &[&fingerprint], read)
    }

    fn clients(&self) -> Result<Vec<ClientRow>> {
        const SQL: &str = "SELECT fingerprint, name, kind, added_at, tag FROM clients ORDER BY kind, name";
        self.all(SQL, &[], read)
    }

    fn insert_client(&self, row: &ClientRow) -> Result<bool> {
        const SQL: &str = "INSERT INTO clients (fingerprint, name, kind, added_at, tag)
                           VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";
        let ClientRow { fingerprint, name, kind, added_at, tag } = row;
        Ok(self.change(SQL, &[fingerprint, name, kind, &stored(*added_at)?, tag])? > 0)
    }

    fn delete_client(&self, name: &str, kind: &str) -> Result<bool> {
        Ok(self.change("DELETE FROM clients WHERE name = $1 AND kind = $2", &[&name, &kind])? > 0)
    }
}

fn read(row: &Found) -> Result<ClientRow> {
    Ok(ClientRow {
        fingerprint: row.get(0)?,
        name: row.get(1)?,
        kind: row.get(2)?,
        added_at: row.u64(3)?,
        tag: row.get(4)?,
    })
}
