//! Rows, as they are kept: each column once, and nothing of what it means. Times are seconds since 1970, JSON is text.

use halfkey_protocol::NodeId;
use halfkey_protocol::document::Place;
use halfkey_protocol::wire::SignedDocument;
use serde::{Deserialize, Serialize};

/// A client certificate that is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRow {
    /// SHA-256 of the certificate, in hexadecimal.
    pub fingerprint: String,
    /// Its common name.
    pub name: String,
    /// What for, in one word.
    pub kind: String,
    /// When it was listed.
    pub added_at: u64,
    /// Over fingerprint, kind and name, by a key that is not in the database.
    pub tag: Option<Vec<u8>>,
}

/// A TPM whose AK was activated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistrationRow {
    /// Derived from the EK.
    pub node: NodeId,
    /// TPM name of the AK.
    pub ak_name: Vec<u8>,
    /// TPM name of the SRK.
    pub srk_name: Vec<u8>,
    /// What the node calls itself.
    pub label: String,
    /// The address, or the IPv6 network, that it registered from last.
    pub source: String,
    /// The newest challenge that its TPM activated.
    pub challenge: Vec<u8>,
    /// When the registrar's challenge was made that this was the answer to, in millionths of a second since 1970.
    pub issued: u64,
    /// First.
    pub registered_at: u64,
    /// Last.
    pub last_seen: u64,
    /// It never expires.
    pub kept: bool,
    /// What the node sent, as JSON.
    pub register: String,
}

/// A line of the list of registrations.
#[derive(Clone, Debug, PartialEq, Eq, schemars::JsonSchema, Serialize, Deserialize)]
pub struct RegistrationLine {
    /// Its id.
    pub node_id: String,
    /// What the node calls itself.
    pub label: String,
    /// Last time that it registered, seconds since 1970.
    pub last_seen: u64,
}

/// Registrations of one source that are not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceRow {
    /// As in [`RegistrationRow::source`].
    pub source: String,
    /// How many.
    pub count: u64,
    /// When the oldest was last seen.
    pub oldest: u64,
    /// That one's row, as the store numbers it.
    pub oldest_row: i64,
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

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRow {
    /// Its id.
    pub id: NodeId,
    /// Given by the tenant.
    pub label: String,
    /// Why it is revoked, if it is.
    pub revoked_because: Option<String>,
    /// The group that it is in.
    pub group_name: Option<String>,
    /// Number of the document that says so, or that it is in none.
    pub group_number: Option<u64>,
    /// Who holds it.
    pub held_by: Option<String>,
    /// Why.
    pub held_because: Option<String>,
    /// firmwareVersion of the last quote, as 0x and 16 digits.
    pub tpm_firmware: Option<String>,
    /// The one before.
    pub tpm_firmware_before: Option<String>,
    /// Since when it is the one that it is.
    pub tpm_firmware_since: Option<u64>,
    /// Last evidence.
    pub last_seen: u64,
    /// Its outcome.
    pub last_outcome: Option<String>,
    /// The code of its reason.
    pub last_code: Option<String>,
}

impl NodeRow {
    /// Of a node of which nothing is known.
    pub fn blank(id: NodeId, now: u64) -> Self {
        Self {
            id,
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
        }
    }
}

/// A line of the list of nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeLineRow {
    /// Its id.
    pub id: NodeId,
    /// Given by the tenant.
    pub label: String,
    /// Its row says that it is revoked.
    pub revoked: bool,
    /// It has an open enrollment.
    pub open: bool,
    /// It has a current enrollment.
    pub current: bool,
    /// A boot waits that nobody decided on.
    pub pending: bool,
    /// Its row says that it is held.
    pub held: bool,
    /// Its last boot was released twice.
    pub cloned: bool,
    /// Last evidence.
    pub last_seen: u64,
    /// Its outcome.
    pub last_outcome: Option<String>,
    /// The code of its reason.
    pub last_code: Option<String>,
}

impl NodeLineRow {
    /// Of a node of which no row says anything.
    pub fn blank(id: NodeId) -> Self {
        Self {
            id,
            label: String::new(),
            revoked: false,
            open: false,
            current: false,
            pending: false,
            held: false,
            cloned: false,
            last_seen: 0,
            last_outcome: None,
            last_code: None,
        }
    }
}

/// Which of the enrollments of a node it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnrollmentState {
    /// Not proved.
    Open,
    /// The one that was proved last.
    Current,
    /// An earlier one.
    Replaced,
}

impl EnrollmentState {
    /// In one word, as it is kept.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Current => "current",
            Self::Replaced => "replaced",
        }
    }

    /// The way back.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Open, Self::Current, Self::Replaced].into_iter().find(|state| state.as_str() == text)
    }
}

/// An enrollment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrollmentRow {
    /// Its UUID.
    pub id: String,
    /// Whose.
    pub node: NodeId,
    /// Which of its enrollments.
    pub state: EnrollmentState,
    /// Number of the document that the tenant signed.
    pub number: u64,
    /// The tenant key that counts.
    pub tenant_key: Vec<u8>,
    /// The registration that the tenant checked, as JSON.
    pub registration: String,
    /// Name of the PCR bank.
    pub bank: String,
    /// C_V: idObject and secret.
    pub c_v: (Option<Vec<u8>>, Option<Vec<u8>>),
    /// C_U, encrypted by a key that is not in the database, until the node proved.
    pub c_u: Option<Vec<u8>>,
    /// When it was handed in.
    pub enrolled_at: u64,
    /// By whom.
    pub enrolled_by: String,
    /// Ticket of the boot that fetched C_U first.
    pub fetched_by: Option<String>,
    /// Of the last quote that was accepted.
    pub quote: QuoteRow,
    /// The last boot that was released.
    pub released: Option<ReleasedRow>,
}

/// Counters of a quote. One that was accepted has them all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuoteRow {
    /// resetCount
    pub reset: Option<u32>,
    /// restartCount
    pub restart: Option<u32>,
    /// Milliseconds.
    pub clock: Option<u64>,
}

/// A boot that was released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleasedRow {
    /// Number of its evidence.
    pub evidence: u64,
    /// resetCount of its quote.
    pub reset: u32,
    /// restartCount of its quote.
    pub restart: u32,
    /// What PCR 15 of the SHA-256 bank became with it.
    pub fence: [u8; 32],
    /// Name of the policy's boot that it was.
    pub boot: Option<String>,
    /// Number of the proposal that this boot of the policy comes from.
    pub proposal: Option<u64>,
    /// The policy's boot that the proposal took shim and boot loader from.
    pub base: Option<String>,
    /// Number of the evidence that was released before it, with the same resetCount and restartCount, and another r.
    pub twin: Option<u64>,
    /// By the cluster key, over all but `twin`, which is only shown.
    pub tag: Option<Vec<u8>>,
}

/// A boot that waits for an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootRow {
    /// Whose.
    pub node: NodeId,
    /// Names the boot.
    pub ticket: String,
    /// Number of its evidence.
    pub evidence_id: u64,
    /// The code of the reason why it was not released.
    pub code: String,
    /// The same for people.
    pub message: String,
    /// An operator can approve it.
    pub approvable: bool,
    /// What the policy does not allow, as JSON.
    pub findings: String,
    /// When it began to wait.
    pub since: u64,
    /// When it is forgotten.
    pub expires: u64,
    /// What an operator decided, in one word.
    pub decision: Option<String>,
    /// Who.
    pub decided_by: Option<String>,
    /// Why.
    pub because: Option<String>,
    /// Until when an approval can be used.
    pub approved_until: Option<u64>,
    /// When it was used.
    pub used_at: Option<u64>,
    /// Over an approval that was not used, by a key that is not in the database.
    pub approval_tag: Option<Vec<u8>>,
}

/// What lists say of a piece of evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvidenceHead {
    /// Its number.
    pub id: u64,
    /// Whose.
    pub node_id: String,
    /// When it came.
    pub at: u64,
    /// What for, in one word.
    pub purpose: String,
    /// What came of it, in one word.
    pub outcome: String,
    /// The code of the reason.
    pub code: Option<String>,
    /// The same for people.
    pub message: String,
    /// Number of the evidence that was released before it, with the same resetCount and restartCount, and another r.
    pub twin: Option<u64>,
}

/// Evidence and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvidenceRow {
    /// What lists say of it. Its number is given by the database.
    pub head: EvidenceHead,
    /// The quote is by the node's AK.
    pub authentic: bool,
    /// What the node sent without its logs, as JSON.
    pub evidence: String,
    /// The firmware's event log.
    pub event_log: Option<Vec<u8>>,
    /// systemd's measurement log.
    pub systemd_log: Option<Vec<u8>>,
    /// IMA's log.
    pub ima_log: Option<Vec<u8>>,
    /// Of the quote.
    pub quote: QuoteRow,
    /// What PCR 15 of the SHA-256 bank becomes with it, if it was released.
    pub expected_fence: Option<Vec<u8>>,
    /// What the policy did not allow, as JSON.
    pub findings: String,
    /// firmwareVersion of the quote, as 0x and 16 digits.
    pub tpm_firmware: Option<String>,
}

/// What a node proposed to boot next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProposalRow {
    /// Its number. It is given by the database.
    pub id: u64,
    /// Whose.
    pub node_id: String,
    /// SHA-256 over its content.
    pub sha256: [u8; 32],
    /// When it came last.
    pub at: u64,
    /// Where it stands, in one word.
    pub state: String,
    /// The same for people.
    pub message: String,
    /// Number of the evidence of the boot that it comes from.
    pub from_evidence: u64,
    /// The policy's boot that it takes shim and boot loader from.
    pub base_boot: Option<String>,
    /// It is allowed by trust alone.
    pub by_trust: bool,
    /// The scope of the policy under which that was ever so.
    pub trusted_scope: Option<String>,
    /// Number of the proof by which the node became its tenant's, or its TPM was enrolled again after it was cleared.
    pub trusted_since: Option<u64>,
    /// Its content, as JSON.
    pub content: String,
    /// Over what is by trust, by a key that is not in the database.
    pub tag: Option<Vec<u8>>,
    /// By the same key: that the node made it, with a quote.
    pub made: Option<Vec<u8>>,
}

/// A proposal without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProposalHead {
    /// Its number.
    pub id: u64,
    /// When it came last.
    pub at: u64,
    /// Where it stands, in one word.
    pub state: String,
    /// Number of the evidence of the boot that it comes from.
    pub from_evidence: u64,
    /// It is allowed by trust alone.
    pub by_trust: bool,
}

/// Where a proposal stands now.
#[derive(Clone, Copy, Debug)]
pub struct ProposalChange<'a> {
    /// In one word.
    pub state: &'a str,
    /// For people; none if what it says stays.
    pub message: Option<&'a str>,
    /// Whether it is by trust, and its tag.
    pub by_trust: bool,
    /// Over what is by trust.
    pub tag: Option<&'a [u8]>,
}

/// A version of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRow {
    /// What it is for.
    pub scope: String,
    /// Number of its document.
    pub version: u64,
    /// The name that it gives itself; empty if it withdraws the policy.
    pub name: String,
    /// The tenant key that counts.
    pub tenant_key: Vec<u8>,
    /// SHA-256 of the document.
    pub sha256: [u8; 32],
    /// When it was handed in.
    pub applied_at: u64,
    /// By whom.
    pub applied_by: String,
}

/// What was signed, with its place.
#[derive(Clone, Copy, Debug)]
pub struct DocumentRow<'a> {
    /// Number and SHA-256.
    pub place: Place,
    /// What it is for.
    pub scope: &'a str,
    /// When it was handed in.
    pub at: u64,
    /// By whom.
    pub by: &'a str,
    /// Document and signatures.
    pub signed: &'a SignedDocument,
    /// That a server took it, by a key that is not in the database.
    pub tag: [u8; 32],
}

/// How often something was done from one source in an hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountRow {
    /// Hours since 1970.
    pub hour: u64,
    /// What.
    pub action: String,
    /// From where.
    pub source: String,
    /// How often.
    pub count: u64,
}

/// Something that an endpoint of webhooks is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoticeRow {
    /// Its number; given by the database.
    pub id: u64,
    /// Name of the endpoint.
    pub endpoint: String,
    /// What the receiver knows it by.
    pub message: String,
    /// When it happened, in seconds since 1970.
    pub at: u64,
    /// What is sent, JSON.
    pub body: String,
    /// How often somebody took it to deliver it.
    pub attempts: u64,
    /// When it may be taken, in seconds since 1970.
    pub due: u64,
}

impl Which {
    /// What an id begins with that has this name, if any can.
    pub fn id_prefix(&self) -> Option<String> {
        let Self::Named(name) = self else { return None };
        let prefix = name.to_ascii_lowercase();
        let of_id = !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        of_id.then_some(prefix)
    }
}
