//! Which enrollment evidence is checked by, and the checks that need no policy.

use super::grant::require_enrollments;
use crate::store::{Enrollment, Node};
use halfkey_evidence::Rejection;
use halfkey_evidence::appraise::Evidence;
use halfkey_evidence::eventlog::{self, ProvenLog};
use halfkey_evidence::public::{AkPublic, SrkPublic};
use halfkey_evidence::quote::{self, QuoteContext, VerifiedQuote};
use halfkey_protocol::Reason;
use halfkey_protocol::kdf::Hash;
use halfkey_protocol::qualify::Qualifier;
use halfkey_protocol::wire::{Finish, Purpose};

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
pub fn verify(evidence: &Evidence<'_>, enrollment: &Enrollment) -> Result<VerifiedQuote, Rejection> {
    let finish = evidence.finish;
    let ak = AkPublic::parse(&enrollment.registration.ak_public)?;
    let srk = SrkPublic::parse(&enrollment.registration.srk_public)?;
    let qualifier = Qualifier {
        version: finish.version,
        node: &evidence.node.0,
        purpose: evidence.purpose,
        nonce: &finish.nonce,
        hpke_public: &finish.hpke_public,
        nonce_tpm: &finish.nonce_tpm,
        srk_name: srk.name(),
        r_sha256: &finish.r_sha256,
    };
    let context = QuoteContext { ak: &ak, qualifier, bank: bank(evidence.purpose, enrollment) };
    quote::verify(&context, finish)
}

/// The firmware's log, replayed to the quote; none if the machine has none to show.
///
/// # Errors
/// `LogMalformed`, `LogReplay`.
pub fn log<'a>(evidence: &Evidence<'a>, quote: &VerifiedQuote) -> Result<Option<ProvenLog<'a>>, Rejection> {
    let finish: &'a Finish = evidence.finish;
    let Some(log) = &finish.event_log else { return Ok(None) };
    let userspace = finish.userspace_log.as_ref().map(|log| log.as_ref());
    eventlog::replay(log, quote.bank())?.explain(quote, userspace).map(Some)
}
