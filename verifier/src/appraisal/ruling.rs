//! What was decided about a piece of evidence.

use super::checks::counters;
use super::{BootRelease, EnrollRelease};
use crate::domain::{Counters, NewPending};
use halfkey_evidence::Rejection;
use halfkey_evidence::quote::VerifiedQuote;
use halfkey_protocol::Reason;
use halfkey_protocol::wire::policies::Finding;
use halfkey_protocol::wire::{Outcome, Verdict};

/// What is to be recorded about a piece of evidence, and answered.
#[derive(Clone, Debug)]
pub struct Ruling {
    /// Which enrollment the counters, and what was fetched, belong to.
    pub enrollment_id: String,
    /// What the quote says; none if it is not by the node's AK and for this exchange.
    pub quoted: Option<Quoted>,
    /// What the policy does not allow.
    pub findings: Vec<Finding>,
    /// The decision.
    pub decided: Decided,
}

/// What a quote says besides the PCRs.
#[derive(Clone, Copy, Debug)]
pub struct Quoted {
    /// Its counters.
    pub counters: Counters,
    /// They are newer than those before, and become the ones to beat.
    pub newer: bool,
    /// Version of the TPM's firmware.
    pub tpm_firmware: u64,
}

impl Quoted {
    /// Of a quote whose counters were not looked at yet.
    pub fn of(quote: &VerifiedQuote) -> Self {
        Self { counters: counters(quote), newer: false, tpm_firmware: quote.firmware_version() }
    }
}

/// A decision. Only a grant makes a release.
#[derive(Clone, Debug)]
pub enum Decided {
    /// To a boot.
    Released {
        /// What goes out.
        release: BootRelease,
        /// Proposals that this boot is of.
        booted: Vec<u64>,
    },
    /// To an enrollment.
    Enrolled(EnrollRelease),
    /// An operator may change something: the node asks again.
    Pending {
        /// Why not now.
        because: Rejection,
        /// What the operator is shown.
        waiting: NewPending,
    },
    /// No.
    Denied {
        /// Why not.
        because: Rejection,
        /// What an operator is shown who may approve it all the same.
        waiting: Option<NewPending>,
    },
}

impl Decided {
    /// No, whatever an operator says.
    pub fn denied(because: Rejection) -> Self {
        Self::Denied { because, waiting: None }
    }

    /// In one word.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Released { .. } | Self::Enrolled(_) => Outcome::Released,
            Self::Pending { .. } => Outcome::Pending,
            Self::Denied { .. } => Outcome::Denied,
        }
    }

    /// Why it was not released.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Released { .. } | Self::Enrolled(_) => None,
            Self::Pending { because, .. } | Self::Denied { because, .. } => Some(because.reason),
        }
    }

    /// What is to be done about that.
    fn hint(&self) -> Option<&str> {
        match self {
            Self::Released { .. } | Self::Enrolled(_) => None,
            Self::Pending { because, .. } | Self::Denied { because, .. } => because.advice(),
        }
    }

    /// The same for people.
    pub fn message(&self) -> String {
        match self {
            Self::Released { release, .. } => release.message.clone(),
            Self::Enrolled(_) => "released".to_owned(),
            Self::Pending { because, .. } | Self::Denied { because, .. } => because.to_string(),
        }
    }

    /// What waits for an operator.
    pub fn waiting(&self) -> Option<&NewPending> {
        match self {
            Self::Released { .. } | Self::Enrolled(_) => None,
            Self::Pending { waiting, .. } => Some(waiting),
            Self::Denied { waiting, .. } => waiting.as_ref(),
        }
    }
}

impl Ruling {
    /// The answer, with the number that the evidence was recorded under.
    pub fn verdict(&self, evidence_id: u64) -> Verdict {
        let reason = self.decided.reason();
        let blank = Verdict {
            outcome: self.decided.outcome().as_str().to_owned(),
            code: reason.map(|reason| reason.code().to_owned()),
            message: self.decided.message(),
            hint: self.decided.hint().map(str::to_owned),
            evidence_id: Some(evidence_id),
            ticket: None,
            sealed: None,
            release_signature: None,
            enrollment: None,
        };
        match &self.decided {
            Decided::Released { release, .. } => Verdict {
                sealed: Some(release.sealed.clone()),
                release_signature: Some(release.signature.clone()),
                ..blank
            },
            Decided::Enrolled(release) => Verdict {
                sealed: Some(release.sealed.clone()),
                enrollment: Some(release.enrollment.clone()),
                ..blank
            },
            Decided::Pending { waiting, .. } => Verdict { ticket: Some(waiting.ticket.clone()), ..blank },
            // An operator may approve it; but the passphrase prompt has to appear at once.
            Decided::Denied { .. } => blank,
        }
    }
}
