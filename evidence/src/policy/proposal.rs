//! What a node will boot next.

use super::{Boot, Finding, Policy};
use crate::Rejection;
use crate::rejection::refuse;
use halfkey_protocol::wire::Proposal;

/// Whether a policy accepts what a node proposed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cover {
    /// By its digests: name of the `[[boot]]`.
    Hash(String),
    /// By a signer: name of the `[[boot]]`. Decided at the boot, by its own Secure Boot events.
    Signer(String),
    /// Not: why, for the `[[boot]]` that fits best.
    No(Vec<Finding>),
}

/// Whether a policy accepts what a node proposed.
pub fn covers(_policy: &Policy, _proposal: &Proposal) -> Cover {
    Cover::No(vec![super::unfinished()])
}

/// The `[[boot]]` that accepts just what was proposed. What starts before the proposal's own images (shim, boot loader)
/// is that of `base_boot`, the boot of the policy that the machine runs.
///
/// # Errors
/// Why it can't be made, or the policy's rules forbid it.
pub fn boot_of(_proposal: &Proposal, _from: &Policy, _base_boot: Option<&str>) -> Result<Boot, Vec<Finding>> {
    Err(vec![super::unfinished()])
}

/// A `[[boot]]` as text, to be appended to a document.
pub fn boot_toml(_boot: &Boot) -> String {
    String::new()
}

/// Reads a proposal: JSON text.
///
/// # Errors
/// `ProposalMalformed`.
pub fn check_proposal(_json: &[u8]) -> Result<Proposal, Rejection> {
    refuse!(ProposalMalformed, "this build can't read proposals yet")
}
