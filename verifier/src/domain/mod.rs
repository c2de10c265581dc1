//! What a verifier remembers.
//!
//! [`Store`] is the one door to the database. Each method is one transaction:
//! when it returns, what it did is durable, whole, and so is its entry in the
//! audit trail. Methods block; [`Db`] runs them on threads that may.

pub mod kept;
pub mod policies;
pub mod sequence;
pub mod sqlite;

pub use policies::{
    Documents, Governing, NewDocument, NewPolicy, PolicyRef, ProposalCase, ProposalRuling, ProposalStanding,
    ReleasedBoot, Reviewer, Stand, StoredProposal, Trusted, TrustedUnder, Waiting,
};

use crate::attest::Ruling;
use crate::limit::Source;
use crate::wake::Hub;
use halfkey_protocol::document::Place;
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::tpm::qualifying_data::Wanted;
use halfkey_protocol::wire::operator::{
    AuditEntry, EvidenceRecord, EvidenceSummary, Held, NodeState, PendingBoot, TpmFirmware,
};
use halfkey_protocol::wire::policies::{Group, PolicyRecord, PolicySummary, ProposalRecord};
use halfkey_protocol::wire::{Credential, Evidence, Register, SignedDocument, Verdict};
use halfkey_protocol::{Bytes, NodeId, Reason};
use sequence::Stage;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// Why something was not read or not changed. Nothing was changed.
#[derive(Debug)]
pub enum StoreError {
    /// The disk has no room.
    Full(String),
    /// The database can't do its work, for another reason.
    Unavailable(String),
    /// A row that this program can't have written.
    Damaged(String),
    /// The state of the record does not allow it.
    Refused(Reason, String),
}

/// Shorthand.
pub type Result<T> = std::result::Result<T, StoreError>;

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(what) => write!(f, "no room for the database: {what}"),
            Self::Unavailable(what) => write!(f, "database: {what}"),
            Self::Damaged(what) => write!(f, "the database is damaged: {what}"),
            Self::Refused(reason, what) => write!(f, "{reason}: {what}"),
        }
    }
}

impl std::error::Error for StoreError {}

/// The default, and why, where a row is damaged: what it says is missing then, and what does not need it goes on.
///
/// # Errors
/// Every other one.
pub fn legible<T: Default>(read: Result<T>) -> Result<(T, Option<String>)> {
    match read {
        Ok(found) => Ok((found, None)),
        Err(StoreError::Damaged(why)) => Ok((T::default(), Some(why))),
        Err(e) => Err(e),
    }
}

/// What a client certificate may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientKind {
    /// `/v1/operator`
    Operator,
    /// `/v1/internal`: the verifier, at its registrar.
    Verifier,
}

impl ClientKind {
    /// The name in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Verifier => "verifier",
        }
    }

    /// From the name in the database; none if it is not one of those.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Operator, Self::Verifier].into_iter().find(|kind| kind.as_str() == text)
    }
}

/// A client certificate that is accepted.
#[derive(Clone, Debug)]
pub struct Client {
    /// [`crate::pki::fingerprint`] of the certificate.
    pub fingerprint: String,
    /// Its common name.
    pub name: String,
    /// What for.
    pub kind: ClientKind,
    /// When it was listed.
    pub added_at: u64,
}

/// A TPM whose AK was activated.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Registration {
    /// What the node sent.
    pub register: Register,
    /// The newest challenge that its TPM activated.
    pub challenge: Bytes,
    /// First.
    pub registered_at: u64,
    /// Last time that it registered.
    pub last_seen: u64,
}

/// A line of the list of registrations.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RegistrationLine {
    /// Its id.
    pub node_id: String,
    /// What the node calls itself.
    pub label: String,
    /// Last time that it registered, seconds since 1970.
    pub last_seen: u64,
}

/// Which lines of a list, by id.
#[derive(Clone, Debug)]
pub enum Which {
    /// Those after this id, or all.
    After(Option<NodeId>),
    /// Those with this label, or whose id begins so.
    Named(String),
    /// This one.
    One(NodeId),
}

impl Which {
    /// A condition over `node_id` and `label`, and the values of its parameters 1 and 2.
    pub fn condition(&self) -> (&'static str, String, String) {
        match self {
            Self::After(id) => {
                ("node_id > ?1 AND ?2 = ''", id.map_or_else(String::new, |id| id.to_string()), String::new())
            }
            Self::Named(name) => {
                let prefix = name.to_ascii_lowercase();
                let of_id = !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
                // No id begins with this: an id has digits, a to f, and dashes.
                let prefix = if of_id { prefix } else { "z".to_owned() };
                ("(label = ?1 OR node_id >= ?2 AND node_id < ?2 || 'g')", name.clone(), prefix)
            }
            Self::One(id) => ("node_id = ?1 AND ?2 = ''", id.to_string(), String::new()),
        }
    }
}

/// A checked registration to be stored.
#[derive(Clone, Debug)]
pub struct NewRegistration {
    /// Derived from the EK.
    pub node: NodeId,
    /// Name of the AK.
    pub ak_name: Vec<u8>,
    /// Name of the SRK.
    pub srk_name: Vec<u8>,
    /// What the node sent.
    pub register: Register,
    /// Where from.
    pub source: Source,
}

/// What storing a registration did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saved {
    /// A node that was not known.
    New,
    /// The same keys as before.
    Same,
    /// The SRK changed: TPM2_Clear.
    SrkChanged,
}

/// (resetCount, restartCount, clock) of a quote; the order is the TPM's order of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Counters {
    /// TPM resets.
    pub reset: u32,
    /// Resumes since.
    pub restart: u32,
    /// Milliseconds.
    pub clock: u64,
}

/// An enrollment with what was released for it.
#[derive(Clone, Debug)]
pub struct Enrollment {
    /// Its UUID.
    pub id: String,
    /// What the tenant signed.
    pub signed: SignedDocument,
    /// Whose it is, and which challenge it answers: a node that wants another one does not get it.
    pub answers: Wanted,
    /// Its place in the sequence.
    pub document: Place,
    /// When the tenant made it, seconds since 1970.
    pub created: u64,
    /// The registration that the tenant checked.
    pub registration: Register,
    /// The bank.
    pub bank: PcrBank,
    /// V for the SRK.
    pub c_v: Credential,
    /// U for the EK, until the node proved.
    pub c_u: Option<Credential>,
    /// Of the last quote that was accepted.
    pub counters: Option<Counters>,
    /// Where it stands by the sequence; none as long as nobody has compared it.
    pub stage: Option<Stage>,
    /// Ticket of the boot that fetched C_U first.
    pub fetched_by: Option<String>,
    /// The last boot that was released.
    pub released: Option<ReleasedBoot>,
}

/// A node, as the verifier knows it.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// Given by the tenant.
    pub label: String,
    /// Why it is revoked, if it is.
    pub revoked: Option<String>,
    /// Who holds it and why, if somebody does: its boots are denied.
    pub held: Option<Held>,
    /// What its TPM said of its firmware last.
    pub tpm_firmware: Option<TpmFirmware>,
    /// Proved: serves `boot`.
    pub current: Option<Enrollment>,
    /// Not proved yet: serves `enroll`. The current one stays valid beside it,
    /// else an interrupted re-enrollment would lock the machine out.
    pub open: Option<Enrollment>,
    /// What its boots are judged by.
    pub governing: Governing,
    /// Where rows and documents differ.
    pub damage: Option<Damage>,
    /// Last evidence.
    pub last_seen: u64,
    /// Its outcome.
    pub last_outcome: Option<String>,
    /// Its code.
    pub last_code: Option<String>,
}

impl Node {
    /// Where it stands. `Enrolling` also while a re-enrollment is open.
    pub fn state(&self) -> NodeState {
        node_state(self.revoked.is_some(), self.open.is_some(), self.current.is_some())
    }
}

/// Rows of a node that say otherwise than the documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Which enrollment is open or proved: nothing goes out to the node.
    Enrollment(String),
    /// What governs it: nothing judges its boots, and nobody can approve them.
    Governing(String),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Enrollment(why) | Self::Governing(why)) = self;
        write!(f, "the database is not what was signed: {why}")
    }
}

/// Where a node stands.
pub fn node_state(revoked: bool, open: bool, current: bool) -> NodeState {
    match (revoked, open, current) {
        (true, _, _) => NodeState::Revoked,
        (false, true, _) => NodeState::Enrolling,
        (false, false, true) => NodeState::Enrolled,
        (false, false, false) => NodeState::Registered,
    }
}

/// A line of the list of nodes.
#[derive(Clone, Debug)]
pub struct NodeLine {
    /// Its id.
    pub id: NodeId,
    /// Given by the tenant.
    pub label: String,
    /// Where it stands.
    pub state: NodeState,
    /// A boot waits for an operator.
    pub pending: bool,
    /// An operator holds it.
    pub held: bool,
    /// Its last boot was released twice.
    pub cloned: bool,
    /// Last evidence.
    pub last_seen: u64,
    /// Its outcome.
    pub last_outcome: Option<String>,
    /// Its code.
    pub last_code: Option<String>,
}

/// What an operator decided about a boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Release it.
    Approved {
        /// Seconds since 1970.
        expires: u64,
        /// It was released.
        used: bool,
    },
    /// Don't.
    Denied {
        /// By whom.
        by: String,
        /// Why.
        because: String,
    },
}

/// A boot that was not released by itself.
#[derive(Clone, Debug)]
pub struct Boot {
    /// What an operator sees.
    pub pending: PendingBoot,
    /// What an operator said.
    pub decision: Option<Decision>,
    /// What the row claims that nobody said.
    pub damage: Option<String>,
}

/// What a ruling goes by: read in the transaction that records the ruling.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The node.
    pub node: Node,
    /// This very boot, if it was seen before.
    pub boot: Option<Boot>,
    /// Proposals that were accepted and not booted yet.
    pub proposals: Vec<StoredProposal>,
}

/// A boot that an operator is to look at.
#[derive(Clone, Debug)]
pub struct NewPending {
    /// Names the boot.
    pub ticket: String,
    /// Whether an operator can approve it.
    pub approvable: bool,
    /// When it is forgotten.
    pub expires: u64,
}

/// Evidence to be ruled on.
pub struct Case<'a> {
    /// Whose.
    pub node: NodeId,
    /// Seconds since 1970.
    pub now: u64,
    /// Names the boot, if the quote is authentic.
    pub ticket: Option<&'a str>,
    /// What the node sent.
    pub evidence: &'a Evidence,
    /// Records kept per node, of each outcome.
    pub keep: u64,
}

/// A checked enrollment to be stored.
pub struct NewEnrollment<'a> {
    /// Whose.
    pub node: NodeId,
    /// Its UUID.
    pub id: &'a str,
    /// The tenant's label.
    pub label: &'a str,
    /// What the tenant signed.
    pub document: NewDocument<'a>,
    /// The registration that it is for.
    pub registration: &'a Register,
    /// The bank.
    pub bank: PcrBank,
    /// V for the SRK.
    pub c_v: &'a Credential,
    /// U for the EK.
    pub c_u: &'a Credential,
}

/// Who does something, and when.
#[derive(Clone, Copy, Debug)]
pub struct By<'a> {
    /// Common name of the certificate.
    pub actor: &'a str,
    /// Seconds since 1970.
    pub now: u64,
}

/// An approval to be recorded.
pub struct Approval<'a> {
    /// Which boot.
    pub ticket: &'a str,
    /// When it is forgotten.
    pub expires: u64,
}

/// The database.
pub trait Store: Documents + Send + Sync {
    /// Writes something, to see that it can.
    fn probe(&self, now: u64) -> Result<()>;
    /// Forgets what is over: registrations that no tenant enrolled, last seen
    /// before `registered_before`, and boots that nobody decided on.
    fn expire(&self, registered_before: u64, now: u64) -> Result<u64>;

    /// Whose certificate this is.
    fn client(&self, fingerprint: &str) -> Result<Option<Client>>;
    /// Every certificate that is accepted.
    fn clients(&self) -> Result<Vec<Client>>;
    /// Accepts a certificate. Refused if the name is taken.
    fn add_client(&self, client: &Client) -> Result<()>;
    /// Accepts it no longer.
    fn remove_client(&self, name: &str, kind: ClientKind, now: u64) -> Result<()>;

    /// One registration.
    fn registration(&self, node: NodeId) -> Result<Option<Registration>>;
    /// Lines of the list, by node id.
    fn registrations(&self, which: &Which, limit: u64) -> Result<Vec<RegistrationLine>>;
    /// Stores what was activated, with the challenge that came with the answer. Refused if the EK has another AK. At
    /// `unenrolled` records that no tenant enrolled one of them goes.
    fn save_registration(
        &self,
        new: &NewRegistration,
        challenge: &[u8; 32],
        unenrolled: u64,
        now: u64,
    ) -> Result<Saved>;
    /// A tenant enrolled it: it never expires.
    fn keep_registration(&self, node: NodeId) -> Result<()>;

    /// One node, if a tenant ever did something with it.
    fn node(&self, node: NodeId) -> Result<Option<Node>>;
    /// Lines of the list, by node id.
    fn nodes(&self, which: &Which, limit: u64, now: u64) -> Result<Vec<NodeLine>>;
    /// The boot of this node that waits for an operator, as its evidence says.
    fn pending(&self, node: NodeId, reviewer: &dyn Reviewer, now: u64) -> Result<Option<PendingBoot>>;
    /// A boot by its ticket.
    fn boot(&self, node: NodeId, ticket: &str, now: u64) -> Result<Option<Boot>>;
    /// Stores an enrollment as open; the node proves it later.
    fn enroll(&self, new: &NewEnrollment<'_>, by: By<'_>) -> Result<()>;
    /// The node holds K: the open enrollment becomes the current one and C_U is deleted.
    fn prove(&self, node: NodeId, enrollment: &str, proof: &[u8], now: u64) -> Result<()>;
    /// Approves a boot, if its evidence is of that boot.
    fn approve(
        &self,
        node: NodeId,
        approval: &Approval<'_>,
        reviewer: &dyn Reviewer,
        by: By<'_>,
    ) -> Result<()>;
    /// Denies a boot.
    fn deny(&self, node: NodeId, ticket: &str, because: &str, by: By<'_>) -> Result<()>;
    /// Refused if the database is not the one that this server has answered with.
    fn require_here(&self) -> Result<()>;
    /// Writes down where the audit trail ends: an older database is noticed by it. Refused if it is not the trail so far.
    fn note_size(&self) -> Result<()>;
    /// Nothing is released any more. Without a label: of a node of which nothing is known but by the sequence.
    fn revoke(&self, node: NodeId, label: Option<&str>, because: &str, by: By<'_>) -> Result<()>;
    /// Takes that back.
    fn restore(&self, node: NodeId, because: &str, by: By<'_>) -> Result<()>;
    /// Its boots are denied from now on.
    fn hold(&self, node: NodeId, because: &str, by: By<'_>) -> Result<()>;
    /// Takes that back.
    fn release(&self, node: NodeId, because: &str, by: By<'_>) -> Result<()>;

    /// Rules on evidence and records evidence, verdict, counters and audit entry, or nothing.
    fn attest(&self, case: &Case<'_>, rule: &mut dyn FnMut(&Standing) -> Ruling) -> Result<Verdict>;
    /// Evidence of a node, newest first.
    fn evidence_of(&self, node: NodeId, limit: u64) -> Result<Vec<EvidenceSummary>>;
    /// One record.
    fn evidence(&self, id: u64) -> Result<Option<EvidenceRecord>>;

    /// The newest policy of each scope, by scope.
    fn policies(&self) -> Result<Vec<PolicySummary>>;
    /// A policy; without a version the newest of its scope.
    fn policy(&self, scope: &str, version: Option<u64>) -> Result<Option<PolicyRecord>>;
    /// Where the sequence of documents ends.
    fn head(&self) -> Result<Place>;
    /// Documents after a number, oldest first, up to some bytes.
    fn documents_after(&self, number: u64) -> Result<Vec<SignedDocument>>;
    /// Stores a policy and reviews what it governs; gives the nodes that this concerns. Refused unless it is the next of the
    /// sequence, and by the key that the scope belongs to.
    fn apply(&self, new: &NewPolicy<'_>, reviewer: &dyn Reviewer, by: By<'_>) -> Result<Vec<NodeId>>;
    /// Puts a node into a group, or into none, and reviews what is open. `label` is for a node that only registered.
    fn set_group(
        &self,
        node: NodeId,
        label: &str,
        document: NewDocument<'_>,
        reviewer: &dyn Reviewer,
        by: By<'_>,
    ) -> Result<()>;
    /// Groups that have nodes or a policy, by name.
    fn groups(&self) -> Result<Vec<Group>>;

    /// Decides on a proposal and records it, its counters and its audit entry, or nothing. Gives its number, if it
    /// was stored.
    fn propose(
        &self,
        case: &ProposalCase<'_>,
        rule: &mut dyn FnMut(&ProposalStanding, &dyn Documents) -> Result<ProposalRuling>,
    ) -> Result<(ProposalRuling, Option<u64>)>;
    /// Proposals, newest first.
    fn proposals(&self, node: Option<NodeId>, waiting: bool, limit: u64) -> Result<Vec<ProposalRecord>>;
    /// An operator says no; gives the node.
    fn deny_proposal(&self, id: u64, because: &str, by: By<'_>) -> Result<NodeId>;

    /// Entries after `after`, oldest first; with `after` = `None` the newest `limit`, oldest first.
    fn audit(&self, after: Option<u64>, node: Option<NodeId>, limit: u64) -> Result<Vec<AuditEntry>>;
    /// Counts what anybody can do, and that belongs to no other change.
    fn count(
        &self,
        action: &str,
        source: Source,
        node: Option<NodeId>,
        detail: &str,
        by: By<'_>,
    ) -> Result<()>;
}

/// Runs [`Store`] methods from async code.
#[derive(Clone)]
pub struct Db {
    store: Arc<dyn Store>,
    hub: Arc<Hub>,
}

impl Db {
    /// Over this store; changes wake who waits at `hub`.
    pub fn new(store: Arc<dyn Store>, hub: Arc<Hub>) -> Self {
        Self { store, hub }
    }

    /// Reads.
    ///
    /// # Errors
    /// Those of the method.
    pub async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Store) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let store = self.store.clone();
        joined(tokio::task::spawn_blocking(move || work(&*store)).await)
    }

    /// Changes something about a node, and wakes who waits for that. The caller
    /// may go away in the middle: the change and the waking still go together.
    ///
    /// # Errors
    /// Those of the method.
    pub async fn change<T: Send + 'static>(
        &self,
        node: NodeId,
        work: impl FnOnce(&dyn Store) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.change_some(move |store| Ok((work(store)?, vec![node]))).await
    }

    /// The same, about the nodes that the work names.
    ///
    /// # Errors
    /// Those of the method.
    pub async fn change_some<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Store) -> Result<(T, Vec<NodeId>)> + Send + 'static,
    ) -> Result<T> {
        let (store, hub) = (self.store.clone(), self.hub.clone());
        let work = move || {
            let (done, nodes) = work(&*store)?;
            hub.wake_all(&nodes);
            Ok(done)
        };
        joined(tokio::task::spawn_blocking(work).await)
    }
}

fn joined<T>(work: std::result::Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    work.unwrap_or_else(|e| Err(StoreError::Unavailable(format!("our bug: {e}"))))
}
