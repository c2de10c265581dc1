//! Transactions: those that only the database which this server has answered with may have, and those with a document, which are
//! written down in the state file before and after.

use super::opening;
use super::{Sqlite, audit, broken, documents, nodes};
use crate::domain::sequence::{Index, Sequence};
use crate::domain::{Node, Result, StoreError};
use halfkey_protocol::document::Opened;
use halfkey_protocol::{NodeId, Reason};
use rusqlite::{Connection, Transaction};
use std::sync::{MutexGuard, PoisonError, RwLockReadGuard, RwLockWriteGuard};

impl Sqlite {
    pub(super) fn sequence(&self) -> RwLockReadGuard<'_, Sequence> {
        self.sequence.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn sequence_mut(&self) -> RwLockWriteGuard<'_, Sequence> {
        self.sequence.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the database is what this server has answered with.
    pub(super) fn require_state(&self) -> Result<()> {
        let sequence = self.sequence();
        self.read(|tx| here(tx, &sequence))
    }

    /// Whether `accept-rollback` has run since.
    pub(super) fn look_again(&self) -> Result<()> {
        let writer = self.writer();
        let mut sequence = self.sequence_mut();
        if let Some(again) =
            sequence.accepted_since(|deployment, file| opening::sequence(&writer, deployment, file))?
        {
            *sequence = again;
        }
        Ok(())
    }

    /// One node, compared with what was signed about it.
    pub(super) fn checked_node(&self, node: NodeId) -> Result<Option<Node>> {
        let sequence = self.sequence();
        self.read(|tx| nodes::one(tx, node, sequence.index()))
    }

    /// A transaction that only the database which this server has answered with may have.
    pub(super) fn write_here<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>, &Index) -> Result<T>,
    ) -> Result<T> {
        self.write(|tx| {
            let sequence = self.sequence();
            here(tx, &sequence)?;
            work(tx, sequence.index())
        })
    }

    /// A transaction with a document in it: it is written down before and after.
    pub(super) fn write_document<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>, &Sequence) -> Result<(T, Option<Opened>)>,
    ) -> Result<T> {
        let mut connection = self.writer();
        let behavior = rusqlite::TransactionBehavior::Immediate;
        let tx = connection.transaction_with_behavior(behavior).map_err(broken)?;
        let (deployment, (done, opened)) = {
            let sequence = self.sequence();
            here(&tx, &sequence)?;
            (sequence.deployment(), work(&tx, &sequence)?)
        };
        let Some(opened) = opened else {
            tx.commit().map_err(broken)?;
            return Ok(done);
        };
        if opened.deployment != deployment {
            let what = format!("expected a document for {deployment}, found one for {}", opened.deployment);
            return Err(StoreError::Refused(Reason::Deployment, what));
        }
        let audit = audit::end(&tx)?;
        let mut sequence = self.sequence_mut();
        sequence.intend(&opened.place)?;
        tx.commit().map_err(broken)?;
        sequence.committed(&opened, &audit)?;
        Ok(done)
    }

    /// C_U that was deleted is in older pages of the log until these are overwritten. Best effort: a reader may hold them, and the
    /// next checkpoint gets them.
    pub(super) fn forget_deleted(&self) {
        let truncated = self.writer().query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        if let Err(e) = truncated {
            tracing::warn!(error = %e, "the write-ahead log could not be emptied after an enrollment");
        }
    }

    pub(super) fn writer(&self) -> MutexGuard<'_, Connection> {
        // A panic in a transaction rolled it back: the connection is as good as before.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn read<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        let mut connection = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let tx = connection.transaction().map_err(broken)?;
        work(&tx)
    }

    pub(super) fn write<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        let mut connection = self.writer();
        let behavior = rusqlite::TransactionBehavior::Immediate;
        let tx = connection.transaction_with_behavior(behavior).map_err(broken)?;
        let done = work(&tx)?;
        tx.commit().map_err(broken)?;
        Ok(done)
    }
}

/// Whether the database is what this server has answered with.
fn here(c: &Connection, sequence: &Sequence) -> Result<()> {
    sequence.require(&documents::head(c)?, &audit::trail(c, sequence.entry())?)
}
