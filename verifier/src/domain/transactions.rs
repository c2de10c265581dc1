//! Which transactions there are: to look, to change, to change what only the database that this server has answered with may have, and
//! with a document, which the state file has before and after.

use super::ahead::Asking;
use super::enrollment::Said;
use super::notice::Subscriptions;
use super::opening;
use super::policy_source::PolicySource;
use super::sequence::Sequence;
use super::{Error, Result, StoredProposal, TxView, audit};
use crate::cache::Cache;
use crate::events::{Event, Events};
use crate::keys::ClusterKey;
use crate::store::measured::{Measured, Transactions};
use crate::store::{Changes, Pool, Store, StoreError, Then, Tx};
use halfkey_protocol::Reason;
use halfkey_protocol::document::{Opened, Place};
use halfkey_protocol::wire::SignedDocument;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// What a verifier or a registrar remembers.
pub struct Records {
    pub(super) store: Measured,
    pub(super) key: Arc<ClusterKey>,
    pub(super) said: Cache<Said>,
    // Taken after the one that writes the database, and before the one that reads.
    pub(super) sequence: RwLock<Sequence>,
    pub(super) events: Events,
    pub(super) subscriptions: Subscriptions,
    /// The entry of the audit trail up to which those who wait were told what happened.
    pub(super) told: AtomicU64,
}

/// Where a server stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Number of the newest document that it has read.
    pub document: u64,
    /// The entry of the audit trail that its state file names.
    pub entry: u64,
    /// The database is not the one that it has answered with.
    pub in_trouble: bool,
}

/// For who looks at the server from outside: nothing here waits for anything.
impl Records {
    /// Where this server stands; none at a moment when that changes.
    pub fn standing(&self) -> Option<Standing> {
        let sequence = self.sequence_at_once()?;
        let (document, entry) = (sequence.index().head().number, sequence.entry());
        Some(Standing { document, entry, in_trouble: sequence.in_trouble() })
    }

    /// What is known of the transactions so far.
    pub fn transactions(&self) -> &Transactions {
        self.store.transactions()
    }

    /// Connections to the database server.
    pub fn pools(&self) -> Vec<Pool> {
        self.store.pools()
    }
}

/// Which transactions there are.
impl Records {
    pub(super) fn sequence(&self) -> RwLockReadGuard<'_, Sequence> {
        self.sequence.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn sequence_mut(&self) -> RwLockWriteGuard<'_, Sequence> {
        self.sequence.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads.
    pub(super) fn read<T>(&self, work: impl Fn(&TxView<'_>) -> Result<T>) -> Result<T> {
        self.read_of(Asking::default(), work)
    }

    /// The same, with what it will ask.
    pub(super) fn read_of<T>(
        &self,
        asking: Asking<'_>,
        work: impl Fn(&TxView<'_>) -> Result<T>,
    ) -> Result<T> {
        self.read_with(asking, |rows, sequence| {
            work(&TxView::new(rows, sequence.index(), sequence.deployment(), &self.key, &self.said))
        })
    }

    /// The same, in the database that this server has answered with and in no other.
    pub(super) fn read_here<T>(
        &self,
        asking: Asking<'_>,
        work: impl Fn(&TxView<'_>) -> Result<T>,
    ) -> Result<T> {
        let asking = Asking { here: true, ..asking };
        self.read_with(asking, |rows, sequence| {
            require_here(rows, sequence)?;
            work(&TxView::new(rows, sequence.index(), sequence.deployment(), &self.key, &self.said))
        })
    }

    pub(super) fn read_rows<T>(&self, work: impl FnMut(&dyn Tx) -> Result<T>) -> Result<T> {
        self.read_rows_asking(&|_| (), work)
    }

    fn read_rows_asking<T>(
        &self,
        first: &dyn Fn(&dyn Tx),
        mut work: impl FnMut(&dyn Tx) -> Result<T>,
    ) -> Result<T> {
        let mut done = Err(not_run());
        self.store.read_asking(first, &mut |rows| done = work(rows))?;
        done
    }

    /// Reads, with the documents up to the newest.
    fn read_with<T>(&self, asking: Asking<'_>, work: impl Fn(&dyn Tx, &Sequence) -> Result<T>) -> Result<T> {
        {
            let sequence = self.sequence();
            let questions = asking.questions(&sequence);
            let first = |rows: &dyn Tx| questions.ask(rows);
            let current = self.read_rows_asking(&first, |rows| match sequence.is_behind(&rows.head()?) {
                true => Ok(None),
                false => work(rows, &sequence).map(Some),
            })?;
            if let Some(done) = current {
                return Ok(done);
            }
        }
        let mut sequence = self.sequence_mut();
        let mut caught_up = Vec::new();
        let done = self.read_rows(|rows| {
            caught_up.extend(sequence.catch_up(rows, &self.key)?);
            work(rows, &sequence)
        });
        drop(sequence);
        self.events.publish(&caught_up);
        done
    }

    /// Changes something that needs no document.
    pub(super) fn write<T>(&self, mut work: impl FnMut(&TxView<'_>) -> Result<T>) -> Result<T> {
        self.commit(Asking::default(), Changes::Rows, |view| work(view).map(|done| (done, None)))
    }

    /// The same, that only the database which this server has answered with may have.
    pub(super) fn write_here<T>(&self, work: impl FnMut(&TxView<'_>) -> Result<T>) -> Result<T> {
        self.write_here_of(Asking::default(), work)
    }

    /// The same, with what it will ask.
    pub(super) fn write_here_of<T>(
        &self,
        asking: Asking<'_>,
        mut work: impl FnMut(&TxView<'_>) -> Result<T>,
    ) -> Result<T> {
        self.commit(Asking { here: true, ..asking }, Changes::Rows, |view| {
            work(view).map(|done| (done, None))
        })
    }

    /// The same with a document in it: it is written down in the state file before and after.
    pub(super) fn write_document<T>(
        &self,
        work: impl FnMut(&TxView<'_>) -> Result<(T, Option<Opened>)>,
    ) -> Result<T> {
        self.commit(Asking { here: true, ..Asking::default() }, Changes::Documents, work)
    }

    fn commit<T>(
        &self,
        asking: Asking<'_>,
        changes: Changes,
        mut work: impl FnMut(&TxView<'_>) -> Result<(T, Option<Opened>)>,
    ) -> Result<T> {
        match self.attempt(asking, changes, &mut work) {
            // What it shared a transaction with may have been too much for the disk.
            Err(Attempt::NotCommitted(_)) => self.attempt(asking, changes, &mut work).map_err(Error::from),
            done => done.map_err(Error::from),
        }
    }

    fn attempt<T>(
        &self,
        asking: Asking<'_>,
        changes: Changes,
        work: &mut impl FnMut(&TxView<'_>) -> Result<(T, Option<Opened>)>,
    ) -> std::result::Result<T, Attempt> {
        let mut done = Err(not_run());
        let mut events = Vec::new();
        // Held from before the commit until it is written down, with what is to be written. Whoever waits for it may hold the
        // connection that writes: nothing here takes that again before it is dropped.
        let mut settling = None;
        let (mut caught_up, mut told) = (Vec::new(), false);
        // Not held while others are waited for.
        let questions = asking.questions(&self.sequence());
        let written = self.store.write_asking(changes, &|rows| questions.ask(rows), &mut |rows| {
            match self.catch_up(rows) {
                Ok(taken) => caught_up.extend(taken),
                Err(e) => {
                    done = Err(e);
                    return Then::RollBack;
                }
            }
            let sequence = self.sequence();
            let mut worked;
            (worked, events, told) = self.work_in(rows, &sequence, asking.here, work);
            drop(sequence);
            if let Ok((_, Some(opened))) = &worked {
                match self.intend(rows, opened.clone()) {
                    Ok(intended) => settling = Some(intended),
                    Err(e) => worked = Err(e),
                }
            }
            done = worked.map(|(done, _)| done);
            match (&done, &settling) {
                (Err(_), _) => Then::RollBack,
                (Ok(_), Some(_)) => Then::CommitNow,
                (Ok(_), None) => Then::Commit,
            }
        });
        self.events.publish(&caught_up);
        match (written, settling) {
            // Done once more it might be done twice, or be refused for what it did itself.
            (Err(e @ StoreError::Undecided(_)), Some(_)) => return Err(Attempt::Over(e.into())),
            (Err(e), Some(_)) => return Err(Attempt::NotCommitted(e)),
            (Err(e), None) => return Err(Attempt::Over(e.into())),
            (Ok(()), Some((mut sequence, opened, audit))) => sequence.committed(&opened, &audit)?,
            (Ok(()), None) => {}
        }
        if done.is_ok() {
            self.publish(&events, told);
        }
        Ok(done?)
    }

    /// Does the work of a transaction; with what is to be published when it is committed, and whether webhooks have something to tell.
    pub(super) fn work_in<T>(
        &self,
        rows: &dyn Tx,
        sequence: &Sequence,
        here: bool,
        work: &mut impl FnMut(&TxView<'_>) -> Result<T>,
    ) -> (Result<T>, Vec<Event>, bool) {
        let view = TxView::new(rows, sequence.index(), sequence.deployment(), &self.key, &self.said);
        let worked = match here {
            true => require_here(rows, sequence).and_then(|()| work(&view)),
            false => work(&view),
        };
        let notices = view.take_notices();
        let (worked, told) = match worked {
            Ok(done) if !notices.is_empty() => {
                let kept = self.subscriptions.keep(rows, &notices);
                (kept.map(|()| done), true)
            }
            worked => (worked, false),
        };
        (worked, view.events(), told)
    }

    pub(super) fn publish(&self, events: &[Event], told: bool) {
        self.events.publish(events);
        if told {
            self.subscriptions.committed.notify_waiters();
        }
    }

    /// Reads what other servers appended, before anything is judged by it. None of them appends more until `rows` are done with.
    pub(super) fn catch_up(&self, rows: &dyn Tx) -> Result<Vec<Event>> {
        if !self.sequence().is_behind(&rows.head()?) {
            return Ok(Vec::new());
        }
        self.sequence_mut().catch_up(rows, &self.key)
    }

    /// A document is about to be committed.
    fn intend(
        &self,
        rows: &dyn Tx,
        opened: Opened,
    ) -> Result<(RwLockWriteGuard<'_, Sequence>, Opened, Place)> {
        let mut sequence = self.sequence_mut();
        let here = sequence.deployment();
        if opened.deployment != here {
            let what = format!("expected a document for {here}, found one for {}", opened.deployment);
            return Err(Error::Refused(Reason::Deployment, what));
        }
        let audit = audit::end(rows)?;
        sequence.intend(&opened.place)?;
        Ok((sequence, opened, audit))
    }

    /// Whether the database is what this server has answered with.
    pub(super) fn require_state(&self) -> Result<()> {
        self.read_with(Asking { here: true, ..Asking::default() }, require_here)
    }

    /// Whether `accept-rollback` has run since.
    pub(super) fn look_again(&self) -> Result<()> {
        let mut sequence = self.sequence_mut();
        let again = sequence
            .accepted_since(|deployment, file| opening::sequence(&self.store, &self.key, deployment, file))?;
        if let Some(again) = again {
            *sequence = again;
        }
        Ok(())
    }

    /// Who is told what was committed, by webhooks.
    pub fn subscriptions(&self) -> &Subscriptions {
        &self.subscriptions
    }

    /// What is published when something is committed.
    pub fn events(&self) -> &Events {
        &self.events
    }
}

/// Why a change was not made.
enum Attempt {
    /// Its document was ready, and could not be committed.
    NotCommitted(StoreError),
    /// Something else: the same again would come to the same.
    Over(Error),
}

impl From<Error> for Attempt {
    fn from(e: Error) -> Self {
        Self::Over(e)
    }
}

impl From<Attempt> for Error {
    fn from(attempt: Attempt) -> Self {
        match attempt {
            Attempt::NotCommitted(e) => e.into(),
            Attempt::Over(e) => e,
        }
    }
}

/// Whether the database is what this server has answered with.
pub(super) fn require_here(rows: &dyn Tx, sequence: &Sequence) -> Result<()> {
    sequence.require(&rows.head()?, &audit::trail(rows, sequence.entry())?)
}

fn not_run() -> Error {
    Error::unavailable("our bug: a transaction that did not run")
}

impl PolicySource for Records {
    fn signed_document(&self, number: u64) -> Result<Option<SignedDocument>> {
        self.read(|view| view.signed_document(number))
    }

    fn stored_proposal(&self, id: u64) -> Result<Option<StoredProposal>> {
        self.read(|view| view.stored_proposal(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::By;
    use crate::store::memory::Memory;
    use crate::store::sqlite::Sqlite;
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    use halfkey_protocol::NodeId;
    use halfkey_protocol::document::{Deployment, Kind, Scope, next, sha256, signed_bytes};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Fails to commit some documents, after they were ready.
    struct Failing {
        rows: Memory,
        commits: AtomicUsize,
    }

    /// Commits, and can't say so.
    struct Losing(Memory);

    impl Store for Losing {
        fn read(&self, work: &mut dyn FnMut(&dyn Tx)) -> crate::store::Result<()> {
            self.0.read(work)
        }

        fn write(&self, changes: Changes, work: &mut dyn FnMut(&dyn Tx) -> Then) -> crate::store::Result<()> {
            self.0.write(changes, work)?;
            Err(StoreError::Undecided("on purpose".to_owned()))
        }

        fn purge(&self) {}
    }

    impl Store for Failing {
        fn read(&self, work: &mut dyn FnMut(&dyn Tx)) -> crate::store::Result<()> {
            self.rows.read(work)
        }

        fn write(&self, changes: Changes, work: &mut dyn FnMut(&dyn Tx) -> Then) -> crate::store::Result<()> {
            let mut failed = false;
            self.rows.write(changes, &mut |tx| match work(tx) {
                Then::CommitNow if self.commits.fetch_add(1, Ordering::SeqCst) < 3 => {
                    failed = true;
                    Then::RollBack
                }
                then => then,
            })?;
            if failed { Err(StoreError::Full("on purpose".to_owned())) } else { Ok(()) }
        }

        fn purge(&self) {}
    }

    #[test]
    fn a_document_that_could_not_be_committed_is_tried_once_more_and_never_was() {
        let rows = Failing { rows: Memory::default(), commits: AtomicUsize::new(0) };
        let records = Records::over(Arc::new(rows), ClusterKey::from_bytes(&[1; 32])).unwrap();
        let (by, node) = (By { actor: "ada", now: 1 }, NodeId([7; 16]));
        let refused = records.revoke(node, Some("web1"), "stolen", by).unwrap_err();
        assert!(matches!(refused, Error::Store(StoreError::Full(_))), "{refused}");
        assert!(records.node(node).unwrap().is_none());
        assert_eq!((records.head().unwrap().number, records.audit(None, None, 9).unwrap().len()), (0, 0));
        // The first attempt fails, the second does not.
        records.revoke(node, Some("web1"), "stolen", by).unwrap();
        assert!(records.node(node).unwrap().unwrap().revoked.is_some());
        assert_eq!((records.head().unwrap().number, records.audit(None, None, 9).unwrap().len()), (1, 1));
        records.hold(node, "found", by).unwrap();
    }

    #[test]
    fn a_document_that_may_have_been_committed_is_not_tried_once_more() {
        let records =
            Records::over(Arc::new(Losing(Memory::default())), ClusterKey::from_bytes(&[1; 32])).unwrap();
        let (by, node) = (By { actor: "ada", now: 1 }, NodeId([7; 16]));
        let said = records.revoke(node, Some("web1"), "stolen", by).unwrap_err();
        assert!(matches!(said, Error::Store(StoreError::Undecided(_))), "{said}");
        assert_eq!((records.head().unwrap().number, records.audit(None, None, 9).unwrap().len()), (1, 1));
        assert!(records.node(node).unwrap().unwrap().revoked.is_some(), "it goes on from what is there");
    }

    /// Who writes the database has a restoration of his own put in by a trigger, between the look at it and the next document. The key
    /// that signs it is anybody's: of a node that was only registered any tenant says it.
    #[test]
    fn what_came_beside_a_server_while_it_wrote_gets_no_tag() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let key = ClusterKey::from_bytes(&[1; 32]);
        let records = Records::over(Arc::new(Sqlite::open(&path).unwrap()), key).unwrap();
        let (by, stolen, other) = (By { actor: "ada", now: 1 }, NodeId([7; 16]), NodeId([8; 16]));
        records.revoke(stolen, Some("web1"), "stolen", by).unwrap();
        let (scope, here) = (Scope::Revocation(stolen), Deployment([0; 16]));
        let found = next(Kind::Restoration, &scope, here, &records.head().unwrap(), 1, "found".to_owned());
        let document = serde_json::to_vec(&found).unwrap();
        let tenant = Ed25519KeyPair::generate().unwrap();
        let key = tenant.public_key().as_ref();
        let signatures = [key, tenant.sign(&signed_bytes(&document)).as_ref()].concat();
        let database = rusqlite::Connection::open(&path).unwrap();
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        database
            .execute_batch(&format!(
                "CREATE TRIGGER beside AFTER INSERT ON audit WHEN (SELECT count(*) FROM documents) = 1 BEGIN
                     INSERT INTO documents SELECT 2, scope, X'{}', handed_in_at, handed_in_by, X'{}', X'{}', tag
                     FROM documents;
                 END",
                hex(&sha256(&document, &[key.try_into().unwrap()])),
                hex(&signatures),
                hex(&document)
            ))
            .unwrap();
        let refused = records.revoke(other, Some("web2"), "stolen", by).unwrap_err();
        assert!(matches!(refused, Error::Refused(Reason::RolledBack, _)), "{refused}");
        assert_eq!(records.head().unwrap().number, 1);
        database.execute_batch("DROP TRIGGER beside").unwrap();
        records.revoke(other, Some("web2"), "stolen", by).unwrap();
        assert!(records.node(stolen).unwrap().unwrap().revoked.is_some());
    }
}
