//! Versions of policies.

use super::row::Found;
use super::{PgTx, bound, stored};
use crate::store::{Policies, PolicyRow, Result};

const FIELDS: &str = "scope, version, name, tenant_key, sha256, applied_at, applied_by";

impl Policies for PgTx<'_> {
    fn policy(&self, scope: &str, version: Option<u64>) -> Result<Option<PolicyRow>> {
        let sql = format!(
            "SELECT {FIELDS} FROM policies WHERE scope = $1 AND version = coalesce($2, version)
             ORDER BY version DESC LIMIT 1"
        );
        self.first(&sql, &[&scope, &version.map(bound)], read)
    }

    fn policy_by(&self, scope: &str, key: &[u8]) -> Result<Option<PolicyRow>> {
        let sql = format!(
            "SELECT {FIELDS} FROM policies WHERE scope = $1 AND tenant_key = $2 ORDER BY version DESC LIMIT 1"
        );
        self.first(&sql, &[&scope, &key], read)
    }

    fn insert_policy(&self, row: &PolicyRow) -> Result<()> {
        const SQL: &str =
            "INSERT INTO policies (scope, version, name, tenant_key, sha256, applied_at, applied_by)
             VALUES ($1, $2, $3, $4, $5, $6, $7)";
        let PolicyRow { scope, version, name, tenant_key, sha256, applied_at, applied_by } = row;
        let (version, applied_at) = (stored(*version)?, stored(*applied_at)?);
        let sha256 = sha256.as_slice();
        self.change(SQL, &[scope, &version, name, tenant_key, &sha256, &applied_at, applied_by]).map(drop)
    }

    fn delete_policies_but(&self, scope: &str, key: &[u8]) -> Result<()> {
        self.change("DELETE FROM policies WHERE scope = $1 AND tenant_key <> $2", &[&scope, &key]).map(drop)
    }
}

fn read(row: &Found) -> Result<PolicyRow> {
    Ok(PolicyRow {
        scope: row.get(0)?,
        version: row.u64(1)?,
        name: row.get(2)?,
        tenant_key: row.get(3)?,
        sha256: row.sum(4)?,
        applied_at: row.u64(5)?,
        applied_by: row.get(6)?,
    })
}
