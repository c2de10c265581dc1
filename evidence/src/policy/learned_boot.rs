//! A learned boot: its images, initrd, sections, and the events that belong to them.

use super::appraise::recorder::{EventIndex, MeasuredEvent};
use super::appraise::survey::Survey;
use super::boot_path::Path;
use super::learn::Assured;
use super::rules::{Allowed, Boot, Digest, EventIs, EventRule, Image, Initrd, Origin, Role, Sections};
use super::sidecar;
use super::unproven;
use super::write::Comments;
use crate::eventlog::content::{Content, GrubText, ImageKind, Tag};
use crate::eventlog::{Claim, Event, ExplainedLog};
use halfkey_measure::grub;

/// Images, initrd, sections and the events that belong to them.
pub(super) fn boot(
    log: &ExplainedLog<'_>,
    survey: &Survey<'_>,
    line: &str,
    assured: Assured,
    shared: &mut Vec<(EventRule, String)>,
) -> (Boot, Comments) {
    let mut comments = Comments::default();
    let sections = sections(log, &survey.rest[11]);
    let after_sections = 2 * sections.len();
    let (images, others): (Vec<&MeasuredEvent<'_>>, Vec<&MeasuredEvent<'_>>) =
        survey.images.iter().partition(|seen| is_image(log, seen));
    shared.extend(
        others.into_iter().filter(|seen| !may_be_program(log, seen)).filter_map(|seen| by_digest(log, seen)),
    );
    let mut boot = Boot {
        name: String::new(),
        command_line: Some(line.to_owned()),
        initrd: Initrd::Signed,
        sections: (!sections.is_empty()).then_some(Sections::Digests(sections)),
        images: Vec::new(),
        events: Vec::new(),
        kernel_measures_initrd: false,
        origin: Origin::Document,
    };
    let by_grub = unproven::is_by_grub(log, survey);
    let measured = survey.rest[11].first().filter(|_| boot.sections.is_some()).map(|seen| seen.index);
    let starts = Starts {
        uki: measured.and_then(|first| images.iter().rposition(|seen| seen.index.is_before(first))),
        grub: by_grub.then(|| survey.whole[0].first().map(|seen| seen.index)).flatten(),
        shim: !survey.rest[14].is_empty(),
    };
    for (index, seen) in images.iter().enumerate() {
        let role = role(log, &images, index, &starts);
        let Some(digest) = Digest::new(seen.digest) else { continue };
        boot.images.push(Image {
            role,
            allowed: Allowed::Authenticode(vec![digest]),
            signer_also_signs: Vec::new(),
        });
        comments.images.push(what(log, seen));
    }
    let initrd = initrd(log, &survey.rest[9]);
    if let Some(seen) = initrd
        && let Some(digest) = Digest::new(seen.digest)
    {
        boot.initrd = Initrd::Digest(digest);
        comments.initrd = what(log, seen);
    }
    for pcr in [8usize, 9, 11, 12, 13, 14] {
        let skip = if pcr == 11 { after_sections } else { 0 };
        let mut listed = false;
        let all = match pcr {
            8 | 9 if by_grub => &survey.whole[usize::from(pcr == 9)],
            _ => &survey.rest[pcr],
        };
        for seen in all.iter().skip(skip) {
            if pcr == 9 && !by_grub && !listed && initrd.is_some_and(|initrd| initrd.index == seen.index) {
                listed = true;
                continue;
            }
            // A phase that belongs to a later time: what is then found is that this boot is not one that can be learned.
            if pcr == 11 && matches!(seen.index, EventIndex::Systemd(_)) {
                continue;
            }
            if let Some((event, mut what)) = by_text(log, seen).or_else(|| by_digest(log, seen)) {
                if seen.event(log).is_some_and(sidecar::is_credentials) {
                    what = format!("{what}, {}", sidecar::LEARNED);
                }
                boot.events.push(event);
                comments.events.push(what);
            }
        }
    }
    boot.kernel_measures_initrd = assured.kernel_measures_initrd && Path::of(&boot) == Path::Kernel;
    (boot, comments)
}

/// Pairs of name and section, as a stub measures them first of all.
pub(super) fn sections(log: &ExplainedLog<'_>, events: &[MeasuredEvent<'_>]) -> Vec<(String, Digest)> {
    let pair = |pair: &[MeasuredEvent<'_>]| {
        let Content::SectionName(name) = pair[0].event(log)?.content() else { return None };
        Some((name.to_string(), Digest::new(pair[1].digest)?))
    };
    events.chunks_exact(2).map_while(pair).collect()
}

pub(super) fn is_image(log: &ExplainedLog<'_>, seen: &MeasuredEvent<'_>) -> bool {
    matches!(seen.event(log).map(Event::claimed_content), Some(Claim::Image(_)))
}

/// Whether what is in PCR 4 is a program, or may be one.
pub(super) fn is_program(log: &ExplainedLog<'_>, seen: &MeasuredEvent<'_>) -> bool {
    is_image(log, seen) || may_be_program(log, seen)
}

/// Whether what is in PCR 4 may be a program, although the log says otherwise: the type of an event is in no digest. Its content may be,
/// but a program's digest is that of bytes as well, those of its file without signature and checksum. A short text is none.
pub(super) fn may_be_program(log: &ExplainedLog<'_>, seen: &MeasuredEvent<'_>) -> bool {
    const LONGEST: usize = 256;
    let is_text = |data: &[u8]| {
        data.len() <= LONGEST && data.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ')
    };
    !is_image(log, seen) && !seen.event(log).and_then(Event::measured_data).is_some_and(is_text)
}

/// What started images, by what it measured besides.
struct Starts {
    /// systemd's stub: it measures its sections before it starts its kernel, which where shim verifies nobody else measures. So it is the
    /// last image before these.
    uki: Option<usize>,
    /// GRUB: the first of its commands.
    grub: Option<EventIndex>,
    /// Shim: the owner's keys.
    shim: bool,
}

/// What an image probably is: its name for people, and of no weight, but that one must be a kernel, or GRUB says which it starts, and
/// that what is no shim may hand an initrd to a UKI. So shim is only the first program, and only if keys were measured into PCR 14; its
/// second stage may be called anything, and be anything.
fn role(log: &ExplainedLog<'_>, images: &[&MeasuredEvent<'_>], index: usize, starts: &Starts) -> Role {
    let path = images[index].event(log).and_then(image_file).unwrap_or_default().to_ascii_lowercase();
    let file = path.rsplit('\\').next().unwrap_or_default();
    let driver = is_driver(log, images[index]);
    let may_be_shim = starts.shim && images[..index].iter().all(|before| is_driver(log, before));
    let last = images.len() - 1;
    match index {
        _ if driver => Role::Other,
        _ if starts.uki == Some(index) => Role::Uki,
        // GRUB itself was the last: without Secure Boot it may start its kernel with neither firmware nor shim knowing.
        _ if index == last && starts.grub.is_some_and(|first| images[index].index.is_before(first)) => {
            Role::Loader
        }
        // Shim's verification and the start of a kernel are measured alike.
        _ if images[index].digest == images[last].digest => Role::Kernel,
        _ if may_be_shim && file.contains("shim") => Role::Shim,
        _ if may_be_shim && path.contains("\\efi\\boot\\boot") && last > 1 => Role::Shim,
        _ if path.is_empty() => Role::Other,
        _ => Role::Loader,
    }
}

fn is_driver(log: &ExplainedLog<'_>, seen: &MeasuredEvent<'_>) -> bool {
    matches!(
        seen.event(log).map(Event::claimed_content),
        Some(Claim::Image(image)) if image.kind != ImageKind::Application
    )
}

pub(super) fn image_file(event: &Event<'_>) -> Option<String> {
    match event.claimed_content() {
        Claim::Image(image) => image.path.file().map(|file| file.to_string()),
        _ => None,
    }
}

/// The initrd as the kernel measured it, else the file that GRUB was told to load as one.
pub(super) fn initrd<'s, 'l>(
    log: &'l ExplainedLog<'l>,
    events: &'s [MeasuredEvent<'l>],
) -> Option<&'s MeasuredEvent<'l>> {
    let by_kernel =
        |seen: &&MeasuredEvent<'_>| matches!(claim(log, seen), Some(Claim::Tag(Tag { id: Tag::INITRD, .. })));
    let named = |seen: &&MeasuredEvent<'_>| match claim(log, seen) {
        Some(Claim::Name(name)) => grub_texts(log).filter_map(grub::initrds_of).any(|mut files| {
            files.any(|file| file.as_bytes() == name || name == grub::INITRD_OF_LINUXEFI.as_bytes())
        }),
        _ => false,
    };
    events.iter().find(by_kernel).or_else(|| events.iter().rev().find(named))
}

fn claim<'l>(log: &'l ExplainedLog<'l>, seen: &MeasuredEvent<'l>) -> Option<Claim<'l>> {
    seen.event(log).map(Event::claimed_content)
}

/// What GRUB did, proven.
pub(super) fn grub_texts<'l>(log: &'l ExplainedLog<'l>) -> impl Iterator<Item = &'l str> {
    unproven::texts(log).filter(|(claimed, _)| *claimed == GrubText::Command).map(|(_, text)| text)
}

fn by_text(log: &ExplainedLog<'_>, seen: &MeasuredEvent<'_>) -> Option<(EventRule, String)> {
    let event = seen.event(log)?;
    let Content::Grub { text, .. } = event.content() else { return None };
    let text = str::from_utf8(text)
        .ok()
        .filter(|text| !text.is_empty() && text.len() < super::command_line::MAX_LINE - 16)?;
    let (form, _) = grub::read(event.claimed_data())?;
    let is = EventIs::Text(format!("{}{text}", form.word));
    Some((EventRule { pcr: seen.pcr, is, because: None }, String::new()))
}

pub(super) fn by_digest(log: &ExplainedLog<'_>, seen: &MeasuredEvent<'_>) -> Option<(EventRule, String)> {
    let is = EventIs::Digest(Digest::new(seen.digest)?);
    Some((EventRule { pcr: seen.pcr, is, because: None }, what(log, seen)))
}

pub(super) fn what(log: &ExplainedLog<'_>, seen: &MeasuredEvent<'_>) -> String {
    match seen.index {
        EventIndex::Firmware(index) => log.events()[index].what(),
        EventIndex::Systemd(index) => log.systemd()[index].what(),
    }
}
