//! What a proposal is worth. It is a hint: root on the node could lie. So it counts only if the boot that it comes
//! from was opened by attestation, and even then a rule of the tenant's has to accept it.
//!
//! In the same two steps as a verdict: [`CheckedProposal::of`] needs no database, [`CheckedProposal::rule`] decides in the
//! transaction that records it.

use super::{Governed, Library, Rules, summary};
use crate::appraisal::checks::{check_quote, counters, require_newer, same_enrollment};
use crate::domain::{
    Enrollment, PolicySource, ProposalDecision, ProposalRuling, ProposalSnapshot, ReleasedBoot, Result,
    StoredProposal,
};
use crate::keys::ClusterKey;
use crate::{hex, utc};
use aws_lc_rs::digest::{SHA256, digest};
use halfkey_evidence::Rejection;
use halfkey_evidence::appraise::BoundedEvidence;
use halfkey_evidence::eventlog::systemd_log;
use halfkey_evidence::policy::{
    Assured, Cover, Origin, Trust, boot_of, check_proposal, covers, is_known_once_booted,
};
use halfkey_evidence::quote::VerifiedQuote;
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::tpm::fence::{self, Event, NotOpened};
use halfkey_protocol::wire::policies::ProposalState;
use halfkey_protocol::wire::{Proposal, Propose, Purpose};
use halfkey_protocol::{FENCE_PCR, Reason};

/// A proposal with the outcome of every check that needs no database.
pub struct CheckedProposal<'a> {
    message: &'a Propose,
    enrollment_id: String,
    quote: std::result::Result<VerifiedQuote, Rejection>,
    content: std::result::Result<Proposal, Rejection>,
    sha256: [u8; 32],
    now: u64,
}

impl<'a> CheckedProposal<'a> {
    /// Checks a proposal against an enrollment.
    pub fn of(
        message: &'a Propose,
        evidence: &BoundedEvidence<'_>,
        enrollment: &Enrollment,
        cluster: &ClusterKey,
        lifetime: u64,
        now: u64,
    ) -> Self {
        let quote = check_quote(evidence, enrollment, cluster, lifetime, now).and_then(|quote| {
            require_committed(message)?;
            Ok(quote)
        });
        let content = check_proposal(&message.proposal).and_then(|proposal| {
            let (expected, found) = (enrollment.bank.name(), &proposal.bank);
            if found != expected {
                let what = format!("expected digests of the enrolled bank {expected}, found {found:.16}");
                return Err(Rejection::new(Reason::ProposalMalformed, what));
            }
            Ok(proposal)
        });
        // The content, and not the bytes that came: neither spaces nor unknown fields make another one of it.
        let canonical = content.as_ref().ok().and_then(|proposal| serde_json::to_vec(proposal).ok());
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest(&SHA256, canonical.as_deref().unwrap_or(&message.proposal)).as_ref());
        Self { message, enrollment_id: enrollment.id.clone(), quote, content, sha256, now }
    }

    /// Whether the quote is by the node's AK, for this exchange and this proposal.
    pub fn authentic(&self) -> bool {
        self.quote.is_ok()
    }

    /// What is proposed, if it could be read.
    pub fn proposal(&self) -> Option<&Proposal> {
        self.content.as_ref().ok()
    }

    /// SHA-256 over it.
    pub fn sha256(&self) -> [u8; 32] {
        self.sha256
    }

    /// Decides, by what the database says.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn rule(
        &self,
        snapshot: &ProposalSnapshot,
        documents: &dyn PolicySource,
        library: &Library,
    ) -> Result<ProposalRuling> {
        let mut ruling = ProposalRuling {
            enrollment_id: self.enrollment_id.clone(),
            counters: None,
            decision: Ok(ProposalDecision::Waits(String::new())),
            from_evidence: 0,
            base_boot: None,
        };
        let (proposal, released) = match self.check(snapshot, &mut ruling) {
            Ok(checked) => checked,
            Err(rejection) => {
                ruling.decision = Err(rejection);
                return Ok(ruling);
            }
        };
        let governed = library.governed(&snapshot.node, documents)?;
        ruling.from_evidence = released.evidence_id;
        ruling.base_boot = match &governed.rules {
            Ok(rules) => base_boot(released, rules),
            Err(_) => None,
        };
        let trust = Trusting::Given {
            kept: snapshot.known.as_ref().is_some_and(|known| keeps(known, &governed)),
            before: snapshot.trusted_before,
            now: self.now,
        };
        ruling.decision = Ok(weigh(&governed, proposal, ruling.base_boot.as_deref(), trust));
        Ok(ruling)
    }

    fn check<'b>(
        &'b self,
        snapshot: &'b ProposalSnapshot,
        ruling: &mut ProposalRuling,
    ) -> std::result::Result<(&'b Proposal, &'b ReleasedBoot), Rejection> {
        let node = &snapshot.node;
        // Nonce, signature, magic and type, qualifying data, pcrSelect, PCR digest, bank, the proposal's digest.
        let quote = self.quote.as_ref().map_err(Clone::clone)?;
        let enrollment = same_enrollment(Purpose::Propose, node, &self.enrollment_id)?;
        let found = counters(quote);
        require_newer(enrollment, found)?;
        ruling.counters = Some(found);
        if let Some(because) = &node.revoked {
            return Err(Rejection::new(Reason::Revoked, because.clone()));
        }
        let log = self.message.evidence.systemd_log.as_ref().map(|log| log.as_ref());
        let released = require_opened(enrollment.released.as_ref(), quote, log)?;
        let proposal = self.content.as_ref().map_err(Clone::clone)?;
        match &snapshot.known {
            Some(known) if known.record.state == ProposalState::Denied => {
                Err(Rejection::new(Reason::OperatorDenied, known.record.message.clone()))
            }
            _ => Ok((proposal, released)),
        }
    }
}

/// The quote is about just this proposal.
fn require_committed(message: &Propose) -> std::result::Result<(), Rejection> {
    let expected = digest(&SHA256, &message.proposal);
    if *message.evidence.purpose_data == *expected.as_ref() {
        return Ok(());
    }
    let (expected, found) = (hex(expected.as_ref()), hex(&message.evidence.purpose_data));
    let what = format!("expected purpose_data to be that of the proposal, {expected}, found {found}");
    Err(Rejection::new(Reason::QualifyingData, what))
}

/// The machine runs the boot that was released last, and its fence says that this opened it. A passphrase that was
/// asked for, or a root on a rogue volume, is in the fence as well.
fn require_opened<'a>(
    released: Option<&'a ReleasedBoot>,
    quote: &VerifiedQuote,
    systemd_log: Option<&[u8]>,
) -> std::result::Result<&'a ReleasedBoot, Rejection> {
    let refuse = |what: String| Err(Rejection::new(Reason::ProposalUnattested, what));
    let Some(released) = released else {
        return refuse("no boot of this enrollment was released".to_owned());
    };
    let (reset, restart) = (quote.reset_count(), quote.restart_count());
    // A machine that was suspended has restarted its TPM. So has one whose power was cut meanwhile, and that has begun with new PCRs:
    // the counters are the same.
    if (released.reset, released.restart) != (reset, restart) {
        let hint =
            if released.reset == reset { ": it was suspended since; reboot, then propose" } else { "" };
        return refuse(format!(
            "expected the boot of evidence {}, resetCount {} and restartCount {}, found {reset} and {restart}{hint}",
            released.evidence_id, released.reset, released.restart
        ));
    }
    // Later systemd measures into the same PCR; its log is hearsay until it leads to the quote.
    let mut later = systemd_log::parse(systemd_log.unwrap_or_default(), PcrBank::Sha256)?;
    later.retain(|event| event.pcr == FENCE_PCR);
    let later: Vec<_> = later.iter().map(|event| &*event.digest).collect();
    match only_opened(&released.fence, quote.pcr(FENCE_PCR), &later) {
        Ok(()) => Ok(released),
        Err(why) => refuse(format!(
            "expected pcr {FENCE_PCR} as the opening of evidence {} left it, and {why}",
            released.evidence_id
        )),
    }
}

/// That PCR 15 is what the opening made of it, extended by nothing but what the log has.
///
/// # Errors
/// What was found in its place.
fn only_opened(opened: &[u8; 32], quoted: &[u8], later: &[&[u8]]) -> std::result::Result<(), String> {
    fence::only_opened(PcrBank::Sha256, opened, quoted, later).map_err(|found| match found {
        NotOpened::Zero => "found zero: nothing was opened yet".to_owned(),
        NotOpened::By(event) => in_its_place(event).to_owned(),
        NotOpened::Unknown => format!(
            "found {}, where {} was expected and systemd's log does not lead from one to the other",
            hex(quoted),
            hex(opened)
        ),
    })
}

fn in_its_place(event: Event) -> &'static str {
    match event {
        Event::Closed => "found it closed: no attestation opened the volumes",
        Event::Passphrase => "found that a passphrase was asked for",
        Event::Rogue => "found a root that is not on a volume that was opened",
        Event::Shell => "found that a shell was given",
    }
}

/// Whether `trust_root_with_next_boot` may accept a proposal.
#[derive(Clone, Copy)]
pub enum Trusting {
    /// If it did before.
    Kept(bool),
    /// If it did before, or as far as time and number allow.
    Given {
        /// It did before.
        kept: bool,
        /// How often it has accepted one.
        before: u64,
        /// Seconds since 1970.
        now: u64,
    },
}

/// Where a proposal stands by a policy.
pub fn weigh(
    governed: &Governed,
    proposal: &Proposal,
    base_boot: Option<&str>,
    trusting: Trusting,
) -> ProposalDecision {
    let rules = match &governed.rules {
        Ok(rules) => rules,
        Err(why) => return ProposalDecision::Waits(why.clone()),
    };
    let policy = &rules.name;
    let against = match covers(rules.effective.signed(), proposal) {
        Cover::Hash(boot) => return ProposalDecision::Accepted(format!("boot {boot:?} of {policy}")),
        Cover::Signer(boot) => {
            return ProposalDecision::Accepted(format!(
                "boot {boot:?} of {policy} by its signer: decided at boot by its own Secure Boot events"
            ));
        }
        Cover::Grub(boots) => return by_grub(&boots, policy, proposal, base_boot),
        Cover::No(findings) => format!("{policy}: {}", summary(&findings)),
    };
    if is_known_once_booted(proposal, rules.effective.signed(), base_boot) {
        return ProposalDecision::OnceBooted(format!(
            "known once it was booted: what grub measures of itself is in no proposal. Its first boot is denied and asks for the passphrase; {against}"
        ));
    }
    let Some(trust) = rules.effective.signed().trust() else { return ProposalDecision::Waits(against) };
    // Root of an honest machine is trusted, and not whoever had its disk: the machine says whether it knows the one from the other.
    if !proposal.written_by_update {
        return ProposalDecision::Waits(format!(
            "{against}; trust_root_with_next_boot is for what an update wrote, and the node does not say that of these files: they are as they stood on its boot partition"
        ));
    }
    match trusts(trust, trusting) {
        Err(why) => ProposalDecision::Waits(format!("{against}; trust_root_with_next_boot {why}")),
        Ok(how) => match boot_of(proposal, rules.effective.signed(), base_boot, Assured::default()) {
            Ok(_) => ProposalDecision::Trusted(format!("trust_root_with_next_boot of {policy}{how}")),
            Err(findings) => ProposalDecision::Waits(format!(
                "{against}; trust_root_with_next_boot: {}",
                summary(&findings)
            )),
        },
    }
}

/// What the policy has, but for what GRUB measures of itself: its configuration and environment, fonts, modules, shim and GRUB. What the machine
/// says of the first is for people.
fn by_grub(boots: &[String], policy: &str, proposal: &Proposal, base_boot: Option<&str>) -> ProposalDecision {
    let running = boots.iter().find(|boot| Some(boot.as_str()) == base_boot);
    let is = match (running, &proposal.loader) {
        (Some(_), Some(loader)) if loader.changes.is_empty() => {
            "which runs; the machine sees no change of grub's configuration"
        }
        (Some(_), _) => "which runs, and grub's configuration is not the one that it was booted with",
        (None, _) => "which is not the one that runs",
    };
    let boot = running.or(boots.last()).map(String::as_str).unwrap_or_default();
    ProposalDecision::OnceBooted(format!(
        "known once it was booted: kernel, initrd and command line are those of boot {boot:?} of {policy}, {is}"
    ))
}

fn trusts(trust: &Trust, trusting: Trusting) -> std::result::Result<String, String> {
    match trusting {
        Trusting::Kept(true) | Trusting::Given { kept: true, .. } => Ok(String::new()),
        Trusting::Kept(false) => Err("accepts only what is proposed from now on".to_owned()),
        Trusting::Given { now, .. } if now >= trust.until => Err(format!("ended {}", utc(trust.until))),
        Trusting::Given { before, .. } if before >= u64::from(trust.count) => {
            Err(format!("has accepted {before} of {} already", trust.count))
        }
        Trusting::Given { before, .. } => Ok(format!(", {} of {}", before + 1, trust.count)),
    }
}

/// Trusted before, under the policy that governs the node now.
pub fn keeps(known: &StoredProposal, governed: &Governed) -> bool {
    known.keeps_trust(governed.governing.trusting().as_ref())
}

/// The signed policy's boot that the machine runs: where shim and boot loader of the proposal come from.
fn base_boot(released: &ReleasedBoot, rules: &Rules) -> Option<String> {
    let running = released.boot.as_ref()?;
    match running.origin {
        Origin::Document => rules.effective.base_of(running).map(str::to_owned),
        // It runs what was trusted before: that took them from a boot of the policy.
        Origin::Proposal(_) => released.base.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfkey_protocol::tpm::kdf::Hash;
    use halfkey_protocol::wire::ProposedLoader;
    use proptest::prelude::*;

    const OPENED: [u8; 32] = [7; 32];

    fn after(events: &[&[u8]]) -> Vec<u8> {
        events.iter().fold(OPENED.to_vec(), |value, event| Hash::Sha256.digest(&[&value, event]).to_vec())
    }

    /// GRUB measures its configuration: the same kernel behind another one is another boot.
    #[test]
    fn of_grub_nothing_is_accepted_before_it_boots() {
        let boots = ["55".to_owned(), "55, after a boot that failed".to_owned()];
        for (loader, runs, said) in [
            (Some(""), Some("55"), "sees no change"),
            (Some("-set default=0\n"), Some("55"), "is not the one that it was booted with"),
            (None, Some("55"), "is not the one that it was booted with"),
            (Some(""), Some("56"), "\"55, after a boot that failed\" of web, which is not the one that runs"),
            (Some(""), None, "which is not the one that runs"),
        ] {
            let proposal = Proposal {
                version: 1,
                name: "55".into(),
                bank: "sha256".into(),
                images: Vec::new(),
                sections: Vec::new(),
                initrd: None,
                command_line: None,
                loader: loader.map(|changes| ProposedLoader {
                    name: "grub".into(),
                    changes: changes.to_owned(),
                    files: None,
                }),
                written_by_update: false,
            };
            let decision = by_grub(&boots, "web", &proposal, runs);
            assert!(matches!(decision, ProposalDecision::OnceBooted(_)), "{}", decision.message());
            assert!(decision.message().contains(said), "{}", decision.message());
        }
    }

    #[test]
    fn our_own_events_are_told_with_and_without_a_log() {
        let systemd = Hash::Sha256.digest(&[b"machine-id:1"]);
        for event in Event::ALL {
            let (what, own) = (in_its_place(event), event.digest(PcrBank::Sha256));
            let closed = Hash::Sha256.digest(&[&[0; 32], &own]);
            for (quoted, log) in [
                (closed.to_vec(), vec![]),
                (after(&[&own]), vec![]),
                (after(&[&own]), vec![&own[..]]),
                (after(&[&systemd, &own]), vec![&systemd[..]]),
                (after(&[&own, &systemd]), vec![&own[..], &systemd[..]]),
                (after(&[&systemd, &own, &systemd]), vec![&systemd[..], &own[..], &systemd[..]]),
            ] {
                assert_eq!(only_opened(&OPENED, &quoted, &log).unwrap_err(), what);
            }
            // Hidden between systemd's: the log does not lead there.
            let hidden = after(&[&own, &systemd]);
            assert!(only_opened(&OPENED, &hidden, &[&systemd[..]]).unwrap_err().contains("systemd's log"));
        }
        assert!(only_opened(&OPENED, &[0; 32], &[]).unwrap_err().contains("zero"));
    }

    proptest! {
        #[test]
        fn exactly_what_was_measured_after_the_opening_is_explained(
            events in proptest::collection::vec(any::<[u8; 32]>(), 0..6), ahead: u8, missing: bool
        ) {
            let log: Vec<&[u8]> = events.iter().map(|event| &event[..]).collect();
            let seen = usize::from(ahead) % (log.len() + 1);
            let quoted = after(&log[..seen]);
            // A log may be ahead of the quote, being read after it.
            prop_assert!(only_opened(&OPENED, &quoted, &log).is_ok());
            if missing && seen > 0 {
                prop_assert!(only_opened(&OPENED, &quoted, &log[1..]).is_err());
            }
        }
    }
}
