//! One transaction, as the domain works in it.

use super::enrollment::Said;
use super::index::Index;
use super::{Error, Notice, Result, legible};
use crate::cache::Cache;
use crate::events::Event;
use crate::keys::ClusterKey;
use crate::store::{NodeRow, Tx};
use halfkey_protocol::NodeId;
use halfkey_protocol::document::{Deployment, Kind, Opened, Scope};
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
    /// Enrollments that were verified and read.
    pub said: &'a Cache<Said>,
    events: RefCell<Vec<Event>>,
    notices: RefCell<Vec<Notice>>,
    /// The document that this transaction has appended: the index has it once it is committed.
    appended: RefCell<Option<Opened>>,
}

impl<'a> TxView<'a> {
    /// Of a transaction that has changed nothing.
    pub fn new(
        rows: &'a dyn Tx,
        index: &'a Index,
        deployment: Deployment,
        key: &'a ClusterKey,
        said: &'a Cache<Said>,
    ) -> Self {
        let (events, notices, appended) = Default::default();
        Self { rows, index, deployment, key, said, events, notices, appended }
    }

    /// To be published when this is committed.
    pub fn emit(&self, event: Event) {
        self.events.borrow_mut().push(event);
    }

    /// To be told by webhooks, to whom wants to know.
    pub fn tell(&self, notice: Notice) {
        self.notices.borrow_mut().push(notice);
    }

    /// What is to be told.
    pub fn take_notices(&self) -> Vec<Notice> {
        self.notices.take()
    }

    /// What was emitted.
    pub fn events(self) -> Vec<Event> {
        self.events.into_inner()
    }

    /// A document takes its place with this transaction.
    pub fn appended(&self, document: &Opened) {
        *self.appended.borrow_mut() = Some(document.clone());
    }

    /// Whether this document withdraws a policy.
    pub fn withdraws(&self, number: u64) -> bool {
        match &*self.appended.borrow() {
            Some(new) if new.place.number == number => new.kind == Kind::Withdrawal,
            Some(_) | None => self.index.withdraws(number),
        }
    }

    /// Into which group this document puts a node, if it does.
    pub fn group_of(&self, number: u64) -> Option<String> {
        match &*self.appended.borrow() {
            Some(new) if new.place.number == number => {
                Some(&new.body).filter(|body| new.kind == Kind::Membership && !body.is_empty()).cloned()
            }
            Some(_) | None => self.index.group_of(number).map(str::to_owned),
        }
    }

    /// The node's row, if there is one that can be read. Who damages it must not keep anybody from revoking, holding or enrolling
    /// the node: that is never decided by the row alone.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn known_row(&self, node: NodeId) -> Result<Option<NodeRow>> {
        legible(self.rows.node(node).map_err(Error::from)).map(|(row, _)| row)
    }

    /// Whether there is a row of the node, be it one that can't be read.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn has_row(&self, node: NodeId) -> Result<bool> {
        let (row, damage) = legible(self.rows.node(node).map_err(Error::from))?;
        Ok(row.is_some() || damage.is_some())
    }

    /// The node's row; a new one if there is none, or none that can be read: with the label and the group that the documents say.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn node_row(&self, node: NodeId, now: u64) -> Result<NodeRow> {
        let (row, damage) = legible(self.rows.node(node).map_err(Error::from))?;
        if let Some(row) = row {
            return Ok(row);
        }
        let membership = Some(self.index.newest_that_counts(&Scope::Membership(node)));
        let membership = membership.filter(|number| damage.is_some() && *number > 0);
        let said = membership.map(|number| self.rows.document(number)).transpose()?.flatten();
        let said = said.and_then(|signed| halfkey_evidence::signed_document::open(&signed).ok());
        let label = self.index.label(node).filter(|_| damage.is_some());
        Ok(NodeRow {
            label: label.unwrap_or_default().to_owned(),
            group_name: said.map(|said| said.body).filter(|group| !group.is_empty()),
            group_number: membership,
            ..NodeRow::blank(node, now)
        })
    }
}
