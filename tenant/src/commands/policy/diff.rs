//! `halfkey policy diff`: what one policy allows and another does not.

use crate::client::scope;
use crate::context::Context;
use crate::documents::signed;
use crate::documents::signing::SigningContext;
use crate::documents::source::Source;
use crate::error::{Error, Exit, Result};
use crate::render;
use halfkey_evidence::policy::{Change, diff as compare};
use halfkey_protocol::wire::policies::Scope;
use serde::Serialize;
use std::path::Path;

/// `halfkey policy diff --json`.
#[derive(Serialize)]
struct Differs {
    before: String,
    after: String,
    changes: Vec<Change>,
}

/// Compares two policies.
///
/// # Errors
/// When one can't be had or read.
pub fn run(context: &Context, before: &str, after: &str) -> Result<()> {
    let (before, after) = (source(context, before)?, source(context, after)?);
    let changes = compare(&before.policy()?, &after.policy()?);
    let result = Differs { before: before.name, after: after.name, changes };
    context.out.value(&result, || {
        if result.changes.is_empty() {
            return "no difference: both allow the same".to_owned();
        }
        format!("--- {}\n+++ {}\n{}", result.before, result.after, render::changes(&result.changes))
    })
}

/// A file, or a policy of the verifier. A file wins: it is what is at hand.
fn source(context: &Context, typed: &str) -> Result<Source> {
    let path = Path::new(typed);
    if typed == "-" || path.exists() || !typed.contains(':') {
        return Source::file(path);
    }
    let signing = SigningContext::open(context)?;
    let (scope, version) = scope::typed_version(&signing.client, typed)?;
    if matches!(scope, Scope::Additions(_)) {
        return Err(Error::usage("additions are no policy of their own: there is nothing to compare")
            .hint("`halfkey policy show additions:NODE` prints them"));
    }
    let own = match signing.client.policy(&scope, version) {
        Err(error) if error.exit == Exit::NotFound && version.is_none() => {
            signing.ledger()?.check(&scope, None)?;
            return Err(error);
        }
        record => signed::shown(&signing, &record?.signed, &scope, version)?,
    };
    own.in_force().map(Source::from).ok_or_else(|| {
        Error::failed(format!(
            "{scope} was withdrawn by version {}: there is nothing to compare",
            own.version()
        ))
        .hint(format!(
            "an earlier one is {typed}@N",
            typed = typed.rsplit_once('@').map_or(typed, |(scope, _)| scope)
        ))
    })
}
