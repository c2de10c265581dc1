//! What a piece of evidence is worth.
//!
//! Two steps. [`Assessment::of`] checks what depends on nothing but the
//! message and the enrollment; it is pure and runs outside any transaction.
//! [`Assessment::rule`] goes by what the database says in the transaction that
//! records the ruling: nothing can come between looking and recording.
//!
//! The order of the checks is that of docs/protocol.md, each with its own reason.

use crate::keys::{ClusterKey, ReleaseKey};
use crate::nonce::{self, Scope};
use crate::store::{Boot, Counters, Decision, Enrollment, NewPending, Node, Ruling, Standing};
use aws_lc_rs::digest::{Context, SHA256};
use halfkey_evidence::public::{AkPublic, SrkPublic};
use halfkey_evidence::quote::{self, QuoteContext, VerifiedQuote};
use halfkey_evidence::{Rejection, eventlog, policy};
use halfkey_protocol::hpke::Released;
use halfkey_protocol::qualify::Qualifier;
use halfkey_protocol::wire::operator::{EvidenceRecord, PcrDifference, Reference};
use halfkey_protocol::wire::{Finish, Outcome, Purpose, Verdict};
use halfkey_protocol::{MAX_LOG, NodeId, Reason, VERSIONS, hpke, policy as release};

/// What evidence says it is, read and within bounds.
pub struct Claim<'a> {
    /// The message.
    pub finish: &'a Finish,
    /// Whose.
    pub node: NodeId,
    /// What for.
    pub purpose: Purpose,
}

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
    logs: Result<(), Rejection>,
    ticket: Option<String>,
    qualifier: [u8; 32],
    expires: u64,
    now: u64,
}

impl<'a> Claim<'a> {
    /// Reads the message.
    ///
    /// # Errors
    /// `Version`, `Malformed`, `TooLarge`.
    pub fn read(finish: &'a Finish) -> Result<Self, Rejection> {
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
        let purpose = match Purpose::parse(&finish.purpose) {
            Some(Purpose::Runtime | Purpose::Propose) => {
                return refuse(Reason::Malformed, "purpose runtime is not served by this version".into());
            }
            Some(purpose) => purpose,
            None => return refuse(Reason::Malformed, "expected purpose boot or enroll".into()),
        };
        let session = match purpose {
            Purpose::Boot => (16..=64, 32),
            _ => (0..=0, 0),
        };
        for (name, len, allowed) in [
            ("hpke_public", finish.hpke_public.len(), 32..=32),
            ("nonce_tpm", finish.nonce_tpm.len(), session.0),
            ("r_sha256", finish.r_sha256.len(), session.1..=session.1),
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
        for (name, len, limit) in [
            ("quote", finish.quote.len(), 2048),
            ("signature", finish.signature.len(), 2048),
            ("nonce", finish.nonce.len(), 128),
            ("bank", finish.bank.len(), 16),
            ("pcrs", finish.pcrs.iter().map(|pcr| pcr.len()).max().unwrap_or(0), 64),
            ("event_log", finish.event_log.as_ref().map_or(0, |log| log.len()), MAX_LOG),
            ("userspace_log", finish.userspace_log.as_ref().map_or(0, |log| log.len()), MAX_LOG),
            ("ima_log", finish.ima_log.as_ref().map_or(0, |log| log.len()), MAX_LOG),
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
    /// `NotEnrolled`, `EnrollmentOpen`, `EnrollmentUsed`.
    pub fn enrollment(purpose: Purpose, node: &Node) -> Result<&Enrollment, Reason> {
        match (purpose, &node.open, &node.current) {
            (Purpose::Enroll, Some(open), _) => Ok(open),
            (Purpose::Enroll, None, Some(_)) => Err(Reason::EnrollmentUsed),
            (_, _, Some(current)) => Ok(current),
            (_, Some(_), None) => Err(Reason::EnrollmentOpen),
            (_, None, None) => Err(Reason::NotEnrolled),
        }
    }
}

impl<'a> Assessment<'a> {
    /// Checks evidence against an enrollment.
    pub fn of(
        claim: &'a Claim<'a>,
        enrollment: &Enrollment,
        cluster: &ClusterKey,
        lifetimes: Lifetimes,
        now: u64,
    ) -> Self {
        let finish = claim.finish;
        let scope = Scope {
            version: finish.version,
            node: claim.node,
            purpose: claim.purpose,
            bank: enrollment.bank,
        };
        let fresh = nonce::check(cluster, &scope, &finish.nonce, now, lifetimes.nonce)
            .map_err(|reason| Rejection::new(reason, format!("of {} bytes", finish.nonce.len())));
        let (quote, qualifier) = match fresh.and_then(|()| check_quote(claim, enrollment)) {
            Ok((quote, qualifier)) => (Ok(quote), qualifier),
            Err(rejection) => (Err(rejection), [0; 32]),
        };
        let logs = match (&quote, claim.purpose) {
            (Ok(quote), Purpose::Boot) => check_logs(quote, finish),
            _ => Ok(()),
        };
        let ticket = quote.as_ref().ok().map(|quote| ticket(claim.node, quote));
        let expires = now.saturating_add(lifetimes.pending);
        Self { claim, enrollment_id: enrollment.id.clone(), quote, logs, ticket, qualifier, expires, now }
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
        let enrollment = match Claim::enrollment(self.claim.purpose, node) {
            Ok(enrollment) if enrollment.id == self.enrollment_id => enrollment,
            Ok(_) => {
                return refuse(Reason::Stale, "the enrollment changed while the quote was checked".into());
            }
            Err(reason) => return refuse(reason, format!("node {}", node.id)),
        };
        ruling.authentic = true;
        let found = counters(quote);
        ruling.quoted = Some(found);

        if let Some(last) = enrollment.counters {
            if (found.reset, found.restart) < (last.reset, last.restart) {
                self.wait_for_operator(ruling, ticket, false);
                let what = format!(
                    "expected resetCount {} and restartCount {} or later, found {} and {}",
                    last.reset, last.restart, found.reset, found.restart
                );
                return refuse(Reason::CounterRollback, what);
            }
            if found <= last {
                let what = format!("expected a clock after {} ms, found {} ms", last.clock, found.clock);
                return refuse(Reason::Stale, what);
            }
        }
        ruling.counters = Some(found);

        if self.claim.purpose == Purpose::Boot {
            self.logs.clone()?;
            quote::require_open_fence(quote)?;
        }
        if let Some(because) = &node.revoked {
            return refuse(Reason::Revoked, because.clone());
        }
        match self.claim.purpose {
            Purpose::Boot => {
                self.policy(standing, quote, ticket, ruling)?;
                self.release(enrollment, key, ruling)
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

    /// Reference values, or an operator's approval of this very boot.
    fn policy(
        &self,
        standing: &Standing,
        quote: &VerifiedQuote,
        ticket: &str,
        ruling: &mut Ruling,
    ) -> Result<(), Rejection> {
        let (reason, differing, outcome) = match &standing.node.reference {
            // An operator may be at hand while the machine is being set up: it waits.
            None => (Reason::NoReference, policy::all_new(quote), Outcome::Pending),
            Some(reference) => match policy::compare(quote, reference) {
                same if same.is_empty() => return Ok(()),
                // The passphrase prompt has to appear at once.
                differing => (Reason::PolicyMismatch, differing, Outcome::Denied),
            },
        };
        let what = match reason {
            Reason::NoReference => "the node waits for an operator".to_owned(),
            _ => describe(&differing),
        };
        ruling.differing = differing;
        match standing.boot.as_ref().and_then(|boot: &Boot| boot.decision.as_ref()) {
            Some(Decision::Approved { expires, used: false }) if *expires > self.now => {
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
        Err(Rejection::new(reason, what))
    }

    fn wait_for_operator(&self, ruling: &mut Ruling, ticket: &str, approvable: bool) {
        ruling.verdict.outcome = Outcome::Pending.as_str().to_owned();
        ruling.verdict.ticket = Some(ticket.to_owned());
        ruling.pending = Some(NewPending { ticket: ticket.to_owned(), approvable, expires: self.expires });
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
        }
        verdict.sealed = Some(sealed);
        verdict.outcome = Outcome::Released.as_str().to_owned();
        verdict.message = match &ruling.used_approval {
            Some(_) => "released: an operator approved this boot".to_owned(),
            None => "released".to_owned(),
        };
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
            differing: Vec::new(),
        }
    }
}

/// Reference values of a recorded boot. Its quote is checked again: values are
/// learned from what an AK signed, not from what a row says.
///
/// # Errors
/// `Conflict` if the evidence is not of the current enrollment or not a boot;
/// those of the quote check.
pub fn learn(node: &Node, record: &EvidenceRecord, now: u64, by: &str) -> Result<Reference, Rejection> {
    let claim = Claim::read(&record.finish)?;
    let enrollment = match (&node.current, claim.purpose) {
        (Some(current), Purpose::Boot) if claim.node == node.id => current,
        _ => {
            return Err(Rejection::new(Reason::Conflict, "the evidence is not of a boot of this enrollment"));
        }
    };
    let (quote, _) = check_quote(&claim, enrollment)?;
    Ok(policy::reference::learn(&quote, record.summary.id, now, by))
}

fn check_quote(claim: &Claim<'_>, enrollment: &Enrollment) -> Result<(VerifiedQuote, [u8; 32]), Rejection> {
    let finish = claim.finish;
    let ak = AkPublic::parse(&enrollment.registration.ak_public)?;
    let srk = SrkPublic::parse(&enrollment.registration.srk_public)?;
    let qualifier = Qualifier {
        version: finish.version,
        node: &claim.node.0,
        purpose: claim.purpose.as_str(),
        nonce: &finish.nonce,
        hpke_public: &finish.hpke_public,
        nonce_tpm: &finish.nonce_tpm,
        srk_name: srk.name(),
        r_sha256: &finish.r_sha256,
    };
    let digest = qualifier.digest();
    let context = QuoteContext { ak: &ak, qualifier, bank: enrollment.bank };
    Ok((quote::verify(&context, finish)?, digest))
}

/// A machine without a firmware log has none to show; its PCRs are compared in any case.
fn check_logs(quote: &VerifiedQuote, finish: &Finish) -> Result<(), Rejection> {
    let Some(log) = &finish.event_log else { return Ok(()) };
    let userspace = finish.userspace_log.as_ref().map(|log| log.as_ref());
    eventlog::replay(log, quote.bank())?.explain(quote, userspace)?;
    Ok(())
}

fn counters(quote: &VerifiedQuote) -> Counters {
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

fn describe(differing: &[PcrDifference]) -> String {
    let short = |bytes: &[u8]| hex(&bytes[..bytes.len().min(8)]);
    let each = |difference: &PcrDifference| {
        let expected = difference.expected.as_deref().map_or_else(|| "no value".to_owned(), short);
        format!("pcr {}: expected {expected}, found {}", difference.pcr, short(&difference.found))
    };
    differing.iter().map(each).collect::<Vec<_>>().join("; ")
}

fn hint(reason: Reason) -> Option<&'static str> {
    Some(match reason {
        Reason::NoReference => "an operator approves this boot with `halfkey approve NODE`",
        Reason::PolicyMismatch => {
            "if the change was intended, an operator approves it with `halfkey approve NODE`; the next boot of the same software then unlocks"
        }
        Reason::CounterRollback => {
            "if the TPM or virtual machine was restored on purpose, enroll the node again"
        }
        Reason::Revoked => "an operator restores the node with `halfkey restore NODE`",
        Reason::FenceExtended => "keys are released to the initramfs only: reboot",
        Reason::EnrollmentUsed => "an operator enrolls the node again with `halfkey enroll NODE`",
        Reason::Bank => "enroll the node again with a bank that the firmware extends",
        _ => return None,
    })
}

/// Lower-case hex digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
