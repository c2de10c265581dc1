//! Whether a boot is the one that was proposed. For the record and for people: nothing is allowed by it.

use super::proposal::{finding, image_name, show};
use super::unproven::{lines_of_grub, may_be_line, texts};
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
    findings.extend(booted.commands());
    if proposal.bank == booted.bank && booted.starts_unseen() {
        let found = "an image that nobody measures: only GRUB's file of it is in pcr 9".to_owned();
        findings.push(finding(Some(4), "kernel", RULE.to_owned(), "the image that was proposed", &found));
    }
    findings
}

/// The texts of PCR 8 by which GRUB may have loaded a kernel, its line and an initrd, whatever the log calls them, and those that no generated
/// configuration has; none where it did not. That a
/// file which was proposed was read does not say that it was used: who looks at a boot of GRUB's has to see these.
pub fn loaded_by_grub<'l>(log: &'l ExplainedLog<'_>) -> Vec<&'l str> {
    let loads = |text: &str| {
        grub::kernel_of(text).is_some()
            || grub::initrds_of(text).is_some()
            || grub::starts_another(text)
            || grub::is_command(text) && !grub::is_usual(text)
    };
    let of = |text: (GrubText, &'l str)| (loads(text.1) || may_be_line(text)).then_some(text.1);
    let mut found: Vec<&str> = Vec::new();
    for text in texts(log).filter_map(of) {
        // The line is that of the command once more.
        let said = |before: &&str| before.split_once(' ').is_some_and(|(_, line)| line == text);
        if !found.iter().any(said) {
            found.push(text);
        }
    }
    found
}

/// A boot, held against a proposal.
struct Booted<'a> {
    proposal: &'a Proposal,
    bank: &'static str,
    events: &'a [Event<'a>],
    /// Of PCR 8, by GRUB.
    texts: Vec<(GrubText, &'a str)>,
    /// Those of them that it passes on.
    lines: Vec<String>,
}

impl<'a> Booted<'a> {
    fn of(proposal: &'a Proposal, log: &'a ExplainedLog<'_>) -> Self {
        Self {
            proposal,
            bank: log.log().bank().name(),
            events: log.log().events(),
            texts: texts(log).collect(),
            lines: lines_of_grub(log),
        }
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
        let lines = &self.lines;
        let is_it = |line: &String| line.split_ascii_whitespace().eq(expected.split_ascii_whitespace());
        let same = lines.iter().all(is_it) && lines.len() < 2;
        (!same).then(|| finding(Some(8), "command line", RULE.to_owned(), expected, &lines.join(" | ")))
    }

    /// Of another kernel, or of another initrd: a second file is unpacked over the first, or takes its place.
    fn commands(&self) -> Vec<Finding> {
        if self.proposal.loader.is_none() {
            return Vec::new();
        }
        let commands = || self.texts.iter().map(|(_, text)| *text);
        let kernels =
            || commands().filter(|text| grub::kernel_of(text).is_some() || grub::starts_another(text));
        let files: Vec<&str> = commands().filter_map(grub::initrds_of).flatten().collect();
        let mut found = Vec::new();
        if kernels().nth(1).is_some() {
            let all = kernels().collect::<Vec<_>>().join(" | ");
            found.push(finding(Some(8), "kernel", RULE.to_owned(), "one command that loads a kernel", &all));
        }
        if files.len() > 1 {
            found.push(finding(Some(8), "initrd", RULE.to_owned(), "one file", &files.join(" ")));
        }
        found
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
