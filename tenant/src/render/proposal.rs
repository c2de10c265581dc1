//! Proposals.

use super::{Style, painted, rows, table};
use crate::render::text::{clean, clean_short, hex};
use crate::render::time::{both, relative};
use comfy_table::{Cell, Color};
use halfkey_protocol::Bytes;
use halfkey_protocol::wire::Proposal;
use halfkey_protocol::wire::policies::{ProposalList, ProposalRecord, ProposalState};
use std::fmt::Write;

/// `halfkey proposals`.
pub fn list(list: &ProposalList, style: &Style, label: impl Fn(&str) -> String, now: u64) -> String {
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
pub fn one(record: &ProposalRecord, label: &str, now: u64) -> String {
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
    }
    for section in &proposal.sections {
        writeln!(text, "  section {:9}  {}", clean_short(&section.name, 16), digest(&section.digest))
            .expect("a String takes everything");
    }
    let initrd = proposal.initrd.as_ref().map_or("not known".to_owned(), digest);
    let command_line = proposal.command_line.as_deref().map_or("not known".to_owned(), clean);
    text.push_str(&rows("  ", &[("initrd", initrd), ("command line", command_line)]));
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
