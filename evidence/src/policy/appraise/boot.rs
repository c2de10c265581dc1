//! The part of an appraisal that is about one `[[boot]]`: who verified, images, initrd, sections, command line, the rest.
//!
//! What a signer proves, and what not. Secure Boot was on with just the keys that the policy lists, so firmware started
//! nothing that one of them did not verify; every certificate that verified anything is an authority of the policy or a signer of
//! this boot. Whether the signer verified anything is proven only where no other authority is allowed: whatever runs in
//! this boot can extend PCR 7 with the signer's event, which is public, and the order of events of different PCRs is the log's
//! word. So each further authority can put an image of its own in the place of the signer's. Where the signer is the only
//! authority, no image of another runs at all.

use super::context::Context;
use super::recorder::{EventIndex, MeasuredEvent, Mismatch, Recorder};
use super::secure_boot::Authority;
use super::sequence::{Accepts, in_order};
use super::survey::{Line, Survey};
use crate::eventlog::content::Tag;
use crate::eventlog::{Claim, kind};
use crate::policy::boot_path::Path;
use crate::policy::command_line::{Objection, Rule, floor_of, ima_objection, objection_of_rule};
use crate::policy::compiled::{BootSteps, Step, StepIs};
use crate::policy::ima::ImaPolicy;
use crate::policy::rules::{
    Allowed, Boot, CommandLine, Digest, EventIs, EventRule, Image, Initrd, Listed, Sections,
};

/// One `[[boot]]` against what was surveyed.
pub(super) struct Appraiser<'a, 'l> {
    pub context: &'a Context<'a, 'l>,
    pub survey: &'a Survey<'l>,
    pub boot: &'a Boot,
    pub steps: &'a BootSteps,
}

impl<'l> Appraiser<'_, 'l> {
    pub fn run<S: Recorder>(&self, recorder: &mut S) {
        // An event that firmware measured is not there once more for the boot.
        let mut used = self.survey.used.clone();
        self.pinned(recorder);
        self.authorities(&mut used, recorder);
        self.images(&mut used, recorder);
        for pcr in [8u8, 9, 11, 12, 13, 14] {
            let events = &self.survey.rest[usize::from(pcr)];
            // Named one by one: another boot path is decided on here.
            let whole = match self.steps.path {
                Path::Grub => true,
                Path::Uki | Path::Kernel => false,
            };
            match pcr {
                // All that GRUB reads and does, in its order.
                8 | 9 if whole => self.by_grub(pcr, &mut used, recorder),
                9 => self.in_order(pcr, &self.without_initrd(events, recorder), &mut used, recorder),
                11 => self.in_order(pcr, self.without_signed_sections(events, recorder), &mut used, recorder),
                _ => self.in_order(pcr, events, &mut used, recorder),
            }
        }
        self.command_line(&mut used, recorder);
    }

    fn name(&self, part: &str) -> String {
        format!("boot {:?} {part}", self.boot.name)
    }

    /// What GRUB measured is in the firmware's log. What systemd's log has was measured by the initramfs, or by whatever ran in its
    /// place: it takes no step of GRUB's, least of all that of the initrd.
    fn by_grub<S: Recorder>(&self, pcr: u8, used: &mut [u32], recorder: &mut S) {
        let whole = self.survey.whole[usize::from(pcr == 9)].iter().copied();
        let (firmware, systemd): (Vec<_>, Vec<_>) =
            whole.partition(|seen| matches!(seen.index, EventIndex::Firmware(_)));
        self.in_order(pcr, &firmware, used, recorder);
        for seen in systemd {
            self.context.otherwise(&seen, used, recorder);
        }
    }

    /// Documents are checked when they are read; a boot that was made otherwise must pin its initramfs as well.
    fn pinned<S: Recorder>(&self, recorder: &mut S) {
        for lack in &self.steps.lacks {
            recorder.missing(None, "boot path", || Mismatch {
                rule: self.name("floor"),
                expected: lack.expected.to_owned(),
                found: lack.found.split('\n').next().unwrap_or_default().to_owned(),
            });
        }
    }

    fn authorities<S: Recorder>(&self, used: &mut [u32], recorder: &mut S) {
        let listed = &self.context.policy.keys.authorities;
        for Authority { seen, signer } in &self.survey.secure_boot.authorities {
            if listed.contains(signer) {
                recorder.accept(seen, || "secure_boot.authorities".to_owned());
            } else if self.boot.images.iter().any(|image| image.has_signer(signer)) {
                recorder.accept(seen, || self.name("signer"));
            } else if self.context.shared(seen, used) {
                recorder.accept(seen, || "event".to_owned());
            } else if self.context.value(7) == Some(true) {
                recorder.accept(seen, || "pcr.7".to_owned());
            } else {
                recorder.refuse(seen, || Mismatch {
                    rule: "secure_boot.authorities".to_owned(),
                    expected: match listed.len() {
                        1 => listed.iter().map(Listed::to_string).collect(),
                        count => {
                            format!("one of {count} authorities, or a signer of boot {:?}", self.boot.name)
                        }
                    },
                    found: signer.to_string(),
                });
            }
        }
    }

    fn images<S: Recorder>(&self, used: &mut [u32], recorder: &mut S) {
        let rules: Vec<_> =
            self.boot.images.iter().map(|image| ImageRule { image, appraiser: self }).collect();
        let name = |rule: &ImageRule<'_, '_, 'l>, index: usize| {
            self.name(&format!("image {} ({})", index + 1, rule.image.role.name()))
        };
        in_order(&rules, &self.survey.images, 4, self.context, used, name, recorder);
    }

    fn in_order<S: Recorder>(
        &self,
        pcr: u8,
        events: &[MeasuredEvent<'l>],
        used: &mut [u32],
        recorder: &mut S,
    ) {
        let name = |step: &Step, _| match (step.is, &self.boot.sections) {
            (StepIs::Section(index), Some(Sections::Digests(list))) => {
                self.name(&format!("section {}", list[index].0))
            }
            (StepIs::SectionName(index), Some(Sections::Digests(list))) => {
                self.name(&format!("name of section {}", list[index].0))
            }
            (StepIs::Event(index), _) => {
                let event = format!("event {}", index + 1);
                match &self.boot.events[index] {
                    EventRule { is: EventIs::Text(text), .. } => self.name(&format!("{event} ({text})")),
                    _ => self.name(&event),
                }
            }
            _ => self.name("sections"),
        };
        in_order(&self.steps.by_pcr[usize::from(pcr)], events, pcr, self.context, used, name, recorder);
    }

    /// Takes out the initrd as the kernel has measured it, once: whatever else is there needs another rule.
    fn without_initrd<S: Recorder>(
        &self,
        events: &[MeasuredEvent<'l>],
        recorder: &mut S,
    ) -> Vec<MeasuredEvent<'l>> {
        let mut found_it = false;
        let mut rest = Vec::with_capacity(events.len());
        for seen in events {
            if !found_it && self.is_initrd(seen) {
                found_it = true;
                recorder.accept(seen, || self.name("initrd"));
            } else {
                rest.push(*seen);
            }
        }
        if !found_it {
            let expected = match &self.boot.initrd {
                Initrd::Digest(digest) => digest.to_string(),
                Initrd::Signed | Initrd::InUki => "one that the kernel measured".to_owned(),
            };
            let why = |found| Mismatch { rule: self.name("initrd"), expected, found };
            // The initrd that was booted in its place, if it is to be seen: that says more than that one is missing.
            match rest.iter().position(|seen| self.is_initrd_of_kernel(seen)) {
                Some(index) => {
                    let seen = rest.remove(index);
                    recorder.refuse(&seen, || why(found(&seen)));
                }
                None => recorder.missing(Some(9), "initrd", || why("none".to_owned())),
            }
        }
        rest
    }

    fn is_initrd(&self, seen: &MeasuredEvent<'l>) -> bool {
        self.is_initrd_of_kernel(seen)
            && match &self.boot.initrd {
                Initrd::Digest(digest) => digest.as_bytes() == seen.digest,
                Initrd::Signed | Initrd::InUki => true,
            }
    }

    /// In the firmware's log: systemd's is of what the initrd itself has measured.
    fn is_initrd_of_kernel(&self, seen: &MeasuredEvent<'l>) -> bool {
        let claim = |event: &crate::eventlog::Event<'l>| event.claimed_content();
        seen.kind == Some(kind::EVENT_TAG)
            && matches!(
                seen.event(self.context.log).map(claim),
                Some(Claim::Tag(Tag { id: Tag::INITRD, .. }))
            )
    }

    /// Takes pairs of name and section from the front, each name once, if the image's signer vouches for them.
    fn without_signed_sections<'e, S: Recorder>(
        &self,
        events: &'e [MeasuredEvent<'l>],
        recorder: &mut S,
    ) -> &'e [MeasuredEvent<'l>] {
        if self.boot.sections != Some(Sections::Signed) {
            return events;
        }
        let names = &self.context.rules.built_in.section_names;
        let mut left: Vec<&Digest> = names.iter().collect();
        let mut rest = events;
        while let [name, section, after @ ..] = rest
            && let (EventIndex::Firmware(_), EventIndex::Firmware(_)) = (name.index, section.index)
            && let Some(index) = left.iter().position(|known| known.as_bytes() == name.digest)
        {
            left.swap_remove(index);
            recorder.accept(name, || self.name("sections, by signer"));
            recorder.accept(section, || self.name("sections, by signer"));
            rest = after;
        }
        rest
    }

    fn command_line<S: Recorder>(&self, used: &mut [u32], recorder: &mut S) {
        let mut proven = false;
        for line in &self.survey.lines {
            match self.objection_to(line) {
                None => {
                    proven |= self.proves(line);
                    recorder.accept(&line.seen, || self.line_rule(""));
                }
                // A part of a line, as an addon of a UKI has it, is known by its digest only.
                Some(_) if self.context.shared(&line.seen, used) => {
                    recorder.accept(&line.seen, || "event".to_owned())
                }
                Some(Objection { rule, expected, found }) => {
                    // What is not accepted needs not be found missing as well.
                    proven = true;
                    recorder.refuse(&line.seen, || Mismatch { rule: self.line_rule(rule), expected, found });
                }
            }
        }
        // What the signature vouches for is the image, not that its kernel measures the line that the stub hands it: where it does not,
        // whatever runs can add the event of another one.
        let signed = matches!(self.boot.sections, Some(Sections::Signed));
        match &self.survey.section_line {
            Some(line) if signed || !proven && line.text.is_some() => {
                if let Some(Objection { rule, expected, found }) = self.objection_to(line) {
                    recorder.refuse(&line.seen, || Mismatch { rule: self.line_rule(rule), expected, found });
                }
            }
            _ if !proven => recorder.missing(None, "command line", || Mismatch {
                rule: self.line_rule(""),
                expected: "an event that proves it".to_owned(),
                found: "no proven command line".to_owned(),
            }),
            _ => {}
        }
    }

    /// Whether an accepted line is the one that the kernel got. What is in PCR 8 is GRUB's where GRUB boots; else anybody put it there.
    /// The kernel measures its line into PCR 9 before its initrd, and an empty one not at all: what comes later may be of what runs.
    /// Stub and loader measure an empty one into PCR 12 no more than that, so an event there proves nothing by itself.
    fn proves(&self, line: &Line<'l>) -> bool {
        let index = line.seen.index;
        match (line.seen.pcr, self.steps.path) {
            (8 | 9, Path::Grub) => true,
            (9, Path::Uki | Path::Kernel) => {
                let mut initrds = self.survey.whole[1].iter().filter(|seen| self.is_initrd(seen));
                initrds.next().is_some_and(|initrd| index.is_before(initrd.index))
            }
            _ => false,
        }
    }

    fn objection_to(&self, line: &Line<'l>) -> Option<Objection> {
        match &line.text {
            Some(text) => self.objection(line, text),
            None => Some(Objection {
                rule: "proof",
                expected: "the command line that it is the digest of, from the log or from the node"
                    .to_owned(),
                found: "none that fits".to_owned(),
            }),
        }
    }

    fn objection(&self, line: &Line<'l>, text: &str) -> Option<Objection> {
        let document = &self.context.policy.document;
        let floor = floor_of(self.boot, document.secure_boot.required);
        let asked = |_: &ImaPolicy| ima_objection(text);
        let below = floor.objection(text).or_else(|| self.context.policy.ima.as_deref().and_then(asked));
        below.or_else(|| match &self.boot.command_line {
            Some(own) => objection_of_rule(Rule::Own(own), text),
            None if document.command_line == CommandLine::None => {
                objection_of_rule(Rule::Shared(&document.command_line), text)
            }
            None => line.shared.clone(),
        })
    }

    fn line_rule(&self, rule: &str) -> String {
        match (&self.boot.command_line, rule) {
            (Some(_), _) => self.name("command_line"),
            (None, "") => "command_line".to_owned(),
            (None, rule) => format!("command_line.{rule}"),
        }
    }
}

fn found(seen: &MeasuredEvent<'_>) -> String {
    Digest::new(seen.digest).map_or_else(String::new, |digest| digest.to_string())
}

/// A `[[boot.image]]` with what it takes to appraise a signer.
struct ImageRule<'a, 'j, 'l> {
    image: &'a Image,
    appraiser: &'a Appraiser<'j, 'l>,
}

impl Accepts for ImageRule<'_, '_, '_> {
    const WHAT: &'static str = "image";

    fn accepts(&self, seen: &MeasuredEvent<'_>) -> bool {
        match &self.image.allowed {
            Allowed::Authenticode(digests) => digests.iter().any(|digest| digest.as_bytes() == seen.digest),
            Allowed::Signer(signers) => {
                let image = matches!(
                    seen.kind,
                    Some(
                        kind::EFI_BOOT_SERVICES_APPLICATION
                            | kind::EFI_BOOT_SERVICES_DRIVER
                            | kind::EFI_RUNTIME_SERVICES_DRIVER
                    )
                );
                let state = &self.appraiser.survey.secure_boot;
                let before = |authority: &Authority<'_>| authority.seen.index.is_before(seen.index);
                image
                    && state.on
                    && self.appraiser.context.policy.document.secure_boot.required
                    && state.authorities.iter().any(|found| before(found) && found.signer.is_among(signers))
            }
        }
    }

    fn expected(&self) -> String {
        match &self.image.allowed {
            Allowed::Authenticode(digests) => format!("authenticode {}", Digest::one_of(digests)),
            Allowed::Signer(signers) => format!("an image verified by {}", Digest::one_of(signers)),
        }
    }

    fn found(&self, seen: &MeasuredEvent<'_>) -> String {
        format!("authenticode {}", found(seen))
    }
}

impl Image {
    pub(in crate::policy) fn has_signer(&self, signer: &Listed) -> bool {
        matches!(&self.allowed, Allowed::Signer(signers) if signer.is_among(signers))
    }
}
