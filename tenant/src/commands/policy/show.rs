//! `halfkey policy show`: a policy of the verifier, as it is.

use crate::client::scope;
use crate::commands::policy::list::name;
use crate::context::Context;
use crate::documents::signed;
use crate::documents::signing::SigningContext;
use crate::error::{Exit, Result};
use crate::render::rows;
use crate::render::text::{clean_lines, clean_short};
use crate::render::time::{self, both};
use halfkey_protocol::document::Kind;
use halfkey_protocol::wire::Document;
use halfkey_protocol::wire::policies::PolicySummary;

/// Prints a policy of the verifier; what stands beside it goes to standard error.
///
/// # Errors
/// `Untrusted`, after printing, when it is not signed by the tenant key of this workstation, or older than what that has signed.
pub fn run(context: &Context, scope: &str, version: Option<u64>) -> Result<()> {
    let client = context.logged_in()?;
    let scope = scope::typed(&client, scope)?;
    // A workstation without a tenant key can still look.
    let signing = SigningContext::open(context).ok();
    let record = match (client.policy(&scope, version), &signing) {
        (Err(error), Some(signing)) if error.exit == Exit::NotFound && version.is_none() => {
            signing.ledger()?.check(&scope, None)?;
            return Err(error);
        }
        (record, _) => record?,
    };
    let standing = signed::standing(&record, &scope, version, signing.as_ref());
    let signed = standing.as_deref().unwrap_or("NOT TRUSTED, see below");
    context.out.note(&summary(&record.summary, signed, time::now()));
    context.out.value(&record, || text(&record.signed.document))?;
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

/// What stands beside a policy's text. `signed` says by whom.
pub fn summary(policy: &PolicySummary, signed: &str, now: u64) -> String {
    let list = [
        ("scope", clean_short(&policy.scope, 80)),
        ("version", policy.version.to_string()),
        ("name", name(policy)),
        ("signature", signed.to_owned()),
        ("sha256", clean_short(&policy.sha256, 64)),
        ("applied", format!("by {} {}", clean_short(&policy.applied_by, 64), both(now, policy.applied_at))),
        ("nodes", policy.nodes.to_string()),
    ];
    rows("", &list).trim_end().to_owned()
}
