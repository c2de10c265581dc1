//! `halfkey evidence`: what a node sent and how it was judged.

use crate::client::resolve;
use crate::context::{Context, create};
use crate::error::{Error, Exit, Result};
use crate::render::findings;
use crate::render::text::{clean, clean_short, hex};
use crate::render::time::{self, both};
use crate::render::words;
use crate::render::{Style, paint, painted, rows, table};
use comfy_table::{Cell, Color};
use halfkey_protocol::wire::operator::{EvidenceList, EvidenceRecord};
use std::fmt::Write;
use std::path::Path;

/// Lists the newest evidence of a node.
///
/// # Errors
/// As every request.
pub fn list(context: &Context, node: &str, limit: u32) -> Result<()> {
    let client = context.logged_in()?;
    let list = client.evidence_of(resolve::resolve(&client, node)?, limit)?;
    context.out.value(&list, || list_shown(&list, &context.style(), time::now()))
}

/// Shows one record; perhaps saves its event log.
///
/// # Errors
/// `NotFound` when there is no such record, or no event log to save; as every request.
pub fn one(context: &Context, number: u64, event_log: Option<&Path>) -> Result<()> {
    let record = context.logged_in()?.evidence(number)?;
    if let Some(path) = event_log {
        let log = record.evidence.event_log.as_ref().ok_or_else(|| {
            Error::new(Exit::NotFound, format!("evidence {number} has no event log of the firmware"))
        })?;
        create(path, log)?;
        context.out.note(&format!("saved {} bytes to {}", log.len(), path.display()));
    }
    context.out.value(&record, || shown(&record, &context.style(), time::now()))
}

/// `halfkey evidence NODE`.
pub fn list_shown(list: &EvidenceList, style: &Style, now: u64) -> String {
    if list.evidence.is_empty() {
        return "no evidence".to_owned();
    }
    let mut table = table(style, &["NUMBER", "WHEN", "PURPOSE", "OUTCOME", "REASON"]);
    for entry in &list.evidence {
        let reason = match &entry.code {
            Some(code) => format!("{}: {}", clean_short(code, 40), clean_short(&entry.message, 300)),
            None => clean_short(&entry.message, 300),
        };
        let reason = match entry.cloned {
            Some(twin) => format!("cloned? evidence {twin} is of the same boot, with another r; {reason}"),
            None => reason,
        };
        table.add_row(vec![
            Cell::new(entry.id),
            Cell::new(both(now, entry.at)),
            Cell::new(clean_short(&entry.purpose, 16)),
            painted(style, &clean_short(&entry.outcome, 16), outcome_color(&entry.outcome)),
            Cell::new(reason),
        ]);
    }
    table.trim_fmt()
}

/// `halfkey evidence --id N`.
pub fn shown(record: &EvidenceRecord, style: &Style, now: u64) -> String {
    let (summary, evidence) = (&record.summary, &record.evidence);
    let number = |value: Option<u64>| value.map_or("unreadable".to_owned(), |value| value.to_string());
    let size = |log: &Option<halfkey_protocol::Bytes>| {
        log.as_ref().map_or("none".to_owned(), |log| format!("{} bytes", log.len()))
    };
    let mut text = format!("evidence {} of node {}\n", summary.id, clean(&summary.node_id));
    let mut list = vec![
        ("when", both(now, summary.at)),
        ("purpose", clean_short(&summary.purpose, 16)),
        ("outcome", paint(style, &clean_short(&summary.outcome, 16), outcome_color(&summary.outcome))),
        ("code", summary.code.as_deref().map_or("-".to_owned(), |code| clean_short(code, 40))),
        ("message", clean(&summary.message)),
        ("agent", clean_short(&evidence.agent, 64)),
        ("resetCount", number(record.reset_count.map(u64::from))),
        ("restartCount", number(record.restart_count.map(u64::from))),
        ("clock", record.clock.map_or("unreadable".to_owned(), |ms| format!("{ms} ms"))),
        ("PCR 15 after opening", record.expected_fence.as_ref().map_or("-".to_owned(), |value| hex(value))),
        ("event log", size(&evidence.event_log)),
        ("systemd's log", size(&evidence.systemd_log)),
        ("IMA list", size(&evidence.ima_log)),
    ];
    if let Some(twin) = summary.cloned {
        list.push(("cloned?", format!("evidence {twin} has the same resetCount and another r")));
    }
    if let Some(version) = &record.tpm_firmware {
        list.push(("TPM firmware", clean_short(version, 18)));
    }
    text.push_str(&rows("  ", &list));
    if !record.findings.is_empty() {
        text.push_str("not as the policy allows\n");
        text.push_str(&findings(&record.findings));
    }
    writeln!(text, "PCRs, bank {}", clean_short(&evidence.bank, 16)).expect("a String takes everything");
    for (pcr, value) in evidence.pcrs.iter().take(24).enumerate() {
        let meaning = words::pcr(u8::try_from(pcr).unwrap_or(u8::MAX));
        writeln!(text, "  {pcr:2}  {}  {meaning}", hex(value)).expect("a String takes everything");
    }
    text.trim_end().to_owned()
}

fn outcome_color(outcome: &str) -> Option<Color> {
    match outcome {
        "released" => Some(Color::Green),
        "pending" => Some(Color::Yellow),
        "denied" => Some(Color::Red),
        _ => None,
    }
}
