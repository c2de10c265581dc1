//! Documents that were parsed.

use super::compiled::Compiled;
use super::ima::ImaPolicy;
use super::key_update::KeyUpdate;
use super::rules::{Boot, Document, EventRule, MoreKeys, Token, Trust};
use std::sync::Arc;

/// A policy that was parsed, and is not below the floor. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Policy {
    pub(super) compiled: Arc<Compiled>,
}

impl Policy {
    pub(super) fn new(document: Document, ima: Option<Arc<ImaPolicy>>) -> Self {
        let mut compiled = Compiled::new(document);
        compiled.ima = ima;
        Self { compiled: Arc::new(compiled) }
    }

    /// The same with another document for boots.
    fn with_document(&self, document: Document) -> Self {
        Self::new(document, self.compiled.ima.clone())
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
        let mut keys = additions.keys.clone();
        // An authority can take a signer's place. What one machine was given while nothing went by signers is not worth that.
        if document.boots.iter().any(Boot::has_signer) {
            keys.authorities.clear();
        }
        document.secure_boot.allow(&keys);
        self.with_document(document)
    }

    /// The policy with more entries of KEK and db.
    #[must_use]
    pub fn with_keys(&self, update: &KeyUpdate) -> Self {
        let mut document = self.compiled.document.clone();
        document.secure_boot.allow(&update.listed());
        self.with_document(document)
    }

    /// The policy with more boots: those of trusted proposals.
    pub fn with_boots(&self, boots: &[Boot]) -> Self {
        let mut document = self.compiled.document.clone();
        document.boots.extend(boots.iter().cloned());
        self.with_document(document)
    }

    /// The policy with other boots in the place of its own: to see in what a boot differs from just these.
    pub fn with_only(&self, boots: &[Boot]) -> Self {
        let mut document = self.compiled.document.clone();
        document.boots = boots.to_vec();
        self.with_document(document)
    }

    /// `[ima]`, if it asks what is used while the machine runs.
    pub fn ima(&self) -> Option<&ImaPolicy> {
        self.compiled.ima.as_deref()
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

/// What one node of a group may boot besides: `format`, `name`, `[[boot]]`, `[[event]]`, `command_line.allowed`, and `kek`, `db` and
/// `authorities` of `[secure_boot]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Additions {
    pub(super) name: String,
    pub(super) boots: Vec<Boot>,
    pub(super) events: Vec<EventRule>,
    pub(super) allowed: Vec<Token>,
    pub(super) keys: MoreKeys,
}

impl Additions {
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

fn images(events: &[EventRule]) -> usize {
    events.iter().filter(|event| event.pcr == 4).count()
}
