//! [`Store`] in memory, for tests: the same answers without a disk, and rows that a test can change as somebody could who writes
//! the database.

mod boots;
mod clients;
mod documents;
mod enrollments;
mod evidence;
mod nodes;
mod notices;
mod policies;
mod proposals;
mod registrations;
mod trail;

use super::{
    BootRow, Changes, ClientRow, EnrollmentRow, EvidenceRow, NodeRow, NoticeRow, PolicyRow, ProposalRow,
    RegistrationRow, Result, Store, Then, Tx, Which,
};
use halfkey_protocol::wire::SignedDocument;
use halfkey_protocol::wire::operator::AuditEntry;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::PoisonError;

/// Every table.
#[derive(Clone, Default)]
struct Tables {
    clients: Vec<ClientRow>,
    registrations: BTreeMap<String, RegistrationRow>,
    nodes: BTreeMap<String, NodeRow>,
    enrollments: BTreeMap<String, EnrollmentRow>,
    tenant_keys: BTreeSet<(String, Vec<u8>)>,
    boots: BTreeMap<(String, String), BootRow>,
    evidence: BTreeMap<u64, EvidenceRow>,
    last_evidence: u64,
    proposals: BTreeMap<u64, ProposalRow>,
    trust_given: BTreeMap<(String, String, u64), u64>,
    last_proposal: u64,
    policies: BTreeMap<(String, u64), PolicyRow>,
    documents: BTreeMap<u64, Stored>,
    audit: BTreeMap<u64, (AuditEntry, [u8; 32])>,
    counts: BTreeMap<(u64, String, String), u64>,
    meta: BTreeMap<String, u64>,
    /// Rows of registrations that were looked at to make room.
    looked_at: u64,
    notices: BTreeMap<u64, NoticeRow>,
    last_notice: u64,
}

/// A document.
#[derive(Clone)]
struct Stored {
    sha256: [u8; 32],
    signed: SignedDocument,
    tag: [u8; 32],
}

/// A database that is gone with the process.
#[derive(Default)]
pub struct Memory(Mutex<Tables>);

impl Store for Memory {
    fn read(&self, work: &mut dyn FnMut(&dyn Tx)) -> Result<()> {
        let tables = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        work(&MemoryTx(RefCell::new(tables)));
        Ok(())
    }

    fn write(&self, _: Changes, work: &mut dyn FnMut(&dyn Tx) -> Then) -> Result<()> {
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let tx = MemoryTx(RefCell::new(tables.clone()));
        match work(&tx) {
            Then::Commit | Then::CommitNow => *tables = tx.0.into_inner(),
            Then::RollBack => {}
        }
        Ok(())
    }

    fn purge(&self) {}
}

/// A copy that becomes the database, or does not.
struct MemoryTx(RefCell<Tables>);

impl Memory {
    /// Rows of registrations that were looked at so far to make room.
    pub fn looked_at(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).looked_at
    }
}

impl MemoryTx {
    fn looks_at(&self, rows: usize) {
        self.0.borrow_mut().looked_at += rows as u64;
    }
}

/// Whether a line with this id and label is one of those.
fn is_one(which: &Which, id: &str, label: &str) -> bool {
    match which {
        Which::After(after) => after.is_none_or(|after| *id > *after.to_string()),
        Which::Named(name) => {
            label == name || which.id_prefix().is_some_and(|prefix| id.starts_with(&prefix))
        }
        Which::One(one) => id == one.to_string(),
    }
}

fn first<T>(limit: u64, rows: impl Iterator<Item = T>) -> Vec<T> {
    rows.take(usize::try_from(limit).unwrap_or(usize::MAX)).collect()
}
