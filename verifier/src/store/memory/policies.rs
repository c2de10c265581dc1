//! Policies, in memory.

use super::MemoryTx;
use crate::store::{Policies, PolicyRow, Result, StoreError};

impl Policies for MemoryTx {
    fn policy(&self, scope: &str, version: Option<u64>) -> Result<Option<PolicyRow>> {
        let tables = self.0.borrow();
        let mut of_scope = tables.policies.values().rev().filter(|row| row.scope == scope);
        Ok(of_scope.find(|row| version.is_none_or(|version| row.version == version)).cloned())
    }

    fn policy_by(&self, scope: &str, key: &[u8]) -> Result<Option<PolicyRow>> {
        let tables = self.0.borrow();
        let mut newest = tables.policies.values().rev();
        Ok(newest.find(|row| row.scope == scope && row.tenant_key == key).cloned())
    }

    fn insert_policy(&self, row: &PolicyRow) -> Result<()> {
        let place = (row.scope.clone(), row.version);
        match self.0.borrow_mut().policies.insert(place, row.clone()) {
            None => Ok(()),
            Some(_) => Err(StoreError::Unavailable("a version is there already".to_owned())),
        }
    }

    fn delete_policies_but(&self, scope: &str, key: &[u8]) -> Result<()> {
        self.0.borrow_mut().policies.retain(|_, row| row.scope != scope || row.tenant_key == key);
        Ok(())
    }
}
