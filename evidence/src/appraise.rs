//! The appraisal of evidence (RFC 9334): what a node sent, read and within bounds; what its TPM vouches for; what a policy says of that.
//!
//! [`appraise`] is the one function that judges a boot, whoever asks: the verifier when it comes in, and again when a policy has changed;
//! the operator's command when it looks at a stored one, tries a policy on it or learns from it. Nonce, counters, revocation and
//! approvals are for those who keep them.
//!
//! | type | proves |
//! | --- | --- |
//! | [`Evidence`] | nothing: a message within bounds |
//! | [`VerifiedQuote`] | the enrolled TPM signed these PCR values for this exchange |
//! | [`Appraisal`] | and the logs of the same evidence were held against this very quote |
//! | [`AttestedBoot`] | and they replay to it, and PCR 15 was zero |

use crate::Rejection;
use crate::eventlog::{self, AssumedLog, ProvenLog};
use crate::policy::{Claims, Evaluation, Finding, Policy, evaluate};
use crate::public::{AkPublic, SrkPublic};
use crate::quote::{self, QuoteContext, VerifiedQuote};
use crate::registration::CheckedRegistration;
use halfkey_measure::predict::MAX_COMMAND_LINE;
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::tpm::qualifying_data::QualifyingData;
use halfkey_protocol::wire::{Evidence, Purpose};
use halfkey_protocol::{MAX_LOG, NodeId, Reason, VERSIONS};

/// Evidence that is within bounds.
pub struct BoundedEvidence<'a> {
    /// The message, as the node sent it.
    pub sent: &'a Evidence,
    /// The node that it says it is of; the quote has to prove it.
    pub node: NodeId,
    /// The purpose that it names; the quote has to prove it.
    pub purpose: Purpose,
}

impl<'a> BoundedEvidence<'a> {
    /// Reads evidence for a verdict: purpose `boot` or `enroll`.
    ///
    /// # Errors
    /// `Version`, `Malformed`, `TooLarge`.
    pub fn read(sent: &'a Evidence) -> Result<Self, Rejection> {
        match Purpose::parse(&sent.purpose) {
            Some(purpose @ (Purpose::Boot | Purpose::Enroll)) => Self::within_bounds(sent, purpose),
            Some(Purpose::Runtime) => {
                Err(Rejection::new(Reason::Malformed, "purpose runtime is not served by this version"))
            }
            Some(Purpose::Propose) | None => {
                Err(Rejection::new(Reason::Malformed, "expected purpose boot or enroll"))
            }
        }
    }

    /// Reads evidence that comes with a proposal.
    ///
    /// # Errors
    /// As [`BoundedEvidence::read`].
    pub fn read_proposal(sent: &'a Evidence) -> Result<Self, Rejection> {
        match Purpose::parse(&sent.purpose) {
            Some(Purpose::Propose) => Self::within_bounds(sent, Purpose::Propose),
            Some(Purpose::Boot | Purpose::Enroll | Purpose::Runtime) | None => {
                Err(Rejection::new(Reason::Malformed, "expected purpose propose"))
            }
        }
    }

    fn within_bounds(sent: &'a Evidence, purpose: Purpose) -> Result<Self, Rejection> {
        let refuse = |reason, what: String| Err(Rejection::new(reason, what));
        if !VERSIONS.contains(&sent.version) {
            return refuse(Reason::Version, format!("expected one of {VERSIONS:?}, found {}", sent.version));
        }
        let Some(node) = NodeId::parse(&sent.node_id) else {
            return refuse(Reason::Malformed, "expected a node id: a UUID in lower case".into());
        };
        let (hpke_public, nonce_tpm, purpose_data) = match purpose {
            Purpose::Boot => (32, 16..=64, 32),
            Purpose::Propose => (0, 0..=0, 32),
            Purpose::Enroll => (32, 0..=0, 64),
            Purpose::Runtime => (32, 0..=0, 0),
        };
        for (name, len, allowed) in [
            ("hpke_public", sent.hpke_public.len(), hpke_public..=hpke_public),
            ("nonce_tpm", sent.nonce_tpm.len(), nonce_tpm),
            ("purpose_data", sent.purpose_data.len(), purpose_data..=purpose_data),
            ("pcrs", sent.pcrs.len(), 16..=16),
            ("agent", sent.agent.len(), 0..=64),
        ] {
            if !allowed.contains(&len) {
                let what = format!(
                    "expected {} to {} bytes or items in {name}, found {len}",
                    allowed.start(),
                    allowed.end()
                );
                return refuse(Reason::Malformed, what);
            }
        }
        let length = |log: &Option<halfkey_protocol::Bytes>| log.as_ref().map_or(0, |log| log.len());
        for (name, len, limit) in [
            ("quote", sent.quote.len(), 2048),
            ("signature", sent.signature.len(), 2048),
            ("nonce", sent.nonce.len(), 128),
            ("bank", sent.bank.len(), 16),
            ("pcrs", sent.pcrs.iter().map(|pcr| pcr.len()).max().unwrap_or(0), 64),
            ("event_log", length(&sent.event_log), MAX_LOG),
            ("systemd_log", length(&sent.systemd_log), MAX_LOG),
            ("ima_log", length(&sent.ima_log), MAX_LOG),
            ("command_line", length(&sent.command_line), MAX_COMMAND_LINE),
        ] {
            if len > limit {
                return refuse(
                    Reason::TooLarge,
                    format!("expected at most {limit} bytes in {name}, found {len}"),
                );
            }
        }
        Ok(Self { sent, node, purpose })
    }

    /// What the node says besides.
    pub fn claims(&self) -> Claims<'a> {
        let sent: &'a Evidence = self.sent;
        Claims { command_line: sent.command_line.as_ref().map(|text| text.as_ref()) }
    }

    /// The firmware's log, replayed to the quote; none if the machine has none to show.
    fn log(&self, quote: &VerifiedQuote) -> Result<Option<ProvenLog<'a>>, Rejection> {
        let sent: &'a Evidence = self.sent;
        let Some(log) = &sent.event_log else { return Ok(None) };
        let systemd = sent.systemd_log.as_ref().map(|log| log.as_ref());
        eventlog::replay(log, quote.bank())?.explain(quote, systemd).map(Some)
    }
}

/// What an enrollment says of the TPM that evidence must be of.
#[derive(Clone, Debug)]
pub struct Enrolled {
    ak: AkPublic,
    srk_name: Vec<u8>,
    bank: PcrBank,
}

impl Enrolled {
    /// From the public areas (`TPMT_PUBLIC`) that were registered, and the bank that is to be quoted.
    ///
    /// # Errors
    /// `AkTemplate`, `SrkTemplate`.
    pub fn parse(ak: &[u8], srk: &[u8], bank: PcrBank) -> Result<Self, Rejection> {
        let (ak, srk) = (AkPublic::parse(ak)?, SrkPublic::parse(srk)?);
        Ok(Self { ak, srk_name: srk.name().to_vec(), bank })
    }

    /// From a registration that was checked.
    pub fn of(registration: &CheckedRegistration, bank: PcrBank) -> Self {
        Self { ak: registration.ak().clone(), srk_name: registration.srk_name().to_vec(), bank }
    }

    /// The bank that is to be quoted.
    pub fn bank(&self) -> PcrBank {
        self.bank
    }
}

/// Checks the quote of evidence, whatever it is for.
///
/// # Errors
/// Those of [`quote::verify`].
pub fn verify(evidence: &BoundedEvidence<'_>, enrolled: &Enrolled) -> Result<VerifiedQuote, Rejection> {
    let sent = evidence.sent;
    let qualifying_data = QualifyingData {
        version: sent.version,
        node: &evidence.node.0,
        purpose: evidence.purpose,
        nonce: &sent.nonce,
        hpke_public: &sent.hpke_public,
        nonce_tpm: &sent.nonce_tpm,
        srk_name: &enrolled.srk_name,
        purpose_data: &sent.purpose_data,
    };
    quote::verify(&QuoteContext { ak: &enrolled.ak, qualifying_data, bank: enrolled.bank }, sent)
}

/// Evidence whose quote is genuine, and of which nothing else was looked at. Made by [`QuotedEvidence::of`] only, so that quote and logs
/// are of the same message.
pub struct QuotedEvidence<'e, 'a> {
    evidence: &'e BoundedEvidence<'a>,
    quote: VerifiedQuote,
}

/// Evidence of a boot whose quote is genuine, with what came of its logs and of a policy. Made by [`appraise`] only, so that quote, logs
/// and result are of the same evidence.
#[derive(Clone, Debug)]
pub struct Appraisal<'a> {
    quote: VerifiedQuote,
    log: Result<Option<Box<ProvenLog<'a>>>, Rejection>,
    result: Option<Evaluation>,
}

/// Appraises the evidence of a boot, by a policy if there is one.
///
/// # Errors
/// `Malformed` (it is for another purpose), and those of [`quote::verify`]: then nothing that the message says is of the node. What
/// is wrong with its logs is part of the result.
pub fn appraise<'a>(
    evidence: &BoundedEvidence<'a>,
    enrolled: &Enrolled,
    policy: Option<&Policy>,
) -> Result<Appraisal<'a>, Rejection> {
    QuotedEvidence::of(evidence, enrolled)?.appraise(policy)
}

impl<'e, 'a> QuotedEvidence<'e, 'a> {
    /// Checks the quote. Whoever serves many looks at the logs only of those whom it serves.
    ///
    /// # Errors
    /// Those of [`quote::verify`].
    pub fn of(evidence: &'e BoundedEvidence<'a>, enrolled: &Enrolled) -> Result<Self, Rejection> {
        Ok(Self { evidence, quote: verify(evidence, enrolled)? })
    }

    /// What the TPM signed.
    pub fn quote(&self) -> &VerifiedQuote {
        &self.quote
    }

    /// As [`appraise`], with the quote that was checked.
    ///
    /// # Errors
    /// `Malformed`.
    pub fn appraise(self, policy: Option<&Policy>) -> Result<Appraisal<'a>, Rejection> {
        let Self { evidence, quote } = self;
        match quote.committed().purpose {
            Purpose::Boot => {}
            // Nothing is decided for these by what was booted.
            purpose @ (Purpose::Enroll | Purpose::Runtime | Purpose::Propose) => {
                let what = format!("expected purpose boot, found {}", purpose.as_str());
                return Err(Rejection::new(Reason::Malformed, what));
            }
        }
        let log = evidence.log(&quote).map(|log| log.map(Box::new));
        let result = match (&log, policy) {
            (Ok(Some(log)), Some(policy)) => Some(evaluate(policy, log, &evidence.claims())),
            // Without a log there is nothing that a policy could allow.
            (Ok(None), Some(_)) => Some(Evaluation { boot: None, findings: vec![no_log("none")] }),
            (Ok(_), None) | (Err(_), _) => None,
        };
        Ok(Appraisal { quote, log, result })
    }

    /// The quote alone, for what no log is needed for.
    pub fn into_quote(self) -> VerifiedQuote {
        self.quote
    }
}

/// Tries a policy on a log that nobody vouches for. Nothing may be released for what it says.
pub fn assume(log: &AssumedLog<'_>, claims: &Claims<'_>, policy: &Policy) -> Evaluation {
    evaluate(policy, log, claims)
}

/// Of a boot whose event log is not there.
pub fn no_log(found: &str) -> Finding {
    Finding {
        pcr: None,
        event: None,
        what: "event log".to_owned(),
        rule: "each boot".to_owned(),
        expected: "the firmware's log".to_owned(),
        found: found.to_owned(),
        hint: None,
    }
}

impl<'a> Appraisal<'a> {
    /// What the TPM signed.
    pub fn quote(&self) -> &VerifiedQuote {
        &self.quote
    }

    /// The logs, replayed to the quote; none if the machine sent none.
    ///
    /// # Errors
    /// `LogMalformed`, `LogReplay`, `TooLarge`.
    pub fn log(&self) -> Result<Option<&ProvenLog<'a>>, Rejection> {
        self.log.as_ref().map(Option::as_deref).map_err(Clone::clone)
    }

    /// The logs alone, as [`Appraisal::log`].
    ///
    /// # Errors
    /// As there.
    pub fn into_log(self) -> Result<Option<ProvenLog<'a>>, Rejection> {
        self.log.map(|log| log.map(|log| *log))
    }

    /// What the policy says; none without a policy, or if the logs don't replay.
    pub fn result(&self) -> Option<&Evaluation> {
        self.result.as_ref()
    }

    /// The boot, if its logs replay and its fence is open.
    ///
    /// # Errors
    /// `LogMalformed`, `LogReplay`, `TooLarge`; `FenceExtended`.
    pub fn attested(&self) -> Result<AttestedBoot<'_>, Rejection> {
        let log = self.log()?;
        quote::require_open_fence(&self.quote)?;
        Ok(AttestedBoot { quote: &self.quote, log, result: self.result.as_ref() })
    }
}

/// Proof: the TPM signed these PCRs for this exchange with PCR 15 at zero, and the logs, if the machine has any, replay to just
/// this quote.
#[derive(Clone, Copy, Debug)]
pub struct AttestedBoot<'b> {
    quote: &'b VerifiedQuote,
    log: Option<&'b ProvenLog<'b>>,
    result: Option<&'b Evaluation>,
}

impl<'b> AttestedBoot<'b> {
    /// What the TPM signed.
    pub fn quote(&self) -> &'b VerifiedQuote {
        self.quote
    }

    /// What replays to it; none if the machine sent no log.
    pub fn log(&self) -> Option<&'b ProvenLog<'b>> {
        self.log
    }

    /// The policy allows it: by its log, and by which of its boots.
    pub fn allowed(&self) -> Option<&'b Evaluation> {
        self.result.filter(|result| self.log.is_some() && result.accepted())
    }
}
