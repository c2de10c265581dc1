//! Tables and lines for people. What comes from nodes and servers is cleaned here.

pub mod boot;
pub mod labels;
pub mod policy;
pub mod predict;
pub mod proposal;
pub mod text;
pub mod time;
pub mod words;

pub use crate::commands::evidence::{evidence, evidence_list, findings};
pub use crate::commands::node::{check, node, nodes, pending};

use crate::render::text::{clean, clean_short};
use crate::render::time::rfc3339;
use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use halfkey_protocol::wire::operator::{AuditEntry, NodeSummary};
use owo_colors::OwoColorize;
use std::fmt::Write;

/// How tables look.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    /// Standard output is a terminal: fit its width.
    pub terminal: bool,
    /// Colours are wanted.
    pub color: bool,
}

/// One line of the audit trail.
pub fn audit_entry(entry: &AuditEntry, style: &Style) -> String {
    let node = entry.node_id.as_deref().map_or("-".to_owned(), |id| clean_short(id, 36));
    let action = format!("{:15}", clean_short(&entry.action, 16));
    let color = match entry.action.as_str() {
        "refuse" | "revoke" | "hold" | "deny" | "cloned" | "tpm_firmware" | "proposal_deny" => {
            Some(Color::Red)
        }
        "approve" | "restore" | "release" | "enroll" | "policy_apply" | "proposal_accept" => {
            Some(Color::Green)
        }
        _ => None,
    };
    format!(
        "{:6}  {}  {}  {node:36}  {}: {}",
        entry.seq,
        rfc3339(entry.at),
        paint(style, &action, color),
        clean_short(&entry.actor, 64),
        clean(&entry.detail)
    )
}

/// `label (id)`.
pub fn name(summary: &NodeSummary) -> String {
    format!("{} ({})", clean_short(&summary.label, 64), clean_short(&summary.id, 36))
}

/// Names and values, the values below each other.
pub(crate) fn rows(indent: &str, rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter().fold(String::new(), |mut text, (name, value)| {
        writeln!(text, "{indent}{name:width$}  {value}").expect("a String takes everything");
        text
    })
}

pub(crate) fn table(style: &Style, header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if style.terminal {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    } else {
        table.force_no_tty();
    }
    if style.color {
        table.enforce_styling();
    }
    table.set_header(header.iter().map(|name| {
        let cell = Cell::new(name);
        if style.color { cell.add_attribute(Attribute::Bold) } else { cell }
    }));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

pub(crate) fn painted(style: &Style, text: &str, color: Option<Color>) -> Cell {
    match color {
        Some(color) if style.color => Cell::new(text).fg(color),
        _ => Cell::new(text),
    }
}

pub(crate) fn paint(style: &Style, text: &str, color: Option<Color>) -> String {
    match color {
        Some(Color::Red) if style.color => text.red().to_string(),
        Some(Color::Green) if style.color => text.green().to_string(),
        Some(Color::Yellow) if style.color => text.yellow().to_string(),
        _ => text.to_owned(),
    }
}

pub(crate) fn outcome_color(outcome: &str) -> Option<Color> {
    match outcome {
        "released" => Some(Color::Green),
        "pending" => Some(Color::Yellow),
        "denied" => Some(Color::Red),
        _ => None,
    }
}
