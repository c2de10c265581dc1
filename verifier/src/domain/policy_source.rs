//! What was signed and what was proposed, for who judges by it.

use super::model::StoredProposal;
use super::{Result, TxView, proposal};
use halfkey_protocol::wire::SignedDocument;

/// Where documents come from: the database as it is, or a transaction that has just changed them.
pub trait PolicySource {
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

impl PolicySource for TxView<'_> {
    fn signed_document(&self, number: u64) -> Result<Option<SignedDocument>> {
        Ok(self.rows.document(number)?)
    }

    fn stored_proposal(&self, id: u64) -> Result<Option<StoredProposal>> {
        proposal::one(self, id)
    }
}
