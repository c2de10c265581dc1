//! What evidence says it is, read and within bounds, and the checks that need no policy.

use super::grant::require_enrollments;
use crate::store::{Enrollment, Node};
use halfkey_evidence::Rejection;
use halfkey_evidence::eventlog::{self, ProvenLog};
use halfkey_evidence::public::{AkPublic, SrkPublic};
use halfkey_evidence::quote::{self, QuoteContext, VerifiedQuote};
use halfkey_measure::predict::MAX_COMMAND_LINE;
use halfkey_protocol::kdf::Hash;
use halfkey_protocol::qualify::Qualifier;
use halfkey_protocol::wire::{Finish, Purpose};
use halfkey_protocol::{MAX_LOG, NodeId, Reason, VERSIONS};

/// Evidence that is within bounds.
pub struct Claim<'a> {
    /// The message.
    pub finish: &'a Finish,
    /// Whose.
    pub node: NodeId,
    /// What for.
    pub purpose: Purpose,
}

impl<'a> Claim<'a> {
    /// Reads evidence for a verdict: purpose `boot` or `enroll`.
    ///
    /// # Errors
    /// `Version`, `Malformed`, `TooLarge`.
    pub fn read(finish: &'a Finish) -> Result<Self, Rejection> {
        match Purpose::parse(&finish.purpose) {
            Some(purpose @ (Purpose::Boot | Purpose::Enroll)) => Self::within_bounds(finish, purpose),
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
    /// As [`Claim::read`].
    pub fn read_proposal(finish: &'a Finish) -> Result<Self, Rejection> {
        match Purpose::parse(&finish.purpose) {
            Some(Purpose::Propose) => Self::within_bounds(finish, Purpose::Propose),
            Some(Purpose::Boot | Purpose::Enroll | Purpose::Runtime) | None => {
                Err(Rejection::new(Reason::Malformed, "expected purpose propose"))
            }
        }
    }

    fn within_bounds(finish: &'a Finish, purpose: Purpose) -> Result<Self, Rejection> {
        let refuse = |reason, what: String| Err(Rejection::new(reason, what));
        if !VERSIONS.contains(&finish.version) {
            return refuse(
                Reason::Version,
                format!("expected one of {VERSIONS:?}, found {}", finish.version),
            );
        }
        let Some(node) = NodeId::parse(&finish.node_id) else {
            return refuse(Reason::Malformed, "expected a node id: a UUID in lower case".into());
        };
        let (hpke_public, nonce_tpm, r_sha256) = match purpose {
            Purpose::Boot => (32, 16..=64, 32),
            Purpose::Propose => (0, 0..=0, 32),
            Purpose::Enroll => (32, 0..=0, 64),
            Purpose::Runtime => (32, 0..=0, 0),
        };
        for (name, len, allowed) in [
            ("hpke_public", finish.hpke_public.len(), hpke_public..=hpke_public),
            ("nonce_tpm", finish.nonce_tpm.len(), nonce_tpm),
            ("r_sha256", finish.r_sha256.len(), r_sha256..=r_sha256),
            ("pcrs", finish.pcrs.len(), 16..=16),
            ("agent", finish.agent.len(), 0..=64),
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
            ("quote", finish.quote.len(), 2048),
            ("signature", finish.signature.len(), 2048),
            ("nonce", finish.nonce.len(), 128),
            ("bank", finish.bank.len(), 16),
            ("pcrs", finish.pcrs.iter().map(|pcr| pcr.len()).max().unwrap_or(0), 64),
            ("event_log", length(&finish.event_log), MAX_LOG),
            ("userspace_log", length(&finish.userspace_log), MAX_LOG),
            ("ima_log", length(&finish.ima_log), MAX_LOG),
            ("command_line", length(&finish.command_line), MAX_COMMAND_LINE),
        ] {
            if len > limit {
                return refuse(
                    Reason::TooLarge,
                    format!("expected at most {limit} bytes in {name}, found {len}"),
                );
            }
        }
        Ok(Self { finish, node, purpose })
    }

    /// The enrollment that serves this purpose.
    ///
    /// # Errors
    /// `RolledBack` (the rows are not what the sequence says), `NotEnrolled`, `EnrollmentOpen`, `EnrollmentUsed`.
    pub fn enrollment(purpose: Purpose, node: &Node) -> Result<&Enrollment, Rejection> {
        // One that is still there is right. That another is not keeps nobody from enrolling the node again.
        if purpose != Purpose::Enroll || node.open.is_none() {
            require_enrollments(node)?;
        }
        let found = match purpose {
            Purpose::Enroll => match (&node.open, &node.current) {
                (Some(open), _) => Ok(open),
                (None, Some(_)) => Err(Reason::EnrollmentUsed),
                (None, None) => Err(Reason::NotEnrolled),
            },
            Purpose::Boot | Purpose::Runtime | Purpose::Propose => match (&node.current, &node.open) {
                (Some(current), _) => Ok(current),
                (None, Some(_)) => Err(Reason::EnrollmentOpen),
                (None, None) => Err(Reason::NotEnrolled),
            },
        };
        found.map_err(|reason| Rejection::new(reason, format!("node {}", node.id)))
    }

    /// The bank that is quoted for this purpose. A proposal shows the fence, and what that became is known for the
    /// SHA-256 bank.
    pub fn bank(purpose: Purpose, enrollment: &Enrollment) -> Hash {
        match purpose {
            Purpose::Propose => Hash::Sha256,
            Purpose::Boot | Purpose::Enroll | Purpose::Runtime => enrollment.bank,
        }
    }

    /// Checks the quote.
    ///
    /// # Errors
    /// Those of [`quote::verify`].
    pub fn quote(&self, enrollment: &Enrollment) -> Result<VerifiedQuote, Rejection> {
        let finish = self.finish;
        let ak = AkPublic::parse(&enrollment.registration.ak_public)?;
        let srk = SrkPublic::parse(&enrollment.registration.srk_public)?;
        let qualifier = Qualifier {
            version: finish.version,
            node: &self.node.0,
            purpose: self.purpose,
            nonce: &finish.nonce,
            hpke_public: &finish.hpke_public,
            nonce_tpm: &finish.nonce_tpm,
            srk_name: srk.name(),
            r_sha256: &finish.r_sha256,
        };
        let context = QuoteContext { ak: &ak, qualifier, bank: Self::bank(self.purpose, enrollment) };
        quote::verify(&context, finish)
    }

    /// What the kernel says its command line is.
    pub fn command_line(&self) -> Option<&'a [u8]> {
        self.finish.command_line.as_ref().map(|text| text.as_ref())
    }

    /// The firmware's log, replayed to the quote; none if the machine has none to show.
    ///
    /// # Errors
    /// `LogMalformed`, `LogReplay`.
    pub fn log(&self, quote: &VerifiedQuote) -> Result<Option<ProvenLog<'a>>, Rejection> {
        let finish: &'a Finish = self.finish;
        let Some(log) = &finish.event_log else { return Ok(None) };
        let userspace = finish.userspace_log.as_ref().map(|log| log.as_ref());
        eventlog::replay(log, quote.bank())?.explain(quote, userspace).map(Some)
    }
}
