//! The policy language: what a node may boot, in terms of what was booted.
//!
//! A policy is a TOML document (docs/policy.md has the schema for people). It is parsed once into rules over the
//! **events** of a replayed log, never over what a node merely says: a rule relies on an event's content only where the
//! digest that the PCR was extended with is that of the content; any other event counts by its digest alone.
//!
//! | module | what |
//! | --- | --- |
//! | [`rules`] | what a document says, typed |
//!
//! [`TenantNode`] says which documents govern a node, [`Effective`] is what they come to; [`evaluate`] judges a boot, [`explain`] says why, event by event; [`learn`] writes the policy that a boot is accepted by.

pub mod rules;

mod command_line;

mod appraise;
mod compare;
mod compiled;
mod effective;
mod governing;
mod learn;
mod parse;
mod pin;
mod proposal;
mod write;

pub use appraise::{Claims, Evaluation, ExplainedEvent, Explanation, Matched, evaluate, explain};
pub use compare::{Change, diff};
pub use effective::{Effective, LeftOut};
pub use governing::{TenantNode, Unfit, signed_for};
pub use halfkey_protocol::wire::policies::{Finding, MAX_POLICY};
pub use learn::{Assured, learn, learn_boot};
pub use parse::Problem;
pub use proposal::{Cover, boot_of, boot_toml, check_proposal, covers};
pub use rules::{Boot, Origin, Trust};

use compiled::Compiled;
use rules::Document;
use std::sync::Arc;

/// A policy that was parsed, and is not below the floor. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Policy {
    compiled: Arc<Compiled>,
}

impl Policy {
    /// Parses a document of at most [`MAX_POLICY`] bytes.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of the text: syntax, unknown keys, wrong types, contradictions, and
    /// what is missing to the floor.
    pub fn parse(toml: &str) -> Result<Self, Vec<Problem>> {
        parse::policy(toml).map(Self::new)
    }

    fn new(document: Document) -> Self {
        Self { compiled: Arc::new(Compiled::new(document)) }
    }

    /// The name that it gives itself.
    pub fn name(&self) -> &str {
        &self.compiled.document.name
    }

    /// The policy with what one node may boot besides.
    #[must_use]
    pub fn with(&self, additions: &Additions) -> Self {
        let mut document = self.compiled.document.clone();
        document.boots.extend(additions.boots.iter().cloned());
        document.events.extend(additions.events.iter().cloned());
        document.command_line.allow(&additions.allowed);
        Self::new(document)
    }

    /// The policy with more boots: those of trusted proposals.
    pub fn with_boots(&self, boots: &[Boot]) -> Self {
        let mut document = self.compiled.document.clone();
        document.boots.extend(boots.iter().cloned());
        Self::new(document)
    }

    /// `[trust_root_with_next_boot]`.
    pub fn trust(&self) -> Option<&Trust> {
        self.compiled.document.trust.as_ref()
    }

    /// `[[boot]]`, in order.
    pub fn boots(&self) -> &[Boot] {
        &self.compiled.document.boots
    }

    /// How many `[[event]]`s of PCR 4 it has. What they name may have been in charge before the boot, and then it could have done and
    /// measured all that followed.
    pub fn images_beside_boots(&self) -> usize {
        images(&self.compiled.document.events)
    }
}

/// What one node of a group may boot besides: `format`, `name`, `[[boot]]`, `[[event]]` and `command_line.allowed`.
#[derive(Clone, Debug)]
pub struct Additions {
    name: String,
    boots: Vec<Boot>,
    events: Vec<rules::EventRule>,
    allowed: Vec<rules::Token>,
}

impl Additions {
    /// Parses a document of at most [`MAX_POLICY`] bytes.
    ///
    /// # Errors
    /// As [`Policy::parse`].
    pub fn parse(toml: &str) -> Result<Self, Vec<Problem>> {
        parse::additions(toml)
    }

    /// The name that they give themselves.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `[[boot]]`, in order.
    pub fn boots(&self) -> &[Boot] {
        &self.boots
    }

    /// As [`Policy::images_beside_boots`].
    pub fn images_beside_boots(&self) -> usize {
        images(&self.events)
    }
}

fn images(events: &[rules::EventRule]) -> usize {
    events.iter().filter(|event| event.pcr == 4).count()
}
