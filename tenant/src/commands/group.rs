//! `halfkey group`: nodes with one policy.

use crate::cli::GroupCommand;
use crate::client::scope;
use crate::context::Context;
use crate::documents::signing::SigningContext;
use crate::error::Result;
use crate::render;
use crate::render::labels::Labels;
use crate::render::text::clean_short;
use crate::render::{Style, table};
use comfy_table::Cell;
use halfkey_protocol::document::{Kind, Scope};
use halfkey_protocol::wire::operator::NodeRecord;
use halfkey_protocol::wire::policies::GroupList;

/// Runs `halfkey group`.
///
/// # Errors
/// With the exit code and the message for the operator.
pub fn run(context: &Context, command: &GroupCommand) -> Result<()> {
    match command {
        GroupCommand::List => list(context),
        GroupCommand::Set { nodes, target } => set(context, nodes, target.group.as_deref()),
    }
}

fn list(context: &Context) -> Result<()> {
    let client = context.logged_in()?;
    let (list, labels) = (client.groups()?, Labels::of(client.nodes()?));
    context.out.value(&list, || shown(&list, &context.style(), |id| labels.short(id)))
}

fn set(context: &Context, nodes: &[String], group: Option<&str>) -> Result<()> {
    let group = group.map(scope::group).transpose()?;
    let signing = SigningContext::open(context)?;
    let client = &signing.client;
    // All of them first: a typing error must not leave half of them moved.
    let ids = nodes.iter().map(|node| signing.node(node)).collect::<Result<Vec<_>>>()?;
    let mut head = signing.head()?;
    let mut records: Vec<NodeRecord> = Vec::with_capacity(ids.len());
    for id in ids {
        let text = group.as_deref().unwrap_or_default();
        let submit = |signed: &_| client.set_group(id, signed);
        let record = head.sign(&signing.key, Kind::Membership, &Scope::Membership(id), text, submit)?;
        let own = record.policy.as_ref().is_some_and(|policy| policy.scope == Scope::Node(id).to_string());
        if own && group.is_some() {
            context.out.note(&format!(
                "note: {} has a policy of its own, which outranks that of its group\nhint: `halfkey policy withdraw {id}` leaves the node to its group's",
                render::name(&record.summary)
            ));
        }
        records.push(record);
    }
    context.out.value(&records, || {
        let to = group.as_ref().map_or("out of its group".to_owned(), |group| format!("in group {group}"));
        let line = |record: &NodeRecord| format!("{} is now {to}", render::name(&record.summary));
        records.iter().map(line).collect::<Vec<_>>().join("\n")
    })
}

/// `halfkey group list`.
pub fn shown(list: &GroupList, style: &Style, label: impl Fn(&str) -> String) -> String {
    if list.groups.is_empty() {
        return "no groups".to_owned();
    }
    let mut table = table(style, &["GROUP", "POLICY", "NODES"]);
    for group in &list.groups {
        let nodes: Vec<_> = group.nodes.iter().map(|id| label(id)).collect();
        table.add_row(vec![
            Cell::new(clean_short(&group.name, 64)),
            Cell::new(group.version.map_or("none".to_owned(), |version| format!("version {version}"))),
            Cell::new(if nodes.is_empty() { "-".to_owned() } else { nodes.join(", ") }),
        ]);
    }
    table.trim_fmt()
}
