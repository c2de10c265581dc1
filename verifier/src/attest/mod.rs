//! What a piece of evidence is worth.
//!
//! Two steps. [`Assessment::of`] checks what depends on nothing but the
//! message, the enrollment and the policy; it is pure and runs outside any transaction.
//! [`Assessment::rule`] goes by what the database says in the transaction that
//! records the ruling: nothing can come between looking and recording.
//!
//! The order of the checks is that of docs/protocol.md, each with its own reason.

mod claim;

pub use claim::Claim;

use crate::hex;
use crate::keys::{ClusterKey, ReleaseKey};
use crate::nonce::{self, Scope};
use crate::policies::propose::is_booted;
use crate::policies::{Effective, proposal_of, summary};
use crate::store::{Boot, Counters, Decision, Enrollment, Governing, NewPending, Ruling, Standing};
use aws_lc_rs::digest::{Context, SHA256};
use halfkey_evidence::Rejection;
use halfkey_evidence::eventlog::ExplainedLog;
use halfkey_evidence::policy::{Claims, Finding, evaluate};
use halfkey_evidence::quote::{self, VerifiedQuote};
use halfkey_protocol::hpke::Released;
use halfkey_protocol::wire::{Outcome, Purpose, Verdict};
use halfkey_protocol::{NodeId, Reason, hpke, policy as release};

/// Findings that are recorded of one boot.
const MAX_FINDINGS: usize = 100;

/// How long nonces and boots live, in seconds.
#[derive(Clone, Copy)]
pub struct Lifetimes {
    /// Between `begin` and `finish`.
    pub nonce: u64,
    /// A boot that no operator decided on.
    pub pending: u64,
}

/// Evidence with the outcome of every check that needs no database.
pub struct Assessment<'a> {
    claim: &'a Claim<'a>,
    enrollment_id: String,
    quote: Result<VerifiedQuote, Rejection>,
    logs: Result<Option<ExplainedLog<'a>>, Rejection>,
    governing: Governing,
    judgement: Judgement,
    ticket: Option<String>,
    qualifier: [u8; 32],
    expires: u64,
    now: u64,
}

/// What a policy says of a boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Nothing: there is none, and why.
    NoPolicy(String),
    /// It is allowed.
    Allowed {
        /// Scope and version of the policy.
        policy: String,
        /// Name of its boot.
        boot: Option<String>,
    },
    /// It is not.
    Against {
        /// Why, at least one.
        findings: Vec<Finding>,
        /// The same for people, with what was left out of the policy.
        message: String,
    },
}

impl Judgement {
    /// Judges a boot by its log. Without one there is nothing that a policy could allow.
    pub fn of(effective: &Effective, log: Option<&ExplainedLog>, command_line: Option<&[u8]>) -> Self {
        let rules = match &effective.rules {
            Ok(rules) => rules,
            Err(why) => return Self::NoPolicy(why.clone()),
        };
        let mut findings = match log {
            Some(log) => {
                let evaluation = evaluate(&rules.policy, log, &Claims { command_line });
                if evaluation.accepted() {
                    return Self::Allowed { policy: rules.name.clone(), boot: evaluation.boot };
                }
                evaluation.findings
            }
            None => vec![Finding {
                pcr: None,
                event: None,
                what: "event log".to_owned(),
                rule: "each boot".to_owned(),
                expected: "the firmware's log".to_owned(),
                found: "none".to_owned(),
            }],
        };
        let mut message = format!("{}: {}", rules.name, summary(&findings));
        for note in &rules.notes {
            message.push_str("; left out: ");
            message.push_str(note);
        }
        findings.truncate(MAX_FINDINGS);
        Self::Against { findings, message }
    }
}

impl<'a> Assessment<'a> {
    /// Checks evidence against an enrollment and a policy.
    pub fn of(
        claim: &'a Claim<'a>,
        enrollment: &Enrollment,
        effective: &Effective,
        cluster: &ClusterKey,
        lifetimes: Lifetimes,
        now: u64,
    ) -> Self {
        let (quote, qualifier) = match check_quote(claim, enrollment, cluster, lifetimes.nonce, now) {
            Ok((quote, qualifier)) => (Ok(quote), qualifier),
            Err(rejection) => (Err(rejection), [0; 32]),
        };
        let logs = match (&quote, claim.purpose) {
            (Ok(quote), Purpose::Boot) => claim.log(quote),
            _ => Ok(None),
        };
        let judgement = match &logs {
            Ok(log) if claim.purpose == Purpose::Boot && quote.is_ok() => {
                let command_line = claim.finish.command_line.as_ref().map(|text| text.as_ref());
                Judgement::of(effective, log.as_ref(), command_line)
            }
            _ => Judgement::NoPolicy(String::new()),
        };
        Self {
            ticket: quote.as_ref().ok().map(|quote| ticket(claim.node, quote)),
            expires: now.saturating_add(lifetimes.pending),
            enrollment_id: enrollment.id.clone(),
            governing: effective.governing.clone(),
            claim,
            quote,
            logs,
            judgement,
            qualifier,
            now,
        }
    }

    /// Whether the quote is by the node's AK and for this exchange.
    pub fn authentic(&self) -> bool {
        self.quote.is_ok()
    }

    /// Names this boot: node, bank, PCR digest, resetCount, restartCount.
    pub fn ticket(&self) -> Option<&str> {
        self.ticket.as_deref()
    }

    /// Decides, by what the database says.
    pub fn rule(&self, standing: &Standing, key: &ReleaseKey) -> Ruling {
        let mut ruling = self.blank();
        if let Err(rejection) = self.decide(standing, key, &mut ruling) {
            let verdict = &mut ruling.verdict;
            verdict.code = Some(rejection.reason.code().to_owned());
            verdict.message = rejection.to_string();
            verdict.hint = hint(rejection.reason).map(str::to_owned);
            // Nothing was released: an approval is not used up, C_U not fetched.
            (ruling.used_approval, ruling.fetched_by, ruling.expected_fence) = (None, None, None);
        }
        ruling
    }

    fn decide(&self, standing: &Standing, key: &ReleaseKey, ruling: &mut Ruling) -> Result<(), Rejection> {
        let refuse = |reason, what: String| Err(Rejection::new(reason, what));
        let node = &standing.node;
        // Nonce, signature, magic and type, qualifying data, pcrSelect, PCR digest, bank.
        let quote = self.quote.as_ref().map_err(Clone::clone)?;
        let ticket = self.ticket.as_deref().expect("a verified quote has a ticket");
        let enrollment = same_enrollment(self.claim.purpose, node, &self.enrollment_id)?;
        ruling.authentic = true;
        let found = counters(quote);
        ruling.quoted = Some(found);
        if let Err(rejection) = require_newer(enrollment, found) {
            if rejection.reason == Reason::CounterRollback {
                self.wait_for_operator(ruling, ticket, false);
            }
            return Err(rejection);
        }
        ruling.counters = Some(found);

        if self.claim.purpose == Purpose::Boot {
            self.logs.as_ref().map_err(Clone::clone)?;
            quote::require_open_fence(quote)?;
        }
        if let Some(because) = &node.revoked {
            return refuse(Reason::Revoked, because.clone());
        }
        match self.claim.purpose {
            Purpose::Boot => {
                self.policy(standing, ticket, ruling)?;
                self.release(enrollment, key, ruling)?;
                ruling.booted = self.booted(standing, ruling);
                Ok(())
            }
            _ => {
                if enrollment.fetched_by.as_deref().is_some_and(|first| first != ticket) {
                    let what = format!("enrollment {} was fetched in another boot", enrollment.id);
                    return refuse(Reason::EnrollmentUsed, what);
                }
                ruling.fetched_by = Some(ticket.to_owned());
                self.release(enrollment, key, ruling)
            }
        }
    }

    /// The policy, or an operator's approval of this very boot.
    fn policy(&self, standing: &Standing, ticket: &str, ruling: &mut Ruling) -> Result<(), Rejection> {
        if standing.node.governing != self.governing {
            let what = "the policy changed while the evidence was checked";
            return Err(Rejection::new(Reason::Stale, what));
        }
        let (reason, what, findings, outcome) = match &self.judgement {
            Judgement::Allowed { policy, boot } => {
                let boot = boot.as_deref();
                ruling.verdict.message = match boot {
                    Some(boot) => format!("released: boot {boot:?} of {policy}"),
                    None => format!("released: {policy}"),
                };
                ruling.boot = boot.map(str::to_owned);
                return Ok(());
            }
            // An operator may be at hand while the machine is being set up: it waits.
            Judgement::NoPolicy(why) => (Reason::NoPolicy, why, Vec::new(), Outcome::Pending),
            // The passphrase prompt has to appear at once.
            Judgement::Against { findings, message } => {
                (Reason::PolicyMismatch, message, findings.clone(), Outcome::Denied)
            }
        };
        ruling.findings = findings;
        match standing.boot.as_ref().and_then(|boot: &Boot| boot.decision.as_ref()) {
            Some(Decision::Approved { expires, used: false }) if *expires > self.now => {
                ruling.verdict.message = "released: an operator approved this boot".to_owned();
                ruling.used_approval = Some(ticket.to_owned());
                return Ok(());
            }
            Some(Decision::Denied { by, because }) => {
                return Err(Rejection::new(Reason::OperatorDenied, format!("{by}: {because}")));
            }
            _ => {}
        }
        self.wait_for_operator(ruling, ticket, true);
        if outcome == Outcome::Denied {
            ruling.verdict.outcome = outcome.as_str().to_owned();
            ruling.verdict.ticket = None;
        }
        Err(Rejection::new(reason, what.as_str()))
    }

    fn wait_for_operator(&self, ruling: &mut Ruling, ticket: &str, approvable: bool) {
        ruling.verdict.outcome = Outcome::Pending.as_str().to_owned();
        ruling.verdict.ticket = Some(ticket.to_owned());
        ruling.pending = Some(NewPending { ticket: ticket.to_owned(), approvable, expires: self.expires });
    }

    /// Proposals that this boot is of.
    fn booted(&self, standing: &Standing, ruling: &Ruling) -> Vec<u64> {
        let Ok(Some(log)) = &self.logs else { return Vec::new() };
        let of_this = standing.proposals.iter().filter(|stored| match &ruling.boot {
            Some(boot) if stored.by_trust => proposal_of(boot) == Some(stored.record.id),
            _ => is_booted(&stored.record.proposal, log),
        });
        of_this.map(|stored| stored.record.id).collect()
    }

    fn release(
        &self,
        enrollment: &Enrollment,
        key: &ReleaseKey,
        ruling: &mut Ruling,
    ) -> Result<(), Rejection> {
        let finish = self.claim.finish;
        let boot = self.claim.purpose == Purpose::Boot;
        let released =
            Released { c_v: enrollment.c_v.clone(), c_u: enrollment.c_u.clone().filter(|_| !boot) };
        let sealed = hpke::seal(&finish.hpke_public, &released, &self.qualifier)
            .ok_or_else(|| Rejection::new(Reason::Malformed, "hpke_public is no X25519 point"))?;
        let verdict = &mut ruling.verdict;
        if boot {
            let signature = key.sign_release(&finish.nonce_tpm, &self.claim.node.0);
            let signature = signature.map_err(|e| Rejection::new(Reason::Unavailable, e.to_string()))?;
            verdict.release_signature = Some(signature.into());
            ruling.expected_fence = finish.r_sha256.array().map(|r| release::fence_sha256(&r));
        } else {
            verdict.enrollment = Some(enrollment.signed.clone());
            verdict.message = "released".to_owned();
        }
        verdict.sealed = Some(sealed);
        verdict.outcome = Outcome::Released.as_str().to_owned();
        Ok(())
    }

    /// A ruling that denies.
    fn blank(&self) -> Ruling {
        Ruling {
            verdict: Verdict {
                outcome: Outcome::Denied.as_str().to_owned(),
                code: None,
                message: String::new(),
                hint: None,
                evidence_id: None,
                ticket: None,
                sealed: None,
                release_signature: None,
                enrollment: None,
            },
            enrollment_id: self.enrollment_id.clone(),
            counters: None,
            quoted: None,
            authentic: false,
            fetched_by: None,
            used_approval: None,
            pending: None,
            expected_fence: None,
            findings: Vec::new(),
            boot: None,
            booted: Vec::new(),
        }
    }
}

/// Nonce, signature, magic and type, qualifying data, pcrSelect, PCR digest, bank; gives the quote and its
/// qualifying data.
///
/// # Errors
/// `NonceForeign`, `NonceExpired`, and those of [`quote::verify`].
pub fn check_quote(
    claim: &Claim<'_>,
    enrollment: &Enrollment,
    cluster: &ClusterKey,
    lifetime: u64,
    now: u64,
) -> Result<(VerifiedQuote, [u8; 32]), Rejection> {
    let finish = claim.finish;
    let bank = Claim::bank(claim.purpose, enrollment);
    let scope = Scope { version: finish.version, node: claim.node, purpose: claim.purpose, bank };
    nonce::check(cluster, &scope, &finish.nonce, now, lifetime)
        .map_err(|reason| Rejection::new(reason, format!("of {} bytes", finish.nonce.len())))?;
    claim.quote(enrollment)
}

/// The enrollment that the quote was checked by, if it is still the one.
///
/// # Errors
/// `Stale`, or why there is none.
pub fn same_enrollment<'a>(
    purpose: Purpose,
    node: &'a crate::store::Node,
    checked: &str,
) -> Result<&'a Enrollment, Rejection> {
    match Claim::enrollment(purpose, node) {
        Ok(enrollment) if enrollment.id == checked => Ok(enrollment),
        Ok(_) => Err(Rejection::new(Reason::Stale, "the enrollment changed while the quote was checked")),
        Err(reason) => Err(Rejection::new(reason, format!("node {}", node.id))),
    }
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

fn ticket(node: NodeId, quote: &VerifiedQuote) -> String {
    let mut hash = Context::new(&SHA256);
    hash.update(&node.0);
    hash.update(&quote.bank().alg().to_be_bytes());
    hash.update(&quote.reset_count().to_be_bytes());
    hash.update(&quote.restart_count().to_be_bytes());
    hash.update(quote.pcr_digest());
    hex(&hash.finish().as_ref()[..16])
}

/// What to do about a refusal.
pub fn hint(reason: Reason) -> Option<&'static str> {
    Some(match reason {
        Reason::NoPolicy => {
            "an operator approves this boot, and makes a policy of it, with `halfkey approve NODE`"
        }
        Reason::PolicyMismatch => {
            "if the change was intended, an operator approves it with `halfkey approve NODE`; `halfkey policy explain NODE` shows each event"
        }
        Reason::CounterRollback => {
            "if the TPM or virtual machine was restored on purpose, enroll the node again"
        }
        Reason::Revoked => "an operator restores the node with `halfkey restore NODE`",
        Reason::FenceExtended => "keys are released to the initramfs only: reboot",
        Reason::EnrollmentUsed => "an operator enrolls the node again with `halfkey enroll NODE`",
        Reason::Bank => "enroll the node again with a bank that the firmware extends",
        Reason::ProposalUnattested => {
            "proposals are taken from a boot that was opened by attestation: reboot without a passphrase, then propose again"
        }
        Reason::ProposalMalformed => "update halfkey-agent: it has to be as new as the verifier",
        _ => return None,
    })
}
