//! One transaction, as the domain works in it.

use super::sequence::Index;
use super::{Result, StoredProposal, proposal};
use crate::events::Event;
use crate::keys::ClusterKey;
use crate::store::Tx;
use halfkey_protocol::document::Deployment;
use halfkey_protocol::wire::SignedDocument;
use std::cell::RefCell;

/// Rows, and what is needed to tell what they are worth.
pub struct TxView<'a> {
    /// Rows, with what this transaction has changed.
    pub rows: &'a dyn Tx,
    /// What the documents say, up to the transaction before.
    pub index: &'a Index,
    /// Whose documents.
    pub deployment: Deployment,
    /// What tags of rows, and C_U in them, are by.
    pub key: &'a ClusterKey,
    events: RefCell<Vec<Event>>,
}

impl<'a> TxView<'a> {
    /// Of a transaction that has changed nothing.
    pub fn new(rows: &'a dyn Tx, index: &'a Index, deployment: Deployment, key: &'a ClusterKey) -> Self {
        Self { rows, index, deployment, key, events: RefCell::default() }
    }

    /// To be published when this is committed.
    pub fn emit(&self, event: Event) {
        self.events.borrow_mut().push(event);
    }

    /// What was emitted.
    pub fn events(self) -> Vec<Event> {
        self.events.into_inner()
    }
}

/// Where documents come from: the database as it is, or a transaction that has just changed them.
pub trait Documents {
    /// What was signed, by its number in the sequence.
    ///
    /// # Errors
    /// When it can't be read.
    fn signed_document(&self, number: u64) -> Result<Option<SignedDocument>>;
    /// A proposal.
    ///
    /// # Errors
    /// When it can't be read, or is damaged.
    fn stored_proposal(&self, id: u64) -> Result<Option<StoredProposal>>;
}

impl Documents for TxView<'_> {
    fn signed_document(&self, number: u64) -> Result<Option<SignedDocument>> {
        Ok(self.rows.document(number)?)
    }

    fn stored_proposal(&self, id: u64) -> Result<Option<StoredProposal>> {
        proposal::one(self, id)
    }
}
