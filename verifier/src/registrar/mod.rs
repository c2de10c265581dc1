//! Registrations: [`registering`] makes them; they are kept in the database of the registrar,
//! read by the verifier through [`Registrar`], in this process or from another host.

pub mod registering;
mod remote;
mod unreachable;
pub mod wire;

pub use registering::Registering;
pub use remote::Remote;
pub use unreachable::Unreachable;

use crate::domain::{Db, Registration, RegistrationLine, Which};
use crate::limit::Source;
use halfkey_protocol::NodeId;
use std::pin::Pin;

/// An answer to come.
pub type Future<'a, T> = Pin<Box<dyn std::future::Future<Output = Result<T, Unreachable>> + Send + 'a>>;

/// A registration as a database has it, or why it can't be read.
pub type Here = Result<Option<Registration>, String>;

/// What a verifier asks its registrar.
pub trait Registrar: Send + Sync {
    /// One registration, if the node is known.
    fn registration(&self, node: NodeId) -> Future<'_, Option<Registration>>;
    /// The same for a node that begins: anybody can ask for that, so the answer may be that there is none now. `here` is what the
    /// verifier's own database has.
    fn lately(&self, node: NodeId, here: Here) -> Future<'_, Option<Registration>>;
    /// Whether the node is registered, for whoever names one from `source`; `None` if that is asked too often.
    fn knows(&self, node: NodeId, source: Source) -> Future<'_, Option<bool>>;
    /// Lines of the list, by node id.
    fn list(&self, which: Which, limit: u64) -> Future<'_, Vec<RegistrationLine>>;
    /// A tenant enrolled this node: its registration never expires.
    fn keep(&self, node: NodeId) -> Future<'_, ()>;
}

/// The registrar of this process.
pub struct Local {
    /// For operators.
    pub db: Db,
    /// For what anybody may ask.
    pub public_db: Db,
}

impl Registrar for Local {
    fn registration(&self, node: NodeId) -> Future<'_, Option<Registration>> {
        Box::pin(registration(&self.db, node))
    }

    fn lately(&self, _: NodeId, here: Here) -> Future<'_, Option<Registration>> {
        Box::pin(std::future::ready(here.map_err(Unreachable)))
    }

    fn knows(&self, node: NodeId, _: Source) -> Future<'_, Option<bool>> {
        Box::pin(async move { Ok(Some(!list(&self.public_db, Which::One(node), 1).await?.is_empty())) })
    }

    fn list(&self, which: Which, limit: u64) -> Future<'_, Vec<RegistrationLine>> {
        Box::pin(list(&self.db, which, limit))
    }

    fn keep(&self, node: NodeId) -> Future<'_, ()> {
        Box::pin(async move {
            self.db.run(move |records| records.keep_registration(node)).await.map_err(unreachable)
        })
    }
}

async fn registration(db: &Db, node: NodeId) -> Result<Option<Registration>, Unreachable> {
    db.run(move |records| records.registration(node)).await.map_err(unreachable)
}

async fn list(db: &Db, which: Which, limit: u64) -> Result<Vec<RegistrationLine>, Unreachable> {
    db.run(move |records| records.registrations(&which, limit)).await.map_err(unreachable)
}

fn unreachable(e: crate::domain::Error) -> Unreachable {
    Unreachable(e.to_string())
}
