//! The part of an appraisal that is the same whatever was booted: firmware, Secure Boot, what is built in. What depends on
//! the `[[boot]]` is sorted out for later.

use super::context::{Claims, Context};
use super::recorder::{EventIndex, MeasuredEvent, Mismatch, Recorder};
use super::secure_boot::State;
use super::sequence;
use crate::eventlog::content::{Content, GrubText, Tag};
use crate::eventlog::systemd_log::SystemdEvent;
use crate::eventlog::{Claim, EXPLAINED, ExplainedLog, kind};
use crate::policy::command_line::{MAX_LINE, Objection, Rule, objection_of_rule};
use crate::policy::compare::tpm_firmware as version_text;
use crate::policy::compiled::{BuiltIn, load_options, sections_of};
use crate::policy::rules::{CommandLine, Digest};
use halfkey_measure::{grub, systemd};

/// More command lines in PCR 12 than any boot has.
const MAX_LINES: usize = 16;

/// What is left to compare with each `[[boot]]`.
#[derive(Debug)]
pub(in crate::policy) struct Survey<'l> {
    pub secure_boot: State<'l>,
    /// PCR 4, after the last time that something came back to the firmware.
    pub images: Vec<MeasuredEvent<'l>>,
    /// PCR 4, before it.
    pub returned: Vec<MeasuredEvent<'l>>,
    /// PCR 8, 9 and 11 to 14, by their number, without command lines.
    pub rest: [Vec<MeasuredEvent<'l>>; 15],
    /// PCR 8 and 9 with the command lines, as firmware's log has them in order.
    pub whole: [Vec<MeasuredEvent<'l>>; 2],
    /// Events that carry a command line.
    pub lines: Vec<Line<'l>>,
    /// The command line of a UKI's section, if no event carries one that is proven.
    pub section_line: Option<Line<'l>>,
    /// Uses of each `[[event]]` so far.
    pub used: Vec<u32>,
}

/// An event that carries a command line.
#[derive(Debug)]
pub(in crate::policy) struct Line<'l> {
    pub seen: MeasuredEvent<'l>,
    /// The line, if the digest proves it.
    pub text: Option<String>,
    /// What `[command_line]` has against it; the floor depends on the boot.
    pub shared: Option<Objection>,
}

/// How often each PCR's separator was seen, and what firmware measured.
#[derive(Default)]
struct Progress<'l> {
    separators: [u32; 8],
    firmware: [Vec<MeasuredEvent<'l>>; 2],
    phases: u32,
}

pub(in crate::policy) fn survey<'l, S: Recorder>(
    context: &Context<'_, 'l>,
    claims: &Claims<'l>,
    recorder: &mut S,
) -> Survey<'l> {
    let mut survey = Survey {
        secure_boot: State::default(),
        images: Vec::new(),
        returned: Vec::new(),
        rest: Default::default(),
        whole: Default::default(),
        lines: Vec::new(),
        section_line: None,
        used: vec![0; context.rules.limits.len()],
    };
    let mut progress = Progress::default();
    tpm_firmware(context, recorder);
    whole_pcrs(context, recorder);
    let mut proofs = Proofs { context, claimed: claims.line(), digests: None };
    for seen in events(context.log) {
        survey.sort(context, &mut progress, &mut proofs, seen, recorder);
    }
    for (index, pcr) in [0u8, 2].into_iter().enumerate() {
        if let Some(list) = &context.policy.document.firmware[index] {
            let name = |_: &Digest, index: usize| format!("firmware.pcr{pcr} entry {}", index + 1);
            sequence::in_order(
                list,
                &progress.firmware[index],
                pcr,
                context,
                &mut survey.used,
                name,
                recorder,
            );
        }
    }
    missing_separators(context, &progress, recorder);
    survey.returned(context, recorder);
    let required = context.policy.document.secure_boot.required;
    if context.value(7).is_none() || required {
        survey.secure_boot.finish(required, recorder);
    }
    survey.section_line = section_line(context, &survey.rest[11], claims.line());
    survey
}

/// All events of PCRs that policies speak of: the firmware's, then systemd's.
pub(in crate::policy) fn events<'l>(
    log: &'l ExplainedLog<'l>,
) -> impl Iterator<Item = MeasuredEvent<'l>> + use<'l> {
    let firmware = log.events().iter().enumerate().filter_map(|(index, event)| {
        let pcr = u8::try_from(event.pcr).ok().filter(|pcr| EXPLAINED.contains(pcr))?;
        (!event.digest.is_empty()).then_some(MeasuredEvent {
            index: EventIndex::Firmware(index),
            pcr,
            kind: Some(event.kind),
            digest: event.digest,
        })
    });
    let systemd = log.systemd().iter().enumerate().map(|(index, event)| MeasuredEvent {
        index: EventIndex::Systemd(index),
        pcr: event.pcr,
        kind: None,
        digest: &event.digest,
    });
    firmware.chain(systemd.filter(|seen| EXPLAINED.contains(&seen.pcr)))
}

/// `[tpm]`. A log by itself says nothing of the TPM: that is in the quote.
fn tpm_firmware<S: Recorder>(context: &Context<'_, '_>, recorder: &mut S) {
    let Some(versions) = &context.policy.document.tpm_firmware else { return };
    let found = context.log.tpm_firmware();
    if found.is_some_and(|found| versions.contains(&found)) {
        return;
    }
    recorder.missing(None, "firmware of the TPM", || Mismatch {
        rule: "tpm.firmware".to_owned(),
        expected: versions.iter().map(|version| version_text(*version)).collect::<Vec<_>>().join(" or "),
        found: found.map_or_else(|| "no quote".to_owned(), version_text),
    });
}

/// `[pcr]`
fn whole_pcrs<S: Recorder>(context: &Context<'_, '_>, recorder: &mut S) {
    for (pcr, values) in &context.policy.document.pcrs {
        if context.value(*pcr) == Some(false) {
            recorder.missing(Some(*pcr), "value of the pcr", || Mismatch {
                rule: format!("pcr.{pcr}"),
                expected: Digest::one_of(values),
                found: Digest::new(context.log.pcr(*pcr)).map_or_else(String::new, |value| value.to_string()),
            });
        }
    }
}

fn missing_separators<S: Recorder>(context: &Context<'_, '_>, progress: &Progress<'_>, recorder: &mut S) {
    for pcr in 0..8u8 {
        if progress.separators[usize::from(pcr)] == 0 && !context.ignored(pcr) && context.value(pcr).is_none()
        {
            recorder.missing(Some(pcr), "separator", || Mismatch {
                rule: "built in".to_owned(),
                expected: "one that ends the firmware's part".to_owned(),
                found: "none".to_owned(),
            });
        }
    }
}

impl<'l> Survey<'l> {
    fn sort<S: Recorder>(
        &mut self,
        context: &Context<'_, 'l>,
        progress: &mut Progress<'l>,
        proofs: &mut Proofs<'_, 'l>,
        seen: MeasuredEvent<'l>,
        recorder: &mut S,
    ) {
        if context.ignored(seen.pcr) {
            return recorder.accept(&seen, || "ignored".to_owned());
        }
        if seen.pcr == 4 && context.rules.built_in.returning.as_bytes() == seen.digest {
            self.returned.append(&mut self.images);
        }
        if self.built_in(context, progress, &seen) {
            return recorder.accept(&seen, || "built in".to_owned());
        }
        if let 8 | 9 = seen.pcr {
            self.whole[usize::from(seen.pcr == 9)].push(seen);
        }
        match seen.pcr {
            0 if context.policy.document.firmware[0].is_some() => progress.firmware[0].push(seen),
            2 if context.policy.document.firmware[1].is_some() => progress.firmware[1].push(seen),
            7 if self.secure_boot.event(context, &seen, recorder) => {}
            4 => self.images.push(seen),
            8 | 9 | 12 => match proofs.line(&seen) {
                Some(text) => self.line(context, seen, text, recorder),
                None => self.rest[usize::from(seen.pcr)].push(seen),
            },
            11 | 13 | 14 => self.rest[usize::from(seen.pcr)].push(seen),
            _ => context.otherwise(&seen, &mut self.used, recorder),
        }
    }

    fn built_in(
        &mut self,
        context: &Context<'_, 'l>,
        progress: &mut Progress<'l>,
        seen: &MeasuredEvent<'l>,
    ) -> bool {
        let built_in = context.rules.built_in;
        match seen.kind {
            Some(kind::SEPARATOR) if seen.pcr < 8 => {
                let once = &mut progress.separators[usize::from(seen.pcr)];
                let ready = built_in.separators.iter().any(|digest| digest.as_bytes() == seen.digest);
                *once += u32::from(ready);
                self.secure_boot.separated |= ready && seen.pcr == 7;
                // A second one would be of somebody who poses as firmware.
                ready && *once == 1
            }
            Some(kind::EFI_ACTION) => built_in
                .actions
                .iter()
                .any(|(pcr, digest)| *pcr == seen.pcr && digest.as_bytes() == seen.digest),
            None if seen.pcr == 11 && built_in.enter_initrd.as_bytes() == seen.digest => {
                progress.phases += 1;
                progress.phases == 1
            }
            None => match seen.index {
                EventIndex::Systemd(index) => is_boundary(built_in, &context.log.systemd()[index]),
                EventIndex::Firmware(_) => false,
            },
            _ => false,
        }
    }

    /// What came back to the firmware was in charge before, and could have done and measured all that followed: it is no part of
    /// the path, and needs a rule of its own.
    fn returned<S: Recorder>(&mut self, context: &Context<'_, 'l>, recorder: &mut S) {
        let Self { returned, used, .. } = self;
        for seen in returned.iter() {
            if context.shared(seen, used) {
                recorder.accept(seen, || "event".to_owned());
            } else if context.value(4) == Some(true) {
                recorder.accept(seen, || "pcr.4".to_owned());
            } else {
                recorder.refuse(seen, || Mismatch {
                    rule: "boot path".to_owned(),
                    expected: "nothing that was started and came back to the firmware, but what an [[event]] of pcr 4 names".to_owned(),
                    found: Digest::new(seen.digest).map_or_else(String::new, |digest| format!("authenticode {digest}")),
                });
            }
        }
    }

    fn line<S: Recorder>(
        &mut self,
        context: &Context<'_, 'l>,
        seen: MeasuredEvent<'l>,
        text: Option<String>,
        recorder: &mut S,
    ) {
        // GRUB and the kernel each measure one; loader and stub may both measure theirs into PCR 12.
        let max = if seen.pcr == 12 { MAX_LINES } else { 1 };
        if self.lines.iter().filter(|line| line.seen.pcr == seen.pcr).count() >= max {
            return recorder.refuse(&seen, || Mismatch {
                rule: "command_line".to_owned(),
                expected: format!("at most {max} with a command line"),
                found: "one more".to_owned(),
            });
        }
        self.lines.push(Line { seen, shared: shared_objection(context, text.as_deref()), text });
    }
}

fn shared_objection(context: &Context<'_, '_>, text: Option<&str>) -> Option<Objection> {
    let document = &context.policy.document;
    match (&document.command_line, text) {
        (CommandLine::None, _) | (_, None) => None,
        (shared, Some(text)) => objection_of_rule(Rule::Shared(shared), text),
    }
}

/// What systemd measures at the border between initrd and system. It says nothing, and is the digest of nothing else that a rule could
/// ask for; the initrd as well as whatever comes later may add it.
pub(in crate::policy) fn is_boundary(built_in: &BuiltIn, event: &SystemdEvent) -> bool {
    match event.pcr {
        9 if built_in.nvpcr_separator.as_bytes() == &*event.digest => true,
        9 if event.measured_text().is_some_and(systemd::is_nvpcr_init) => true,
        0..=7 | 9 | 12..=14 => built_in.os_separator.as_bytes() == &*event.digest,
        _ => false,
    }
}

/// What is known of command lines that only their digests prove.
struct Proofs<'c, 'l> {
    context: &'c Context<'c, 'l>,
    /// What the node says.
    claimed: Option<&'l str>,
    /// The digests that it would have as load options.
    digests: Option<[Digest; 6]>,
}

impl<'l> Proofs<'_, 'l> {
    /// `None`: the event carries no command line. `Some(None)`: it carries one that is not proven.
    fn line(&mut self, seen: &MeasuredEvent<'l>) -> Option<Option<String>> {
        let event = seen.event(self.context.log)?;
        match (seen.pcr, seen.kind?) {
            // GRUB measures each command as well: those that it does not call a command line are compared as they are.
            (8, kind::IPL) if grub::is_line(event.claimed_data()) => match event.content() {
                Content::Grub { claimed: GrubText::Command, .. } => None,
                Content::Grub { text, .. } => Some(str::from_utf8(text).ok().map(of_kernel)),
                _ => Some(None),
            },
            (12, kind::IPL) => match event.content() {
                Content::Text(text) => Some(Some(no_longer(text.chars()))),
                _ => None,
            },
            (9, kind::EVENT_TAG) => match event.claimed_content() {
                Claim::Tag(Tag { id: Tag::LOAD_OPTIONS, .. }) => Some(self.load_options(seen.digest)),
                _ => None,
            },
            _ => None,
        }
    }

    fn load_options(&mut self, digest: &[u8]) -> Option<String> {
        let digest = Digest::new(digest)?;
        if let Some(line) = self.context.rules.lines.get(&digest) {
            return Some(line.clone());
        }
        let claimed = self.claimed?;
        let bank = self.context.log.bank();
        let digests = self.digests.get_or_insert_with(|| load_options(claimed, bank));
        digests.contains(&digest).then(|| claimed.to_owned())
    }
}

/// A line as GRUB measured it.
fn of_kernel(measured: &str) -> String {
    no_longer(grub::as_passed(&no_longer(measured.chars())).chars())
}

/// So much of a line that the floor refuses one that is longer than it may be: nobody looks at a megabyte of words.
fn no_longer(line: impl Iterator<Item = char>) -> String {
    line.take(MAX_LINE + 1).collect()
}

/// Of a line as the node has it, so much at the beginning may be a section's: addons of a UKI hang theirs behind it.
const ADDONS: usize = 64;

/// The event after the name `.cmdline` in PCR 11; with its text, if what the node says, or the document has, fits its digest.
fn section_line<'l>(
    context: &Context<'_, 'l>,
    events: &[MeasuredEvent<'l>],
    claimed: Option<&str>,
) -> Option<Line<'l>> {
    let built_in = context.rules.built_in;
    let at = |name: &Digest| events.iter().position(|seen| seen.digest == name.as_bytes());
    let index = at(&built_in.command_line_section)?;
    // A stub measures the line before the initrd; what comes after it may be of what runs.
    if at(&built_in.initrd_section)? < index {
        return None;
    }
    let seen = *events.get(index + 1)?;
    let bank = context.log.bank();
    let fits = |line: &&str| sections_of(line, bank).any(|digest| digest.as_bytes() == seen.digest);
    let written = context.rules.lines.values().map(String::as_str);
    let ends = claimed.into_iter().flat_map(|line| line.rmatch_indices(' ').map(|(end, _)| &line[..end]));
    let text = claimed.into_iter().chain(written).chain(ends.take(ADDONS)).find(fits).map(str::to_owned);
    Some(Line { seen, shared: shared_objection(context, text.as_deref()), text })
}
