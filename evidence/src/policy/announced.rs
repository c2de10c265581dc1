//! What is asked of a boot that its machine has proposed, by digests alone: what a log calls a program, and where it says that it comes from,
//! is the word of whoever sent it.

use super::appraise::recorder::MeasuredEvent;
use super::appraise::survey::Survey;
use super::boot_path::Path;
use super::command_line::{Rule, normal, objection_of_rule, parts, tokens};
use super::learned_boot::is_program;
use super::parsed::Policy;
use super::proposal::{finding, is_in_uki};
use super::rules::{Allowed, Boot, EventIs, Role};
use crate::eventlog::ExplainedLog;
use crate::quote::clip;
use halfkey_protocol::wire::policies::Finding;
use halfkey_protocol::wire::{Proposal, ProposedImage};

/// What a finding of [`other_line`] is held against.
const OTHER_LINE: &str = "announced line";

/// The programs of a boot in the order in which they were measured, without those that came back to the firmware, and what the policy believes
/// wherever it stands. Who verifies a program and who starts it both measure it.
pub(super) fn programs<'l>(
    log: &'l ExplainedLog<'l>,
    survey: &Survey<'l>,
    policy: Option<&Policy>,
) -> Vec<&'l [u8]> {
    let rules = policy.iter().flat_map(|policy| &policy.compiled.document.events);
    let believed: Vec<_> = rules.filter(|rule| rule.pcr == 4).map(|rule| &rule.is).collect();
    let is_believed = |digest: &[u8]| {
        believed.iter().any(|is| matches!(is, EventIs::Digest(known) if known.as_bytes() == digest))
    };
    let programs = survey.images.iter().filter(|seen| is_program(log, seen));
    let mut digests: Vec<&[u8]> =
        programs.map(|seen| seen.digest).filter(|digest| !is_believed(digest)).collect();
    digests.dedup();
    digests
}

/// Whether an announced boot has its programs where the policy has them: in front those that a `[[boot]]` begins with, behind them what was
/// proposed, or the rest of that boot. A kernel in the place of a boot loader is known as well, and starts what nobody measures.
pub(super) fn has_its_place(
    policy: &Policy,
    proposals: &[Proposal],
    programs: &[&[u8]],
    by_grub: bool,
) -> bool {
    policy.boots().iter().any(|boot| {
        let front = images(boot, false);
        let is_of_grub = !front.is_empty() && Path::of(boot) == Path::Grub;
        if by_grub && !is_of_grub || front.len() > programs.len() {
            return false;
        }
        let (before, rest) = programs.split_at(front.len());
        // Only GRUB's own boots have what GRUB announces, and only a UKI starts without a boot loader for the first time.
        let fits = |proposal: &Proposal| match &proposal.loader {
            Some(_) => is_of_grub,
            None => !front.is_empty() || is_uki(proposal),
        };
        let is_proposed = || proposals.iter().any(|proposal| fits(proposal) && are_proposed(proposal, rest));
        // Without Secure Boot nobody but GRUB measures the kernel that it starts.
        let behind = match rest {
            [] => by_grub,
            _ => are(&images(boot, true), rest) || is_proposed(),
        };
        are(&front, before) && behind
    })
}

fn is_uki(proposal: &Proposal) -> bool {
    proposal.images.iter().any(|image| Role::from_name(&image.role) == Some(Role::Uki))
}

/// Whether a policy knows this as a kernel or UKI, and as nothing that starts one.
pub(super) fn is_payload_alone(policy: &Policy, digest: &[u8]) -> bool {
    let named = |is: fn(Role) -> bool| {
        let mut images = policy.boots().iter().flat_map(|boot| &boot.images);
        images.any(|image| is(image.role) && is_one(&image.allowed, digest))
    };
    named(is_payload) && !named(|role| !is_payload(role))
}

fn is_payload(role: Role) -> bool {
    matches!(role, Role::Uki | Role::Kernel)
}

/// What a boot begins with up to its UKI or kernel, or the rest.
fn images(boot: &Boot, payload: bool) -> Vec<&Allowed> {
    let at = boot.images.iter().position(|image| is_payload(image.role)).unwrap_or(boot.images.len());
    let part = if payload { &boot.images[at..] } else { &boot.images[..at] };
    let mut allowed: Vec<&Allowed> = part.iter().map(|image| &image.allowed).collect();
    allowed.dedup();
    allowed
}

/// Whether these are just the programs that are allowed, in this order.
pub(super) fn are(allowed: &[&Allowed], programs: &[&[u8]]) -> bool {
    allowed.len() == programs.len()
        && allowed.iter().zip(programs).all(|(allowed, digest)| is_one(allowed, digest))
}

fn is_one(allowed: &Allowed, digest: &[u8]) -> bool {
    match allowed {
        Allowed::Authenticode(digests) => digests.iter().any(|known| known.as_bytes() == digest),
        Allowed::Signer(_) => false,
    }
}

/// Whether these are the first of a proposal's images: not everybody measures the kernel that a UKI starts from memory.
fn are_proposed(proposal: &Proposal, programs: &[&[u8]]) -> bool {
    let mut proposed: Vec<&[u8]> = proposal.images.iter().map(|image| &image.authenticode[..]).collect();
    proposed.dedup();
    !programs.is_empty() && proposed.starts_with(programs)
}

/// Whether the initrd of this boot is that of the proposed UKI, so that it says itself what it is: newer stubs pass on what an earlier stage has
/// left for them. What was measured first has run first; shim, if the policy knows it as that, leaves nothing.
pub(super) fn is_initrd_of_uki<'l>(
    log: &'l ExplainedLog<'l>,
    survey: &Survey<'l>,
    policy: Option<&Policy>,
    proposal: &Proposal,
) -> bool {
    let programs = programs(log, survey, policy);
    let uki = programs.iter().position(|digest| is_proposed_as(proposal, Role::Uki, digest));
    let before = uki.filter(|_| is_in_uki(proposal)).map(|uki| &programs[..uki]);
    match before {
        Some([]) => true,
        Some([shim]) => policy.is_some_and(|policy| is_named_as(policy, Role::Shim, shim)),
        Some(_) | None => false,
    }
}

/// Whether what the log has sections of, and so calls a UKI, is a kernel by the policy or a proposal: whoever runs can measure sections.
pub(super) fn is_kernel(policy: &Policy, proposals: &[Proposal], seen: &MeasuredEvent<'_>) -> bool {
    let known_as = |role| {
        is_named_as(policy, role, seen.digest)
            || proposals.iter().any(|proposal| is_proposed_as(proposal, role, seen.digest))
    };
    known_as(Role::Kernel) && !known_as(Role::Uki)
}

fn is_named_as(policy: &Policy, role: Role, digest: &[u8]) -> bool {
    let mut images = policy.boots().iter().flat_map(|boot| &boot.images).filter(|image| image.role == role);
    images.any(|image| is_one(&image.allowed, digest))
}

fn is_proposed_as(proposal: &Proposal, role: Role, digest: &[u8]) -> bool {
    let is = |image: &ProposedImage| {
        Role::from_name(&image.role) == Some(role) && &image.authenticode[..] == digest
    };
    proposal.images.iter().any(is)
}

/// The command line of an announced boot, if it was not proposed, and the policy neither has nor allows it. Whoever writes a boot entry, or sits
/// at a boot menu, has an honest boot with words of his own, and not only kernel and initramfs obey them: cloud-init does as well. A line that
/// only a section has is known by that.
pub(super) fn other_line(policy: Option<&Policy>, proposals: &[Proposal], line: &str) -> Option<Finding> {
    let proposed: Vec<&str> = proposals.iter().filter_map(|one| one.command_line.as_deref()).collect();
    // A boot loader puts its words together with one blank, whatever its configuration has between them.
    let words = |line| tokens(parts(line).2);
    if proposed.iter().any(|proposed| words(proposed).eq(words(line))) {
        return None;
    }
    let document = policy.map(|policy| &policy.compiled.document);
    let own = document.into_iter().flat_map(|document| &document.boots);
    let own = own.filter_map(|boot| boot.command_line.as_deref());
    let shared = document.map(|document| Rule::Shared(&document.command_line));
    let mut first = None;
    for rule in proposed.into_iter().chain(own).map(Rule::Own).chain(shared) {
        let objection = objection_of_rule(rule, line)?;
        first.get_or_insert(objection);
    }
    let (expected, found) = match first {
        Some(objection) => (objection.expected, objection.found),
        None => ("none".to_owned(), normal(line).to_owned()),
    };
    let expected = format!("the line that was proposed, or one that the policy has or allows: {expected}");
    Some(finding(None, "command line", OTHER_LINE.to_owned(), &expected, &clip(&found)))
}
