//! `halfkey ima diff`: two lists, path by path.

use crate::context::Context;
use crate::error::Result;
use crate::render::text::{clean, short_digest};
use crate::render::{Style, table};
use comfy_table::Cell;
use halfkey_evidence::ima::DigestList;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// Digests of a path that are in one list only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// As a machine has it; `*` is any.
    pub path: String,
    /// In the first only.
    pub before: Vec<String>,
    /// In the second only.
    pub after: Vec<String>,
}

/// Compares two lists.
///
/// # Errors
/// `Usage` when one can't be read.
pub fn run(context: &Context, before: &Path, after: &Path) -> Result<()> {
    let changed = compare(&super::read(before)?, &super::read(after)?);
    context.out.value(&changed, || shown(&changed, &context.style()))
}

/// What one has and the other does not, by path.
pub fn compare(before: &DigestList, after: &DigestList) -> Vec<Changed> {
    let mut paths: BTreeMap<Vec<u8>, [Vec<String>; 2]> = BTreeMap::new();
    for (of, list) in [before, after].into_iter().enumerate() {
        list.each(|digest, path| paths.entry(path.to_vec()).or_default()[of].push(digest.to_owned()));
    }
    let only = |one: &[String], other: &[String]| {
        one.iter().filter(|digest| !other.contains(digest)).cloned().collect::<Vec<_>>()
    };
    let changed = paths.into_iter().map(|(path, [before, after])| Changed {
        path: String::from_utf8_lossy(&path).into_owned(),
        before: only(&before, &after),
        after: only(&after, &before),
    });
    changed.filter(|changed| !changed.before.is_empty() || !changed.after.is_empty()).collect()
}

/// `halfkey ima diff`.
pub fn shown(changed: &[Changed], style: &Style) -> String {
    if changed.is_empty() {
        return "both lists say the same".to_owned();
    }
    let mut table = table(style, &["PATH", "BEFORE", "AFTER"]);
    let digests = |digests: &[String]| match digests {
        [] => "-".to_owned(),
        digests => digests.iter().map(|digest| short_digest(digest)).collect::<Vec<_>>().join(" "),
    };
    for Changed { path, before, after } in changed {
        table.add_row(vec![Cell::new(clean(path)), Cell::new(digests(before)), Cell::new(digests(after))]);
    }
    let count = |is: fn(&Changed) -> bool| changed.iter().filter(|changed| is(changed)).count();
    let (new, gone) = (count(|it| it.before.is_empty()), count(|it| it.after.is_empty()));
    let other = changed.len() - new - gone;
    format!("{}\n\n{new} new, {gone} gone, {other} changed", table.trim_fmt())
}
