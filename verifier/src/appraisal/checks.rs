//! What is checked of every quote, whatever it is for.

use super::enrolled::{self, bank, enrollment};
use crate::domain::{Counters, Enrollment, Node};
use crate::keys::ClusterKey;
use crate::nonce::{self, Scope};
use halfkey_evidence::Rejection;
use halfkey_evidence::appraise::{self, BoundedEvidence};
use halfkey_evidence::quote::VerifiedQuote;
use halfkey_protocol::Reason;
use halfkey_protocol::wire::Purpose;

/// Nonce, signature, magic and type, qualifying data, pcrSelect, PCR digest, bank.
///
/// # Errors
/// `NonceForeign`, `NonceExpired`, and those of [`appraise::verify`].
pub fn check_quote(
    evidence: &BoundedEvidence<'_>,
    enrollment: &Enrollment,
    cluster: &ClusterKey,
    lifetime: u64,
    now: u64,
) -> Result<VerifiedQuote, Rejection> {
    check_nonce(evidence, enrollment, cluster, lifetime, now)?;
    appraise::verify(evidence, &enrolled::keys(evidence.purpose, enrollment)?)
}

/// That the nonce is ours, of this exchange, and not over.
///
/// # Errors
/// `NonceForeign`, `NonceExpired`.
pub fn check_nonce(
    evidence: &BoundedEvidence<'_>,
    enrollment: &Enrollment,
    cluster: &ClusterKey,
    lifetime: u64,
    now: u64,
) -> Result<(), Rejection> {
    let (sent, purpose) = (evidence.sent, evidence.purpose);
    let scope =
        Scope { version: sent.version, node: evidence.node, purpose, bank: bank(purpose, enrollment) };
    nonce::check(cluster, &scope, &sent.nonce, now, lifetime)
        .map_err(|reason| Rejection::new(reason, format!("of {} bytes", sent.nonce.len())))
}

/// The enrollment that the quote was checked by, if it is still the one.
///
/// # Errors
/// `Stale`, or why there is none.
pub fn same_enrollment<'a>(
    purpose: Purpose,
    node: &'a Node,
    checked: &str,
) -> Result<&'a Enrollment, Rejection> {
    let enrollment = enrollment(purpose, node)?;
    if enrollment.id == checked {
        return Ok(enrollment);
    }
    Err(Rejection::new(Reason::Stale, "the enrollment changed while the quote was checked"))
}

/// The quote is newer than the last one.
///
/// # Errors
/// `CounterRollback`, `Stale`.
pub fn require_newer(enrollment: &Enrollment, found: Counters) -> Result<(), Rejection> {
    let Some(last) = enrollment.counters else { return Ok(()) };
    if (found.reset, found.restart) < (last.reset, last.restart) {
        let what = format!(
            "expected resetCount {} and restartCount {} or later, found {} and {}",
            last.reset, last.restart, found.reset, found.restart
        );
        return Err(Rejection::new(Reason::CounterRollback, what));
    }
    if found <= last {
        let what = format!("expected a clock after {} ms, found {} ms", last.clock, found.clock);
        return Err(Rejection::new(Reason::Stale, what));
    }
    Ok(())
}

/// Of a quote.
pub fn counters(quote: &VerifiedQuote) -> Counters {
    Counters { reset: quote.reset_count(), restart: quote.restart_count(), clock: quote.clock() }
}
