//! What is behind an event that no text proves.
//!
//! A label, a type and the order of events of different PCRs are the sender's word, and who sends a log may be what ran in the place of the
//! initramfs. Its own events are there, since nothing that was measured can be taken back, but they may be called anything, with those of
//! an honest boot extended after them. What a digest proves is the text that it is the digest of; what came first within one PCR stays first.

use super::announced::{has_its_place, is_initrd_of_uki, other_line, programs};
use super::appraise::recorder::{Count, EventIndex, MAX_FINDINGS, MeasuredEvent};
use super::appraise::survey::{Survey, events, survey};
use super::appraise::{Claims, Context};
use super::command_line::is_forbidden;
use super::compiled::Compiled;
use super::learn;
use super::learned_boot;
use super::parsed::Policy;
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

/// Digests and texts that mean something: those of a policy, and of what was proposed.
#[derive(Default)]
pub(super) struct Known {
    digests: HashSet<(u8, Digest)>,
    /// Of PCR 8.
    texts: HashSet<String>,
}

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
                    known.digests.extend(digests.iter().map(|digest| (4, *digest)));
                }
            }
            if let Initrd::Digest(digest) = boot.initrd {
                known.digests.insert((9, digest));
            }
            if let Some(Sections::Digests(sections)) = &boot.sections {
                known.digests.extend(sections.iter().map(|(_, digest)| (11, *digest)));
            }
        }
        known
    }

    fn rules(&mut self, rules: &[EventRule]) {
        for rule in rules {
            match &rule.is {
                EventIs::Digest(digest) => {
                    self.digests.insert((rule.pcr, *digest));
                }
                EventIs::Text(text) => {
                    let read = grub::read(text.as_bytes()).filter(|_| rule.pcr == 8);
                    self.texts.extend(read.and_then(|(_, text)| String::from_utf8(text.to_vec()).ok()));
                }
            }
        }
    }

    /// With what a machine has announced.
    #[must_use]
    pub fn with(mut self, proposal: &Proposal) -> Self {
        let images = proposal.images.iter().map(|image| (4, &image.authenticode));
        let sections = proposal.sections.iter().map(|section| (11, &section.digest));
        let files = proposal.loader.iter().flat_map(|loader| loader.files.iter().flatten());
        let files = files.chain(&proposal.initrd).map(|digest| (9, digest));
        let all = images.chain(sections).chain(files);
        self.digests.extend(all.filter_map(|(pcr, digest)| Some((pcr, Digest::new(digest)?))));
        self
    }

    pub fn has(&self, log: &ExplainedLog<'_>, seen: &MeasuredEvent<'_>) -> bool {
        let by_text = || {
            let text = seen.event(log).filter(|_| seen.pcr == 8).and_then(text_of);
            text.is_some_and(|(_, text)| self.texts.contains(text))
        };
        Digest::new(seen.digest).is_some_and(|digest| self.digests.contains(&(seen.pcr, digest))) || by_text()
    }
}

/// Whether GRUB starts the kernel, by a text of PCR 8 that reads an initrd, whatever it is called. What has sections is a UKI behind it.
pub(super) fn is_by_grub(log: &ExplainedLog<'_>, survey: &Survey<'_>) -> bool {
    texts(log).any(|(_, text)| grub::initrds_of(text).is_some())
        && learned_boot::sections(log, &survey.rest[11]).is_empty()
}

/// Whether GRUB ran, whatever it has started.
pub(super) fn is_behind_grub(log: &ExplainedLog<'_>, survey: &Survey<'_>) -> bool {
    !survey.rest[8].is_empty() || texts(log).next().is_some()
}

/// Texts of PCR 8 that are proven, with the log's word for what they are.
pub(super) fn texts<'l>(log: &'l ExplainedLog<'_>) -> impl Iterator<Item = (GrubText, &'l str)> {
    log.log().events().iter().filter(|event| event.pcr == 8).filter_map(text_of)
}

fn text_of<'l>(event: &'l Event<'_>) -> Option<(GrubText, &'l str)> {
    match event.content() {
        Content::Grub { claimed, text } => Some((claimed, str::from_utf8(text).ok()?)),
        _ => None,
    }
}

/// Whether a text may be a line that a kernel or a module got. The label is no part of what is measured, so a line could stand there as a
/// command; by its form it is none.
pub(super) fn may_be_line((claimed, text): (GrubText, &str)) -> bool {
    claimed != GrubText::Command || !grub::is_command(text)
}

/// The texts that are lines, with their places: by their form, or because they repeat what the command before them passes to a kernel. GRUB
/// measures a line next after its command, so that what the log calls it, and a file that is named as a command is, hide nothing.
pub(super) fn lines<'l>(texts: &[(GrubText, &'l str)]) -> Vec<(usize, &'l str)> {
    let is_line = |at: usize, text: (GrubText, &str)| {
        may_be_line(text) || at > 0 && grub::passes(texts[at - 1].1, text.1)
    };
    let all = texts.iter().enumerate();
    all.filter(|(at, text)| is_line(*at, **text)).map(|(at, (_, text))| (at, *text)).collect()
}

/// What GRUB passes on, as the kernel gets it.
pub(super) fn lines_of_grub(log: &ExplainedLog<'_>) -> Vec<String> {
    let texts: Vec<_> = texts(log).collect();
    lines(&texts).into_iter().map(|(_, text)| grub::as_passed(text)).collect()
}

/// Whether the texts of PCR 8, whose order is proven, are those of one kernel: of several commands that load something, or of none before a
/// line (GRUB's rescue console measures no command), only one counts, and nobody can tell which.
fn are_of_one_kernel(texts: &[(GrubText, &str)]) -> bool {
    let at = |is: &dyn Fn(&str) -> bool| {
        texts.iter().enumerate().filter(|(_, text)| is(text.1)).map(|(at, _)| at).collect::<Vec<_>>()
    };
    let kernels = at(&|text| grub::kernel_of(text).is_some());
    let initrds = at(&|text| grub::initrds_of(text).is_some());
    match (kernels.as_slice(), lines(texts).as_slice(), initrds.as_slice()) {
        ([kernel], [(line, text)], [initrd]) => {
            *line == kernel + 1 && grub::passes(texts[*kernel].1, text) && initrd > line
        }
        _ => false,
    }
}

/// The events of PCR 8 that are no texts of GRUB's: it measures nothing else there.
pub(super) fn no_texts<'l>(log: &'l ExplainedLog<'l>) -> impl Iterator<Item = MeasuredEvent<'l>> {
    events(log).filter(move |seen| seen.pcr == 8 && seen.event(log).and_then(text_of).is_none())
}

/// What keeps the commands of GRUB from being those of one boot: of the kernel that it starts, or of a UKI or another loader behind it.
pub(super) fn commands(log: &ExplainedLog<'_>, by_grub: bool) -> Vec<Finding> {
    if texts(log).next().is_none() {
        return Vec::new();
    }
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
    let typed: Vec<_> = texts(log).collect();
    let lines: Vec<&str> = lines(&typed).into_iter().map(|(_, text)| text).collect();
    let all: Vec<&str> = typed.iter().map(|(_, text)| *text).collect();
    let with = |is: &dyn Fn(&str) -> bool| all.iter().copied().filter(|text| is(text)).collect::<Vec<_>>();
    let kernels = with(&|text| grub::kernel_of(text).is_some());
    let initrds = with(&|text| grub::initrds_of(text).is_some());
    let packed = with(&grub::packs);
    let chainloaders = with(&grub::chainloads);
    let others = with(&|text| grub::starts_another(text) && (by_grub || !grub::chainloads(text)));
    let most = usize::from(by_grub);
    for (what, most, expected, texts) in [
        (
            "kernel",
            most,
            if by_grub { "one command that loads a kernel" } else { "no kernel but what started it all" },
            &kernels,
        ),
        (
            "command line",
            most,
            if by_grub { "one line of a kernel" } else { "no line but that of what started it all" },
            &lines,
        ),
        (
            "initrd",
            most,
            if by_grub { "one command that reads an initrd" } else { "no initrd of GRUB's" },
            &initrds,
        ),
        ("initrd", 0, "no file that GRUB packs into the initramfs (newc:)", &packed),
        ("kernel", 0, "no command that starts something else, or ends GRUB's measuring", &others),
        ("kernel", 1, "one command that starts the boot", &chainloaders),
    ] {
        if texts.len() > most {
            found.push(of(what, expected, texts));
        }
    }
    if by_grub && !are_of_one_kernel(&typed) {
        let expected = "one command that loads a kernel, next the line that it passes on, and behind it one that reads an initrd";
        let loads = |text: &str| grub::kernel_of(text).is_some() || grub::initrds_of(text).is_some();
        found.push(of("command line", expected, &with(&|text| loads(text) || lines.contains(&text))));
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
/// extensions beside a UKI; and commands of GRUB that no generated configuration has. `initrd` is the one that the boot is known by, where the
/// kernel measures it: behind GRUB it may have been GRUB.
pub(super) fn unproven<'l>(
    log: &'l ExplainedLog<'l>,
    survey: &Survey<'l>,
    by_grub: bool,
    initrd: Option<EventIndex>,
) -> Vec<MeasuredEvent<'l>> {
    let is_text = |event: &Event<'_>| {
        let text = text_of(event).filter(|_| event.pcr == 8);
        text.is_some_and(|(_, text)| !grub::is_command(text) || grub::is_usual(text))
    };
    let is_proven = |seen: &MeasuredEvent<'l>| match seen.index {
        EventIndex::Firmware(_) => seen.event(log).is_some_and(is_text),
        // Its own texts are sorted out before. In a line of UTF-16, too, each byte is a character.
        EventIndex::Systemd(_) => false,
    };
    let is_line = |seen: &MeasuredEvent<'l>| {
        survey.lines.iter().any(|line| line.seen.index == seen.index && line.text.is_some())
    };
    let (eighth, ninth) = match by_grub {
        true => (&survey.whole[0], &survey.whole[1]),
        false => (&survey.rest[8], &survey.rest[9]),
    };
    let initrd = initrd.filter(|_| !is_behind_grub(log, survey));
    let all = eighth.iter().chain(ninth).chain(&survey.rest[12]).chain(&survey.rest[13]);
    all.filter(|seen| !is_proven(seen) && !is_line(seen) && Some(seen.index) != initrd).copied().collect()
}

/// What a stub measured, but for the name in front of each section. A name in the place of a section is none.
pub(super) fn sections<'l>(log: &'l ExplainedLog<'l>, survey: &Survey<'l>) -> Vec<MeasuredEvent<'l>> {
    let is_name = |event: &Event<'_>| matches!(event.content(), Content::SectionName(_));
    let by_firmware = |seen: &&MeasuredEvent<'_>| matches!(seen.index, EventIndex::Firmware(_));
    let mut named = false;
    let all = survey.rest[11].iter().filter(by_firmware);
    all.filter(|seen| {
        named = !named && seen.event(log).is_some_and(is_name);
        !named
    })
    .copied()
    .collect()
}

/// What of a boot neither the policy nor a proposal knows: programs, sections, its command line, and what [`unproven`] is about.
pub fn unknown(
    policy: Option<&Policy>,
    proposal: &Proposal,
    log: &ExplainedLog<'_>,
    claims: &Claims<'_>,
) -> Vec<Finding> {
    let known = policy.map(Known::of).unwrap_or_default().with(proposal);
    let nothing = Compiled::new(learn::nothing());
    let survey = survey(&Context::new(&nothing, log), claims, &mut Count::default());
    let by_grub = is_by_grub(log, &survey);
    // Newer stubs add a secret of the machine to it: then the image says what it is, if nothing before it could have added more.
    let of_uki = is_initrd_of_uki(log, &survey, policy, proposal);
    let initrd = of_uki.then(|| learned_boot::initrd(log, &survey.rest[9])).flatten();
    let all = survey.returned.iter().chain(&survey.images);
    let mut found: Vec<_> = all.filter(|seen| learned_boot::is_program(log, seen)).copied().collect();
    found.extend(sections(log, &survey));
    let lines = survey.lines.iter().filter(|line| !by_grub && line.text.is_none());
    found.extend(lines.map(|line| line.seen));
    found.extend(unproven(log, &survey, by_grub, initrd.map(|seen| seen.index)));
    found.retain(|seen| !known.has(log, seen));
    let placed = policy.is_none_or(|policy| {
        let started = programs(log, &survey, Some(policy));
        has_its_place(policy, std::slice::from_ref(proposal), &started, by_grub)
    });
    if !placed {
        let images = survey.images.iter().filter(|seen| learned_boot::is_image(log, seen));
        found.extend(images.filter(|seen| known.has(log, seen)));
    }
    let of_grub = if by_grub { lines_of_grub(log) } else { Vec::new() };
    let proven = survey.lines.iter().filter_map(|line| line.text.as_ref());
    let line = of_grub
        .iter()
        .chain(proven)
        .find_map(|line| other_line(policy, std::slice::from_ref(proposal), line));
    line.into_iter().chain(found.iter().map(|seen| finding(log, seen))).take(MAX_FINDINGS).collect()
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
    let typed = seen.event(log).filter(|_| seen.pcr == 8).and_then(text_of);
    let expected = match typed {
        _ if seen.pcr == 4 => {
            "a program that the policy or a proposal has: it may have run first, and have done and measured all that follows"
        }
        Some(_) => {
            "a command that grub-mkconfig writes, or one that the policy has: who typed this could have GRUB do more"
        }
        None => {
            "what a text proves, or the policy or a proposal has: this may be an initramfs, a command line or an extension of one, whatever it is called"
        }
    };
    Finding {
        pcr: Some(seen.pcr),
        event,
        what: format!("called {what:?}"),
        rule: RULE.to_owned(),
        expected: expected.to_owned(),
        found: digest,
        hint: None,
    }
}
