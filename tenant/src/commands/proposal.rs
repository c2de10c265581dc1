//! `halfkey proposals` and `proposal`: what nodes want to boot next.
//!
//! A proposal is what a node says, handed on by the server. Root on that node could lie, and so could the server: what
//! becomes part of a policy is shown before it is signed, and the policy that it is added to is one of this workstation's own.

use crate::ask::confirm;
use crate::cli::ProposalCommand;
use crate::client::resolve;
use crate::commands::decide;
use crate::commands::policy::apply;
use crate::context::Context;
use crate::documents::change::PolicyChange;
use crate::documents::draft;
use crate::documents::governed::{Governed, base_boot, extendable};
use crate::documents::signing::SigningContext;
use crate::documents::trial;
use crate::error::{Error, Result};
use crate::render::labels::Labels;
use crate::render::text::{clean, clean_lines, clean_short, hex};
use crate::render::time;
use crate::render::time::{both, relative};
use crate::render::{Style, painted, rows, table};
use crate::trust::boot::Attester;
use comfy_table::{Cell, Color};
use halfkey_evidence::policy;
use halfkey_protocol::Bytes;
use halfkey_protocol::NodeId;
use halfkey_protocol::wire::Proposal;
use halfkey_protocol::wire::operator::Because;
use halfkey_protocol::wire::policies::ProposalList;
use halfkey_protocol::wire::policies::{PolicyRecord, ProposalRecord, ProposalState};
use serde::Serialize;
use std::fmt::Write;

/// `halfkey proposal accept --json`.
#[derive(Serialize)]
struct Accepted {
    /// As it stands now; none if that could not be asked any more.
    proposal: Option<ProposalRecord>,
    /// The policy that accepts it.
    policy: PolicyRecord,
    /// Other proposals that wait no longer.
    also: Vec<u64>,
}

/// Lists proposals.
///
/// # Errors
/// As every request.
pub fn list(context: &Context, node: Option<&str>, all: bool) -> Result<()> {
    let client = context.logged_in()?;
    let node = node.map(|node| resolve::resolve(&client, node)).transpose()?;
    let list = client.proposals(node, !all)?;
    let labels = Labels::of(client.nodes()?);
    context.out.value(&list, || list_shown(&list, &context.style(), |id| labels.short(id), time::now()))?;
    if list.next.is_some() {
        let count = list.proposals.len();
        context
            .out
            .note(&format!("note: these are the newest {count}; --node NODE shows older ones of that node"));
    }
    Ok(())
}

/// Runs `halfkey proposal`.
///
/// # Errors
/// With the exit code and the message for the operator.
pub fn run(context: &Context, command: &ProposalCommand) -> Result<()> {
    match command {
        ProposalCommand::Show { id } => show_one(context, *id),
        ProposalCommand::Accept { id, kernel_measures_initrd, yes } => {
            accept(context, *id, *kernel_measures_initrd, *yes)
        }
        ProposalCommand::Deny { id, because } => deny(context, *id, because),
    }
}

fn show_one(context: &Context, number: u64) -> Result<()> {
    let signing = SigningContext::open(context)?;
    let (record, id) = fetch(&signing, number)?;
    let labels = Labels::of(signing.client.nodes()?);
    context.out.value(&record, || shown(&record, &labels.short(&record.node_id), time::now()))?;
    if record.state != ProposalState::Waiting || context.out.is_json() {
        return Ok(());
    }
    // What can't be made is no failure of looking at it.
    match prepare(&signing, &record, id, false) {
        Ok(prepared) => {
            let block = clean_lines(&prepared.block);
            context.out.note(&format!("`halfkey proposal accept {number}` would add\n\n{block}"));
        }
        Err(error) => context.out.note(&format!("it can't be accepted as it is: {error}")),
    }
    Ok(())
}

/// One command for a whole group: the policy that accepts it accepts every node's that is the same.
fn accept(context: &Context, number: u64, kernel_measures_initrd: bool, yes: bool) -> Result<()> {
    let signing = SigningContext::open(context)?;
    let (record, id) = fetch(&signing, number)?;
    if record.state != ProposalState::Waiting {
        return Err(Error::failed(format!("proposal {number} does not wait: {}", record.state.as_str()))
            .hint("`halfkey proposals` lists those that do"));
    }
    let head = signing.head()?;
    let Prepared { block, change } = prepare(&signing, &record, id, kernel_measures_initrd)?;
    context.out.note(&format!(
        "{}\nto be added to {}\n\n{}\n\n{}",
        shown(&record, &clean_short(&record.node_id, 36), time::now()),
        change.scope,
        clean_lines(&block),
        change.summary()
    ));
    trial::warn(context, &trial::of_scope(&signing, &change.scope, change.policy())?);
    if !yes {
        confirm(
            "A proposal is what the node says. Is this what it shall boot, and shall the policy be signed?",
        )?;
    }
    let before = waiting(&signing);
    let policy = change.submit(&signing, head)?;
    // It is signed and in force: nothing that can't be asked from here on is a failure.
    let also = before.and_then(|before| Ok(no_longer(&before, &waiting(&signing)?, number)));
    let also = also.unwrap_or_else(|error| {
        context.out.note(&format!("note: whether others wait no longer could not be asked: {error}"));
        Vec::new()
    });
    let proposal = signing.client.proposal(number);
    let state = match &proposal {
        Ok(record) => record.state.as_str().to_owned(),
        Err(error) => format!("in the policy; whether the server goes by it could not be asked: {error}"),
    };
    let result = Accepted { proposal: proposal.ok(), policy, also };
    context.out.value(&result, || {
        let also: Vec<_> = result.also.iter().map(u64::to_string).collect();
        let also = if also.is_empty() { String::new() } else { format!("; so are {}", also.join(", ")) };
        format!("{}\nproposal {number} is {}{also}", apply::applied(&result.policy), clean(&state))
    })
}

/// Those of the newest that waited before and do not now. What came meanwhile may have taken the place of the oldest.
fn no_longer(before: &ProposalList, after: &ProposalList, number: u64) -> Vec<u64> {
    let waits = |other: &u64| after.proposals.iter().any(|record| record.id == *other);
    let seen = |other: &u64| after.next.is_none_or(|end| *other >= end);
    let others = before.proposals.iter().map(|record| record.id).filter(|other| *other != number);
    others.filter(|other| seen(other) && !waits(other)).collect()
}

fn deny(context: &Context, number: u64, because: &str) -> Result<()> {
    let because = decide::reason(because)?;
    let record = context.logged_in()?.deny_proposal(number, &Because { because })?;
    context.out.value(&record, || format!("denied proposal {number} of {}", clean_short(&record.node_id, 36)))
}

/// The newest that wait: one page, however many others have made.
fn waiting(signing: &SigningContext<'_>) -> Result<ProposalList> {
    signing.client.proposals_before(None, None, true)
}

fn fetch(signing: &SigningContext<'_>, number: u64) -> Result<(ProposalRecord, NodeId)> {
    let record = signing.client.proposal(number)?;
    match NodeId::parse(&record.node_id) {
        Some(id) if record.id == number => Ok((record, id)),
        _ => {
            Err(Error::untrusted(format!("asked the server for proposal {number}, and it shows another one")))
        }
    }
}

/// A block and the policy with it.
struct Prepared {
    block: String,
    change: PolicyChange,
}

fn prepare(
    signing: &SigningContext<'_>,
    record: &ProposalRecord,
    id: NodeId,
    kernel_measures_initrd: bool,
) -> Result<Prepared> {
    let node = signing.client.node(id)?;
    let attester = Attester::of(id, &node, &signing.key)?;
    attester.require_mine()?;
    let governed = Governed::fetch(signing, id)?;
    let present = extendable(signing, governed.to_extend(id)?)?;
    let effective = governed.with_trusted(&signing.client, &attester)?;
    let effective = effective.ok_or_else(|| Error::failed("no policy governs the node"))?;
    let base = base_boot(&signing.client, &attester, record.from_evidence, &effective)?;
    let boot =
        draft::proposed(&record.proposal, effective.policy(), base.as_deref(), kernel_measures_initrd)?;
    let block = format!(
        "# proposal {} of {}, {}\n{}",
        record.id,
        clean_short(attester.label(), 64),
        time::rfc3339(record.at),
        policy::boot_toml(&boot).trim()
    );
    let change = PolicyChange::extended(signing, present, &block)?;
    Ok(Prepared { block, change })
}

/// `halfkey proposals`.
pub fn list_shown(list: &ProposalList, style: &Style, label: impl Fn(&str) -> String, now: u64) -> String {
    if list.proposals.is_empty() {
        return "no proposals".to_owned();
    }
    let mut table = table(style, &["NUMBER", "NODE", "WHEN", "STATE", "BOOT", "WHY"]);
    for record in &list.proposals {
        table.add_row(vec![
            Cell::new(record.id),
            Cell::new(label(&record.node_id)),
            Cell::new(relative(now, record.at)),
            painted(style, record.state.as_str(), color(record.state)),
            Cell::new(clean_short(&record.proposal.name, 40)),
            Cell::new(clean_short(&record.message, 300)),
        ]);
    }
    table.trim_fmt()
}

/// One proposal.
pub fn shown(record: &ProposalRecord, label: &str, now: u64) -> String {
    let list = [
        ("node", label.to_owned()),
        ("proposed", both(now, record.at)),
        ("state", record.state.as_str().to_owned()),
        ("why", clean(&record.message)),
        ("from the boot", format!("evidence {}", record.from_evidence)),
    ];
    let mut text = format!("proposal {}\n{}", record.id, rows("  ", &list));
    text.push_str(&content(&record.proposal));
    text.trim_end().to_owned()
}

/// What would be booted.
pub fn content(proposal: &Proposal) -> String {
    let bank = clean_short(&proposal.bank, 16);
    let digest = |bytes: &Bytes| format!("{bank}:{}", hex(bytes));
    let mut text = format!("boot {}\n", clean_short(&proposal.name, 128));
    for image in &proposal.images {
        let (role, path) = (clean_short(&image.role, 16), clean_short(&image.path, 200));
        writeln!(text, "  {role:6}  {path}\n          authenticode {}", digest(&image.authenticode))
            .expect("a String takes everything");
        if let Some(release) = &image.release {
            writeln!(text, "          release {}", clean_short(release, 128))
                .expect("a String takes everything");
        }
    }
    for section in &proposal.sections {
        writeln!(text, "  section {:9}  {}", clean_short(&section.name, 16), digest(&section.digest))
            .expect("a String takes everything");
    }
    let in_uki = || {
        if policy::is_in_uki(proposal) {
            "in the uki, behind it a secret of the machine"
        } else {
            "not known"
        }
    };
    let initrd = proposal.initrd.as_ref().map_or_else(|| in_uki().to_owned(), digest);
    let command_line = proposal.command_line.as_deref().map_or("not known".to_owned(), clean);
    let files = if proposal.written_by_update {
        "as an update of the node wrote them, it says"
    } else {
        "as they stood on the node's boot partition: whoever had its disk could have written them"
    };
    let files = files.to_owned();
    text.push_str(&rows("  ", &[("initrd", initrd), ("command line", command_line), ("files", files)]));
    if let Some(loader) = &proposal.loader {
        let name = clean_short(&loader.name, 16);
        let changes = match loader.changes.trim_end() {
            "" => format!("  nothing changed in the configuration of {name} since the boot that it runs\n"),
            changes => format!(
                "  what changed in the configuration of {name} since the boot that it runs, as the node says:\n{}\n",
                clean_lines(changes).lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
            ),
        };
        text.push_str(&changes);
    }
    text
}

fn color(state: ProposalState) -> Option<Color> {
    match state {
        ProposalState::Waiting | ProposalState::Trusted => Some(Color::Yellow),
        ProposalState::Accepted | ProposalState::Booted => Some(Color::Green),
        ProposalState::Denied => Some(Color::Red),
        ProposalState::Superseded => None,
    }
}
