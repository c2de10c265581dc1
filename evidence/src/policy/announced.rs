//! What is asked of a boot that its machine has proposed, by digests alone: what a log calls a program, and where it says that it comes from,
//! is the word of whoever sent it.

use super::appraise::recorder::MeasuredEvent;
use super::appraise::survey::Survey;
use super::learned_boot::is_program;
use super::parsed::Policy;
use super::proposal::is_in_uki;
use super::rules::{Allowed, Role};
use crate::eventlog::ExplainedLog;
use halfkey_protocol::wire::{Proposal, ProposedImage};

/// The programs of a boot, those that came back to the firmware left out, in the order in which they were measured. Who verifies a program and
/// who starts it both measure it.
pub(super) fn programs<'l>(log: &'l ExplainedLog<'l>, survey: &Survey<'l>) -> Vec<&'l [u8]> {
    let programs = survey.images.iter().filter(|seen| is_program(log, seen));
    let mut digests: Vec<&[u8]> = programs.map(|seen| seen.digest).collect();
    digests.dedup();
    digests
}

/// Whether the initrd of this boot is that of the proposed UKI, so that it says itself what it is: newer stubs pass on what an earlier stage has
/// left for them. What was measured first has run first; shim, if the policy knows it as that, leaves nothing.
pub(super) fn is_initrd_of_uki<'l>(
    log: &'l ExplainedLog<'l>,
    survey: &Survey<'l>,
    policy: Option<&Policy>,
    proposal: &Proposal,
) -> bool {
    let programs = programs(log, survey);
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
    images.any(|image| match &image.allowed {
        Allowed::Authenticode(digests) => digests.iter().any(|known| known.as_bytes() == digest),
        Allowed::Signer(_) => false,
    })
}

fn is_proposed_as(proposal: &Proposal, role: Role, digest: &[u8]) -> bool {
    let is = |image: &ProposedImage| {
        Role::from_name(&image.role) == Some(role) && &image.authenticode[..] == digest
    };
    proposal.images.iter().any(is)
}
