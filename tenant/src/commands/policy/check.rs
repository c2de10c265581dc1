//! `halfkey policy check`: what is wrong with a policy.

use crate::context::Context;
use crate::documents::problems;
use crate::documents::source::Source;
use crate::error::{Error, Result};
use crate::render::text::clean;
use halfkey_evidence::policy::{Additions, Policy, Problem};
use serde::Serialize;
use std::path::Path;

/// `halfkey policy check --json`.
#[derive(Serialize)]
struct Checked<'a> {
    file: &'a str,
    name: Option<&'a str>,
    problems: Vec<Located<'a>>,
    /// What it may have, and should not have without a reason.
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct Located<'a> {
    line: usize,
    column: usize,
    /// Below the floor: readable, but it allows more than any policy may.
    floor: bool,
    message: &'a str,
    hint: Option<&'a str>,
}

impl<'a> Located<'a> {
    fn of(problem: &'a Problem) -> Self {
        let Problem { line, column, message, hint, floor } = problem;
        Self { line: *line, column: *column, floor: *floor, message, hint: hint.as_deref() }
    }
}

/// Says what is wrong with a file.
///
/// # Errors
/// With every problem.
pub fn run(context: &Context, file: &Path, additions: bool) -> Result<()> {
    let source = Source::file(file)?;
    let parsed: std::result::Result<(String, String, usize), Vec<Problem>> = if additions {
        Additions::parse(&source.text).map(|parsed| {
            let what = format!("additions, {}", boots(parsed.boots().len()));
            (parsed.name().to_owned(), what, parsed.images_beside_boots())
        })
    } else {
        Policy::parse(&source.text).map(|parsed| {
            let what = format!("a policy, {}", boots(parsed.boots().len()));
            (parsed.name().to_owned(), what, parsed.images_beside_boots())
        })
    };
    let found = parsed.as_ref().err().map_or(&[][..], Vec::as_slice);
    let name = parsed.as_ref().ok().map(|(name, ..)| name.as_str());
    let result = Checked {
        file: &source.name,
        name,
        problems: found.iter().map(Located::of).collect(),
        warnings: parsed.as_ref().ok().and_then(|(.., images)| beside_boots(*images)).into_iter().collect(),
    };
    match &parsed {
        Ok((name, what, _)) => {
            for warning in &result.warnings {
                context.out.note(&format!("{}: warning: {warning}", source.name));
            }
            context.out.value(&result, || format!("{}: good; \"{}\", {what}", source.name, clean(name)))
        }
        Err(found) => {
            if context.out.is_json() {
                context.out.value(&result, String::new)?;
                return Err(Error::failed(format!("{} can't be used", source.name)));
            }
            Err(problems::refuse(&source.name, found))
        }
    }
}

fn beside_boots(images: usize) -> Option<String> {
    (images > 0).then(|| {
        format!(
            "{images} [[event]] of pcr 4: an image that came back to the firmware could have done and measured all that followed, so \
             whatever it can be made to do has the key"
        )
    })
}

fn boots(count: usize) -> String {
    format!("{count} boot{}", if count == 1 { "" } else { "s" })
}
