//! Transactions of who must not block: what would have to be waited for is left to the ways of [`super::transactions`].

use super::ahead::{Asking, Questions};
use super::sequence::Sequence;
use super::transactions::require_here;
use super::{Error, Records, Result, TxView};
use crate::events::Event;
use crate::store::{Store as _, StoreError, Then, Tx};
use std::sync::{RwLockReadGuard, TryLockError};

impl Records {
    /// As [`Records::read_here`], on a thread that must not block. None if something would have to be waited for: the other way is open.
    pub(super) fn read_here_at_once<T>(&self, work: impl Fn(&TxView<'_>) -> Result<T>) -> Option<Result<T>> {
        let mut done = None;
        self.store.read_at_once(&mut |rows| done = self.look_at_once(rows, &work))?.ok()?;
        unless_broken(done?)
    }

    /// The same, with what it will ask: together with others, of a database that has to be waited for.
    pub(super) async fn read_here_together<T>(
        &self,
        asking: Asking<'_>,
        work: impl Fn(&TxView<'_>) -> Result<T>,
    ) -> Option<Result<T>> {
        loop {
            let (questions, entry) = self.asked_here(asking)?;
            let reads = self.store.read_together(&|rows| questions.ask(rows))?;
            drop(questions);
            let reads = reads.await;
            let mut done = None;
            let read = reads.run(&mut |rows| done = self.look_at_once(rows, &work));
            if read.is_some() || !self.has_moved(entry) {
                read?.ok()?;
                return unless_broken(done?);
            }
        }
    }

    /// What is asked of the database that this server has answered with, and the entry by which it is known.
    fn asked_here<'a>(&self, asking: Asking<'a>) -> Option<(Questions<'a>, u64)> {
        let sequence = self.sequence_at_once()?;
        Some((Asking { here: true, ..asking }.questions(&sequence), sequence.entry()))
    }

    /// The database is known by another entry now, which was not asked: that happens once a second.
    fn has_moved(&self, entry: u64) -> bool {
        self.sequence_at_once().is_some_and(|sequence| sequence.entry() != entry)
    }

    /// None if there are documents of other servers to be read, or one that was read since this look at the database began: that does not tell
    /// it from a database that was put back.
    fn look_at_once<T>(&self, rows: &dyn Tx, work: &impl Fn(&TxView<'_>) -> Result<T>) -> Option<Result<T>> {
        let sequence = self.sequence_at_once()?;
        let view = TxView::new(rows, sequence.index(), sequence.deployment(), &self.key, &self.said);
        match rows.head() {
            Ok(head) if head == sequence.index().head() => {
                Some(require_here(rows, &sequence).and_then(|()| work(&view)))
            }
            Ok(_) | Err(_) => None,
        }
    }

    pub(super) fn sequence_at_once(&self) -> Option<RwLockReadGuard<'_, Sequence>> {
        match self.sequence.try_read() {
            Ok(sequence) => Some(sequence),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// As [`Records::write_here`], once it is this change's turn, on a thread that must not block. None where something would have to
    /// be waited for but the turn and the disk, or the database did not do its work, be it for another that shared the transaction:
    /// nothing was changed, and the other way, which tries alone, is open.
    pub(super) async fn write_here_in_turn<T: Send>(
        &self,
        asking: Asking<'_>,
        mut work: impl FnMut(&TxView<'_>) -> Result<T> + Send,
    ) -> Option<Result<T>> {
        let (worked, durable) = loop {
            let (questions, entry) = self.asked_here(asking)?;
            let turn = self.store.turn(&|rows| questions.ask(rows))?;
            drop(questions);
            let turn = turn.await;
            let mut worked = None;
            let durable = turn.run(&mut |rows| {
                worked = self.work_at_once(rows, &mut work);
                match &worked {
                    Some((Ok(_), ..)) => Then::Commit,
                    Some((Err(_), ..)) | None => Then::RollBack,
                }
            });
            if matches!(durable, Some(Ok(_))) || !self.has_moved(entry) {
                break (worked, durable?);
            }
        };
        let (done, events, told) = worked?;
        // A refusal waits as well: it may be for what another changed in the same transaction.
        match durable.ok()?.await {
            Ok(()) => {}
            // Done once more it might be done twice.
            Err(e @ StoreError::Undecided(_)) => return Some(Err(e.into())),
            Err(_) => return None,
        }
        let done = unless_broken(done)?;
        if done.is_ok() {
            self.publish(&events, told);
        }
        Some(done)
    }

    /// None if a document is being committed, or there are documents of other servers to be read.
    fn work_at_once<T>(
        &self,
        rows: &dyn Tx,
        work: &mut impl FnMut(&TxView<'_>) -> Result<T>,
    ) -> Option<(Result<T>, Vec<Event>, bool)> {
        let sequence = self.sequence_at_once()?;
        match rows.head() {
            Ok(head) if !sequence.is_behind(&head) => Some(self.work_in(rows, &sequence, true, work)),
            Ok(_) | Err(_) => None,
        }
    }
}

/// None if the database did not do its work.
fn unless_broken<T>(done: Result<T>) -> Option<Result<T>> {
    match done {
        Err(Error::Store(_)) => None,
        Ok(_) | Err(Error::Refused(..)) => Some(done),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{By, Db, audit};
    use crate::keys::ClusterKey;
    use crate::store::sqlite::Sqlite;
    use halfkey_protocol::NodeId;
    use halfkey_protocol::wire::operator::AuditEntry;
    use std::sync::Arc;

    /// As no server writes one, to fill a disk.
    fn long_entry(view: &TxView<'_>, text: &str) -> Result<()> {
        let before = audit::end(view.rows)?;
        let entry = AuditEntry {
            seq: before.number + 1,
            at: 1,
            actor: "test".to_owned(),
            action: "put".to_owned(),
            node_id: None,
            detail: text.to_owned(),
        };
        Ok(view.rows.insert_audit(&entry, &audit::chained(&before.sha256, &entry))?)
    }

    #[test]
    fn a_look_from_before_a_document_is_no_database_that_was_put_back() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Sqlite::open(&dir.path().join("db")).unwrap();
        let records = Records::over(Arc::new(open()), ClusterKey::from_bytes(&[1; 32])).unwrap();
        let mut looked = 0;
        let look = &mut |rows: &dyn Tx| {
            rows.head().unwrap();
            assert!(records.look_at_once(rows, &|_| Ok(())).is_some_and(|done| done.is_ok()));
            records.revoke(NodeId([7; 16]), Some("web1"), "stolen", By { actor: "ada", now: 1 }).unwrap();
            assert!(records.look_at_once(rows, &|_| Ok(())).is_none());
            looked += 1;
        };
        // By connections of its own: the look is under way while the document is taken.
        open().read_at_once(look).unwrap().unwrap();
        assert_eq!(looked, 1);
        assert!(records.read_here_at_once(|_| Ok(())).is_some_and(|done| done.is_ok()));
    }

    /// The disk is full for one of those that share a transaction: it says so, and the others are committed.
    #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
    async fn a_full_disk_takes_only_the_turn_that_fills_it() {
        let dir = tempfile::tempdir().unwrap();
        let rows = Arc::new(Sqlite::open(&dir.path().join("db")).unwrap());
        let records = Arc::new(Records::over(rows.clone(), ClusterKey::from_bytes(&[1; 32])).unwrap());
        rows.limit_pages(80).unwrap();
        let db = Db::new(records.clone()).for_anybody();
        let put = |number: usize| {
            let (db, records) = (db.clone(), records.clone());
            let text = if number == 0 { "x".repeat(1 << 20) } else { "web".to_owned() };
            let put = move |view: &TxView<'_>| long_entry(view, &text);
            tokio::spawn(async move {
                let again = put.clone();
                let first =
                    async move { records.write_here_in_turn(Asking::default(), put).await.transpose() };
                db.run_at_once(first, move |records| records.write_here(again)).await
            })
        };
        let puts: Vec<_> = (0..8).map(put).collect();
        for (number, put) in puts.into_iter().enumerate() {
            match put.await.unwrap() {
                Ok(()) => assert_ne!(number, 0),
                Err(Error::Store(StoreError::Full(_))) => assert_eq!(number, 0),
                Err(e) => panic!("{e}"),
            }
        }
        assert_eq!(records.audit(Some(0), None, 99).unwrap().len(), 7);
    }

    /// Two turns share a transaction, and together they are too much: neither is told so that fits alone.
    #[tokio::test]
    async fn a_turn_is_not_full_by_what_another_put() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let rows = Arc::new(Sqlite::open(&path).unwrap());
        let records = Records::over(rows.clone(), ClusterKey::from_bytes(&[1; 32])).unwrap();
        let database = rusqlite::Connection::open(&path).unwrap();
        let pages: u32 = database.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
        rows.limit_pages(u64::from(pages) + 100).unwrap();
        let text = "x".repeat(60 * 4096);
        let put = |view: &TxView<'_>| long_entry(view, &text);
        let held = records.store.turn(&|_| ()).unwrap().await;
        let mut turns = [(); 2].map(|()| Box::pin(records.write_here_in_turn(Asking::default(), put)));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        turns.iter_mut().for_each(|turn| assert!(turn.as_mut().poll(&mut context).is_pending()));
        drop(held);
        let [first, second] = turns;
        let (first, second) = tokio::join!(first, second);
        assert!(first.is_none() && second.is_none(), "{first:?} {second:?}");
        records.write_here(put).unwrap();
        let full = records.write_here(put);
        assert!(matches!(full, Err(Error::Store(StoreError::Full(_)))), "{full:?}");
    }
}
