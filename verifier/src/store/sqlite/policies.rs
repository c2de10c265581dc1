//! Versions of policies.

use super::{SqliteTx, number, text, u64_at};
use crate::store::{Policies, PolicyRow, Result};
use rusqlite::{Row, params};

const FIELDS: &str = "scope, version, name, tenant_key, sha256, applied_at, applied_by";

impl Policies for SqliteTx<'_> {
    fn policy(&self, scope: &str, version: Option<u64>) -> Result<Option<PolicyRow>> {
        let sql = format!(
            "SELECT {FIELDS} FROM policies WHERE scope = ?1 AND version = coalesce(?2, version)
             ORDER BY version DESC LIMIT 1"
        );
        self.first(&sql, params![scope, version.map(number)], read)
    }

    fn policy_by(&self, scope: &str, key: &[u8]) -> Result<Option<PolicyRow>> {
        let sql = format!(
            "SELECT {FIELDS} FROM policies WHERE scope = ?1 AND tenant_key = ?2 ORDER BY version DESC LIMIT 1"
        );
        self.first(&sql, params![scope, key], read)
    }

    fn insert_policy(&self, row: &PolicyRow) -> Result<()> {
        const SQL: &str =
            "INSERT INTO policies (scope, version, name, tenant_key, sha256, applied_at, applied_by)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        let PolicyRow { scope, version, name, tenant_key, sha256, applied_at, applied_by } = row;
        let (version, applied_at) = (number(*version), number(*applied_at));
        self.change(SQL, params![scope, version, name, tenant_key, sha256, applied_at, applied_by]).map(drop)
    }

    fn delete_policies_but(&self, scope: &str, key: &[u8]) -> Result<()> {
        self.change("DELETE FROM policies WHERE scope = ?1 AND tenant_key != ?2", params![scope, key])
            .map(drop)
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<PolicyRow> {
    Ok(PolicyRow {
        scope: text(row, 0)?,
        version: u64_at(row, 1)?,
        name: text(row, 2)?,
        tenant_key: row.get(3)?,
        sha256: row.get(4)?,
        applied_at: u64_at(row, 5)?,
        applied_by: text(row, 6)?,
    })
}
