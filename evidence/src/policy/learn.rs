//! A policy from a boot.

use super::announced::{
    are, has_its_place, is_initrd_of_uki, is_kernel, is_payload_alone, other_line, programs,
};
use super::appraise::recorder::{Count, EventIndex, MAX_FINDINGS, MeasuredEvent};
use super::appraise::secure_boot::{fingerprint, listed, name as name_of};
use super::appraise::survey::{Survey, events, is_boundary, survey};
use super::appraise::{Claims, Context, evaluate};
use super::boot_path::{self, Path};
use super::command_line::{Floor, floor_of, normal};
use super::compiled::{BuiltIn, Compiled};
use super::learned_boot::{boot, by_digest, grub_texts, image_file, initrd, is_image, may_be_program, what};
use super::parse::Problem;
use super::parsed::Policy;
use super::rules::{
    Allowed, Boot, CommandLine, Dbx, Digest, Document, EventIs, EventRule, Image, Listed, Role, SecureBoot,
};
use super::unproven::{self, Known, Unexplained};
use super::write::{Comments, Text, quoted};
use crate::eventlog::content::{Content, Separator};
use crate::eventlog::variable::{Known as Variable, Value};
use crate::eventlog::{Event, ExplainedLog, kind};
use halfkey_measure::grub::{self, BootBefore};
use halfkey_protocol::wire::Proposal;
use halfkey_protocol::wire::policies::Finding;
use std::collections::HashSet;

/// What no log proves, and the owner knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Assured {
    /// The kernel measures its initrd wherever it comes from (Linux c004703ed7ae). Without effect on a UKI and on GRUB, where
    /// another pins it.
    pub kernel_measures_initrd: bool,
    /// What was started before this boot and came back to the firmware is believed like an image of the boot path: it was in
    /// charge first, and could have done and measured all that followed.
    pub trust_returned_images: bool,
    /// What no text proves, and neither the policy nor a proposal has, is believed to be what the log calls it: files that GRUB read,
    /// credentials and extensions beside a UKI, what else is in PCR 7.
    pub trust_unknown_events: bool,
    /// The command line of an announced boot is believed, although another one was proposed.
    pub trust_command_line: bool,
}

/// Stands at each image that was learned by the owner's word for it.
const RETURNED: &str = "came back, or could have; whatever this image can be made to do has the key";

/// Writes the tightest policy that accepts this boot, with comments that say what each value is. `name` is that of the
/// policy; `notes` become comments at its head.
///
/// # Errors
/// What keeps the boot below the floor, or can't be said in a policy.
pub fn learn(
    log: &ExplainedLog<'_>,
    claims: &Claims<'_>,
    assured: Assured,
    name: &str,
    notes: &[&str],
) -> Result<String, Vec<Finding>> {
    let mut learned = Learned::new(log, claims, assured)?;
    // Of a machine without a policy no file that GRUB reads is known: the word is for all of the boot.
    if unproven::is_behind_grub(log, &learned.survey) {
        learned.unproven.retain(|seen| seen.pcr != 9);
    }
    learned.may_be_allowed(assured)?;
    let boot = learned.boot_name().unwrap_or_else(|| name.to_owned());
    let text = learned.policy(name, &boot, notes);
    check(&text, log, claims)?;
    Ok(text)
}

/// Writes only what a policy lacks to accept this boot as well: its `[[boot]]`, and the `[[event]]`s that are not firmware's,
/// to be appended. `name` is that of the boot, `policy` the one that governs it.
///
/// # Errors
/// As [`learn`].
pub fn learn_boot(
    policy: &Policy,
    log: &ExplainedLog<'_>,
    claims: &Claims<'_>,
    assured: Assured,
    name: &str,
) -> Result<String, Vec<Finding>> {
    learn_announced(policy, log, claims, assured, name, &[])
}

/// As [`learn_boot`], for a boot that its machine has proposed before, and that has all of these proposals: what they have is known as well.
///
/// # Errors
/// As [`learn`].
pub fn learn_announced(
    policy: &Policy,
    log: &ExplainedLog<'_>,
    claims: &Claims<'_>,
    assured: Assured,
    name: &str,
    proposals: &[Proposal],
) -> Result<String, Vec<Finding>> {
    let assured = policy.assured_of(log, claims, assured);
    let mut learned = Learned::new(log, claims, assured)?;
    let whole = learned.policy(name, name, &[]);
    // What the policy names already needs no other word.
    learned.leave_out(policy);
    let known = proposals.iter().fold(Known::of(policy), Known::with);
    learned.unproven.extend(learned.by_digest_alone(policy, proposals));
    learned.unproven.retain(|seen| !known.has(log, seen));
    learned.unproven.extend(learned.out_of_place(policy, proposals));
    // That of a section alone is known by the section.
    if !proposals.is_empty() && !learned.survey.lines.is_empty() {
        learned.other_line = other_line(Some(policy), proposals, &learned.line);
    }
    learned.may_be_allowed(assured)?;
    check(&whole, log, claims)?;
    let mut out = Text::default();
    learned.write_boot(name, &mut out);
    Ok(out.0)
}

/// What was learned must be a policy, and accept what it was learned from.
fn check(text: &str, log: &ExplainedLog<'_>, claims: &Claims<'_>) -> Result<(), Vec<Finding>> {
    let problem = |problem: Problem| lacking("policy", &problem.message, "a boot that has it otherwise");
    let policy =
        Policy::parse(text).map_err(|problems| problems.into_iter().map(problem).collect::<Vec<_>>())?;
    let findings = evaluate(&policy, log, claims).findings;
    if findings.is_empty() { Ok(()) } else { Err(findings) }
}

fn lacking(what: &str, expected: &str, found: &str) -> Finding {
    Finding {
        pcr: None,
        event: None,
        what: what.to_owned(),
        rule: "floor".to_owned(),
        expected: expected.to_owned(),
        found: found.to_owned(),
        hint: None,
    }
}

/// A boot in the terms of a policy.
struct Learned<'l> {
    log: &'l ExplainedLog<'l>,
    survey: Survey<'l>,
    line: String,
    keys: Keys,
    boot: Boot,
    comments: Comments,
    /// `[[event]]`, and what each is.
    events: Vec<(EventRule, String)>,
    /// The same, for what came back to the firmware before the boot, or may be a program that did.
    returned: Vec<(EventRule, String)>,
    /// GRUB starts the kernel.
    by_grub: bool,
    /// What the log may call anything.
    unproven: Vec<MeasuredEvent<'l>>,
    /// The line of a boot that was announced with another.
    other_line: Option<Finding>,
}

/// Digests with what they are.
type Described = Vec<(Digest, String)>;
/// Entries of signature databases with what they are.
type Entries = Vec<(Listed, String)>;

/// What PCR 7 says.
#[derive(Default)]
pub(super) struct Keys {
    on: bool,
    /// PK, KEK, db
    pub lists: [Entries; 3],
    dbx: Vec<Digest>,
    pub authorities: Entries,
}

impl Policy {
    /// What the owner has said of the kernel of a boot before: it holds where just the programs of that boot were started. Whatever else ran
    /// can have measured that kernel, and not started it.
    fn assured_of(&self, log: &ExplainedLog<'_>, claims: &Claims<'_>, assured: Assured) -> Assured {
        let nothing = Compiled::new(nothing());
        let survey = survey(&Context::new(&nothing, log), claims, &mut Count::default());
        let started = programs(log, &survey, Some(self));
        let known = self.boots().iter().filter(|boot| boot.kernel_measures_initrd).any(|boot| {
            let mut named: Vec<&Allowed> = boot.images.iter().map(|image| &image.allowed).collect();
            named.dedup();
            are(&named, &started)
        });
        Assured { kernel_measures_initrd: assured.kernel_measures_initrd || known, ..assured }
    }
}

impl<'l> Learned<'l> {
    fn new(log: &'l ExplainedLog<'l>, claims: &Claims<'l>, assured: Assured) -> Result<Self, Vec<Finding>> {
        let nothing = Compiled::new(nothing());
        let context = Context::new(&nothing, log);
        let survey = survey(&context, claims, &mut Count::default());
        let (mut keys, mut events) = keys(log);
        // What ran may have measured the texts of another boot, so these say more than that a line is missing.
        let by_grub = unproven::is_by_grub(log, &survey);
        let commands = unproven::commands(log, by_grub);
        let line = match proven_line(log, &survey, by_grub) {
            Ok(line) if commands.is_empty() => line,
            Ok(_) => return Err(commands),
            Err(found) => return Err([commands, found].concat()),
        };
        let (boot, comments) = boot(log, &survey, &line, assured, &mut events);
        let by_word =
            survey.returned.iter().chain(survey.images.iter().filter(|seen| may_be_program(log, seen)));
        let returned = by_word.filter_map(|seen| by_digest(log, seen)).map(believed).collect();
        let initrd = initrd(log, &survey.rest[9]).map(|seen| seen.index);
        let mut unproven = unproven::unproven(log, &survey, by_grub, initrd);
        let Unexplained { before, after } = Unexplained::of(log);
        // One of them may say that it is off.
        keys.on &= before.is_empty();
        unproven.extend(before.into_iter().chain(after));
        let other_line = None;
        Ok(Self { log, survey, line, keys, boot, comments, events, returned, by_grub, unproven, other_line })
    }

    /// What no policy should allow, or the owner has to say.
    fn may_be_allowed(&self, assured: Assured) -> Result<(), Vec<Finding>> {
        let mut lacks: Vec<_> =
            boot_path::lacks(&self.boot).iter().map(|lack| lack.finding("floor".to_owned())).collect();
        if !assured.trust_returned_images {
            lacks.extend(self.returned.iter().map(|(event, what)| unbelieved(event, what)));
            lacks.extend(self.more_loaders());
        }
        if !assured.trust_unknown_events {
            let seen = self.unproven.iter().take(MAX_FINDINGS);
            lacks.extend(seen.map(|seen| unproven::finding(self.log, seen)));
        }
        if !assured.trust_command_line {
            lacks.extend(self.other_line.clone());
        }
        if lacks.is_empty() {
            above_the_floor(&self.line, floor_of(&self.boot, self.keys.on))
        } else {
            Err(lacks)
        }
    }

    /// One program starts the kernel, behind shim if there is one. Another one that was started on the way may have come back to a
    /// loader's menu, which nobody measures, and the next time it need not.
    fn more_loaders(&self) -> Vec<Finding> {
        let seen = self.survey.images.iter().filter(|seen| is_image(self.log, seen));
        let mut programs: Vec<(&Image, &String, &MeasuredEvent<'l>)> = Vec::new();
        let images = self.boot.images.iter().zip(&self.comments.images).zip(seen);
        for ((image, what), seen) in images {
            // What verifies an image, and what starts it, may both measure it, the one next after the other. Else it ran twice.
            programs.pop_if(|(.., last)| last.digest == seen.digest);
            programs.push((image, what, seen));
        }
        let behind_shim = programs.first().is_some_and(|(first, ..)| first.role == Role::Shim);
        // Without Secure Boot nobody but GRUB measures the kernel that it starts.
        let by_grub_alone = self.boot.images.iter().all(|image| image.role != Role::Kernel)
            && Path::of(&self.boot) == Path::Grub;
        let last = if by_grub_alone { None } else { programs.pop() };
        if last.is_some_and(|(last, ..)| last.role != Role::Uki) {
            // The kernel of a UKI.
            programs.pop_if(|(before, ..)| before.role == Role::Uki);
        }
        let more = programs.into_iter().skip(1 + usize::from(behind_shim));
        more.map(|(_, what, seen)| Finding {
            pcr: Some(4),
            event: None,
            what: what.clone(),
            rule: "boot path".to_owned(),
            expected: "one boot loader, or more that the owner trusts alike".to_owned(),
            found: Digest::new(seen.digest)
                .map_or_else(String::new, |digest| format!("authenticode {digest}")),
            hint: None,
        })
        .collect()
    }

    /// What ran first is not told from what it measured afterwards: it can have all of an announced boot there, in any order and by any name.
    /// So where a boot is expected, each program and section has to be one that is named, and the initrd, but for one that the UKI alone is the
    /// word for. Where none is, the boot is new by the operator's word, but for what the machine starts with: the loader of the policy, which
    /// measures what it starts, and the owner's keys.
    fn by_digest_alone(&self, policy: &Policy, proposals: &[Proposal]) -> Vec<MeasuredEvent<'l>> {
        let is_payload = |image: &Image| matches!(image.role, Role::Uki | Role::Kernel);
        let by_itself = policy.boots().iter().any(|boot| boot.images.first().is_some_and(is_payload));
        let (programs, sections) = match (proposals, by_itself) {
            ([], true) => (0, 0),
            ([], false) => (1, 0),
            _ => (usize::MAX, usize::MAX),
        };
        let images = self.survey.images.iter().filter(|seen| is_image(self.log, seen)).take(programs);
        let measured = unproven::sections(self.log, &self.survey);
        let sections = measured.iter().take(sections);
        // A policy that pins this PCR as a whole still does.
        let pinned = policy.compiled.document.pcrs.iter().any(|(pcr, _)| *pcr == 14);
        let keys = self.survey.rest[14].iter().filter(|_| !pinned);
        let is_of = |proposal| is_initrd_of_uki(self.log, &self.survey, Some(policy), proposal);
        let of_uki = proposals.iter().any(is_of);
        let initrd = initrd(self.log, &self.survey.rest[9]).filter(|_| !proposals.is_empty() && !of_uki);
        let initrd = initrd.filter(|seen| self.unproven.iter().all(|other| other.index != seen.index));
        let mut all: Vec<_> = images.chain(sections).chain(keys).chain(initrd).copied().collect();
        // Who verifies a program and who starts it both measure it.
        let mut seen = HashSet::new();
        all.retain(|event| seen.insert((event.pcr, event.digest)));
        all
    }

    /// What is known, and not as what it is here: all programs of an announced boot that are not where the policy has them; a kernel or UKI as the
    /// first program, where each boot of the policy begins with another; a kernel that is called a UKI, whose initrd is no section of it.
    fn out_of_place(&self, policy: &Policy, proposals: &[Proposal]) -> Vec<MeasuredEvent<'l>> {
        let images = || self.survey.images.iter().filter(|seen| is_image(self.log, seen));
        let programs = programs(self.log, &self.survey, Some(policy));
        if !proposals.is_empty() && !has_its_place(policy, proposals, &programs, self.by_grub) {
            return images().copied().collect();
        }
        let ukis = self.boot.images.iter().zip(images()).filter(|(image, _)| image.role == Role::Uki);
        let kernels = ukis.map(|(_, seen)| seen).filter(|seen| is_kernel(policy, proposals, seen));
        let by_itself = policy.boots().iter().any(|boot| {
            boot.images.first().is_some_and(|image| matches!(image.role, Role::Uki | Role::Kernel))
        });
        let in_front = !by_itself || self.by_grub;
        let first = images().take(1).filter(|seen| in_front && is_payload_alone(policy, seen.digest));
        first.chain(kernels).copied().collect()
    }

    /// The file that was booted, if the log has a name for it.
    fn boot_name(&self) -> Option<String> {
        let file = |path: &str| {
            let name = path.rsplit(['\\', '/']).next().unwrap_or(path);
            let name: String = name.chars().filter(|char| !char.is_control()).take(100).collect();
            (!name.is_empty()).then_some(name)
        };
        let kernel = grub_texts(self.log).find_map(grub::kernel_of);
        let image = |seen: &MeasuredEvent<'l>| seen.event(self.log).and_then(image_file);
        kernel.and_then(file).or_else(|| file(&self.survey.images.iter().rev().find_map(image)?))
    }

    fn policy(&self, name: &str, boot: &str, notes: &[&str]) -> String {
        let mut out = Text::default();
        notes.iter().for_each(|note| out.comment(note));
        out.line("format = 1");
        out.value("name", quoted(name), "");
        let whole = self.whole_pcrs();
        let mut ignored = vec!["1", "5"];
        ignored.extend(
            [(3, "3"), (6, "6")].iter().filter(|(pcr, _)| !whole.contains(pcr)).map(|(_, name)| *name),
        );
        ignored.sort_unstable();
        out.comment("Not looked at: firmware's configuration and the partition table decide nothing about what is booted.");
        out.line(&format!("ignore = [{}]", ignored.join(", ")));
        self.write_secure_boot(&mut out);
        out.line("\n[firmware]");
        for (pcr, key) in [(0, "pcr0"), (2, "pcr2")] {
            out.digests(key, &self.firmware(pcr));
        }
        if !whole.is_empty() {
            out.line("\n[pcr]");
            out.comment("Nothing but the end of firmware's part.");
            for pcr in whole {
                if let Some(value) = self.log.log().pcr(pcr).and_then(Digest::new) {
                    out.line(&format!("\"{pcr}\" = [\"{value}\"]"));
                }
            }
        }
        out.line("");
        self.write_boot(boot, &mut out);
        out.0
    }

    fn write_secure_boot(&self, out: &mut Text) {
        let Keys { on, lists: [pk, kek, db], dbx, authorities } = &self.keys;
        out.line("\n[secure_boot]");
        out.value("required", on, "");
        for (key, list) in [("pk", pk), ("kek", kek), ("db", db)] {
            out.digests(key, list);
        }
        out.comment("May grow: an update of dbx revokes more.");
        let revoked: Described = dbx.iter().map(|digest| (*digest, String::new())).collect();
        out.digests("dbx_at_least", &revoked);
        out.digests("authorities", authorities);
    }

    /// Drops the `[[event]]`s that a policy has: each of them accepts one event, and the same once more would accept another.
    fn leave_out(&mut self, policy: &Policy) {
        let rules = policy.compiled.bank(self.log.bank());
        let mut left = rules.limits.clone();
        let mut is_new = |(event, _): &(EventRule, String)| {
            let EventIs::Digest(digest) = &event.is else { return true };
            let slot = rules.event(event.pcr, digest.as_bytes()).map(|index| &mut left[index]);
            match slot.filter(|left| **left > 0) {
                Some(left) => {
                    *left -= 1;
                    false
                }
                None => true,
            }
        };
        self.events.retain(&mut is_new);
        self.returned.retain(is_new);
    }

    fn write_boot(&self, name: &str, out: &mut Text) {
        let mut name = name.to_owned();
        if let Some(state) = BootBefore::of(grub_texts(self.log)) {
            name = format!("{name}, {}", state.name());
        }
        self.environment().iter().for_each(|line| out.comment(line));
        if self.by_grub {
            out.comment(
                "Behind a digest stands what the log calls the file: nothing proves that it is this one.",
            );
        }
        let boot = Boot { name, command_line: Some(self.line.clone()), ..self.boot.clone() };
        out.boot(&boot, &self.comments);
        for (event, what) in self.events.iter().chain(&self.returned) {
            out.event("event", event, what);
        }
    }

    /// GRUB has written its environment in this boot, after it had measured it: what a later boot may find there.
    fn environment(&self) -> Vec<String> {
        if Path::of(&self.boot) != Path::Grub {
            return Vec::new();
        }
        let Some(command) = grub_texts(self.log).find(|text| grub::writes_environment(text)) else {
            return Vec::new();
        };
        let written =
            format!("GRUB wrote its environment in this boot, after it had measured it ({command}).");
        let other = match BootBefore::of(grub_texts(self.log)).and_then(BootBefore::other) {
            Some(other) => {
                format!("The next boot {} reads another grubenv and takes another branch.", other.name())
            }
            None => "The next boot may read another grubenv and take another branch.".to_owned(),
        };
        vec![
            written,
            other,
            "It needs a [[boot]] of its own: approve it once with --learn as well.".to_owned(),
        ]
    }

    /// The events of PCR 0 or 2.
    fn firmware(&self, pcr: u8) -> Described {
        let of_pcr = events(self.log)
            .filter(|seen| seen.pcr == pcr && seen.kind.is_some_and(|kind| kind != kind::SEPARATOR));
        of_pcr.filter_map(|seen| Some((Digest::new(seen.digest)?, what(self.log, &seen)))).collect()
    }

    /// PCR 3 and 6, if they are the same on each machine: with a separator only.
    fn whole_pcrs(&self) -> Vec<u8> {
        let built_in = BuiltIn::of(self.log.bank());
        let ends_a_part = |seen: &MeasuredEvent<'_>| match seen.index {
            EventIndex::Firmware(_) => seen.kind == Some(kind::SEPARATOR),
            EventIndex::Systemd(index) => is_boundary(built_in, &self.log.systemd()[index]),
        };
        let only_separators =
            |pcr| events(self.log).filter(|seen| seen.pcr == pcr).all(|seen| ends_a_part(&seen));
        [3, 6].into_iter().filter(|pcr| only_separators(*pcr)).collect()
    }
}

/// A document that says nothing, to sort a boot's events by.
pub(super) fn nothing() -> Document {
    Document {
        name: String::new(),
        ignore: 0,
        secure_boot: SecureBoot { dbx: Some(Dbx::AtLeast(Vec::new())), ..SecureBoot::default() },
        firmware: [None, None],
        tpm_firmware: None,
        pcrs: Vec::new(),
        command_line: CommandLine::None,
        boots: Vec::new(),
        events: Vec::new(),
        trust: None,
    }
}

/// PCR 7: keys, who verified, and what else is there.
pub(super) fn keys(log: &ExplainedLog<'_>) -> (Keys, Vec<(EventRule, String)>) {
    let mut keys = Keys::default();
    let mut others = Vec::new();
    let mut separated = false;
    for seen in events(log).filter(|seen| seen.pcr == 7 && seen.kind.is_some()) {
        let content = seen.event(log).map_or(Content::Opaque, Event::content);
        match (content, separated) {
            (Content::Separator(Separator::Ready), _) => separated = true,
            (Content::Variable(variable), false) => match (variable.known(), variable.value()) {
                (Variable::SecureBoot, Value::Flag(on)) => keys.on = on,
                (Variable::Dbx, Value::Signatures(lists)) => {
                    keys.dbx.extend(lists.entries().filter_map(|entry| fingerprint(&entry.signature)));
                }
                (known @ (Variable::Pk | Variable::Kek | Variable::Db), Value::Signatures(lists)) => {
                    let list = &mut keys.lists[match known {
                        Variable::Pk => 0,
                        Variable::Kek => 1,
                        _ => 2,
                    }];
                    for entry in lists.entries() {
                        if let Some(is) = listed(&entry.signature) {
                            list.push((is, name_of(&entry.signature)));
                        }
                    }
                }
                _ => others.extend(by_digest(log, &seen)),
            },
            (Content::Authority(authority), true) => match listed(&authority.signer) {
                Some(is) if keys.authorities.iter().all(|(known, _)| *known != is) => {
                    keys.authorities
                        .push((is, format!("{}, in {}", name_of(&authority.signer), authority.list.name)));
                }
                Some(_) => {}
                None => others.extend(by_digest(log, &seen)),
            },
            _ => others.extend(by_digest(log, &seen)),
        }
    }
    (keys, others)
}

/// The one command line that the boot's events prove. Where GRUB starts the kernel it is the one that GRUB has passed on, whatever the log calls
/// that: who ran then may have measured another one as the kernel's, and not every kernel that GRUB starts measures its own.
fn proven_line(log: &ExplainedLog<'_>, survey: &Survey<'_>, by_grub: bool) -> Result<String, Vec<Finding>> {
    let lines = if survey.lines.is_empty() { survey.section_line.as_slice() } else { &survey.lines };
    let of_grub = if by_grub { unproven::lines_of_grub(log) } else { Vec::new() };
    let proven =
        of_grub.iter().map(String::as_str).chain(lines.iter().filter_map(|line| line.text.as_deref()));
    let mut proven: Vec<&str> = proven.map(normal).collect();
    proven.dedup();
    match proven.as_slice() {
        [line] => Ok((*line).to_owned()),
        [] => Err(vec![Finding {
            hint: Some(
                "the agent reads /proc/cmdline; a boot that was recorded by an older one can't be learned"
                    .into(),
            ),
            ..lacking("command line", "an event whose digest proves it", "none")
        }]),
        several => Err(vec![lacking(
            "command line",
            "one",
            &format!("{} different ones: {}", several.len(), several.join(" | ")),
        )]),
    }
}

fn above_the_floor(line: &str, floor: Floor) -> Result<(), Vec<Finding>> {
    match floor.objection(line) {
        None => Ok(()),
        Some(objection) => Err(vec![Finding {
            hint: Some("change the kernel command line and boot again".to_owned()),
            ..lacking("command line", &objection.expected, &objection.found)
        }]),
    }
}

/// With what it means to allow it.
fn believed((event, what): (EventRule, String)) -> (EventRule, String) {
    (EventRule { because: Some(RETURNED.to_owned()), ..event }, what)
}

fn unbelieved(event: &EventRule, what: &str) -> Finding {
    Finding {
        pcr: Some(event.pcr),
        event: None,
        what: what.to_owned(),
        rule: "boot path".to_owned(),
        expected: "nothing that was started and came back to the firmware, but what the owner trusts like the boot loader"
            .to_owned(),
        found: match &event.is {
            EventIs::Digest(digest) => format!("authenticode {digest}"),
            EventIs::Text(text) => text.clone(),
        },
        hint: None,
    }
}
