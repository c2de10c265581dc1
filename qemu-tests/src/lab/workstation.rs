//! An operator's workstation that a lab's machines have in common.

use super::server::Server;
use crate::error::Result;
use crate::tenant::Tenant;
use crate::test_env::TestEnv;
use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

/// One of a lab's workstations.
#[derive(Clone)]
pub struct Workstation(Arc<Desk>);

struct Desk {
    tenant: Tenant,
    /// Nodes that the operator has seen.
    seen: Mutex<BTreeSet<String>>,
}

impl Workstation {
    /// A new one, logged in at this server.
    ///
    /// # Errors
    /// If `halfkey login` fails.
    pub fn new(env: &TestEnv, server: &Server) -> Result<Self> {
        let place = env.place("workstation");
        let tenant = Tenant::login(&env.paths.programs, &server.verifier(), &place)?;
        Ok(Self(Arc::new(Desk { tenant, seen: Mutex::default() })))
    }

    /// The one node that has registered since the operator last looked.
    ///
    /// # Errors
    /// If there is none, or several.
    pub fn newcomer(&self) -> Result<String> {
        let mut seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let nodes = self.0.tenant.nodes()?;
        let new: Vec<&String> = nodes.iter().filter(|node| !seen.contains(*node)).collect();
        let [node] = new.as_slice() else {
            return Err(format!("expected one new node at the verifier, found {}", new.len()).into());
        };
        seen.insert((*node).clone());
        Ok((*node).clone())
    }
}

impl Deref for Workstation {
    type Target = Tenant;

    fn deref(&self) -> &Tenant {
        &self.0.tenant
    }
}
