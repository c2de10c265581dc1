//! `halfkey approve`: the boot that waits, once, as part of the policy, or as the whole of it.

pub mod group;
pub mod proposed;
pub mod waiting;

use crate::ask::{choose, confirm};
use crate::client::{resolve, wait};
use crate::commands::approve::group::Outlook;
use crate::commands::approve::waiting::WaitingBoot;
use crate::commands::policy::apply::applied;
use crate::commands::{decide, node};
use crate::context::Context;
use crate::documents::change::PolicyChange;
use crate::documents::draft::{self, Gain};
use crate::documents::governed::{Governed, extendable};
use crate::documents::signed;
use crate::documents::signing::SigningContext;
use crate::documents::source::Source;
use crate::error::{Error, Result};
use crate::render::text::{clean, clean_short};
use crate::render::{self, time};
use crate::trust::boot::Boot;
use halfkey_evidence::policy::{Assured, Finding, KeyList, Policy};
use halfkey_protocol::NodeId;
use halfkey_protocol::document::Kind;
use halfkey_protocol::wire::Proposal;
use halfkey_protocol::wire::operator::NodeRecord;
use halfkey_protocol::wire::policies::Scope;
use std::time::Duration;

/// `halfkey approve`.
pub struct Approval<'a> {
    /// NODE, as the operator typed it.
    pub node: &'a str,
    /// What it means for later boots; none is asked for.
    pub how: Option<How>,
    /// Whether the group learns it, and not the node alone.
    pub for_group: bool,
    /// What no log proves, and the operator says.
    pub assured: Assured,
    /// For how long to wait for a boot that waits; none does not wait.
    pub wait: Option<Duration>,
    /// Whether nothing is asked on the terminal.
    pub yes: bool,
}

/// What an approval means for later boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Nothing.
    Once,
    /// This boot is allowed besides what is.
    Learn,
    /// This boot is allowed, and nothing else.
    Replace,
}

impl How {
    /// From the options, at most one of which is given.
    pub fn of(once: bool, learn: bool, replace: bool) -> Option<Self> {
        [(once, Self::Once), (learn, Self::Learn), (replace, Self::Replace)]
            .into_iter()
            .find_map(|(given, how)| given.then_some(how))
    }
}

/// Checks the boot that waits, shows it, asks, approves exactly that one.
///
/// # Errors
/// `NothingPending` when no boot waits; `Failed` when it can't be approved or the answer is no; `Untrusted` when it does not
/// pass the checks here.
pub fn run(context: &Context, approval: &Approval<'_>) -> Result<()> {
    let signing = SigningContext::open(context)?;
    let id = resolve::resolve(&signing.client, approval.node)?;
    let record = match approval.wait {
        None => signing.client.node(id)?,
        Some(limit) => {
            context
                .out
                .note(&format!("waiting for a boot of node {id} that waits, {} s at most", limit.as_secs()));
            wait::wait_for(&signing.client, id, limit, |record| record.pending.is_some())?
                .ok_or_else(|| decide::nothing_pending(id))?
        }
    };
    let pending = record.pending.as_ref().ok_or_else(|| decide::nothing_pending(id))?;
    if !pending.approvable {
        context.out.note(&node::pending(&record, pending, time::now()));
        return Err(Error::failed(format!("this boot can't be approved: {}", clean(&pending.code)))
            .hint("only what a policy does not allow can be; see the message above"));
    }
    let waiting = WaitingBoot::fetch(&signing, approval.node, id, &record, pending)?;
    let record = waiting.labelled(&record);
    context.out.note(&node::pending(&record, waiting.shown(), time::now()));
    let announced = proposed::say(context, &signing, id, waiting.boot());
    let how = match approval.how {
        Some(how) => how,
        None if approval.yes => How::Learn,
        None => ask()?,
    };
    match how {
        How::Once => once(&signing, id, &waiting, approval.yes || approval.how.is_none()),
        How::Replace => allow(&signing, id, &record, waiting.boot(), how, approval, &[]),
        How::Learn => allow(&signing, id, &record, waiting.boot(), how, approval, &announced?),
    }
}

fn ask() -> Result<How> {
    let question = "Release this boot once, learn it (later boots like this are allowed too), or replace the policy by it?";
    Ok(match choose(question, &["once", "learn", "replace"])? {
        "once" => How::Once,
        "learn" => How::Learn,
        _ => How::Replace,
    })
}

fn once(signing: &SigningContext<'_>, id: NodeId, waiting: &WaitingBoot, asked: bool) -> Result<()> {
    if !asked {
        confirm("Release this boot once, and leave the policy as it is?")?;
    }
    // That of the quote that was checked: neither one that came in between is meant, nor one that the server would like.
    let (scope, ticket) = (Scope::Approval(id), &waiting.shown().ticket);
    let submit = |signed: &_| signing.client.approve(id, signed);
    let after = signing.head()?.sign(&signing.key, Kind::Approval, &scope, ticket, submit)?;
    decide::done(signing.context, &after, "approved once:")
}

/// Makes this boot part of a policy. The machine asks again by itself, and is released by that policy.
fn allow(
    signing: &SigningContext<'_>,
    id: NodeId,
    record: &NodeRecord,
    boot: &Boot,
    how: How,
    approval: &Approval<'_>,
    announced: &[Proposal],
) -> Result<()> {
    let head = signing.head()?;
    let governed = Governed::fetch(signing, id)?;
    let for_group = match how {
        How::Learn => for_group(signing, id, record, boot, approval, &governed, announced)?,
        How::Once | How::Replace => None,
    };
    let (gain, change) = match (for_group, how, &governed.policy) {
        (Some(for_group), ..) => for_group,
        (None, How::Learn, Some(_)) => {
            added(signing, id, record, boot, approval.assured, &governed, announced)?
        }
        (None, ..) => whole(signing, id, record, boot, approval.assured, &governed)?,
    };
    let left = boot.by(&policy_after(&change, &governed)?)?.findings;
    if !left.is_empty() {
        return Err(Error::failed(format!(
            "this boot would still be denied: what differs is not only the boot\n{}",
            render::findings(&left).trim_end()
        ))
        .hint(still_denied(&left)));
    }
    signing.context.out.note(&format!(
        "learned for {}\n\n{}\n\n{}",
        change.scope,
        gain.shown(),
        change.summary()
    ));
    if !approval.yes {
        confirm(&format!("Sign this as {}, and release the boot?", change.scope))?;
    }
    let record = change.submit(signing, head)?;
    signing.context.out.note(&applied(&record));
    let what = if how == How::Learn { "learned the boot of" } else { "replaced the policy of" };
    decide::done(signing.context, &signing.client.node(id)?, what)
}

fn still_denied(left: &[Finding]) -> &'static str {
    let by = |rule: &str| left.iter().any(|finding| finding.rule == rule);
    if by("secure_boot.pk") {
        "whoever has the platform key decides what KEK and db are, so no boot teaches another one; if you have changed it yourself, take this \
         boot as a new policy with --replace, and else find out who did"
    } else if by("secure_boot.authorities") {
        "what has verified an image is learned only if it is in db, and if no rule names a signer: it could take the signer's place. If you \
         trust it like the boot loader, add it to authorities (`halfkey policy show`, `policy apply`)"
    } else {
        "edit the policy (`halfkey policy show`, `policy apply`), or take this boot as a new one with --replace"
    }
}

/// What the node is judged by once this is signed.
fn policy_after(change: &PolicyChange, governed: &Governed) -> Result<Policy> {
    Ok(match (&change.scope, &governed.additions) {
        (Scope::Group(_), Some(own)) => change.policy().with(&Source::from(own).additions()?),
        _ => change.policy().clone(),
    })
}

/// The boot besides those that the group may boot, if that is wanted. It is offered where somebody can be asked.
fn for_group(
    signing: &SigningContext<'_>,
    id: NodeId,
    record: &NodeRecord,
    boot: &Boot,
    approval: &Approval<'_>,
    governed: &Governed,
    announced: &[Proposal],
) -> Result<Option<(Gain, PolicyChange)>> {
    let Some((group, before)) = group::governing(governed)? else {
        return match approval.for_group {
            true => Err(Error::failed(format!("no group's policy governs node {id}"))
                .hint("`halfkey group set` puts it into a group; `policy apply FILE --group` gives that one a policy")),
            false => Ok(None),
        };
    };
    if !approval.for_group && approval.yes {
        return Ok(None);
    }
    let effective = governed.effective()?.ok_or_else(|| Error::failed("no policy governs the node"))?;
    // What this node alone may have besides stays its own.
    let gain = Gain::of(boot, record, approval.assured, effective.policy(), announced)?;
    // An [[event]] holds for every boot of every member, and not only for the listing of this one.
    if let Some(error) = of_every_boot(&gain) {
        return if approval.for_group { Err(error) } else { Ok(None) };
    }
    let change = PolicyChange::gaining(signing, extendable(signing, governed.to_extend(id)?)?, &gain)?;
    let outlook = Outlook::of(signing, &group, record, id, &change, &before)?;
    if outlook.is_alone() && !approval.for_group {
        return Ok(None);
    }
    signing.context.out.note(&outlook.shown());
    let question = "Learn it for this node alone, or for its whole group?";
    let wanted = approval.for_group || choose(question, &["node", "group"])? == "group";
    Ok(wanted.then_some((gain, change)))
}

/// What one member's boot does not say for every boot of all: an `[[event]]` and an authority are for more than the listing of this one. An
/// entry of KEK or db lets nothing more boot.
fn of_every_boot(gain: &Gain) -> Option<Error> {
    if gain.block.lines().any(|line| line == "[[event]]") {
        return Some(Error::failed(
            "expected a boot that a [[boot]] says all of, found events for an [[event]], which any boot of every member may have",
        )
        .hint("`halfkey approve NODE --learn` shows them and takes them for this node alone; what they are for the group is for `policy apply` to say"));
    }
    let authority = gain.keys.entries().iter().find(|entry| entry.list == KeyList::Authorities)?;
    Some(Error::failed(format!(
        "expected a boot whose images were verified by who may, found {} {}: for the group it could verify something in any boot of every member",
        clean(&authority.what),
        authority.is
    ))
    .hint("`halfkey approve NODE --learn` takes it for this node alone; for the group say it by `halfkey policy predict --db FILE --authority --group GROUP --add`"))
}

/// The first policy of a node, or a new one of its own.
fn whole(
    signing: &SigningContext<'_>,
    id: NodeId,
    record: &NodeRecord,
    boot: &Boot,
    assured: Assured,
    governed: &Governed,
) -> Result<(Gain, PolicyChange)> {
    let scope = Scope::Node(id);
    let text = draft::whole(boot, record, assured, &record.summary.label)?;
    let present = signed::current(&signing.client, &scope, &signing.key, &signing.ledger()?)?;
    let mut change = PolicyChange::new(signing, scope, present, text.clone())?;
    if let Some(group) = &governed.group {
        // It would outrank the group's.
        change.written_with(Scope::Group(group.clone()));
    }
    Ok((Gain::of_block(text), change))
}

/// A boot besides those that are allowed: in the node's own policy, or beside that of its group.
fn added(
    signing: &SigningContext<'_>,
    id: NodeId,
    record: &NodeRecord,
    boot: &Boot,
    assured: Assured,
    governed: &Governed,
    announced: &[Proposal],
) -> Result<(Gain, PolicyChange)> {
    let own = governed.to_extend(id)?;
    let effective = governed.effective()?.ok_or_else(|| Error::failed("no policy governs the node"))?;
    let gain = Gain::of(boot, record, assured, effective.policy(), announced)?;
    let change = match own.scope() {
        Scope::Node(_) => PolicyChange::gaining(signing, extendable(signing, own)?, &gain)?,
        _ => {
            let scope = Scope::Additions(id);
            match signed::current(&signing.client, &scope, &signing.key, &signing.ledger()?)? {
                Some(present) if !present.withdrawn() => PolicyChange::gaining(signing, present, &gain)?,
                present => {
                    let name = toml_string(&clean_short(&record.summary.label, 64));
                    let text = gain.put_into(&format!("format = 1\nname = {name}\n"), &scope)?;
                    PolicyChange::new(signing, scope, present, text)?
                }
            }
        }
    };
    Ok((gain, change))
}

/// A basic string of TOML: a label may have quotes in it.
fn toml_string(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
