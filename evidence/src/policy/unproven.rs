//! What is behind an event that no text proves.
//!
//! A label, a type and the order of events of different PCRs are the sender's word, and who sends a log may be what ran in the place of the
//! initramfs. Its own events are there, since nothing that was measured can be taken back, but they may be called anything, with those of
//! an honest boot extended after them. What a digest proves is the text that it is the digest of; what came first within one PCR stays first.

use super::appraise::recorder::{Count, EventIndex, MAX_FINDINGS, MeasuredEvent};
use super::appraise::survey::{Survey, events, survey};
use super::appraise::{Claims, Context};
use super::command_line::is_forbidden;
use super::compiled::Compiled;
use super::learn;
use super::learned_boot;
use super::parsed::Policy;
use super::proposal::is_in_uki;
use super::rules::{Allowed, Digest, EventIs, EventRule, Initrd, Sections};
use crate::eventlog::content::{Content, GrubText, Separator};
use crate::eventlog::variable::Known as Variable;
use crate::eventlog::{Event, ExplainedLog, kind};
use crate::quote::clip;
use halfkey_measure::grub;
use halfkey_protocol::wire::Proposal;
use halfkey_protocol::wire::policies::Finding;
use std::collections::HashSet;

/// What a finding of [`finding`] is held against.
const RULE: &str = "unknown event";
/// Texts of a finding: a hostile log can have tens of thousands.
const SHOWN: usize = 8;

/// Digests that mean something: those of a policy, and of what was proposed.
#[derive(Default)]
pub(super) struct Known(HashSet<(u8, Digest)>);

impl Known {
    /// Every digest that a policy accepts somewhere, by its PCR.
    pub fn of(policy: &Policy) -> Self {
        let mut known = Self::default();
        let document = &policy.compiled.document;
        known.rules(&document.events);
        for boot in &document.boots {
            known.rules(&boot.events);
            for image in &boot.images {
                if let Allowed::Authenticode(digests) = &image.allowed {
                    known.0.extend(digests.iter().map(|digest| (4, *digest)));
                }
            }
            if let Initrd::Digest(digest) = boot.initrd {
                known.0.insert((9, digest));
            }
            if let Some(Sections::Digests(sections)) = &boot.sections {
                known.0.extend(sections.iter().map(|(_, digest)| (11, *digest)));
            }
        }
        known
    }

    fn rules(&mut self, rules: &[EventRule]) {
        self.0.extend(rules.iter().filter_map(|rule| match rule.is {
            EventIs::Digest(digest) => Some((rule.pcr, digest)),
            EventIs::Text(_) => None,
        }));
    }

    /// With what a machine has announced.
    #[must_use]
    pub fn with(mut self, proposal: &Proposal) -> Self {
        let images = proposal.images.iter().map(|image| (4, &image.authenticode));
        let sections = proposal.sections.iter().map(|section| (11, &section.digest));
        let files = proposal.loader.iter().flat_map(|loader| loader.files.iter().flatten());
        let files = files.chain(&proposal.initrd).map(|digest| (9, digest));
        let all = images.chain(sections).chain(files);
        self.0.extend(all.filter_map(|(pcr, digest)| Some((pcr, Digest::new(digest)?))));
        self
    }

    pub fn has(&self, seen: &MeasuredEvent<'_>) -> bool {
        Digest::new(seen.digest).is_some_and(|digest| self.0.contains(&(seen.pcr, digest)))
    }
}

/// Whether GRUB boots, by a text of PCR 8 that reads an initrd, whatever it is called.
pub(super) fn is_by_grub(log: &ExplainedLog<'_>) -> bool {
    texts(log).any(|(_, text)| grub::initrds_of(text).is_some())
}

/// Texts of PCR 8 that are proven, with the log's word for what they are.
pub(super) fn texts<'l>(log: &'l ExplainedLog<'_>) -> impl Iterator<Item = (GrubText, &'l str)> {
    log.log().events().iter().filter(|event| event.pcr == 8).filter_map(|event| match event.content() {
        Content::Grub { claimed, text } => Some((claimed, str::from_utf8(text).ok()?)),
        _ => None,
    })
}

/// Whether a text may be a line that a kernel or a module got. The label is no part of what is measured, so a line could stand there as a
/// command; by its form it is none.
pub(super) fn may_be_line((claimed, text): (GrubText, &str)) -> bool {
    claimed != GrubText::Command || !grub::is_command(text)
}

/// The events of PCR 8 that are no texts of GRUB's: it measures nothing else there.
pub(super) fn no_texts<'l>(log: &'l ExplainedLog<'l>) -> impl Iterator<Item = MeasuredEvent<'l>> {
    let is_text = |event: &Event<'_>| match event.content() {
        Content::Grub { text, .. } => str::from_utf8(text).is_ok(),
        _ => false,
    };
    events(log).filter(move |seen| seen.pcr == 8 && !seen.event(log).is_some_and(is_text))
}

/// What keeps the commands of GRUB from being those of one boot.
pub(super) fn commands(log: &ExplainedLog<'_>) -> Vec<Finding> {
    let mut found: Vec<_> = no_texts(log)
        .take(MAX_FINDINGS)
        .map(|seen| Finding {
            rule: "floor".to_owned(),
            expected: "texts of GRUB alone: its commands, and the line of the kernel".to_owned(),
            ..finding(log, &seen)
        })
        .collect();
    let of = |what: &str, expected: &str, texts: &[&str]| Finding {
        pcr: Some(8),
        event: None,
        what: what.to_owned(),
        rule: "floor".to_owned(),
        expected: expected.to_owned(),
        found: texts.iter().take(SHOWN).map(|text| clip(text)).collect::<Vec<_>>().join(" | "),
        hint: None,
    };
    let lines: Vec<&str> = texts(log).filter(|text| may_be_line(*text)).map(|(_, text)| text).collect();
    let all: Vec<&str> = texts(log).map(|(_, text)| text).collect();
    let with = |is: &dyn Fn(&str) -> bool| all.iter().copied().filter(|text| is(text)).collect::<Vec<_>>();
    let kernels = with(&|text| grub::kernel_of(text).is_some());
    let initrds = with(&|text| grub::initrds_of(text).is_some());
    let others = with(&grub::starts_another);
    for (what, expected, texts) in [
        ("kernel", "one command that loads a kernel", &kernels),
        ("command line", "one line of a kernel", &lines),
        ("initrd", "one command that reads an initrd", &initrds),
    ] {
        if texts.len() > 1 {
            found.push(of(what, expected, texts));
        }
    }
    if !others.is_empty() {
        found.push(of("kernel", "no command that starts something else", &others));
    }
    let words = |texts: &[&str]| {
        let words = texts.iter().flat_map(|text| text.split_ascii_whitespace());
        words.map(str::to_owned).collect::<Vec<_>>()
    };
    // Other commands have `1`, `s` and options for reasons of their own.
    let rest = all.iter().copied().filter(|text| !grub::has_body(text)).collect::<Vec<_>>();
    let rest =
        words(&rest).into_iter().filter(|word| word.len() > 2 && !word.starts_with('-')).collect::<Vec<_>>();
    let mut words = [words(&kernels), words(&others), words(&lines), rest].concat();
    words.sort_unstable();
    words.dedup();
    for word in words {
        if let Some(why) = is_forbidden(&word) {
            found.push(of("command line", &format!("no token {word}: {why}"), &[&word]));
        }
    }
    found.truncate(MAX_FINDINGS);
    found
}

/// Events that could be an initramfs, a command line or an extension of one, whatever they are called: files that GRUB read, credentials and
/// extensions beside a UKI. `initrd` is the one that the boot is known by, where the kernel measures it.
pub(super) fn unproven<'l>(
    log: &'l ExplainedLog<'l>,
    survey: &Survey<'l>,
    by_grub: bool,
    initrd: Option<EventIndex>,
) -> Vec<MeasuredEvent<'l>> {
    let is_text = |event: &Event<'_>| event.pcr == 8 && matches!(event.content(), Content::Grub { .. });
    let is_proven = |seen: &MeasuredEvent<'l>| match seen.index {
        EventIndex::Firmware(_) => seen.event(log).is_some_and(is_text),
        EventIndex::Systemd(index) => log.systemd()[index].measured_text().is_some(),
    };
    let is_line = |seen: &MeasuredEvent<'l>| {
        survey.lines.iter().any(|line| line.seen.index == seen.index && line.text.is_some())
    };
    // All of PCR 8 is looked at where GRUB boots.
    let eighth = if by_grub { &[][..] } else { &survey.rest[8] };
    let ninth = if by_grub { &survey.whole[1] } else { &survey.rest[9] };
    let initrd = initrd.filter(|_| !by_grub);
    let all = eighth.iter().chain(ninth).chain(&survey.rest[12]).chain(&survey.rest[13]);
    all.filter(|seen| !is_proven(seen) && !is_line(seen) && Some(seen.index) != initrd).copied().collect()
}

/// What of a boot neither the policy nor a proposal knows: programs, sections, and what [`unproven`] is about.
pub fn unknown(
    policy: Option<&Policy>,
    proposal: &Proposal,
    log: &ExplainedLog<'_>,
    claims: &Claims<'_>,
) -> Vec<Finding> {
    let known = policy.map(Known::of).unwrap_or_default().with(proposal);
    let nothing = Compiled::new(learn::nothing());
    let survey = survey(&Context::new(&nothing, log), claims, &mut Count::default());
    let by_grub = is_by_grub(log);
    // Newer stubs add a secret of the machine to it: then the image says what it is.
    let initrd = is_in_uki(proposal).then(|| learned_boot::initrd(log, &survey.rest[9])).flatten();
    let mut found = if by_grub { no_texts(log).collect() } else { Vec::new() };
    let programs = survey.returned.iter().chain(&survey.images);
    found.extend(programs.filter(|seen| learned_boot::is_program(log, seen)));
    let is_name = |event: &Event<'_>| matches!(event.content(), Content::SectionName(_));
    let by_firmware = |seen: &&MeasuredEvent<'_>| matches!(seen.index, EventIndex::Firmware(_));
    let sections = survey.rest[11].iter().filter(by_firmware);
    found.extend(sections.filter(|seen| !seen.event(log).is_some_and(is_name)));
    let lines = survey.lines.iter().filter(|line| !by_grub && line.text.is_none());
    found.extend(lines.map(|line| line.seen));
    found.extend(unproven(log, &survey, by_grub, initrd.map(|seen| seen.index)));
    found.retain(|seen| !known.has(seen));
    found.iter().take(MAX_FINDINGS).map(|seen| finding(log, seen)).collect()
}

/// What PCR 7 has beside what firmware and shim measure there.
pub(super) struct Unexplained<'l> {
    /// Before the first separator: one of them may be another `SecureBoot`, or that separator.
    pub before: Vec<MeasuredEvent<'l>>,
    pub after: Vec<MeasuredEvent<'l>>,
}

impl<'l> Unexplained<'l> {
    pub fn of(log: &'l ExplainedLog<'l>) -> Self {
        let (mut before, mut after) = (Vec::new(), Vec::new());
        let (mut separated, mut states) = (false, 0);
        for seen in events(log).filter(|seen| seen.pcr == 7 && seen.kind.is_some()) {
            let Some(event) = seen.event(log) else { continue };
            let explained = match (event.content(), event.kind) {
                (Content::Separator(Separator::Ready), kind::SEPARATOR) if !separated => {
                    separated = true;
                    continue;
                }
                (Content::Variable(variable), kind::EFI_VARIABLE_DRIVER_CONFIG) => {
                    states += u32::from(!separated && variable.known() == Variable::SecureBoot);
                    !separated && states < 2
                }
                (Content::Authority(_) | Content::Variable(_), kind::EFI_VARIABLE_AUTHORITY) => separated,
                (Content::Action(text), kind::EFI_ACTION) => {
                    !text.is_empty() && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
                }
                _ => false,
            };
            if !explained {
                if separated { &mut after } else { &mut before }.push(seen);
            }
        }
        Self { before, after }
    }
}

/// What an event is called, and what is proven of it.
pub(super) fn finding(log: &ExplainedLog<'_>, seen: &MeasuredEvent<'_>) -> Finding {
    let digest = Digest::new(seen.digest).map_or_else(String::new, |digest| digest.to_string());
    let (event, what) = match seen.index {
        EventIndex::Firmware(index) => (Some(log.events()[index].number), log.events()[index].what()),
        EventIndex::Systemd(index) => (None, log.systemd()[index].what()),
    };
    Finding {
        pcr: Some(seen.pcr),
        event,
        what: format!("called {what:?}"),
        rule: RULE.to_owned(),
        expected: "what a text proves, or the policy or a proposal has: this may be an initramfs, a command line or an extension of one, whatever it is called"
            .to_owned(),
        found: digest,
        hint: None,
    }
}
