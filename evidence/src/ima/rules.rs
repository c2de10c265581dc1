//! What a machine may use while it runs.
//!
//! Made of `[ima]` of a policy and the lists that it names ([`ImaPolicy::rules`](crate::policy::ImaPolicy::rules)).

use super::digest_list::DigestList;
use super::path_pattern::PathPattern;
use super::signature;
use super::signers::Signers;
use crate::policy::rules::Digest;
use std::sync::Arc;

/// Rules about the entries of a list.
#[derive(Debug, Default)]
pub struct Rules {
    /// What may be used by its digest. Several, so that those of before and after an update hold side by side.
    pub lists: Vec<NamedList>,
    /// Whose signatures make a file good, wherever it is.
    pub signers: Arc<Signers>,
    /// Paths that nothing is asked of. A path is what the kernel calls a file: who may mount or bind file systems there chooses
    /// what has it.
    pub not_judged: Vec<PathPattern>,
    /// What is measured and is no file.
    pub buffers: Vec<BufferRule>,
    /// How violations count.
    pub violations: Violations,
    /// Whether another kernel may be started by kexec.
    pub kexec: bool,
}

/// A list and what the policy calls it.
#[derive(Clone, Debug)]
pub struct NamedList {
    /// The name.
    pub name: String,
    /// Shared by all who use it.
    pub list: Arc<DigestList>,
}

/// How violations count: the kernel could not measure a file for certain, because it was open for writing at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Violations {
    /// Each is refused.
    #[default]
    Refuse,
    /// Those of paths that are not judged are let pass. Nothing proves the path of a violation: a machine that is broken into can
    /// give it any name.
    NotJudgedOnly,
    /// All are let pass: a file may have been changed while it was used.
    Allow,
}

/// What is measured and is no file (`ima-buf`): command lines of kexec, keys that are added to a keyring, critical data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BufferRule {
    name: String,
    content: BufferContent,
}

/// What it may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BufferContent {
    /// Anything that can't be the signature of a file. What a template is called is measured by nobody, and an entry of `ima-sig` has
    /// the bytes of one of `ima-buf`: who writes a file's signature into it, and calls the entry so, would have made a buffer of it.
    Any,
    /// One of these texts, to the byte: command lines for `kexec-cmdline`.
    Texts(Vec<String>),
    /// What has one of these digests: certificates for `.ima`.
    Digests(Vec<Digest>),
}

impl BufferRule {
    /// For buffers of this name: `kexec-cmdline`, the name of a keyring (`.ima`), that of critical data; a `*` at the end stands for
    /// any end (`selinux-state-*`).
    ///
    /// # Errors
    /// A name that stands for everything, or could be a path.
    pub fn new(name: &str, content: BufferContent) -> Result<Self, String> {
        let plain = name.strip_suffix('*').unwrap_or(name);
        if plain.is_empty() || plain.contains(['/', '*', '\0']) {
            return Err(format!("expected a buffer's name, with a * at its end or none, found {name:?}"));
        }
        Ok(Self { name: name.replace(' ', "_"), content })
    }

    /// The name, as it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it may hold.
    pub fn content(&self) -> &BufferContent {
        &self.content
    }

    pub(super) fn is_for(&self, name: &[u8]) -> bool {
        match self.name.strip_suffix('*') {
            Some(start) => name.starts_with(start.as_bytes()) && !name.contains(&b'/'),
            None => name == self.name.as_bytes(),
        }
    }

    pub(super) fn allows(&self, content: &[u8]) -> bool {
        match &self.content {
            BufferContent::Any => !signature::may_be(content),
            BufferContent::Texts(texts) => texts.iter().any(|text| text.as_bytes() == content),
            BufferContent::Digests(digests) => {
                digests.iter().any(|digest| Digest::of(digest.bank(), content) == *digest)
            }
        }
    }
}

impl Rules {
    /// The pattern that leaves a path out.
    pub(super) fn leaves_out(&self, path: &[u8]) -> Option<&PathPattern> {
        self.not_judged.iter().find(|pattern| pattern.matches(path))
    }
}
