//! `deny`, `revoke`, `restore`, `hold`, `release`: what an operator decides about a node. `approve` is in [`crate::commands::approve`].

use crate::client::{Client, resolve};
use crate::context::Context;
use crate::documents::signing::SigningContext;
use crate::error::{Error, Exit, Result};
use crate::render;
use crate::render::text::clean;
use crate::trust::sequence::SequenceHead;
use halfkey_protocol::NodeId;
use halfkey_protocol::document::{Kind, Scope};
use halfkey_protocol::wire::operator::{Because, Deny, NodeRecord, PendingBoot};

/// A reason is one line of an audit trail.
const MAX_BECAUSE: usize = 500;

/// Denies the boot that waits.
///
/// # Errors
/// `NothingPending` when no boot waits.
pub fn deny(context: &Context, node: &str, because: &str) -> Result<()> {
    let because = reason(because)?;
    let (client, id) = find(context, node)?;
    let record = client.node(id)?;
    let PendingBoot { ticket, .. } = record.pending.ok_or_else(|| nothing_pending(id))?;
    done(context, &client.deny(id, &Deny { ticket, because })?, "denied")
}

/// Revokes a node.
///
/// # Errors
/// As every request.
pub fn revoke(context: &Context, node: &str, because: &str) -> Result<()> {
    let because = reason(because)?;
    let (client, id) = find(context, node)?;
    let record = client.revoke(id, &Because { because })?;
    remember(context, &client);
    done(context, &record, "revoked")
}

/// Undoes a revocation: signed by the tenant key that enrolled the node.
///
/// # Errors
/// As [`SequenceHead::sign`]; when there is no tenant key here.
pub fn restore(context: &Context, node: &str, because: &str) -> Result<()> {
    let because = reason(because)?;
    let signing = SigningContext::open(context)?;
    let id = signing.node(node)?;
    let submit = |signed: &_| signing.client.restore(id, signed);
    let scope = Scope::Revocation(id);
    let record = signing.head()?.sign(&signing.key, Kind::Restoration, &scope, &because, submit)?;
    done(context, &record, "restored")
}

/// It has a place in the sequence: from now on this workstation misses it if it is gone. It is done, whatever comes of that.
fn remember(context: &Context, client: &Client) {
    let look = || SequenceHead::fetch(context, &context.home.bundle()?, client).map(drop);
    if let Err(error) = look() {
        context.out.note(&format!("warning: {error}"));
    }
}

/// Holds a node: its next boots are denied at once and ask for the passphrase, with the disk closed.
///
/// # Errors
/// As every request.
pub fn hold(context: &Context, node: &str, because: &str) -> Result<()> {
    let because = reason(because)?;
    let (client, id) = find(context, node)?;
    let record = client.hold(id, &Because { because })?;
    remember(context, &client);
    done(context, &record, "held until `halfkey release`:")
}

/// Undoes a hold: signed by the tenant key that enrolled the node.
///
/// # Errors
/// As [`SequenceHead::sign`]; when there is no tenant key here.
pub fn release(context: &Context, node: &str, because: &str) -> Result<()> {
    let because = reason(because)?;
    let signing = SigningContext::open(context)?;
    let id = signing.node(node)?;
    let submit = |signed: &_| signing.client.release(id, signed);
    let scope = Scope::Hold(id);
    let record = signing.head()?.sign(&signing.key, Kind::Release, &scope, &because, submit)?;
    done(context, &record, "released")
}

pub(crate) fn find(context: &Context, node: &str) -> Result<(Client, NodeId)> {
    let client = context.client(&context.home.bundle()?)?;
    let id = resolve::resolve(&client, node)?;
    Ok((client, id))
}

pub(crate) fn done(context: &Context, record: &NodeRecord, what: &str) -> Result<()> {
    context.out.value(record, || format!("{what} {}", render::name(&record.summary)))
}

/// A reason as it goes into the audit trail.
///
/// # Errors
/// `Usage` when it is not one line.
pub fn reason(text: &str) -> Result<String> {
    if text.trim().is_empty() || text.chars().count() > MAX_BECAUSE || clean(text) != text {
        return Err(Error::usage(format!("expected a reason of one line, at most {MAX_BECAUSE} characters"))
            .hint("--because 'stolen on 21 November'"));
    }
    Ok(text.trim().to_owned())
}

pub(crate) fn nothing_pending(id: NodeId) -> Error {
    Error::new(Exit::NothingPending, format!("no boot of node {id} waits for an operator")).hint(
        "`halfkey evidence` shows how its last boots were judged; `halfkey approve --wait SECONDS` waits for one",
    )
}
