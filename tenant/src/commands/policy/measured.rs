//! `halfkey policy test` on an IMA list from a file.

use crate::commands::ima;
use crate::context::Context;
use crate::error::{Error, Exit, Result};
use crate::render::findings;
use crate::render::text::clean;
use halfkey_evidence::ima::{Advance, Budget, DigestList, IMA_PCR, ListAppraisal, Reader, appraise, assume};
use halfkey_evidence::policy::{Finding, Policy};
use halfkey_protocol::tpm::bank::PcrBank;
use serde::Serialize;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// `halfkey policy test --json` on an IMA list.
#[derive(Serialize)]
struct Measured<'a> {
    policy: &'a str,
    list: String,
    /// All that are in the list.
    entries: usize,
    /// Whose digest is on a list of the policy.
    listed: u64,
    /// By a key of the policy.
    signed: u64,
    /// At paths that nothing is asked of.
    not_judged: u64,
    /// Files that were open for writing while they were used.
    violations: u64,
    /// Kernels that began, and buffers.
    other: u64,
    refused: u64,
    /// The first hundred that are refused.
    findings: Vec<Finding>,
}

/// Whether it is an IMA list: a firmware event log begins with PCR 0, and has no template.
pub fn is_list(bytes: &[u8]) -> bool {
    matches!(Reader::new(bytes).next(), Some(Ok(entry)) if entry.pcr == u32::from(IMA_PCR))
}

/// Judges a list that nobody vouches for by `[ima]` of a policy.
///
/// # Errors
/// `Failed` when it has what the policy does not allow; `Usage` when a list of digests is missing.
pub fn run(
    context: &Context,
    (name, policy): (&str, &Policy),
    path: &Path,
    bytes: &[u8],
    digests: &[PathBuf],
    bank: PcrBank,
) -> Result<()> {
    let Some(ima) = policy.ima() else {
        return Err(Error::usage(format!("{name} has no [ima]: it says nothing of {}", path.display())));
    };
    let lists = digests.iter().map(|path| ima::read(path)).collect::<Result<Vec<_>>>()?;
    let lists: HashMap<[u8; 32], Arc<DigestList>> =
        lists.into_iter().map(|list| (*list.id(), Arc::new(list))).collect();
    let find = |digest: &halfkey_evidence::policy::rules::Digest| lists.get(digest.as_bytes()).cloned();
    let rules = ima.rules(find).map_err(|missing| {
        let list = format!("list \"{}\" ({})", clean(&missing.name), missing.digest);
        Error::usage(format!("expected the {list} of {name}, found none")).hint("give it by --digests FILE")
    })?;
    let advance = assume(bytes, bank)
        .map_err(|e| Error { exit: Exit::Failed, ..Error::from(e).context(path.display()) })?;
    let measured = measured(name, path, &advance, appraise(&rules, &[], &advance, &mut Budget::default()));
    context.out.value(&measured, || shown(&measured))?;
    if measured.findings.is_empty() {
        return Ok(());
    }
    Err(Error::failed(format!("{} of {} entries would be refused", measured.refused, measured.entries)))
}

fn measured<'a>(name: &'a str, path: &Path, advance: &Advance<'_>, found: ListAppraisal) -> Measured<'a> {
    let ListAppraisal { listed, signed, not_judged, violations, other, refused, findings } = found;
    Measured {
        policy: name,
        list: path.display().to_string(),
        entries: advance.entries().count(),
        listed,
        signed,
        not_judged,
        violations,
        other,
        refused,
        findings,
    }
}

fn shown(measured: &Measured<'_>) -> String {
    let Measured { list, entries, listed, signed, not_judged, violations, other, refused, .. } = measured;
    let list = clean(list);
    let counts = format!(
        "{list}: {entries} entries; {listed} listed, {signed} signed, {not_judged} not judged, {other} of the kernel, \
         {violations} violations, {refused} refused"
    );
    let found = findings(&measured.findings);
    let more = measured.refused.saturating_sub(measured.findings.len() as u64);
    let more = if more > 0 { format!("  and {more} more") } else { String::new() };
    format!("{counts}\n{found}{more}").trim_end().to_owned()
}
