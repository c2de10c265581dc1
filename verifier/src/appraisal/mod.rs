//! What a piece of evidence is worth.
//!
//! Three steps. [`AuthenticatedEvidence::of`] checks nonce and quote, which costs little: whose it is has to be known before it can be too
//! much. [`AuthenticatedEvidence::appraise`] reads the logs and judges them by the policy. Both depend on nothing but the
//! message, the enrollment and the policy; they are pure and run outside any transaction.
//! [`CheckedEvidence::rule`] goes by what the database says in the transaction that
//! records the ruling: nothing can come between looking and recording.
//!
//! The order of the checks is that of docs/protocol.md, each with its own reason. What is released
//! is made from proofs, by a [`ReleaseGrant`] or an [`EnrollGrant`], and by nothing else.

pub mod checks;
pub(crate) mod enrolled;
mod grant;
mod policy_result;
mod recorded;
mod ruling;
mod sealed;

use checks::{check_nonce, require_newer, same_enrollment};
pub use enrolled::{bank, enrollment};
pub use grant::{ApprovedBoot, BootRelease, EnrollGrant, EnrollRelease, ReleaseGrant};
pub use policy_result::PolicyResult;
pub use recorded::RecordedBoot;
pub use ruling::{Decided, Quoted, Ruling};
pub use sealed::seal;

use crate::domain::{Decision, Enrollment, NewPending, Node, NodeSnapshot};
use crate::keys::{ClusterKey, ReleaseKey};
use crate::policies::Governed;
use halfkey_evidence::Rejection;
use halfkey_evidence::appraise::{Appraisal, BoundedEvidence, QuotedEvidence};
use halfkey_evidence::eventlog::ProvenLog;
use halfkey_evidence::policy::{Finding, Matched, Origin, is_booted};
use halfkey_evidence::quote::VerifiedQuote;
use halfkey_evidence::ticket::BootTicket;
use halfkey_protocol::Reason;
use halfkey_protocol::document::Place;
use halfkey_protocol::wire::Purpose;

/// How long nonces and boots live, in seconds.
#[derive(Clone, Copy)]
pub struct Lifetimes {
    /// Between `begin` and `finish`.
    pub nonce: u64,
    /// A boot that no operator decided on.
    pub pending: u64,
}

/// Evidence with the outcome of the checks of nonce and quote.
pub struct AuthenticatedEvidence<'a> {
    quoted: Result<QuotedEvidence<'a, 'a>, Rejection>,
    enrollment_id: String,
    document: Place,
    now: u64,
}

/// Evidence with the outcome of every check that needs no database.
pub struct CheckedEvidence<'a> {
    checked: Result<Checked<'a>, Rejection>,
    enrollment_id: String,
    document: Place,
    governed: &'a Governed,
    expires: u64,
    now: u64,
}

/// A quote by the node's AK and for this exchange.
struct Checked<'a> {
    ticket: BootTicket,
    asks: Asks<'a>,
}

/// What it asks for.
enum Asks<'a> {
    /// To unlock, with what was booted.
    Boot(Box<Appraisal<'a>>),
    /// To finish an enrollment.
    Enroll(Box<VerifiedQuote>),
}

impl Asks<'_> {
    fn quote(&self) -> &VerifiedQuote {
        match self {
            Self::Boot(appraisal) => appraisal.quote(),
            Self::Enroll(quote) => quote,
        }
    }
}

impl<'a> AuthenticatedEvidence<'a> {
    /// Checks whether it is of the TPM of an enrollment, and for this exchange; `lifetime` of the nonce in seconds.
    pub fn of(
        evidence: &'a BoundedEvidence<'a>,
        enrollment: &Enrollment,
        cluster: &ClusterKey,
        lifetime: u64,
        now: u64,
    ) -> Self {
        let check = || {
            check_nonce(evidence, enrollment, cluster, lifetime, now)?;
            let keys = enrolled::keys(evidence.purpose, enrollment)?;
            QuotedEvidence::of(evidence, &keys)
        };
        Self { quoted: check(), enrollment_id: enrollment.id.clone(), document: enrollment.document, now }
    }

    /// Whether the quote is by the node's AK and for this exchange.
    pub fn authentic(&self) -> bool {
        self.quoted.is_ok()
    }

    /// Judges what it has of a boot by a policy; `pending`: how long one lives that no operator decided on, in seconds.
    pub fn appraise(self, governed: &'a Governed, pending: u64) -> CheckedEvidence<'a> {
        let checked = self.quoted.and_then(|quoted| {
            let asks = match quoted.quote().committed().purpose {
                Purpose::Boot => {
                    let policy = governed.rules.as_ref().ok().map(|rules| rules.effective.policy());
                    Asks::Boot(Box::new(quoted.appraise(policy)?))
                }
                Purpose::Enroll => Asks::Enroll(Box::new(quoted.into_quote())),
                // Nothing is released to these, whatever brought them here.
                purpose @ (Purpose::Runtime | Purpose::Propose) => {
                    let what = format!("expected purpose boot or enroll, found {}", purpose.as_str());
                    return Err(Rejection::new(Reason::Malformed, what));
                }
            };
            Ok(Checked { ticket: BootTicket::of(asks.quote()), asks })
        });
        CheckedEvidence {
            checked,
            enrollment_id: self.enrollment_id,
            document: self.document,
            governed,
            expires: self.now.saturating_add(pending),
            now: self.now,
        }
    }
}

impl<'a> CheckedEvidence<'a> {
    /// Checks evidence against an enrollment and a policy.
    pub fn of(
        evidence: &'a BoundedEvidence<'a>,
        enrollment: &Enrollment,
        governed: &'a Governed,
        cluster: &ClusterKey,
        lifetimes: Lifetimes,
        now: u64,
    ) -> Self {
        AuthenticatedEvidence::of(evidence, enrollment, cluster, lifetimes.nonce, now)
            .appraise(governed, lifetimes.pending)
    }

    /// Whether the quote is by the node's AK and for this exchange.
    pub fn authentic(&self) -> bool {
        self.checked.is_ok()
    }

    /// Whether a boot of a node as it is now would be checked by the same enrollment and the same policy.
    pub fn holds_for(&self, node: &Node) -> bool {
        let same =
            |current: &Enrollment| current.id == self.enrollment_id && current.document == self.document;
        node.damage.is_none()
            && node.current.as_ref().is_some_and(same)
            && node.governing == self.governed.governing
    }

    /// Names this boot.
    pub fn ticket(&self) -> Option<&str> {
        self.checked.as_ref().ok().map(|checked| checked.ticket.as_str())
    }

    /// Decides, by what the database says.
    pub fn rule(&self, snapshot: &NodeSnapshot, key: &ReleaseKey, cluster: &ClusterKey) -> Ruling {
        let ruling = |quoted, findings, decided| Ruling {
            enrollment_id: self.enrollment_id.clone(),
            quoted,
            findings,
            decided,
        };
        // Nonce, signature, magic and type, qualifying data, pcrSelect, PCR digest, bank.
        let checked = match &self.checked {
            Ok(checked) => checked,
            Err(because) => return ruling(None, Vec::new(), Decided::denied(because.clone())),
        };
        let purpose = checked.asks.quote().committed().purpose;
        let enrollment = match same_enrollment(purpose, &snapshot.node, &self.enrollment_id) {
            Ok(enrollment) => enrollment,
            Err(because) => return ruling(None, Vec::new(), Decided::denied(because)),
        };
        let mut quoted = Quoted::of(checked.asks.quote());
        if let Err(because) = require_newer(enrollment, quoted.counters) {
            let decided = if because.reason == Reason::CounterRollback {
                Decided::Pending { because, waiting: self.waiting(&checked.ticket, false) }
            } else {
                Decided::denied(because)
            };
            return ruling(Some(quoted), Vec::new(), decided);
        }
        quoted.newer = true;
        let (decided, findings) = match &checked.asks {
            Asks::Boot(appraisal) => self.boot(&checked.ticket, appraisal, snapshot, key, cluster),
            Asks::Enroll(quote) => {
                let granted =
                    EnrollGrant::new(&snapshot.node, quote, &checked.ticket).and_then(EnrollGrant::release);
                (granted.map_or_else(Decided::denied, Decided::Enrolled), Vec::new())
            }
        };
        ruling(Some(quoted), findings, decided)
    }

    /// Log, fence, revocation, hold; then the policy, or an operator's approval of this very boot.
    fn boot(
        &self,
        ticket: &BootTicket,
        appraisal: &Appraisal<'_>,
        snapshot: &NodeSnapshot,
        key: &ReleaseKey,
        cluster: &ClusterKey,
    ) -> (Decided, Vec<Finding>) {
        let attested = appraisal.attested().and_then(|boot| {
            self.require_standing(&snapshot.node)?;
            Ok(boot)
        });
        let boot = match attested {
            Ok(boot) => boot,
            Err(because) => return (Decided::denied(because), Vec::new()),
        };
        let release = |granted: Result<ReleaseGrant<'_>, Rejection>| match granted
            .and_then(|grant| grant.release(key, cluster))
        {
            Ok(release) => {
                let booted = booted(snapshot, release.boot(), boot.log());
                Decided::Released { release, booted }
            }
            Err(because) => Decided::denied(because),
        };
        let waiting = self.waiting(ticket, snapshot.node.damage.is_none());
        let (refused, findings) = match PolicyResult::of(self.governed, appraisal) {
            PolicyResult::Allowed { policy } => {
                return (release(ReleaseGrant::by_policy(&snapshot.node, boot, policy)), Vec::new());
            }
            // An operator may be at hand while the machine is being set up: it waits.
            PolicyResult::NoPolicy(because) => (Decided::Pending { because, waiting }, Vec::new()),
            // The passphrase prompt has to appear at once.
            PolicyResult::Against(because, findings) => {
                (Decided::Denied { because, waiting: Some(waiting) }, findings)
            }
        };
        let decided = match self.approval(snapshot, ticket) {
            Ok(Some(approved)) => release(ReleaseGrant::by_approval(&snapshot.node, boot, approved)),
            Ok(None) => refused,
            Err(because) => Decided::denied(because),
        };
        (decided, findings)
    }

    /// Neither revoked nor held, and governed by what it was judged by.
    fn require_standing(&self, node: &Node) -> Result<(), Rejection> {
        grant::require_not_revoked(node)?;
        grant::require_not_held(node)?;
        if node.governing == self.governed.governing {
            return Ok(());
        }
        Err(Rejection::new(Reason::Stale, "the policy changed while the evidence was checked"))
    }

    /// What an operator said about this very boot.
    fn approval<'t>(
        &self,
        snapshot: &NodeSnapshot,
        ticket: &'t BootTicket,
    ) -> Result<Option<ApprovedBoot<'t>>, Rejection> {
        let Some(boot) = &snapshot.boot else { return Ok(None) };
        match &boot.decision {
            Some(Decision::Approved { .. }) => Ok(ApprovedBoot::of(boot, ticket, self.now)),
            Some(Decision::Denied { by, because }) => {
                Err(Rejection::new(Reason::OperatorDenied, format!("{by}: {because}")))
            }
            None => Ok(None),
        }
    }

    fn waiting(&self, ticket: &BootTicket, approvable: bool) -> NewPending {
        NewPending { ticket: ticket.to_string(), approvable, expires: self.expires }
    }
}

/// Proposals that a released boot is of.
fn booted(snapshot: &NodeSnapshot, boot: Option<&Matched>, log: Option<&ProvenLog<'_>>) -> Vec<u64> {
    let Some(log) = log else { return Vec::new() };
    let of_this = snapshot.proposals.iter().filter(|stored| match boot {
        Some(boot) if stored.by_trust => boot.origin == Origin::Proposal(stored.record.id),
        Some(_) | None => is_booted(&stored.record.proposal, log),
    });
    of_this.map(|stored| stored.record.id).collect()
}
