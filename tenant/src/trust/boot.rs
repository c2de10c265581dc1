//! Stored boots, checked here as the verifier checks them: the quote is by the node's AK, its digest is that of the PCR
//! values, and the logs replay to them. A server can keep a boot back or show an old one; it can't make one up.

use crate::client::Client;
use crate::error::{Error, Exit, Result};
use crate::home::key::TenantKey;
use crate::render::text::{clean, clean_short};
use crate::trust::checks;
use halfkey_evidence::appraise::{self, Appraisal, BoundedEvidence, Enrolled, appraise};
use halfkey_evidence::eventlog::ProvenLog;
use halfkey_evidence::policy::{Claims, Evaluation, Policy};
use halfkey_evidence::quote::{self, VerifiedQuote};
use halfkey_evidence::signed_document::open_enrollment;
use halfkey_evidence::ticket::BootTicket;
use halfkey_protocol::NodeId;
use halfkey_protocol::document::Scope;
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::wire::operator::{EvidenceRecord, EvidenceSummary, NodeRecord};
use halfkey_protocol::wire::{Outcome, Purpose};

/// How many records are looked through for a boot.
const LOOK_BACK: u32 = 200;

/// Whose quotes: the keys of a node's registration, and what its enrollment says.
pub struct Attester {
    id: NodeId,
    enrolled: Enrolled,
    label: String,
    mine: bool,
}

/// A stored boot whose quote was checked here.
pub struct Boot {
    /// As the server stored it.
    pub record: EvidenceRecord,
    enrolled: Enrolled,
    quote: VerifiedQuote,
}

impl Attester {
    /// Checks a node's record.
    ///
    /// # Errors
    /// `Untrusted` when registration and enrollment are not valid, or not of the same TPM; `Failed` when there is no
    /// enrollment.
    pub fn of(id: NodeId, record: &NodeRecord, key: &TenantKey) -> Result<Self> {
        let registration = checks::registration(id, record)?;
        let signed = record.enrollment.as_ref().ok_or_else(|| {
            Error::failed(format!("node {id} is not enrolled")).hint("`halfkey enroll NODE` enrolls it")
        })?;
        let (opened, document) = open_enrollment(signed)
            .ok()
            .filter(|(opened, _)| opened.scope == Scope::Enrollment(id))
            .ok_or_else(|| {
                Error::untrusted(format!("the enrollment that the server shows for node {id} is not valid"))
            })?;
        if document.ak_name.as_ref() != registration.ak_name()
            || document.srk_name.as_ref() != registration.srk_name()
        {
            return Err(Error::untrusted(format!(
                "the TPM keys of node {id} are not those that were enrolled"
            ))
            .hint("if its TPM was cleared, enroll it again; otherwise the record was altered"));
        }
        let bank = PcrBank::from_name(&document.bank).ok_or_else(|| {
            Error::untrusted(format!(
                "expected bank sha256 or sha384, found {}",
                clean_short(&document.bank, 16)
            ))
        })?;
        let enrolled = Enrolled::of(&registration, bank);
        Ok(Self { id, enrolled, label: document.label, mine: opened.is_by(key.public()) })
    }

    /// The node whose keys these are.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The label that it was enrolled with.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The enrolled bank.
    pub fn bank(&self) -> PcrBank {
        self.enrolled.bank()
    }

    /// The enrollment is by the tenant key of this workstation: only then it says whose quotes are the node's, and a policy by this
    /// workstation counts.
    ///
    /// # Errors
    /// `Untrusted` when it is not.
    pub fn require_mine(&self) -> Result<()> {
        if self.mine {
            return Ok(());
        }
        Err(Error::untrusted(format!(
            "node {} is enrolled by another tenant key: this workstation does not know its TPM, and a policy that it signs would not count",
            self.id
        ))
        .hint("use the workstation that enrolled it, or enroll it again from here"))
    }

    /// Fetches a boot and checks it.
    ///
    /// # Errors
    /// `Untrusted` with the check that failed; `NotFound`; as every request.
    pub fn boot(&self, client: &Client, number: u64) -> Result<Boot> {
        let record = client.evidence(number)?;
        if record.summary.id != number {
            return Err(Error::untrusted(format!(
                "asked the server for evidence {number}, and it shows {}",
                record.summary.id
            )));
        }
        self.check(record)
    }

    /// Checks a boot.
    ///
    /// # Errors
    /// `Untrusted` with the check that failed; `Failed` when it is no boot of this node.
    pub fn check(&self, record: EvidenceRecord) -> Result<Boot> {
        let (number, sent) = (record.summary.id, &record.evidence);
        let id = self.id.to_string();
        if sent.node_id != id || record.summary.node_id != id {
            return Err(Error::failed(format!(
                "evidence {number} is of node {}, not of {id}",
                clean_short(&sent.node_id, 36)
            ))
            .hint("`halfkey evidence NODE` lists what a node sent"));
        }
        if sent.purpose != Purpose::Boot.as_str() {
            return Err(Error::failed(format!(
                "evidence {number} is not of a boot: its purpose is {}",
                clean_short(&sent.purpose, 16)
            ))
            .hint("`halfkey evidence NODE` lists what a node sent"));
        }
        let quote = BoundedEvidence::read(sent)
            .and_then(|evidence| appraise::verify(&evidence, &self.enrolled))
            .and_then(|quote| quote::require_open_fence(&quote).map(drop).map(|()| quote))
            .map_err(|e| {
                Error::from(e)
                    .context(format!("evidence {number} did not pass the check of its quote here"))
                    .hint("it may be of an earlier enrollment, or altered by the server; take another boot with --boot")
            })?;
        Ok(Boot { record, enrolled: self.enrolled.clone(), quote })
    }
}

impl Boot {
    /// Number of its evidence at the verifier.
    pub fn number(&self) -> u64 {
        self.record.summary.id
    }

    /// The bank of its quote.
    pub fn bank(&self) -> PcrBank {
        self.quote.bank()
    }

    /// What the TPM signed of PCR 0 to 15.
    pub fn quote(&self) -> &VerifiedQuote {
        &self.quote
    }

    /// Appraises it, as the verifier does.
    fn appraise(&self, policy: Option<&Policy>) -> Result<Appraisal<'_>> {
        let number = self.number();
        let appraisal = BoundedEvidence::read(&self.record.evidence)
            .and_then(|evidence| appraise(&evidence, &self.enrolled, policy))
            .map_err(|e| Error::from(e).context(format!("evidence {number}")))?;
        let log = appraisal.log();
        match log.map_err(|e| Error::from(e).context(format!("the logs of evidence {number}")))? {
            Some(_) => Ok(appraisal),
            None => Err(Error::new(Exit::NotFound, format!("evidence {number} has no event log of the firmware")).hint(
                "the machine's firmware keeps none, or the verifier has trimmed it; a policy speaks of events and needs one",
            )),
        }
    }

    /// What a policy says of it.
    ///
    /// # Errors
    /// As [`Boot::log`].
    pub fn by(&self, policy: &Policy) -> Result<Evaluation> {
        let appraisal = self.appraise(Some(policy))?;
        let unjudged = || Error::untrusted(format!("evidence {} can't be judged", self.number()));
        appraisal.result().cloned().ok_or_else(unjudged)
    }

    /// Its logs, replayed to the quoted values.
    ///
    /// # Errors
    /// `Untrusted` when they don't replay; `NotFound` when the machine sent none.
    pub fn log(&self) -> Result<ProvenLog<'_>> {
        let log = self.appraise(None)?.into_log()?;
        log.ok_or_else(|| Error::new(Exit::NotFound, "no event log of the firmware"))
    }

    /// Its name: that of what the TPM quoted, whatever the server calls it.
    pub fn ticket(&self) -> BootTicket {
        BootTicket::of(&self.quote)
    }

    /// What the node said besides.
    pub fn claims(&self) -> Claims<'_> {
        Claims { command_line: self.record.evidence.command_line.as_ref().map(|text| text.as_ref()) }
    }
}

/// The last boot of a node that is as wanted; its number.
///
/// # Errors
/// `NotFound` when none of the last ones is; as every request.
pub fn last(
    client: &Client,
    id: NodeId,
    what: &str,
    wanted: impl Fn(&EvidenceSummary) -> bool,
) -> Result<u64> {
    find_last(client, id, wanted)?.ok_or_else(|| {
        Error::new(Exit::NotFound, format!("node {id} has no {what} stored"))
            .hint("`halfkey evidence NODE` lists what it sent; boot it once")
    })
}

/// The same; `None` when there is none.
///
/// # Errors
/// As every request.
pub fn find_last(
    client: &Client,
    id: NodeId,
    wanted: impl Fn(&EvidenceSummary) -> bool,
) -> Result<Option<u64>> {
    let list = client.evidence_of(id, LOOK_BACK)?;
    let boot = |entry: &&EvidenceSummary| entry.purpose == Purpose::Boot.as_str() && wanted(entry);
    Ok(list.evidence.iter().find(boot).map(|entry| entry.id))
}

/// Whether the verifier says that this boot was released.
pub fn released(entry: &EvidenceSummary) -> bool {
    entry.outcome == Outcome::Released.as_str()
}

/// When and how it was judged: a comment in what is learned from it.
pub fn origin(record: &EvidenceRecord, label: &str) -> String {
    format!(
        "evidence {} of {}, {} at {}",
        record.summary.id,
        clean_short(label, 64),
        clean(&record.summary.outcome),
        crate::render::time::rfc3339(record.summary.at)
    )
}
