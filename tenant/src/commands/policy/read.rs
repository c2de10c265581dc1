//! `halfkey policy check`, `diff`, `show`, `list`: nothing is changed.

use crate::client::scope;
use crate::context::App;
use crate::documents::problems;
use crate::documents::signed::{self, Own, Source};
use crate::error::{Error, Result};
use crate::render as tables;
use crate::render::text::{clean, clean_lines};
use crate::render::time;
use halfkey_evidence::policy::{Additions, Change, Policy, Problem, diff as compare};
use halfkey_protocol::document::Kind;
use halfkey_protocol::wire::Document;
use halfkey_protocol::wire::policies::Scope;
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
}

impl<'a> Located<'a> {
    fn of(problem: &'a Problem) -> Self {
        let Problem { line, column, message, floor } = problem;
        Self { line: *line, column: *column, floor: *floor, message }
    }
}

/// `halfkey policy diff --json`.
#[derive(Serialize)]
struct Differs {
    before: String,
    after: String,
    changes: Vec<Change>,
}

/// Says what is wrong with a file.
///
/// # Errors
/// With every problem.
pub fn check(app: &App, file: &Path, additions: bool) -> Result<()> {
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
                app.out.note(&format!("{}: warning: {warning}", source.name));
            }
            app.out.value(&result, || format!("{}: good; \"{}\", {what}", source.name, clean(name)))
        }
        Err(found) => {
            if app.out.is_json() {
                app.out.value(&result, String::new)?;
                return Err(Error::failed(format!("{} can't be used", source.name)));
            }
            Err(problems::refuse(&source, found))
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

/// Compares two policies.
///
/// # Errors
/// When one can't be had or read.
pub fn diff(app: &App, before: &str, after: &str) -> Result<()> {
    let (before, after) = (source(app, before)?, source(app, after)?);
    let changes = compare(&before.policy()?, &after.policy()?);
    let result = Differs { before: before.name, after: after.name, changes };
    app.out.value(&result, || {
        if result.changes.is_empty() {
            return "no difference: both allow the same".to_owned();
        }
        format!("--- {}\n+++ {}\n{}", result.before, result.after, tables::policy::changes(&result.changes))
    })
}

/// A file, or a policy of the verifier. A file wins: it is what is at hand.
fn source(app: &App, typed: &str) -> Result<Source> {
    let path = Path::new(typed);
    if typed == "-" || path.exists() || !typed.contains(':') {
        return Source::file(path);
    }
    let client = app.logged_in()?;
    let (scope, version) = scope::typed_version(&client, typed)?;
    if matches!(scope, Scope::Additions(_)) {
        return Err(Error::usage("additions are no policy of their own: there is nothing to compare")
            .hint("`halfkey policy show additions:NODE` prints them"));
    }
    let record = client.policy(&scope, version)?;
    let own = Own::check(&record.signed, &scope, &app.home.tenant_key()?)?;
    own.in_force().map(Source::from).ok_or_else(|| {
        Error::failed(format!(
            "{scope} was withdrawn by version {}: there is nothing to compare",
            own.version
        ))
        .hint(format!(
            "an earlier one is {typed}@N",
            typed = typed.rsplit_once('@').map_or(typed, |(scope, _)| scope)
        ))
    })
}

/// Prints a policy of the verifier; what stands beside it goes to standard error.
///
/// # Errors
/// `Untrusted`, after printing, when it is not signed by the tenant key of this desk.
pub fn show(app: &App, scope: &str, version: Option<u64>) -> Result<()> {
    let client = app.logged_in()?;
    let scope = scope::typed(&client, scope)?;
    let record = client.policy(&scope, version)?;
    // A desk without a tenant key can still look.
    let standing = signed::standing(&record, &scope, app.home.tenant_key().ok().as_ref());
    let signed = standing.as_deref().unwrap_or("NOT TRUSTED, see below");
    app.out.note(&tables::policy::summary(&record.summary, signed, time::now()));
    app.out.value(&record, || text(&record.signed.document))?;
    standing.map(drop)
}

/// The policy inside of an envelope, whoever signed it, fit for a terminal.
fn text(document: &[u8]) -> String {
    let policy = match serde_json::from_slice::<Document>(document) {
        Ok(inside) if Kind::parse(&inside.kind) == Some(Kind::Withdrawal) => {
            "# withdrawn: there is no policy".to_owned()
        }
        Ok(inside) => inside.body,
        Err(_) => "# this is not a policy".to_owned(),
    };
    // Comments may hold anything that TOML allows.
    clean_lines(policy.trim_end())
}

/// Lists the policies of the verifier.
///
/// # Errors
/// As every request.
pub fn list(app: &App) -> Result<()> {
    let list = app.logged_in()?.policies()?;
    app.out.value(&list, || tables::policy::list(&list, &app.style(), time::now()))
}
