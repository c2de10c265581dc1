//! `halfkey policy learn`: a policy from a boot that was checked here.

use crate::context::{self, Context};
use crate::documents::draft;
use crate::documents::signing::SigningContext;
use crate::error::Result;
use crate::trust::boot::{self, Attester};
use halfkey_evidence::policy::Assured;
use serde::Serialize;
use std::path::Path;

/// `halfkey policy learn --json`.
#[derive(Serialize)]
struct Learned<'a> {
    node_id: String,
    evidence_id: u64,
    name: &'a str,
    policy: &'a str,
}

/// Fetches the boot, checks it, writes the policy.
///
/// # Errors
/// `Untrusted` when the boot does not pass the checks here; `Failed` when no policy can be made from it.
pub fn run(
    context: &Context,
    node: &str,
    number: Option<u64>,
    assured: Assured,
    name: Option<&str>,
    output: Option<&Path>,
) -> Result<()> {
    let signing = SigningContext::open(context)?;
    let id = signing.node(node)?;
    let mut record = signing.client.node(id)?;
    let attester = Attester::of(id, &record, &signing.key)?;
    // Not what the server calls it.
    attester.label().clone_into(&mut record.summary.label);
    if let Err(error) = attester.require_mine() {
        context.out.note(&format!("warning: {error}"));
    }
    let number = match (number, &record.pending) {
        (Some(number), _) => number,
        (None, Some(pending)) => pending.evidence_id,
        (None, None) => boot::last(&signing.client, id, "released boot", boot::released)?,
    };
    let boot = attester.boot(&signing.client, number)?;
    let name = name.unwrap_or(&record.summary.label);
    let text = draft::whole(&boot, &record, assured, name)?;
    if let Some(path) = output {
        context::create(path, text.as_bytes())?;
        context.out.note(&format!("wrote {} from evidence {number}", path.display()));
        if !context.out.is_json() {
            return Ok(());
        }
    }
    let learned = Learned { node_id: id.to_string(), evidence_id: number, name, policy: &text };
    context.out.value(&learned, || text.trim_end().to_owned())
}
