//! One transaction of [`super::Postgres`]: what is asked of it ahead, and what it says later.

use super::block::Background;
use super::row::Found;
use super::session::{Failure, Held, Session, ask};
use super::shape::Shapes;
use super::statement::{Answer, Bound, Say, Values, said};
use crate::store::{Changes, Result, StoreError};
use halfkey_protocol::NodeId;
use std::cell::{Cell, RefCell};
use std::sync::Arc;

/// Changes that are kept back at most.
const UNSAID: usize = 32;

/// A transaction.
pub struct PgTx<'a> {
    /// None: nothing can be asked, or waited for.
    line: Option<(&'a Background, &'a Session)>,
    shapes: &'a Shapes,
    /// What it changes; none if it only reads.
    changes: Option<Changes>,
    /// What it holds.
    held: RefCell<Vec<NodeId>>,
    holds_registrations: Cell<bool>,
    holds_trail: Cell<bool>,
    /// Where the trail ends, while it is held.
    end: Cell<Option<TrailEnd>>,
    /// Evidence will be added, whose number is asked for at the beginning.
    expects_number: Cell<bool>,
    /// What that was answered, if it is not used yet.
    number: Cell<Option<u64>>,
    /// A node, and how many bytes of logs are kept of it at most.
    logs: RefCell<Option<(String, u64)>>,
    /// The first error. The transaction is over then, whatever is done.
    failed: RefCell<Option<Failure>>,
    /// Nothing is answered yet: what is asked is kept, to be asked together.
    notes: Cell<bool>,
    noted: RefCell<Vec<Bound>>,
    /// What was noted, answered, until something changes or is held that it may depend on.
    known: RefCell<Vec<Known>>,
    /// Said together with what is asked next, or with the commit.
    later: RefCell<Vec<Bound>>,
}

/// Number and hash of the last entry of the audit trail; none of an empty one.
pub type TrailEnd = Option<(u64, Option<[u8; 32]>)>;

/// Numbers of evidence grow in the order in which that of one node is added: whoever takes one holds its node.
pub const NUMBERS: &str =
    "SELECT nextval(pg_get_serial_sequence('evidence', 'id')) FROM generate_series(1, $1::BIGINT)";

/// A question and its answer.
pub struct Known(pub Arc<Bound>, pub Rows);

/// What a question was answered.
pub type Rows = Arc<[Found]>;

/// What a request will ask, to be asked together with others.
pub struct Noted {
    /// Nodes from which it keeps everybody else.
    pub held: Vec<NodeId>,
    pub asked: Vec<Bound>,
    /// It adds evidence.
    pub expects_number: bool,
}

/// How a transaction begins.
#[derive(Default)]
pub struct Begun {
    held: Vec<NodeId>,
    known: Vec<Known>,
    number: Option<u64>,
}

impl Begun {
    /// Of a request of a group.
    pub fn new(held: Vec<NodeId>, known: Vec<Known>, number: Option<u64>) -> Self {
        Self { held, known, number }
    }
}

impl<'a> PgTx<'a> {
    /// On a connection on which that was begun.
    pub fn new(
        background: &'a Background,
        session: &'a Session,
        shapes: &'a Shapes,
        changes: Option<Changes>,
        begun: Begun,
    ) -> Self {
        Self { line: Some((background, session)), ..Self::without_line(shapes, changes, begun) }
    }

    fn without_line(shapes: &'a Shapes, changes: Option<Changes>, begun: Begun) -> Self {
        Self {
            line: None,
            shapes,
            changes,
            held: begun.held.into(),
            holds_registrations: Cell::new(false),
            holds_trail: Cell::new(false),
            end: Cell::new(None),
            expects_number: Cell::new(false),
            number: Cell::new(begun.number),
            logs: RefCell::default(),
            failed: RefCell::default(),
            notes: Cell::new(false),
            noted: RefCell::default(),
            known: begun.known.into(),
            later: RefCell::default(),
        }
    }

    /// One that is shared with others, and was begun so. Who changes something holds the trail as well, which ends there; all that is
    /// said is kept until the end of it, and what is not known can't be asked.
    pub fn shared(shapes: &'a Shapes, changes: Option<Changes>, begun: Begun, end: Option<TrailEnd>) -> Self {
        let shared = Self::without_line(shapes, changes, begun);
        shared.holds_trail.set(end.is_some());
        shared.end.set(end);
        shared
    }

    /// What `first` asks. None if some of it was never asked before.
    pub fn note(shapes: &'a Shapes, changes: Option<Changes>, first: &dyn Fn(&Self)) -> Option<Noted> {
        let tx = Self::without_line(shapes, changes, Begun::default());
        tx.notes.set(true);
        first(&tx);
        let Self { held, expects_number, failed, noted, .. } = tx;
        let (held, expects_number) = (held.into_inner(), expects_number.get());
        failed.into_inner().is_none().then(|| Noted { held, asked: noted.into_inner(), expects_number })
    }

    /// Begins it so, and asks what `first` asks, which is told of nothing: all in one. Nothing is changed before it is sure that it
    /// has begun.
    ///
    /// # Errors
    /// When it did not begin.
    pub fn begin(self, sql: &str, first: &dyn Fn(&Self)) -> std::result::Result<Begun, Failure> {
        self.notes.set(true);
        first(&self);
        self.notes.set(false);
        let number = self.expects_number.get().then(|| self.bind(NUMBERS, &[&1i64], false).ok()).flatten();
        if let Some(failed) = self.failed.take() {
            return Err(failed);
        }
        let (holds, noted) = (self.later.take(), self.noted.take());
        let each = holds.iter().chain(&noted).chain(&number).map(Say::Bound);
        let each = [Say::Text(sql)].into_iter().chain(each).collect();
        let mut answers = self.say(each)?.split_off(1 + holds.len());
        let number = number.and_then(|_| numbers_of(answers.pop()?).ok()?.pop());
        let known =
            noted.into_iter().zip(answers).map(|(asked, answer)| Known(Arc::new(asked), rows_of(answer)));
        Ok(Begun { known: known.collect(), held: self.held.into_inner(), number })
    }

    /// It has ended: the first error, and what it has not said yet.
    pub fn over(self) -> (Option<Failure>, Vec<Bound>) {
        (self.failed.into_inner(), self.later.into_inner())
    }

    /// Keeps everybody else from what belongs to a node, if this writes. True if nobody was kept from it before.
    pub fn hold(&self, node: NodeId) -> Result<bool> {
        // Who appends a document is alone.
        if self.changes != Some(Changes::Rows) || self.held.borrow().contains(&node) {
            return Ok(false);
        }
        self.hold_by("SELECT pg_advisory_xact_lock($1)", &[&key(node)])?;
        self.held.borrow_mut().push(node);
        Ok(true)
    }

    /// Before room is made among registrations.
    pub fn hold_registrations(&self) -> Result<()> {
        self.hold_once(Held::Registrations, &self.holds_registrations)
    }

    /// Before something is appended to the trail.
    pub fn hold_trail_once(&self) -> Result<()> {
        self.hold_once(Held::Trail, &self.holds_trail)
    }

    /// Where the trail ends, if nobody else can have moved that since it was known.
    pub fn trail_end(&self) -> Option<TrailEnd> {
        self.end.get()
    }

    /// It ends here.
    pub fn ends_trail(&self, end: TrailEnd) {
        if self.holds_trail.get() {
            self.end.set(Some(end));
        }
    }

    /// Evidence of a node that is held will be added.
    pub fn expect_number(&self) {
        self.expects_number.set(true);
    }

    /// The number of evidence that is added now.
    pub fn number(&self) -> Result<u64> {
        if let Some(number) = self.number.take() {
            return Ok(number);
        }
        let numbers = numbers_of(self.asked(&self.bind(NUMBERS, &[&1i64], false)?)?)?;
        numbers
            .last()
            .copied()
            .ok_or_else(|| StoreError::Unavailable("a sequence that gave no number".to_owned()))
    }

    /// So many bytes of logs are kept of this node, with those that come now.
    pub fn has_logs(&self, node: &str, bytes: u64) {
        *self.logs.borrow_mut() = Some((node.to_owned(), bytes));
    }

    /// As many at most, if that is known.
    pub fn logs_at_most(&self, node: &str) -> Option<u64> {
        self.logs.borrow().as_ref().filter(|(of, _)| of == node).map(|(_, bytes)| *bytes)
    }

    fn hold_once(&self, what: Held, holds: &Cell<bool>) -> Result<()> {
        if self.changes == Some(Changes::Rows) && !holds.get() {
            self.hold_by(&format!("SELECT {}", what.exclusive()), &[])?;
            holds.set(true);
        }
        Ok(())
    }

    /// It is held before anything that is asked from here on. What was asked before may have been changed meanwhile.
    fn hold_by(&self, sql: &str, values: Values<'_>) -> Result<()> {
        if self.line.is_none() && !self.notes.get() {
            return Err(self.fail(not_now()));
        }
        let held = self.bind(sql, values, false)?;
        self.known.borrow_mut().clear();
        self.keep_back(held)
    }

    /// The first row, read.
    pub fn first<T>(
        &self,
        sql: &str,
        values: Values<'_>,
        read: impl FnOnce(&Found) -> Result<T>,
    ) -> Result<Option<T>> {
        self.rows(sql, values)?.first().map(read).transpose()
    }

    /// Every row, read.
    pub fn all<T>(
        &self,
        sql: &str,
        values: Values<'_>,
        read: impl FnMut(&Found) -> Result<T>,
    ) -> Result<Vec<T>> {
        self.rows(sql, values)?.iter().map(read).collect()
    }

    /// Every row.
    pub fn rows(&self, sql: &str, values: Values<'_>) -> Result<Rows> {
        let asked = self.bind(sql, values, false)?;
        if !asked.reads() {
            self.forget(&asked);
        } else if self.notes.get() {
            let mut noted = self.noted.borrow_mut();
            if !noted.iter().any(|noted| noted.asks_as(&asked)) {
                noted.push(asked);
            }
            return Ok(Rows::from([]));
        } else if let Some(Known(_, rows)) = self.known.borrow().iter().find(|known| known.0.asks_as(&asked))
        {
            return Ok(rows.clone());
        } else if self.changes.is_some() {
            // What others have committed meanwhile is in the answer: of what it is about, nothing older is known from here on.
            self.forget(&asked);
        }
        self.asked(&asked).map(rows_of)
    }

    /// Changes rows; gives how many.
    pub fn change(&self, sql: &str, values: Values<'_>) -> Result<u64> {
        let change = self.bind(sql, values, true)?;
        self.forget(&change);
        match self.asked(&change)? {
            Answer::Count(count) => Ok(count),
            Answer::Rows(_) => Err(StoreError::Unavailable("our bug: rows of a change".to_owned())),
        }
    }

    /// Changes rows, before anything that is asked from here on, and before the commit. What is wrong with it is known then.
    pub fn change_later(&self, sql: &str, values: Values<'_>) -> Result<()> {
        // Who appends a document has something written beside the database before the commit.
        if self.changes != Some(Changes::Rows) {
            return self.change(sql, values).map(drop);
        }
        let change = self.bind(sql, values, true)?;
        self.forget(&change);
        self.keep_back(change)
    }

    fn keep_back(&self, what: Bound) -> Result<()> {
        if self.later.borrow().len() < UNSAID || self.line.is_none() {
            self.later.borrow_mut().push(what);
            return Ok(());
        }
        self.asked(&what).map(drop)
    }

    /// What may be other by this.
    fn forget(&self, change: &Bound) {
        self.known.borrow_mut().retain(|known| !known.0.is_touched_by(change));
    }

    /// The answer to this, after what was to be said before.
    fn asked(&self, what: &Bound) -> Result<Answer> {
        if self.line.is_none() {
            return Err(self.fail(not_now()));
        }
        let later = self.later.take();
        let each = later.iter().chain([what]).map(Say::Bound).collect();
        let answers = self.say(each).map_err(|failed| self.fail(failed))?;
        answers.into_iter().last().ok_or_else(|| StoreError::Unavailable("our bug: no answer".to_owned()))
    }

    fn say(&self, each: Vec<Say<'_>>) -> std::result::Result<Vec<Answer>, Failure> {
        let (background, session) = self.line.ok_or_else(not_now)?;
        ask(background, async { said(session, each).await?.into_iter().collect() })
    }

    fn bind(&self, sql: &str, values: Values<'_>, counts: bool) -> Result<Bound> {
        if let Some(failed) = &*self.failed.borrow() {
            return Err(failed.error.clone());
        }
        let shape = match self.shapes.known(sql) {
            Some(shape) => shape,
            None => {
                let (background, session) = self.line.ok_or_else(|| self.fail(not_now()))?;
                let statement = ask(background, session.prepare_cached(sql));
                self.shapes.learn(sql, statement.map_err(|failed| self.fail(failed))?.params())
            }
        };
        Bound::new(shape, values, counts).map_err(|what| self.fail(Failure::of(what)))
    }

    fn fail(&self, failed: Failure) -> StoreError {
        let error = failed.error.clone();
        *self.failed.borrow_mut() = Some(failed);
        error
    }
}

/// Those that a question was answered.
pub fn rows_of(answer: Answer) -> Rows {
    match answer {
        Answer::Rows(rows) => rows.into_iter().map(Found).collect(),
        Answer::Count(_) => Rows::from([]),
    }
}

fn numbers_of(answer: Answer) -> Result<Vec<u64>> {
    rows_of(answer).iter().map(|row| row.u64(0)).collect()
}

/// What a node is held by.
pub fn key(node: NodeId) -> i64 {
    let [high, ..] = node.0.as_chunks::<8>().0 else { return 0 };
    i64::from_be_bytes(*high)
}

/// For a request that may not wait.
fn not_now() -> Failure {
    Failure::of("something that has to be asked alone".to_owned())
}
