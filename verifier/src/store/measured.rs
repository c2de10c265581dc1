//! How long transactions take, and how often they run again: a [`Store`] around another.

use super::{
    Changes, Durable, Heard, NextRead, NextTurn, Pool, Reads, Result, Standbys, Store, StoreError, Tells,
    Then, Turn, Tx,
};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts};
use std::cell::Cell;
use std::sync::Arc;
use std::time::Instant;

/// Upper bounds in seconds: from a read in memory to what [`super::postgres`] gives up after.
const SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0];

/// What is known of the transactions so far, by kind: `read`, `write`, `document`.
#[derive(Clone)]
pub struct Transactions {
    /// From the wait for a connection to the answer of the database.
    pub seconds: HistogramVec,
    /// Runs after the first of a transaction.
    pub again: IntCounterVec,
    /// Those that ended with an error of the database.
    pub failed: IntCounterVec,
}

impl Transactions {
    fn new() -> Self {
        let counter = |name, help| {
            IntCounterVec::new(Opts::new(name, help), &["kind"]).expect("names of this program are valid")
        };
        let seconds = HistogramOpts::new(
            "halfkey_database_transaction_seconds",
            "Seconds of a transaction, from the wait for a connection to its end, by kind.",
        );
        let seconds = HistogramVec::new(seconds.buckets(SECONDS.to_vec()), &["kind"]);
        Self {
            seconds: seconds.expect("names of this program are valid"),
            again: counter(
                "halfkey_database_transaction_retries_total",
                "Runs after the first of a transaction, as others were in its way.",
            ),
            failed: counter(
                "halfkey_database_transaction_failures_total",
                "Transactions that ended with an error of the database.",
            ),
        }
    }

    fn time(&self, kind: &str, run: impl FnOnce(&Cell<u64>) -> Result<()>) -> Result<()> {
        let (start, runs) = (Instant::now(), Cell::new(0));
        let done = run(&runs);
        if runs.get() > 1 {
            self.again.with_label_values(&[kind]).inc_by(runs.get() - 1);
        }
        self.ended(kind, start, done.is_err());
        done
    }

    fn runs_again(&self, kind: &str) {
        self.again.with_label_values(&[kind]).inc();
    }

    fn ended(&self, kind: &str, start: Instant, failed: bool) {
        self.seconds.with_label_values(&[kind]).observe(start.elapsed().as_secs_f64());
        if failed {
            self.failed.with_label_values(&[kind]).inc();
        }
    }
}

/// The store that is measured.
pub struct Measured {
    store: Arc<dyn Store>,
    transactions: Transactions,
}

impl Measured {
    /// Around `store`.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, transactions: Transactions::new() }
    }

    /// What is known of its transactions.
    pub fn transactions(&self) -> &Transactions {
        &self.transactions
    }
}

struct MeasuredTurn {
    turn: Box<dyn Turn>,
    start: Instant,
    transactions: Transactions,
}

struct MeasuredReads {
    reads: Box<dyn Reads>,
    start: Instant,
    transactions: Transactions,
}

impl Reads for MeasuredReads {
    fn run(self: Box<Self>, work: &mut dyn FnMut(&dyn Tx)) -> Option<Result<()>> {
        let done = self.reads.run(work)?;
        self.transactions.ended("read", self.start, done.is_err());
        Some(done)
    }
}

impl Turn for MeasuredTurn {
    fn run(self: Box<Self>, work: &mut dyn FnMut(&dyn Tx) -> Then) -> Option<Result<Durable>> {
        let Self { turn, start, transactions } = *self;
        let durable = match turn.run(work)? {
            Ok(durable) => durable,
            Err(e) => {
                transactions.runs_again("write");
                return Some(Err(e));
            }
        };
        Some(Ok(Box::pin(async move {
            let done = durable.await;
            match done {
                Ok(()) => transactions.ended("write", start, false),
                // It is not done again.
                Err(StoreError::Undecided(_)) => transactions.ended("write", start, true),
                // What another put into it may be why. It is done again without a turn, which counts if it fails.
                Err(_) => transactions.runs_again("write"),
            }
            done
        })))
    }
}

impl Store for Measured {
    fn read(&self, work: &mut dyn FnMut(&dyn Tx)) -> Result<()> {
        self.read_asking(&|_| (), work)
    }

    fn write(&self, changes: Changes, work: &mut dyn FnMut(&dyn Tx) -> Then) -> Result<()> {
        self.write_asking(changes, &|_| (), work)
    }

    fn read_asking(&self, first: &dyn Fn(&dyn Tx), work: &mut dyn FnMut(&dyn Tx)) -> Result<()> {
        self.transactions.time("read", |runs| {
            self.store.read_asking(first, &mut |rows| {
                runs.set(runs.get() + 1);
                work(rows);
            })
        })
    }

    fn read_at_once(&self, work: &mut dyn FnMut(&dyn Tx)) -> Option<Result<()>> {
        let start = Instant::now();
        let done = self.store.read_at_once(work)?;
        self.transactions.ended("read", start, done.is_err());
        Some(done)
    }

    fn write_asking(
        &self,
        changes: Changes,
        first: &dyn Fn(&dyn Tx),
        work: &mut dyn FnMut(&dyn Tx) -> Then,
    ) -> Result<()> {
        let kind = match changes {
            Changes::Rows => "write",
            Changes::Documents => "document",
        };
        self.transactions.time(kind, |runs| {
            self.store.write_asking(changes, first, &mut |rows| {
                runs.set(runs.get() + 1);
                work(rows)
            })
        })
    }

    fn read_together(&self, first: &dyn Fn(&dyn Tx)) -> Option<NextRead> {
        let (start, next) = (Instant::now(), self.store.read_together(first)?);
        let transactions = self.transactions.clone();
        Some(Box::pin(async move {
            let reads: Box<dyn Reads> = Box::new(MeasuredReads { reads: next.await, start, transactions });
            reads
        }))
    }

    fn has_turns(&self) -> bool {
        self.store.has_turns()
    }

    fn turn(&self, first: &dyn Fn(&dyn Tx)) -> Option<NextTurn> {
        let (start, next) = (Instant::now(), self.store.turn(first)?);
        let transactions = self.transactions.clone();
        Some(Box::pin(async move {
            let turn: Box<dyn Turn> = Box::new(MeasuredTurn { turn: next.await, start, transactions });
            turn
        }))
    }

    fn purge(&self) {
        self.store.purge();
    }

    fn standbys(&self) -> Result<Option<Standbys>> {
        self.store.standbys()
    }

    fn join(&self, heard: Heard) -> Option<Tells> {
        self.store.join(heard)
    }

    fn pools(&self) -> Vec<Pool> {
        self.store.pools()
    }
}
