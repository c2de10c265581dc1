//! `[ima]`: what a machine may use while it runs.
//!
//! Digests are in lists of their own, which a policy names by what they say: so one list serves many policies, and a document of a few
//! lines pins a hundred thousand files. Keys are in the document.

use crate::ima::{
    BufferContent, BufferRule, DigestList, NamedList, PathPattern, Rules, Signer, Signers, Violations,
};
use crate::policy::rules::Digest;
use std::sync::Arc;

/// What a document says of IMA.
#[derive(Clone, Debug)]
pub struct ImaPolicy {
    pub(super) lists: Vec<ListReference>,
    pub(super) signers: Arc<Signers>,
    pub(super) not_judged: Vec<PathPattern>,
    pub(super) buffers: Vec<BufferRule>,
    pub(super) violations: Violations,
    pub(super) kexec: bool,
}

/// `[[ima.list]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListReference {
    /// What the policy calls it.
    pub name: String,
    /// What it says: [`DigestList::id`], as `sha256:<hex>`.
    pub digest: Digest,
}

impl ImaPolicy {
    /// The lists that it names, in order.
    pub fn lists(&self) -> &[ListReference] {
        &self.lists
    }

    /// The rules, with what its lists say.
    ///
    /// # Errors
    /// The first list that `find` does not have.
    pub fn rules(&self, find: impl Fn(&Digest) -> Option<Arc<DigestList>>) -> Result<Rules, &ListReference> {
        let mut lists = Vec::with_capacity(self.lists.len());
        for reference in &self.lists {
            let ListReference { name, digest } = reference;
            let list = find(digest).filter(|list| list.id() == digest.as_bytes()).ok_or(reference)?;
            lists.push(NamedList { name: name.clone(), list });
        }
        Ok(Rules {
            lists,
            signers: self.signers.clone(),
            not_judged: self.not_judged.clone(),
            buffers: self.buffers.clone(),
            violations: self.violations,
            kexec: self.kexec,
        })
    }

    /// Path and entries of each rule, in the order of the schema, to be compared.
    pub(super) fn entries(&self) -> Vec<(String, Vec<String>)> {
        let text = |value: &str| vec![value.to_owned()];
        let mut entries = vec![
            ("ima.violations".to_owned(), text(violations_name(self.violations))),
            ("ima.kexec".to_owned(), text(if self.kexec { "true" } else { "false" })),
            ("ima.not_judged".to_owned(), self.not_judged.iter().map(PathPattern::to_string).collect()),
            (
                "ima.list".to_owned(),
                self.lists.iter().map(|list| format!("{:?} {}", list.name, list.digest)).collect(),
            ),
            ("ima.signer".to_owned(), self.signers.iter().map(signer).collect()),
        ];
        for rule in &self.buffers {
            let content = match rule.content() {
                BufferContent::Any => text("any"),
                BufferContent::Texts(texts) => texts.iter().map(|text| format!("{text:?}")).collect(),
                BufferContent::Digests(digests) => digests.iter().map(Digest::to_string).collect(),
            };
            entries.push((format!("ima.buffer {:?}", rule.name()), content));
        }
        entries
    }
}

fn signer(signer: &Signer) -> String {
    format!("{:?} {}", signer.name(), signer.fingerprint())
}

/// As a document has it.
fn violations_name(violations: Violations) -> &'static str {
    match violations {
        Violations::Refuse => "refuse",
        Violations::NotJudgedOnly => "not-judged",
        Violations::Allow => "allow",
    }
}

/// From what a document has.
pub(super) fn violations_from(name: &str) -> Option<Violations> {
    [Violations::Refuse, Violations::NotJudgedOnly, Violations::Allow]
        .into_iter()
        .find(|violations| violations_name(*violations) == name)
}
