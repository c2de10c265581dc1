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

/// What a file says.
struct Read {
    name: String,
    /// For people.
    what: String,
    /// `[[event]]`s of PCR 4.
    images: usize,
    /// Whether it has `[ima]`.
    ima: bool,
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
    let parsed: std::result::Result<Read, Vec<Problem>> = if additions {
        Additions::parse(&source.text).map(|parsed| {
            let what = format!("additions, {}", boots(parsed.boots().len()));
            Read { name: parsed.name().to_owned(), what, images: parsed.images_beside_boots(), ima: false }
        })
    } else {
        Policy::parse(&source.text).map(|parsed| {
            let lists = parsed.ima().map(|ima| format!(", {}", digests(ima.lists().len())));
            let what = format!("a policy, {}{}", boots(parsed.boots().len()), lists.unwrap_or_default());
            let (name, images) = (parsed.name().to_owned(), parsed.images_beside_boots());
            Read { name, what, images, ima: parsed.ima().is_some() }
        })
    };
    let found = parsed.as_ref().err().map_or(&[][..], Vec::as_slice);
    let name = parsed.as_ref().ok().map(|read| read.name.as_str());
    let result = Checked {
        file: &source.name,
        name,
        problems: found.iter().map(Located::of).collect(),
        warnings: parsed.as_ref().map_or_else(|_| Vec::new(), warnings),
    };
    match &parsed {
        Ok(Read { name, what, .. }) => {
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

fn warnings(read: &Read) -> Vec<String> {
    let ima = read.ima.then(|| {
        "[ima]: the verifier asks a boot for the words alone; what a running machine has used is judged by `halfkey policy test`".to_owned()
    });
    beside_boots(read.images).into_iter().chain(ima).collect()
}

fn beside_boots(images: usize) -> Option<String> {
    (images > 0).then(|| {
        format!(
            "{images} [[event]] of pcr 4: an image that came back to the firmware could have done and measured all that followed, so \
             whatever it can be made to do has the key"
        )
    })
}

fn digests(lists: usize) -> String {
    format!("{lists} list{} of digests", if lists == 1 { "" } else { "s" })
}

fn boots(count: usize) -> String {
    format!("{count} boot{}", if count == 1 { "" } else { "s" })
}
