//! `halfkey policy apply`: signs a policy and submits it.

use crate::ask::confirm;
use crate::cli::ApplyTarget;
use crate::client::scope;
use crate::context::Context;
use crate::documents::change::PolicyChange;
use crate::documents::signed;
use crate::documents::signing::SigningContext;
use crate::documents::source::Source;
use crate::documents::trial;
use crate::error::{Error, Exit, Result};
use crate::render::text::clean_short;
use halfkey_protocol::wire::policies::{PolicyRecord, Scope};
use std::path::Path;

/// `halfkey policy apply`.
///
/// # Errors
/// With every problem of the document; `Failed` when the answer is no or the server refuses.
pub fn run(context: &Context, file: &Path, target: &ApplyTarget, yes: bool) -> Result<()> {
    let source = Source::file(file)?;
    // Before anything is asked of a server, and with the file's own name.
    match target.additions {
        Some(_) => drop(source.additions()?),
        None => drop(source.policy()?),
    }
    let signing = SigningContext::open(context)?;
    let scope = match (&target.group, &target.node, &target.additions) {
        (Some(name), ..) => Scope::Group(scope::group(name)?),
        (_, Some(node), _) => Scope::Node(signing.node(node)?),
        (.., Some(node)) => Scope::Additions(signing.node(node)?),
        _ => return Err(Error::usage("none of --group, --node and --additions is given")),
    };
    let head = signing.head()?;
    // A whole document from the operator: the remedy when the server shows an old one, so that is only said.
    let present = match signed::current(&signing.client, &scope, &signing.key, head.ledger()) {
        Ok(present) => present,
        Err(error) if error.exit == Exit::Untrusted => {
            context.out.note(&format!("warning: {error}"));
            signed::newest(&signing.client, &scope, &signing.key).unwrap_or(None)
        }
        Err(error) => return Err(error),
    };
    let change = PolicyChange::new(&signing, scope, present, source.text)?;
    context.out.note(&change.summary());
    let trials = trial::of_scope(&signing, &change.scope, change.policy())?;
    trial::warn(context, &trials);
    if !yes {
        confirm(&format!("Sign this as {}?", change.scope))?;
    }
    let record = change.submit(&signing, head)?;
    context.out.value(&record, || applied(&record))
}

/// The result of an apply.
pub fn applied(record: &PolicyRecord) -> String {
    let policy = &record.summary;
    let nodes = if policy.nodes == 1 { "1 node".to_owned() } else { format!("{} nodes", policy.nodes) };
    format!("applied {} version {}; it governs {nodes}", clean_short(&policy.scope, 80), policy.version)
}
