//! `[ima]`

use super::reader::{At, Problems, Table, clip};
use super::schema::Places;
use crate::ima::{BufferContent, BufferRule, PathPattern, Signer, Signers, Violations};
use crate::policy::command_line::{
    IMA_POLICY, MAX_LINE, Objection, against_ima, ima_objection, measures_files,
};
use crate::policy::ima::{ImaPolicy, ListReference, violations_from};
use crate::policy::rules::{CommandLine, Digest, Document};
use halfkey_protocol::tpm::bank::PcrBank;
use std::collections::HashSet;
use std::sync::Arc;

/// Lists of a policy: those of before and after an update, of some distributions.
const MAX_LISTS: usize = 32;
/// Keys of a keyring.
const MAX_SIGNERS: usize = 64;
/// Patterns of paths. Each entry that no list has is compared with all of them.
const MAX_PATTERNS: usize = 256;
/// Rules for buffers.
const MAX_BUFFERS: usize = 128;
/// Texts and digests of one of these.
const MAX_CONTENTS: usize = 256;
/// Names, in bytes.
const MAX_NAME: usize = 128;

pub(super) fn ima(table: &mut Table<'_>, problems: &mut Problems<'_>) -> Option<ImaPolicy> {
    let mut table = table.table("ima", problems)?;
    let at = table.at;
    let violations = violations(&mut table, problems);
    let kexec = table.boolean("kexec", problems).is_some_and(|kexec| kexec.value);
    let not_judged = not_judged(&mut table, problems);
    let lists = lists(&mut table, problems);
    let signers = signers(&mut table, problems);
    let buffers = table.tables("buffer", MAX_BUFFERS, problems);
    let buffers = buffers.into_iter().filter_map(|mut table| buffer(&mut table, problems)).collect();
    table.finish(problems);
    if lists.is_empty() && signers.is_empty() {
        problems.push(
            at,
            (
                "ima: expected at least one [[ima.list]] or [[ima.signer]], found none: no file could be used",
                "`halfkey ima list` makes a list of a root file system or of packages",
            ),
        );
    }
    let signers = Arc::new(Signers::new(signers));
    Some(ImaPolicy { lists, signers, not_judged, buffers, violations, kexec })
}

fn violations(table: &mut Table<'_>, problems: &mut Problems<'_>) -> Violations {
    let Some(text) = table.string("violations", problems) else { return Violations::default() };
    violations_from(&text.value).unwrap_or_else(|| {
        let found = clip(&text.value);
        problems
            .push(text.at, format!("ima.violations: expected refuse, not-judged or allow, found {found:?}"));
        Violations::default()
    })
}

fn not_judged(table: &mut Table<'_>, problems: &mut Problems<'_>) -> Vec<PathPattern> {
    let patterns = table.strings("not_judged", "paths", MAX_PATTERNS, problems);
    let mut parsed = Vec::new();
    for At { value, at } in patterns.map_or_else(Vec::new, |list| list.value) {
        match PathPattern::parse(&value) {
            Ok(pattern) => parsed.push(pattern),
            Err(what) => problems.push(at, format!("ima.not_judged: {what}")),
        }
    }
    parsed
}

/// A key that must be there.
fn required(table: &mut Table<'_>, key: &'static str, problems: &mut Problems<'_>) -> Option<At<String>> {
    if table.value(key).is_none() {
        table.missing(key, problems);
    }
    table.string(key, problems)
}

/// A name, which stands in findings.
fn name(table: &mut Table<'_>, seen: &mut HashSet<String>, problems: &mut Problems<'_>) -> Option<String> {
    let At { value, at } = required(table, "name", problems)?;
    let key = table.name("name");
    let found = clip(&value);
    if value.is_empty() || value.len() > MAX_NAME || value.chars().any(char::is_control) {
        problems.push(at, format!("{key}: expected 1 to {MAX_NAME} bytes of one line, found {found:?}"));
    } else if !seen.insert(value.clone()) {
        problems.push(at, format!("{key}: expected each name once, found {found:?} twice"));
    }
    Some(value)
}

fn lists(table: &mut Table<'_>, problems: &mut Problems<'_>) -> Vec<ListReference> {
    let mut seen = HashSet::new();
    let mut lists = Vec::new();
    for mut table in table.tables("list", MAX_LISTS, problems) {
        let (name, digest) =
            (name(&mut table, &mut seen, problems), required(&mut table, "digest", problems));
        table.finish(problems);
        let (Some(name), Some(At { value, at })) = (name, digest) else { continue };
        match Digest::parse(&value).filter(|digest| digest.bank() == PcrBank::Sha256) {
            Some(digest) => lists.push(ListReference { name, digest }),
            None => {
                let what = "sha256: and 64 lower-case hex digits, as `halfkey ima list` says them";
                problems.push(at, format!("ima.list.digest: expected {what}, found {:?}", clip(&value)));
            }
        }
    }
    lists
}

fn signers(table: &mut Table<'_>, problems: &mut Problems<'_>) -> Vec<Signer> {
    let mut seen = HashSet::new();
    let mut signers = Vec::new();
    for mut table in table.tables("signer", MAX_SIGNERS, problems) {
        let (name, pem) = (name(&mut table, &mut seen, problems), required(&mut table, "pem", problems));
        table.finish(problems);
        let (Some(name), Some(At { value, at })) = (name, pem) else { continue };
        match Signer::from_pem_or_der(&name, value.as_bytes()) {
            Ok(signer) => signers.push(signer),
            Err(what) => problems.push(at, format!("ima.signer.pem: {what}")),
        }
    }
    signers
}

fn buffer(table: &mut Table<'_>, problems: &mut Problems<'_>) -> Option<BufferRule> {
    let at = table.at;
    let name = required(table, "name", problems);
    let any = table.boolean("any", problems);
    let texts = table.strings("texts", "texts", MAX_CONTENTS, problems);
    let digests = table.digests("digests", MAX_CONTENTS, problems);
    table.finish(problems);
    let content = match (any, texts, digests) {
        (Some(At { value: true, .. }), None, None) => BufferContent::Any,
        (None, Some(texts), None) => {
            for text in texts.value.iter().filter(|text| text.value.len() > MAX_LINE) {
                problems.push(text.at, format!("ima.buffer.texts: expected at most {MAX_LINE} bytes"));
            }
            BufferContent::Texts(texts.value.into_iter().map(|text| text.value).collect())
        }
        (None, None, Some(digests)) => {
            BufferContent::Digests(digests.value.into_iter().map(|digest| digest.value).collect())
        }
        _ => {
            problems
                .push(at, "ima.buffer: expected one of texts, digests and any = true, found none or several");
            return None;
        }
    };
    let At { value, at } = name?;
    BufferRule::new(&value, content)
        .map_err(|what| problems.push(at, format!("ima.buffer.name: {what}")))
        .ok()
}

/// A policy that asks what is used asks for the words by which the kernel measures it: in each line that it has.
pub(super) fn check(document: &Document, places: &Places, problems: &mut Problems<'_>) {
    let mut line = |name: &str, line: &str, at: usize| {
        if let Some(objection) = ima_objection(line) {
            let Objection { expected, found, .. } = objection;
            problems.floor(at, format!("{name}: expected {expected}, found {found}"));
        }
    };
    if let CommandLine::Exact(lines) = &document.command_line {
        lines.iter().zip(&places.exact).for_each(|(text, at)| line("command_line.exact", text, *at));
    }
    for (boot, at) in document.boots.iter().zip(&places.boots) {
        boot.command_line.iter().for_each(|text| line("boot.command_line", text, at.command_line));
    }
    if let CommandLine::Tokens { required, .. } = &document.command_line
        && !required.iter().any(|token| token.is_literal() && measures_files(&token.0))
    {
        let at = places.command_line.unwrap_or_default();
        problems.floor(
            at,
            format!("command_line.required: expected {IMA_POLICY}, found none: without it nothing of [ima] is measured"),
        );
    }
    for (list, token) in places.tokens.iter().filter(|(list, _)| *list != "forbidden") {
        if let Some(why) = against_ima(token.value.0.trim_end_matches('*')) {
            problems.floor(token.at, format!("command_line.{list}: expected no {}: {why}", token.value.0));
        }
    }
}
