//! Two policies, rule by rule.

use super::parsed::Policy;
use super::rules::{
    Allowed, Boot, CommandLine, Dbx, Digest, Document, EventIs, EventRule, Initrd, Listed, Sections, Token,
};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};

/// A rule that is not the same in two policies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// `secure_boot.db`, `boot "6.1.0-56" image 1 (uki)`.
    pub path: String,
    /// None: it is new.
    pub before: Option<String>,
    /// None: it is gone.
    pub after: Option<String>,
}

/// What changes from one policy to another, in the order of the schema. Boots are told apart by their names, and what a list
/// has is compared entry by entry.
pub fn diff(before: &Policy, after: &Policy) -> Vec<Change> {
    let (before, after) = (rules(before), rules(after));
    let index = |rules: &Rules| -> HashMap<String, Values> { rules.iter().cloned().collect() };
    let (old, new) = (index(&before), index(&after));
    let mut changes = Vec::new();
    for (path, values) in &before {
        changes.extend(changed(path, values, new.get(path)));
    }
    for (path, values) in after.iter().filter(|(path, _)| !old.contains_key(path)) {
        changes.extend(changed(path, &Values::None, Some(values)));
    }
    changes
}

/// Path and value of every rule, in the order of the schema; each path once.
type Rules = Vec<(String, Values)>;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Values {
    None,
    /// One value: it changes as a whole.
    One(String),
    /// A set: entries come and go.
    Set(Vec<String>),
}

fn changed(path: &str, before: &Values, after: Option<&Values>) -> Vec<Change> {
    let change = |before: Option<&String>, after: Option<&String>| Change {
        path: path.to_owned(),
        before: before.cloned(),
        after: after.cloned(),
    };
    let after = after.unwrap_or(&Values::None);
    if before == after {
        return Vec::new();
    }
    let one = |values: &Values| match values {
        Values::None => None,
        Values::One(value) => Some(value.clone()),
        Values::Set(values) => Some(values.join(", ")),
    };
    match (before, after) {
        (Values::Set(_) | Values::None, Values::Set(_) | Values::None) => {
            let count = |values: &Values| {
                let mut counts = BTreeMap::<String, i64>::new();
                if let Values::Set(values) = values {
                    values.iter().for_each(|value| *counts.entry(value.clone()).or_default() += 1);
                }
                counts
            };
            let (old, new) = (count(before), count(after));
            let gone = old.iter().filter(|(value, times)| new.get(*value).unwrap_or(&0) < times);
            let come = new.iter().filter(|(value, times)| old.get(*value).unwrap_or(&0) < times);
            let gone = gone.map(|(value, _)| change(Some(value), None));
            gone.chain(come.map(|(value, _)| change(None, Some(value)))).collect()
        }
        _ => vec![change(one(before).as_ref(), one(after).as_ref())],
    }
}

fn rules(policy: &Policy) -> Rules {
    let mut rules = boot_policy(&policy.compiled.document);
    if let Some(ima) = policy.ima() {
        rules.extend(ima.entries().into_iter().map(|(path, values)| (path, Values::Set(values))));
    }
    rules
}

fn boot_policy(document: &Document) -> Rules {
    let mut rules = Rules::new();
    let mut one = |path: &str, value: String| rules.push((path.to_owned(), Values::One(value)));
    one("name", document.name.clone());
    one("secure_boot.required", document.secure_boot.required.to_string());
    let ignored = (0u8..24).filter(|pcr| document.ignore & 1 << pcr != 0);
    set(&mut rules, "ignore", ignored.map(|pcr| pcr.to_string()));
    let keys = &document.secure_boot;
    for (path, list) in [
        ("secure_boot.pk", &keys.pk),
        ("secure_boot.kek", &keys.kek),
        ("secure_boot.db", &keys.db),
        ("secure_boot.authorities", &keys.authorities),
    ] {
        set(&mut rules, path, list.iter().map(Listed::to_string));
    }
    match &keys.dbx {
        None => {}
        Some(Dbx::Exactly(list)) => set(&mut rules, "secure_boot.dbx", digests(list)),
        Some(Dbx::AtLeast(list)) => set(&mut rules, "secure_boot.dbx_at_least", digests(list)),
    }
    for (path, list) in ["firmware.pcr0", "firmware.pcr2"].into_iter().zip(&document.firmware) {
        // In order: a list is one value.
        if let Some(list) = list {
            rules.push((path.to_owned(), Values::One(digests(list).collect::<Vec<_>>().join(", "))));
        }
    }
    if let Some(versions) = &document.tpm_firmware {
        set(&mut rules, "tpm.firmware", versions.iter().map(|version| tpm_firmware(*version)));
    }
    for (pcr, list) in &document.pcrs {
        set(&mut rules, &format!("pcr.{pcr}"), digests(list));
    }
    match &document.command_line {
        CommandLine::None => {}
        CommandLine::Exact(lines) => set(&mut rules, "command_line.exact", lines.iter().cloned()),
        CommandLine::Tokens { allowed, required, forbidden } => {
            for (path, list) in [("allowed", allowed), ("required", required), ("forbidden", forbidden)] {
                let tokens = list.iter().map(|Token(token)| token.clone());
                set(&mut rules, &format!("command_line.{path}"), tokens);
            }
        }
    }
    let mut names = HashMap::<&str, usize>::new();
    for boot in &document.boots {
        // Names are unique in a document, but additions and proposals may repeat one.
        let times = names.entry(&boot.name).and_modify(|times| *times += 1).or_insert(1);
        let again = if *times > 1 { format!(" ({times})") } else { String::new() };
        boot_rules(&mut rules, boot, &format!("boot {:?}{again}", boot.name));
    }
    set(&mut rules, "event", document.events.iter().map(event));
    if let Some(trust) = &document.trust {
        rules.push(("trust_root_with_next_boot.until".to_owned(), Values::One(trust.until.to_string())));
        rules.push(("trust_root_with_next_boot.count".to_owned(), Values::One(trust.count.to_string())));
    }
    rules
}

fn boot_rules(rules: &mut Rules, boot: &Boot, path: &str) {
    let mut one = |part: &str, value: String| rules.push((format!("{path} {part}"), Values::One(value)));
    if let Some(line) = &boot.command_line {
        one("command_line", line.clone());
    }
    one(
        "initrd",
        match &boot.initrd {
            Initrd::Signed => "signed".to_owned(),
            Initrd::InUki => "in-uki".to_owned(),
            Initrd::Digest(digest) => digest.to_string(),
        },
    );
    if boot.kernel_measures_initrd {
        one("kernel_measures_initrd", "true".to_owned());
    }
    match &boot.sections {
        None => {}
        Some(Sections::Signed) => one("sections", "signed".to_owned()),
        Some(Sections::Digests(list)) => {
            let list: Vec<_> = list.iter().map(|(name, digest)| format!("{name} {digest}")).collect();
            one("sections", list.join(", "));
        }
    }
    for (index, image) in boot.images.iter().enumerate() {
        let (how, list) = match &image.allowed {
            Allowed::Authenticode(list) => ("authenticode", list),
            Allowed::Signer(list) => ("signer", list),
        };
        let part = format!("{path} image {} ({}) {how}", index + 1, image.role.name());
        set(rules, &part, digests(list));
        if !image.signer_also_signs.is_empty() {
            let part = format!("{path} image {} ({}) signer_also_signs", index + 1, image.role.name());
            set(rules, &part, image.signer_also_signs.iter().map(|role| role.name().to_owned()));
        }
    }
    if !boot.events.is_empty() {
        set(rules, &format!("{path} event"), boot.events.iter().map(event));
    }
}

/// A version of a TPM's firmware, as a document has it.
pub(super) fn tpm_firmware(version: u64) -> String {
    format!("{version:#018x}")
}

fn set(rules: &mut Rules, path: &str, values: impl Iterator<Item = String>) {
    rules.push((path.to_owned(), Values::Set(values.collect())));
}

fn digests(list: &[Digest]) -> impl Iterator<Item = String> {
    list.iter().map(Digest::to_string)
}

fn event(event: &EventRule) -> String {
    match &event.is {
        EventIs::Digest(digest) => format!("pcr {} {digest}", event.pcr),
        EventIs::Text(text) => format!("pcr {} {text:?}", event.pcr),
    }
}
