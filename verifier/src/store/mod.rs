//! What keeps: rows and transactions. Nothing here decides, refuses, or knows what a row means; [`crate::domain`] does.
//!
//! [`Store`] is the one door to a database, [`Tx`] what can be looked at and changed in one transaction of it. The traits that make
//! up [`Tx`] have a method for each question that is asked and for each change that is made, and every back end passes the same
//! tests (`verifier/tests/store/main.rs`).

pub mod measured;
pub mod memory;
pub mod moving;
pub mod postgres;
pub mod rows;
mod signatures;
pub mod sqlite;

pub use rows::{
    BootRow, ClientRow, CountRow, DocumentRow, EnrollmentRow, EnrollmentState, EvidenceHead, EvidenceRow,
    NodeLineRow, NodeRow, NoticeRow, PolicyRow, ProposalChange, ProposalHead, ProposalRow, QuoteRow,
    RegistrationLine, RegistrationRow, ReleasedRow, SourceRow, Which,
};

use halfkey_protocol::NodeId;
use halfkey_protocol::document::Place;
use halfkey_protocol::wire::SignedDocument;
use halfkey_protocol::wire::operator::AuditEntry;
use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

/// Why rows were not read or not changed. Nothing was changed, but for [`StoreError::Undecided`].
#[derive(Clone, Debug)]
pub enum StoreError {
    /// The disk has no room.
    Full(String),
    /// The database can't do its work, for another reason.
    Unavailable(String),
    /// It went away at the commit: whether anything was changed is not known. Whoever asks again has to look first.
    Undecided(String),
    /// A row that this program can't have written.
    Damaged(String),
    /// A newer build made its schema.
    Newer {
        /// Its version.
        found: u64,
        /// The newest that this build knows.
        known: usize,
    },
}

/// Shorthand.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Rows of which one that is damaged does not hide the others.
pub type Each<T> = Vec<Result<T>>;

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(what) => write!(f, "no room for the database: {what}"),
            Self::Unavailable(what) | Self::Undecided(what) => write!(f, "database: {what}"),
            Self::Damaged(what) => write!(f, "the database is damaged: {what}"),
            Self::Newer { found, known } => write!(
                f,
                "database: expected schema version {known} or older, found {found}: it was made by a newer halfkey-verifier"
            ),
        }
    }
}

impl std::error::Error for StoreError {}

/// What becomes of the changes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// They stay.
    Commit,
    /// They stay, and the database is committed before any other request changes it: something beside the database says already
    /// that it ends here.
    CommitNow,
    /// They never were.
    RollBack,
}

/// What a request is about to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changes {
    /// Rows: together with requests that change others.
    Rows,
    /// The sequence of documents, by one more, and what follows from it: no other request changes anything meanwhile.
    Documents,
}

/// A database.
pub trait Store: Send + Sync {
    /// Runs `work` on rows that don't change meanwhile. What others changed last may still be on its way to the disk: what is to be
    /// written down elsewhere is read by [`Store::write`].
    ///
    /// # Errors
    /// When the database can't be read.
    fn read(&self, work: &mut dyn FnMut(&dyn Tx)) -> Result<()>;

    /// The same, if nothing has to be waited for but a file: neither a server nor another read. None if it has, and `work` did not run.
    ///
    /// # Errors
    /// When the database can't be read.
    fn read_at_once(&self, work: &mut dyn FnMut(&dyn Tx)) -> Option<Result<()>> {
        let _ = work;
        None
    }

    /// Runs `work` on rows that nobody else changes meanwhile, and returns when what it changed is durable, or was undone. It may run
    /// more than once, as what shares a transaction with it may have failed: what an earlier run changed was undone then. After
    /// [`Then::CommitNow`] it does not run again.
    ///
    /// # Errors
    /// When the database can't be written: nothing was changed, unless it is [`StoreError::Undecided`].
    fn write(&self, changes: Changes, work: &mut dyn FnMut(&dyn Tx) -> Then) -> Result<()>;

    /// As [`Store::read`], of work that will ask what `first` asks: where the way to a database is long all of it is asked at once.
    /// `first` itself is told of nothing, and changes nothing.
    ///
    /// # Errors
    /// As above.
    fn read_asking(&self, first: &dyn Fn(&dyn Tx), work: &mut dyn FnMut(&dyn Tx)) -> Result<()> {
        let _ = first;
        self.read(work)
    }

    /// The same for [`Store::write`]. What `first` asks of a node keeps everybody else from it, as asking does.
    ///
    /// # Errors
    /// As above.
    fn write_asking(
        &self,
        changes: Changes,
        first: &dyn Fn(&dyn Tx),
        work: &mut dyn FnMut(&dyn Tx) -> Then,
    ) -> Result<()> {
        let _ = first;
        self.write(changes, work)
    }

    /// As [`Store::read_asking`], of work that asks nothing else than `first` does, for who can't block: those who come at the same time
    /// ask a server together. None if that can't be known.
    fn read_together(&self, first: &dyn Fn(&dyn Tx)) -> Option<NextRead> {
        let _ = first;
        None
    }

    /// Whether [`Store::turn`] gives one.
    fn has_turns(&self) -> bool {
        false
    }

    /// The next turn to write rows, for who can't block. As with [`Store::write_asking`], `first` asks what the work will.
    fn turn(&self, first: &dyn Fn(&dyn Tx)) -> Option<NextTurn> {
        let _ = first;
        None
    }

    /// Removes what was deleted from logs and caches on the disk. Best effort: what can't be removed now is overwritten later.
    fn purge(&self);

    /// What it says of its standbys. None where there can't be any.
    ///
    /// # Errors
    /// When the database can't be read.
    fn standbys(&self) -> Result<Option<Standbys>> {
        Ok(None)
    }

    /// Has this called with what other servers over the same database tell, on a thread that it must not block, and gives the way to
    /// tell them something. Best effort in both directions; anybody who reaches the database may have said what is heard. None where
    /// a database is one server's.
    fn join(&self, heard: Heard) -> Option<Tells> {
        drop(heard);
        None
    }

    /// Connections to a server, if it is one that is connected to.
    fn pools(&self) -> Vec<Pool> {
        Vec::new()
    }
}

/// A turn to come.
pub type NextTurn = Pin<Box<dyn Future<Output = Box<dyn Turn>> + Send>>;
/// When a change is durable, or was undone.
pub type Durable = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// Answers to come.
pub type NextRead = Pin<Box<dyn Future<Output = Box<dyn Reads>> + Send>>;

/// What was asked together with others.
pub trait Reads: Send {
    /// As [`Store::read`]. None if there is something else to be asked, or there was no answer.
    ///
    /// # Errors
    /// When the database can't be read.
    fn run(self: Box<Self>, work: &mut dyn FnMut(&dyn Tx)) -> Option<Result<()>>;
}

/// A turn to write: nobody else does meanwhile in the same transaction.
pub trait Turn: Send {
    /// As [`Store::write`] of [`Changes::Rows`], but `work` runs once. None if there is something to wait for: it did not run.
    ///
    /// # Errors
    /// When the database can't be written, or the work asked what can't be asked here: nothing was changed. What it waits for then may
    /// be [`StoreError::Undecided`].
    fn run(self: Box<Self>, work: &mut dyn FnMut(&dyn Tx) -> Then) -> Option<Result<Durable>>;
}

/// Connections of one kind of transaction.
#[derive(Clone, Copy, Debug)]
pub struct Pool {
    /// `write` or `read`.
    pub kind: &'static str,
    /// Most that are made.
    pub most: usize,
    /// Those that are there.
    pub open: usize,
    /// Of these, those that nobody uses.
    pub idle: usize,
    /// Who waits for one.
    pub waiting: usize,
}

/// What a server of PostgreSQL says of the copies that could take its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standbys {
    /// `synchronous_standby_names`: which of them a commit waits for.
    pub names: String,
    /// `synchronous_commit`: how long it waits.
    pub commits: String,
    /// How many are connected.
    pub connected: u64,
    /// How many of these a commit waits for. None if this role is not shown it.
    pub synchronous: Option<u64>,
}

/// Called with a text that another server told.
pub type Heard = Box<dyn Fn(&str) + Send + Sync>;
/// Tells other servers a text: it does not wait.
pub type Tells = Box<dyn Fn(String) + Send + Sync>;

/// Where the database of a server is.
#[derive(Clone)]
pub enum Location {
    /// In a file of this host, of SQLite.
    File(PathBuf),
    /// On a server of PostgreSQL.
    Server(Box<postgres::Address>),
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Server(address) => f.write_str(address.name()),
        }
    }
}

/// Opens a database, or makes it.
///
/// # Errors
/// When it can't be opened, or was made by a newer build.
pub fn open(at: &Location) -> Result<Arc<dyn Store>> {
    Ok(match at {
        Location::File(path) => Arc::new(sqlite::Sqlite::open(path)?),
        Location::Server(address) => Arc::new(postgres::Postgres::open(address)?),
    })
}

/// What refers to a log, in the table of evidence.
const LOG_COLUMNS: [&str; 3] = ["event_log_id", "systemd_log_id", "ima_log_id"];

/// One transaction.
pub trait Tx:
    Clients
    + Registrations
    + Nodes
    + Enrollments
    + Boots
    + Evidence
    + Proposals
    + Policies
    + Documents
    + Trail
    + Notices
{
}

impl<T> Tx for T where
    T: Clients
        + Registrations
        + Nodes
        + Enrollments
        + Boots
        + Evidence
        + Proposals
        + Policies
        + Documents
        + Trail
        + Notices
{
}

/// Client certificates that are accepted.
pub trait Clients {
    /// By the SHA-256 of the certificate.
    fn client(&self, fingerprint: &str) -> Result<Option<ClientRow>>;
    /// All, by kind and name.
    fn clients(&self) -> Result<Vec<ClientRow>>;
    /// Adds one; false if its kind has one of that name.
    fn insert_client(&self, row: &ClientRow) -> Result<bool>;
    /// Takes one away; false if there is none.
    fn delete_client(&self, name: &str, kind: &str) -> Result<bool>;
}

/// TPMs whose AK was activated. Those that are not `kept` were never enrolled by a tenant.
pub trait Registrations {
    /// Of one node.
    fn registration(&self, node: NodeId) -> Result<Option<RegistrationRow>>;
    /// Lines, by node id.
    fn registration_lines(&self, which: &Which, limit: u64) -> Result<Vec<RegistrationLine>>;
    /// Stores one in place of what the node had.
    fn put_registration(&self, row: &RegistrationRow) -> Result<()>;
    /// Marks one as kept; false if there is none.
    fn keep_registration(&self, node: NodeId) -> Result<bool>;
    /// Deletes those that are not kept and were last seen before this; gives their ids.
    fn delete_registrations(&self, before: u64) -> Result<Vec<String>>;
    /// How many are not kept.
    fn unkept_registrations(&self) -> Result<u64>;
    /// The same by source, with the one of each that was seen longest ago.
    fn unkept_by_source(&self) -> Result<Vec<SourceRow>>;
    /// When those of one source that are not kept were last seen, and their rows as in [`SourceRow::oldest_row`]: the `limit` that
    /// were seen longest ago, in order.
    fn oldest_unkept(&self, source: &str, limit: u64) -> Result<Vec<(u64, i64)>>;
    /// Deletes these rows, as far as they are not kept. Numbers are of the same transaction, before another change.
    fn delete_unkept(&self, rows: &[i64]) -> Result<()>;
}

/// Nodes with which a tenant ever did something.
pub trait Nodes {
    /// One.
    fn node(&self, node: NodeId) -> Result<Option<NodeRow>>;
    /// Stores one in place of what was there.
    fn put_node(&self, row: &NodeRow) -> Result<()>;
    /// Evidence of it came in.
    fn set_seen(&self, node: NodeId, at: u64, outcome: &str, code: Option<&str>) -> Result<()>;
    /// Lines, by node id; those whose id is none are left out. A boot waits if nobody decided on it and it lives at `now`.
    fn node_lines(&self, which: &Which, limit: u64, now: u64) -> Result<Vec<NodeLineRow>>;
}

/// Enrollments, and which tenant keys operators used.
pub trait Enrollments {
    /// The one of a node in this state. There is one at most that is open or current.
    fn enrollment(&self, node: NodeId, state: EnrollmentState) -> Result<Option<EnrollmentRow>>;
    /// State, number of the document, and whether a boot has fetched it; of this enrollment of this node.
    fn enrollment_state(&self, node: NodeId, id: &str) -> Result<Option<(EnrollmentState, u64)>>;
    /// Adds one; false if there was one of this id.
    fn insert_enrollment(&self, row: &EnrollmentRow) -> Result<bool>;
    /// The one in this state is replaced; its C_V and C_U are deleted.
    fn replace_enrollment(&self, node: NodeId, state: EnrollmentState) -> Result<()>;
    /// It becomes the current one; its C_U is deleted.
    fn prove_enrollment(&self, id: &str, at: u64) -> Result<()>;
    /// A boot fetched it.
    fn set_fetched(&self, id: &str, ticket: &str, c_u: Option<&[u8]>) -> Result<()>;
    /// Another encryption of its C_U.
    fn set_c_u(&self, id: &str, c_u: &[u8]) -> Result<()>;
    /// Counters of the last quote that was accepted.
    fn set_quoted(&self, id: &str, quote: &QuoteRow) -> Result<()>;
    /// The last boot that was released.
    fn set_released(&self, id: &str, released: &ReleasedRow) -> Result<()>;
    /// Deletes C_U of whatever enrollment has one.
    fn delete_every_c_u(&self) -> Result<()>;
    /// An operator used a tenant key; true if never before.
    fn insert_tenant_key(&self, operator: &str, key: &[u8], now: u64) -> Result<bool>;
}

/// Boots that wait for an operator, and what the operator said.
pub trait Boots {
    /// By its ticket.
    fn boot(&self, node: NodeId, ticket: &str) -> Result<Option<BootRow>>;
    /// Those that nobody decided on, by newest evidence first.
    fn undecided_boots(&self, node: NodeId) -> Result<Each<BootRow>>;
    /// Stores one in place of what was there.
    fn put_boot(&self, row: &BootRow) -> Result<()>;
    /// Deletes one.
    fn delete_boot(&self, node: NodeId, ticket: &str) -> Result<()>;
    /// Deletes all of a node.
    fn delete_boots(&self, node: NodeId) -> Result<()>;
    /// Deletes all of a node but those with the newest evidence.
    fn trim_boots(&self, node: NodeId, keep: u64) -> Result<()>;
    /// Deletes those that lived until this.
    fn delete_expired_boots(&self, now: u64) -> Result<()>;
    /// Numbers of the evidence that a node's boots are of.
    fn evidence_of_boots(&self, node: NodeId) -> Result<Vec<u64>>;
}

/// Evidence and what came of it.
pub trait Evidence {
    /// Evidence of a node will be added in this transaction: what that needs is asked. Changes nothing.
    fn expect_evidence(&self, node: NodeId) -> Result<()> {
        let _ = node;
        Ok(())
    }
    /// Adds it; gives its number.
    fn insert_evidence(&self, row: &EvidenceRow) -> Result<u64>;
    /// One.
    fn evidence(&self, id: u64) -> Result<Option<EvidenceRow>>;
    /// Of a node, newest first.
    fn evidence_of(&self, node: NodeId, limit: u64) -> Result<Vec<EvidenceHead>>;
    /// Deletes a node's evidence of this kind but the newest `keep`, and but these.
    fn trim_evidence(
        &self,
        node: NodeId,
        authentic: bool,
        outcome: &str,
        keep: u64,
        except: &[u64],
    ) -> Result<()>;
    /// Deletes logs of a node's evidence of this kind, from the newest on, as soon as they and the newer ones are more than so many
    /// bytes. One that came several times counts once, as of the newest.
    fn trim_logs(&self, node: NodeId, authentic: bool, outcome: &str, bytes: u64) -> Result<()>;
}

/// What nodes proposed to boot next.
pub trait Proposals {
    /// By its number.
    fn proposal(&self, id: u64) -> Result<Option<ProposalRow>>;
    /// By its content.
    fn proposal_with(&self, node: NodeId, sha256: &[u8; 32]) -> Result<Option<ProposalRow>>;
    /// Numbers of those of a node, or of all, in one of these states and before a number: newest first.
    fn proposal_numbers(
        &self,
        node: Option<NodeId>,
        states: &[&str],
        before: Option<u64>,
        limit: u64,
    ) -> Result<Vec<u64>>;
    /// All of a node, without their content: oldest first.
    fn proposal_heads(&self, node: NodeId) -> Result<Vec<ProposalHead>>;
    /// Stores one in place of what the node had with this content; gives its number.
    fn put_proposal(&self, row: &ProposalRow) -> Result<u64>;
    /// Where it stands.
    fn set_proposal(&self, id: u64, change: &ProposalChange<'_>) -> Result<()>;
    /// Deletes one.
    fn delete_proposal(&self, id: u64) -> Result<()>;
    /// No proposal of a node is, or was, by trust.
    fn delete_trust(&self, node: NodeId) -> Result<()>;
    /// How often trust was given under this scope and since then.
    fn times_trusted(&self, node: NodeId, scope: &str, since: u64) -> Result<u64>;
    /// It was given once more.
    fn add_trusted(&self, node: NodeId, scope: &str, since: u64) -> Result<()>;
}

/// Versions of policies. The version is the number of the document.
pub trait Policies {
    /// One version of a scope, or the newest.
    fn policy(&self, scope: &str, version: Option<u64>) -> Result<Option<PolicyRow>>;
    /// The newest of a scope by this tenant key.
    fn policy_by(&self, scope: &str, key: &[u8]) -> Result<Option<PolicyRow>>;
    /// Adds one.
    fn insert_policy(&self, row: &PolicyRow) -> Result<()>;
    /// Deletes the versions of a scope by other tenant keys.
    fn delete_policies_but(&self, scope: &str, key: &[u8]) -> Result<()>;
}

/// The sequence of what was signed, only ever appended to.
pub trait Documents {
    /// Where it ends; 0 if there is none.
    fn head(&self) -> Result<Place>;
    /// Adds the next.
    fn insert_document(&self, row: &DocumentRow<'_>) -> Result<()>;
    /// One.
    fn document(&self, number: u64) -> Result<Option<SignedDocument>>;
    /// SHA-256 of one, as its row says.
    fn document_sha256(&self, number: u64) -> Result<Option<[u8; 32]>>;
    /// Tag of one, as its row says.
    fn document_tag(&self, number: u64) -> Result<Option<Vec<u8>>>;
    /// Sets it.
    fn set_document_tag(&self, number: u64, tag: &[u8; 32]) -> Result<()>;
    /// Those after a number, oldest first, until they are about so many bytes.
    fn documents_after(&self, number: u64, bytes: usize) -> Result<Vec<SignedDocument>>;
}

/// The audit trail, only ever appended to; and what is counted beside it.
pub trait Trail {
    /// Before something is appended: nobody else does until this transaction is over.
    fn hold_trail(&self) -> Result<()>;
    /// Whether nobody else forgets what is over meanwhile; from now on nobody begins to until this transaction is over.
    fn hold_sweep(&self) -> Result<bool>;
    /// Number and hash of the last entry.
    fn audit_end(&self) -> Result<Option<(u64, Option<[u8; 32]>)>>;
    /// One, with its hash.
    fn audit_entry(&self, seq: u64) -> Result<Option<(AuditEntry, Option<[u8; 32]>)>>;
    /// Entries after `after`, oldest first; without it the newest ones, oldest first.
    fn audit_entries(&self, after: Option<u64>, node: Option<NodeId>, limit: u64) -> Result<Vec<AuditEntry>>;
    /// Adds the next.
    fn insert_audit(&self, entry: &AuditEntry, hash: &[u8; 32]) -> Result<()>;
    /// One more; false if there is no such count.
    fn add_count(&self, hour: u64, action: &str, source: &str) -> Result<bool>;
    /// A new count, of one.
    fn insert_count(&self, hour: u64, action: &str, source: &str) -> Result<()>;
    /// How many sources are counted.
    fn counted_sources(&self, hour: u64, action: &str) -> Result<u64>;
    /// Counts of hours before this one, by hour and action; the largest first.
    fn counts_before(&self, hour: u64) -> Result<Vec<CountRow>>;
    /// Deletes them.
    fn delete_counts_before(&self, hour: u64) -> Result<()>;
    /// Remembers a number by its name.
    fn set_meta(&self, key: &str, value: u64) -> Result<()>;
}

/// What webhooks are to tell, until it was delivered.
pub trait Notices {
    /// Adds one; its number is given by the database.
    fn insert_notice(&self, row: &NoticeRow) -> Result<()>;
    /// Those of an endpoint that are due, the oldest first, at most so many: counted as tried, and not due before `until`. What
    /// somebody else takes at the same time is not among them.
    fn take_notices(&self, endpoint: &str, now: u64, until: u64, limit: u64) -> Result<Vec<NoticeRow>>;
    /// One is not due before this.
    fn put_off_notice(&self, id: u64, until: u64) -> Result<()>;
    /// Deletes one, if it is there.
    fn delete_notice(&self, id: u64) -> Result<()>;
    /// Deletes the oldest of an endpoint, all but so many; gives how many.
    fn trim_notices(&self, endpoint: &str, keep: u64) -> Result<u64>;
    /// Deletes what happened before this, whoever was to be told; gives how many.
    fn delete_notices_before(&self, at: u64) -> Result<u64>;
    /// How many an endpoint is still to be told, and how many of these are due.
    fn count_notices(&self, endpoint: &str, now: u64) -> Result<(u64, u64)>;
}
