//! `halfkey accept-rollback`: going on with a verifier that was restored from a backup.

use crate::ask::confirm;
use crate::context::Context;
use crate::error::{Exit, Result};
use crate::render::text::hex;
use crate::trust::follow::{self, Tenancies, walk};
use crate::trust::sequence::SequenceHead;

/// `halfkey accept-rollback`: this workstation goes by what the server has, and forgets what is missing there.
///
/// # Errors
/// `Untrusted` when it is another deployment, or what it has is not one sequence from the first document on; `Failed` when the
/// answer is no.
pub fn accept_rollback(context: &Context, yes: bool) -> Result<()> {
    let bundle = context.home.bundle()?;
    let client = context.client(&bundle)?;
    let (ledger, found) = SequenceHead::announced(&context.home, &bundle, &client)?;
    match SequenceHead::fetch(context, &bundle, &client) {
        Ok(_) => {
            context.out.note("nothing to accept: the server goes on from where this workstation last saw it");
            return Ok(());
        }
        Err(error) if error.exit == Exit::Untrusted => context.out.note(&error.to_string()),
        Err(error) => return Err(error),
    }
    let (mut hashes, mut tenancies) = (Vec::new(), Tenancies::of(context.home.tenant_key()?));
    let head = walk(&client, &ledger, follow::From::First, &found, |opened| {
        hashes.push(hex(&opened.place.sha256));
        tenancies.note(opened);
    })?;
    let missing = ledger.missing(&hashes)?;
    for (scope, number) in &missing {
        context.out.note(&format!("missing  document {number} of this workstation's key, for {scope}"));
    }
    if !yes {
        confirm(&format!("Go on after document {} and forget what is missing?", head.number))?;
    }
    // First: once it is accepted, what leads there is not looked at again.
    tenancies.remember(context, &client, &ledger, follow::From::First, &missing)?;
    // What that has ended is not missed, and is to stay known.
    ledger.accept(&head, &ledger.missing(&hashes)?)?;
    context.out.note("accepted; next: apply policies and groups again, enroll again, and look at revocations and operators");
    Ok(())
}
