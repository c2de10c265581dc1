//! Tables and lines for people. What comes from nodes and servers is cleaned here.

mod changes;
mod findings;
pub mod labels;
pub mod text;
pub mod time;
pub mod words;

pub use changes::changes;
pub use findings::findings;

use crate::render::text::clean_short;
use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use halfkey_protocol::wire::operator::NodeSummary;
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
