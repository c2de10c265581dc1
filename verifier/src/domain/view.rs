//! One transaction, as the domain works in it.

use super::Result;
use super::index::Index;
use crate::events::Event;
use crate::keys::ClusterKey;
use crate::store::{NodeRow, Tx};
use halfkey_protocol::NodeId;
use halfkey_protocol::document::Deployment;
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

    /// The node's row; a new one if there is none.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn node_row(&self, node: NodeId, now: u64) -> Result<NodeRow> {
        Ok(self.rows.node(node)?.unwrap_or_else(|| NodeRow {
            id: node,
            label: String::new(),
            revoked_because: None,
            group_name: None,
            group_number: None,
            held_by: None,
            held_because: None,
            tpm_firmware: None,
            tpm_firmware_before: None,
            tpm_firmware_since: None,
            last_seen: now,
            last_outcome: None,
            last_code: None,
        }))
    }
}
