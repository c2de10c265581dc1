//! What governs a node, in a form that judges.
//!
//! | module | what |
//! | --- | --- |
//! | [`Library`] | from signed documents to what governs a node ([`Governed`]), with a bounded cache |
//! | [`apply`] | what is checked before a policy is stored |
//! | [`propose`] | what a proposal is worth |
//! | [`review`] | what is open, judged again when a policy changed |

pub mod apply;
pub mod propose;
pub mod review;

use crate::cache::Cache;
use crate::domain::{Error, Governing, Node, PolicyRef, PolicySource, Result, Trusted};
use aws_lc_rs::digest::{Context, SHA256};
use halfkey_evidence::policy::{Additions, Effective, Finding, LeftOut, Policy, TenantNode, Unfit};
use halfkey_protocol::document::{Kind, Opened};
use std::sync::Arc;

/// What a node's boots are judged by, at the moment that it was read.
#[derive(Clone, Debug)]
pub struct Governed {
    /// From which documents. A ruling holds only while the node is governed by just these.
    pub governing: Governing,
    /// The rules; or why there are none, for people.
    pub rules: std::result::Result<Arc<Rules>, String>,
}

/// The policy in effect, with what people are told about it.
#[derive(Debug)]
pub struct Rules {
    /// Scope and version of the policy.
    pub name: String,
    /// What it allows.
    pub effective: Effective,
    /// What was left out, and why.
    pub notes: Vec<String>,
}

/// Parsed policies that are kept, in bytes of their documents.
const KEPT: usize = 16 << 20;

/// Parsed policies, ready to judge.
pub struct Library {
    cache: Cache<Entry>,
}

impl Default for Library {
    fn default() -> Self {
        Self { cache: Cache::of(KEPT) }
    }
}

/// One signed document that was verified and parsed. What it says of itself is signed, and compared with what it
/// is used for.
struct Signed {
    envelope: Opened,
    content: Content,
}

enum Content {
    Policy(Policy),
    Additions(Additions),
    /// Never governs anything.
    Withdrawn,
    /// The envelope's text says which group the node is in.
    Member,
}

/// What the cache keeps.
enum Entry {
    Signed(std::result::Result<Box<Signed>, String>),
    Rules(Arc<Rules>),
}

impl Library {
    /// What the node's boots are judged by, as the enrollment that serves `boot` has it.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn governed(&self, node: &Node, documents: &dyn PolicySource) -> Result<Governed> {
        let governing = node.governing.clone();
        if let Some(damage) = &node.damage {
            return Ok(Governed { governing, rules: Err(damage.to_string()) });
        }
        let rules = match (&governing.policy, &node.current) {
            (None, _) => Err(match &governing.group {
                Some(group) => format!("neither node {} nor its group {group} has a policy", node.id),
                None => format!("node {} has no policy and is in no group", node.id),
            }),
            (Some(_), None) => Err(format!("node {} is not enrolled", node.id)),
            (Some(policy), Some(enrollment)) => {
                let node = TenantNode { id: node.id, tenant_key: enrollment.signed.tenant_key() };
                self.rules(policy, &governing, node, documents)?
            }
        };
        Ok(Governed { governing, rules })
    }

    fn rules(
        &self,
        policy: &PolicyRef,
        governing: &Governing,
        node: TenantNode<'_>,
        documents: &dyn PolicySource,
    ) -> Result<std::result::Result<Arc<Rules>, String>> {
        // Which group's policy counts is the tenant's word as well.
        let mut group = None;
        let membership = match &governing.membership {
            Some(reference) if policy.scope.starts_with("group:") => {
                Some((reference, self.signed(reference, documents)?))
            }
            Some(_) | None => None,
        };
        if let Some((reference, entry)) = &membership {
            match usable(entry, reference, |document| node.group(document)) {
                Ok((_, named)) => group = named,
                Err(why) => return Ok(Err(why)),
            }
        }
        // That the node's own policy does not count any more is the tenant's word, not that of a row.
        if let Some(reference) = &governing.withdrawn {
            let withdrawal = self.signed(reference, documents)?;
            if let Err(why) = usable(&withdrawal, reference, |document| node.withdrawal(document)) {
                return Ok(Err(why));
            }
        }
        let signed = self.signed(policy, documents)?;
        let signed = match usable(&signed, policy, |document| node.policy(document, group)) {
            Ok((signed, ())) => signed,
            Err(why) => return Ok(Err(why)),
        };
        let Content::Policy(signed_policy) = &signed.content else {
            return Ok(Err(damaged(policy)));
        };
        let added = match &governing.additions {
            Some(additions) => Some((additions, self.signed(additions, documents)?)),
            None => None,
        };
        let mut notes = Vec::new();
        // What was left out because it was damaged may be put right: that is not what these documents come to.
        let mut whole = true;
        let additions = match &added {
            None => None,
            Some((reference, entry)) => match usable(entry, reference, |document| node.additions(document)) {
                Ok((Signed { content: Content::Additions(additions), .. }, ())) => Some(additions),
                Ok(_) => {
                    whole = false;
                    notes.push(damaged(reference));
                    None
                }
                Err(why) => {
                    whole = false;
                    notes.push(why);
                    None
                }
            },
        };
        // Asked only here: of each document a rule above has said that it governs this node, and no row alone.
        let trusted: &[Trusted] = if signed_policy.trust().is_some() { &governing.trusted } else { &[] };
        let cached = combined_key(policy, governing, trusted, node);
        if whole
            && let Some(entry) = self.cache.find(&cached)
            && let Entry::Rules(rules) = &*entry
        {
            return Ok(Ok(rules.clone()));
        }
        let mut proposals = Vec::new();
        for Trusted { id, base_boot, sha256 } in trusted {
            let Some(stored) = documents.stored_proposal(*id)? else {
                whole = false;
                continue;
            };
            // Changed since it was listed.
            if !stored.by_trust
                || stored.base_boot != *base_boot
                || stored.sha256 != *sha256
                || stored.trusted_under != governing.trusting()
            {
                whole = false;
                notes.push(format!("proposal {id} is not trusted"));
                continue;
            }
            proposals.push((*id, stored.record.proposal, base_boot.as_deref()));
        }
        let mut effective = Effective::new(signed_policy, additions);
        effective.trust_all(proposals.iter().map(|(id, proposal, base)| (*id, proposal, *base)));
        let left_out = effective.left_out().iter();
        notes
            .extend(left_out.map(|LeftOut { id, findings }| format!("proposal {id}: {}", summary(findings))));
        let name = format!("{} version {}", policy.scope, policy.version);
        let rules = Arc::new(Rules { name, effective, notes });
        // About as large as the documents that it was made from.
        let weight = 4096 * (1 + rules.effective.policy().boots().len());
        if whole {
            self.cache.keep(cached, Arc::new(Entry::Rules(rules.clone())), weight);
        }
        Ok(Ok(rules))
    }

    fn signed(&self, reference: &PolicyRef, documents: &dyn PolicySource) -> Result<Arc<Entry>> {
        if let Some(entry) = self.cache.find(&reference.sha256) {
            return Ok(entry);
        }
        let Some(signed) = documents.signed_document(reference.version)? else {
            let what = format!("{} version {} is gone", reference.scope, reference.version);
            return Err(Error::damaged(what));
        };
        let opened = apply::open(&signed)
            .map_err(|rejection| format!("{} version {}: {rejection}", reference.scope, reference.version));
        if opened.as_ref().is_ok_and(|opened| opened.envelope.place.sha256 != reference.sha256) {
            return Ok(Arc::new(Entry::Signed(Err(damaged(reference)))));
        }
        let apply::Opened { mut envelope, content } = match opened {
            Ok(opened) => opened,
            // Not kept: nothing says that these bytes have this digest, and the row may be put right.
            Err(why) => return Ok(Arc::new(Entry::Signed(Err(why)))),
        };
        // It was parsed: the text is not needed any more. That of a membership is a name.
        if envelope.kind != Kind::Membership {
            envelope.body = String::new();
        }
        let entry = Arc::new(Entry::Signed(Ok(Box::new(Signed { envelope, content }))));
        self.cache.keep(reference.sha256, entry.clone(), signed.document.len() + 4096);
        Ok(entry)
    }
}

/// The document, if it is the one that the row names, and `rule` says that it governs the node; and what the rule says of it.
fn usable<'a, T>(
    entry: &'a Entry,
    reference: &PolicyRef,
    rule: impl FnOnce(&'a Opened) -> std::result::Result<T, Unfit>,
) -> std::result::Result<(&'a Signed, T), String> {
    let PolicyRef { scope, version, .. } = reference;
    let signed = match entry {
        Entry::Signed(Ok(signed)) => signed,
        Entry::Signed(Err(why)) => return Err(why.clone()),
        Entry::Rules(_) => return Err(damaged(reference)),
    };
    let Opened { scope: found, place, .. } = &signed.envelope;
    if (found.to_string(), place.number) != (scope.clone(), *version) {
        return Err(format!(
            "expected {scope} version {version}, found a document for {found} version {}",
            place.number
        ));
    }
    let said = rule(&signed.envelope).map_err(|unfit| match unfit {
        // A row that says so.
        Unfit::Kind { .. } => damaged(reference),
        Unfit::Scope { .. } | Unfit::Signer { .. } | Unfit::NotMember(_) => {
            format!("{scope} version {version}: {unfit}")
        }
    })?;
    Ok((signed, said))
}

fn damaged(reference: &PolicyRef) -> String {
    format!("{} version {} is damaged in the database", reference.scope, reference.version)
}

/// Under which the combination is cached. The tenant key is in it because a document of another one is left out; the node, wherever
/// something is that holds for it alone. What all members of a group go by is there once.
fn combined_key(
    policy: &PolicyRef,
    governing: &Governing,
    trusted: &[Trusted],
    node: TenantNode<'_>,
) -> [u8; 32] {
    let mut hash = Context::new(&SHA256);
    let mut field = |bytes: &[u8]| {
        hash.update(&(bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    field(b"rules");
    field(node.tenant_key);
    if governing.additions.is_some() || !trusted.is_empty() {
        field(&node.id.0);
        field(&governing.since.to_be_bytes());
    }
    // The scope is in the signed document, and so in its digest.
    for document in [Some(policy), governing.additions.as_ref()] {
        field(document.map_or(&[], |document| &document.sha256));
    }
    for Trusted { id, base_boot, sha256 } in trusted {
        field(&id.to_be_bytes());
        field(sha256);
        field(base_boot.as_deref().unwrap_or_default().as_bytes());
    }
    let mut key = [0; 32];
    key.copy_from_slice(hash.finish().as_ref());
    key
}

/// The first finding, and how many more there are, in one line.
pub fn summary(findings: &[Finding]) -> String {
    let mut text = findings.first().map(ToString::to_string).unwrap_or_default().replace('\n', ", ");
    if findings.len() > 1 {
        text.push_str(&format!(" (and {} more)", findings.len() - 1));
    }
    text
}
