//! `halfkey policy withdraw`: a node without a policy of its own, or without its additions.

use crate::ask::confirm;
use crate::context::Context;
use crate::documents::change;
use crate::documents::governed::Governed;
use crate::documents::signed::{self, SignedByUs};
use crate::documents::signing::SigningContext;
use crate::documents::source::Source;
use crate::documents::trial;
use crate::error::{Error, Result};
use halfkey_protocol::wire::policies::Scope;

/// Shows what the node is judged by then, and signs the withdrawal.
///
/// # Errors
/// `Failed` if there is nothing to withdraw; as [`change::sign`].
pub fn run(context: &Context, node: &str, additions: bool, yes: bool) -> Result<()> {
    let signing = SigningContext::open(context)?;
    let id = signing.node(node)?;
    let scope = if additions { Scope::Additions(id) } else { Scope::Node(id) };
    let mut head = signing.head()?;
    let present = signed::current(&signing.client, &scope, &signing.key, head.ledger())?;
    if present.is_none_or(|own| own.withdrawn()) {
        return Err(Error::failed(format!("{scope} has no policy that could be withdrawn"))
            .hint("`halfkey policy list` lists what there is"));
    }
    let governed = Governed::fetch(&signing, id)?;
    let besides = governed.additions.as_ref().filter(|_| !additions);
    match left(&signing, governed.policy, governed.group, additions)? {
        Some(own) => {
            head.written_with(own.scope());
            let besides = besides.map(|own| format!(" with version {} of its additions", own.version()));
            context.out.note(&format!(
                "left for the node: {} version {}{}",
                own.scope(),
                own.version(),
                besides.unwrap_or_default()
            ));
            let trials = trial::of_scope(&signing, &scope, &Source::from(&own).policy()?)?;
            trial::warn(context, &trials);
        }
        None => context.out.note("warning: nothing is left: the node's next boot waits for an operator"),
    }
    if !yes {
        confirm(&format!("Withdraw {scope}?"))?;
    }
    let record = change::sign(&signing, head, &scope, None)?;
    context.out.value(&record, || withdrawn(&scope, record.summary.version))
}

/// The policy that governs the node afterwards.
fn left(
    signing: &SigningContext<'_>,
    policy: Option<SignedByUs>,
    group: Option<String>,
    additions: bool,
) -> Result<Option<SignedByUs>> {
    match (additions, group) {
        (true, _) => Ok(policy),
        (false, Some(group)) => {
            signed::current(&signing.client, &Scope::Group(group), &signing.key, &signing.ledger()?)
        }
        (false, None) => Ok(None),
    }
}

/// The result of a withdrawal.
pub fn withdrawn(scope: &Scope, version: u64) -> String {
    format!("withdrew {scope} by version {version}")
}
