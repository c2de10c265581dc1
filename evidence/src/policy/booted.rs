//! Whether a boot is the one that was proposed. For the record and for people: nothing is allowed by it.

use super::proposal::{finding, image_name, show};
use crate::eventlog::content::{Content, GrubText};
use crate::eventlog::{Event, ExplainedLog, kind};
use halfkey_measure::grub;
use halfkey_protocol::wire::Proposal;
use halfkey_protocol::wire::policies::Finding;

/// What a finding is held against.
const RULE: &str = "proposal";

/// Whether the files that were proposed are those that a boot's log has. What passes its own line to the kernel may have passed another.
pub fn is_booted(proposal: &Proposal, log: &ExplainedLog<'_>) -> bool {
    Booted::of(proposal, log).files().is_empty()
}

/// In what a boot differs from what was proposed, as far as a proposal can know it.
pub fn not_as_proposed(proposal: &Proposal, log: &ExplainedLog<'_>) -> Vec<Finding> {
    let booted = Booted::of(proposal, log);
    let mut findings = booted.files();
    findings.extend(booted.line());
    findings.extend(booted.initrds());
    if proposal.bank == booted.bank && booted.starts_unseen() {
        let found = "an image that nobody measures: only GRUB's file of it is in pcr 9".to_owned();
        findings.push(finding(Some(4), "kernel", RULE.to_owned(), "the image that was proposed", &found));
    }
    findings
}

/// The commands by which GRUB loaded kernel and initrd, as it measured them; none where it did not. That a file which was proposed was read
/// does not say that it was used: who looks at a boot of GRUB's has to see these.
pub fn loaded_by_grub<'l>(log: &'l ExplainedLog<'_>) -> Vec<&'l str> {
    let loads = |command: &&str| grub::kernel_of(command).is_some() || grub::initrds_of(command).is_some();
    log.log().events().iter().filter_map(grub_command).filter(loads).collect()
}

fn grub_command<'e>(event: &'e Event<'_>) -> Option<&'e str> {
    match event.content() {
        Content::Grub { claimed: GrubText::Command, text } if event.pcr == 8 => str::from_utf8(text).ok(),
        _ => None,
    }
}

/// A boot, held against a proposal.
struct Booted<'a> {
    proposal: &'a Proposal,
    bank: &'static str,
    events: &'a [Event<'a>],
}

impl<'a> Booted<'a> {
    fn of(proposal: &'a Proposal, log: &'a ExplainedLog<'_>) -> Self {
        Self { proposal, bank: log.log().bank().name(), events: log.log().events() }
    }

    fn files(&self) -> Vec<Finding> {
        let proposal = self.proposal;
        if proposal.bank != self.bank {
            return vec![finding(None, "bank", RULE.to_owned(), &proposal.bank, self.bank)];
        }
        let mut findings = Vec::new();
        let mut require = |pcr: u8, what: &str, digest: &[u8]| {
            if !self.has(pcr, digest) {
                let found = format!("no event of pcr {pcr} with it");
                findings.push(finding(Some(pcr), what, RULE.to_owned(), &show(digest), &found));
            }
        };
        if !self.starts_unseen() {
            for image in &proposal.images {
                require(4, &image_name(image), &image.authenticode);
            }
        }
        for section in &proposal.sections {
            require(11, &format!("section {}", section.name), &section.digest);
        }
        if let Some(initrd) = &proposal.initrd {
            require(9, "initrd", initrd);
        }
        findings
    }

    /// As GRUB measured it.
    fn line(&self) -> Option<Finding> {
        let expected = self.proposal.command_line.as_deref().filter(|_| self.proposal.loader.is_some())?;
        let lines =
            self.events.iter().filter(|event| event.pcr == 8).filter_map(|event| match event.content() {
                Content::Grub { claimed: GrubText::KernelCommandLine, text } => str::from_utf8(text).ok(),
                _ => None,
            });
        let found = lines.map(grub::as_passed).next_back()?;
        let same = found.split_ascii_whitespace().eq(expected.split_ascii_whitespace());
        (!same).then(|| finding(Some(8), "command line", RULE.to_owned(), expected, &found))
    }

    /// A second file is unpacked over the first, or takes its place.
    fn initrds(&self) -> Option<Finding> {
        let commands = self.events.iter().filter_map(grub_command);
        let files: Vec<&str> = commands.filter_map(grub::initrds_of).flatten().collect();
        let more = files.len() > 1 && self.proposal.loader.is_some();
        more.then(|| finding(Some(8), "initrd", RULE.to_owned(), "one file", &files.join(" ")))
    }

    fn has(&self, pcr: u8, digest: &[u8]) -> bool {
        self.events.iter().any(|event| event.pcr == u32::from(pcr) && *event.digest == *digest)
    }

    /// GRUB alone starts the kernel: neither shim nor firmware measures its image, and what it is known by is its initrd.
    fn starts_unseen(&self) -> bool {
        let is_grub =
            |event: &&Event<'_>| event.kind == kind::IPL && matches!(event.content(), Content::Grub { .. });
        let behind = || self.events.iter().skip_while(|event| !is_grub(event));
        let is_image =
            |event: &Event<'_>| event.pcr == 4 && event.kind == kind::EFI_BOOT_SERVICES_APPLICATION;
        self.proposal.loader.is_some()
            && self.proposal.initrd.is_some()
            && behind().next().is_some()
            && !behind().any(is_image)
    }
}
