//! Policies: lists, changes, trials.

use super::{Style, painted, rows, table};
use crate::documents::trial::{Trial, Tried};
use crate::render::text::{clean, clean_short};
use crate::render::time::{both, relative};
use comfy_table::{Cell, Color};
use halfkey_evidence::policy::Change;
use halfkey_protocol::wire::policies::{GroupList, PolicyList, PolicyRecord, PolicySummary, Scope};
use std::fmt::Write;

/// `halfkey policy list`.
pub fn list(list: &PolicyList, style: &Style, now: u64) -> String {
    if list.policies.is_empty() {
        return "no policies".to_owned();
    }
    let mut table = table(style, &["SCOPE", "VERSION", "NAME", "NODES", "APPLIED", "BY"]);
    for policy in &list.policies {
        table.add_row(vec![
            Cell::new(clean_short(&policy.scope, 80)),
            Cell::new(policy.version),
            Cell::new(name(policy)),
            Cell::new(policy.nodes),
            Cell::new(relative(now, policy.applied_at)),
            Cell::new(clean_short(&policy.applied_by, 40)),
        ]);
    }
    table.trim_fmt()
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

/// What it calls itself.
fn name(policy: &PolicySummary) -> String {
    if policy.name.is_empty() { "(withdrawn)".to_owned() } else { clean_short(&policy.name, 64) }
}

/// The result of an apply.
pub fn applied(record: &PolicyRecord) -> String {
    let policy = &record.summary;
    let nodes = if policy.nodes == 1 { "1 node".to_owned() } else { format!("{} nodes", policy.nodes) };
    format!("applied {} version {}; it governs {nodes}", clean_short(&policy.scope, 80), policy.version)
}

/// The result of a withdrawal.
pub fn withdrawn(scope: &Scope, version: u64) -> String {
    format!("withdrew {scope} by version {version}")
}

/// What one policy says and another does not.
pub fn changes(changes: &[Change]) -> String {
    if changes.is_empty() {
        return "  nothing: both allow the same".to_owned();
    }
    let text = changes.iter().fold(String::new(), |mut text, change| {
        writeln!(text, "  {}", clean(&change.path)).expect("a String takes everything");
        for (sign, value) in [('-', &change.before), ('+', &change.after)] {
            for line in value.iter().flat_map(|value| value.lines()) {
                writeln!(text, "    {sign} {}", clean(line)).expect("a String takes everything");
            }
        }
        text
    });
    text.trim_end().to_owned()
}

/// `halfkey policy test`.
pub fn trials(trials: &[Trial], style: &Style) -> String {
    if trials.is_empty() {
        return "no nodes".to_owned();
    }
    let mut table = table(style, &["NODE", "LABEL", "EVIDENCE", "RESULT", "WHY"]);
    for trial in trials {
        let (result, color) = match trial.result {
            Tried::Allowed => ("allowed", Some(Color::Green)),
            Tried::Denied => ("denied", Some(Color::Red)),
            Tried::NoBoot => ("no boot", None),
            Tried::Unusable => ("unusable", Some(Color::Yellow)),
        };
        table.add_row(vec![
            Cell::new(trial.node_id.as_deref().map_or("-".to_owned(), digits)),
            Cell::new(clean_short(&trial.label, 40)),
            Cell::new(trial.evidence_id.map_or("-".to_owned(), |id| id.to_string())),
            painted(style, result, color),
            Cell::new(why(trial)),
        ]);
    }
    table.trim_fmt()
}

/// The first digits of an id.
fn digits(id: &str) -> String {
    clean_short(id, 36).chars().take(8).collect()
}

/// The nodes of a trial that would be denied, a line each.
pub fn denied(trials: &[&Trial]) -> String {
    let line = |trial: &&Trial| format!("  {}: {}", clean_short(&trial.label, 40), why(trial));
    trials.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn why(trial: &Trial) -> String {
    let message = trial.message.as_deref().map(clean).unwrap_or_default();
    match &trial.findings[..] {
        [] => message,
        [only] => clean(&only.to_string()),
        [first, rest @ ..] => format!("{} (and {} more)", clean(&first.to_string()), rest.len()),
    }
}

/// `halfkey group list`.
pub fn groups(list: &GroupList, style: &Style, label: impl Fn(&str) -> String) -> String {
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
