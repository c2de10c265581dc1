//! The policy in effect for a node: what its tenant signed, and what `[trust_root_with_next_boot]` accepted besides.
//!
//! Which documents these are, and that they are signed and for this node, [`super::TenantNode`] says before; that they are in their
//! place, whoever keeps them.

use super::appraise::Matched;
use super::learn::Assured;
use super::parsed::{Additions, Policy};
use super::proposal::boot_of;
use super::rules::{Boot, Origin};
use halfkey_protocol::wire::Proposal;
use halfkey_protocol::wire::policies::Finding;

/// What a node's boots, and its proposals, are judged by.
#[derive(Clone, Debug)]
pub struct Effective {
    signed: Policy,
    policy: Policy,
    trusted: Vec<Trusted>,
    left_out: Vec<LeftOut>,
}

/// A proposal whose boot counts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Trusted {
    id: u64,
    base: Option<String>,
}

/// A proposal that was trusted, and that the policy's rules forbid by now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Number of the proposal at the verifier.
    pub id: u64,
    /// What the rules have against it.
    pub findings: Vec<Finding>,
}

impl Effective {
    /// The policy that governs the node, with what the node may boot besides.
    pub fn new(policy: &Policy, additions: Option<&Additions>) -> Self {
        let signed = additions.map_or_else(|| policy.clone(), |additions| policy.with(additions));
        Self { policy: signed.clone(), signed, trusted: Vec::new(), left_out: Vec::new() }
    }

    /// Whether proposals count at all: without `[trust_root_with_next_boot]` none does, whoever says so.
    pub fn trusts(&self) -> bool {
        self.signed.trust().is_some()
    }

    /// Adds a proposal that was trusted. `base` names the signed boot that the machine ran when it proposed.
    pub fn trust(&mut self, id: u64, proposal: &Proposal, base: Option<&str>) {
        self.trust_all([(id, proposal, base)]);
    }

    /// Adds several, in this order.
    pub fn trust_all<'p>(
        &mut self,
        proposals: impl IntoIterator<Item = (u64, &'p Proposal, Option<&'p str>)>,
    ) {
        if !self.trusts() {
            return;
        }
        let mut boots = Vec::new();
        for (id, proposal, base) in proposals {
            // By what is signed: trust does not build upon trust.
            match boot_of(proposal, &self.signed, base, Assured::default()) {
                // Unique, and told from what the tenant has signed.
                Ok(boot) => {
                    let name = format!("{} (proposal {id})", boot.name);
                    boots.push(Boot { name, origin: Origin::Proposal(id), ..boot });
                    self.trusted.push(Trusted { id, base: base.map(str::to_owned) });
                }
                Err(findings) => self.left_out.push(LeftOut { id, findings }),
            }
        }
        if !boots.is_empty() {
            self.policy = self.policy.with_boots(&boots);
        }
    }

    /// What the tenant signed: proposals are judged by this.
    pub fn signed(&self) -> &Policy {
        &self.signed
    }

    /// With the trusted proposals: boots are judged by this.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The proposals whose boots count.
    pub fn trusted(&self) -> impl Iterator<Item = u64> {
        self.trusted.iter().map(|trusted| trusted.id)
    }

    /// What was left out.
    pub fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    /// The signed boot that stands behind one that a machine runs: where shim and boot loader of its next one come from. None if the
    /// policy does not have it any more.
    pub fn base_of(&self, running: &Matched) -> Option<&str> {
        let base = match running.origin {
            Origin::Document => running.name.as_str(),
            Origin::Proposal(id) => self
                .trusted
                .iter()
                .find(|trusted| trusted.id == id)
                .and_then(|trusted| trusted.base.as_deref())?,
        };
        let mut signed = self.signed.boots().iter();
        signed.find(|boot| boot.name == base).map(|boot| boot.name.as_str())
    }
}
