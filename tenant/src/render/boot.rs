//! A boot, event by event.

use super::{Style, findings, painted, table};
use crate::commands::eventlog::Log;
use crate::render::text::clean;
use crate::render::words;
use comfy_table::{Cell, Color};
use halfkey_evidence::policy::{ExplainedEvent, Explanation};
use std::fmt::Write;

/// `halfkey policy explain`.
pub fn explanation(explanation: &Explanation, style: &Style) -> String {
    let mut table = table(style, &["EVENT", "PCR", "WHAT", "STANDING", "DIGEST", "RULE"]);
    for event in &explanation.events {
        let (rule, color) = match (&event.rule, &event.finding) {
            (_, Some(_)) => ("NO RULE".to_owned(), Some(Color::Red)),
            (Some(rule), None) => (clean(rule), None),
            (None, None) => ("-".to_owned(), None),
        };
        table.add_row(vec![
            Cell::new(event.event.map_or("-".to_owned(), |number| number.to_string())),
            Cell::new(pcr(event)),
            Cell::new(clean(&event.what)),
            Cell::new(event.standing),
            Cell::new(short(&event.digest)),
            painted(style, &rule, color),
        ]);
    }
    let mut text = table.trim_fmt();
    let boot = explanation.boot.as_deref().map_or("none".to_owned(), clean);
    match (explanation.accepted, explanation.findings.len()) {
        (true, _) => write!(text, "\n\nallowed: boot \"{boot}\""),
        (false, count) => write!(
            text,
            "\n\ndenied, {count} finding{}; the boot of the policy that fits best: {boot}\n{}",
            if count == 1 { "" } else { "s" },
            findings(&explanation.findings)
        ),
    }
    .expect("a String takes everything");
    text.trim_end().to_owned()
}

/// Information extends no PCR.
fn pcr(event: &ExplainedEvent) -> String {
    if event.digest.is_empty() { "-".to_owned() } else { event.pcr.to_string() }
}

/// The algorithm and the first 8 bytes: enough to tell digests apart, `--json` has all of it.
pub fn short(digest: &str) -> String {
    match digest.split_once(':') {
        Some((name, digits)) if digits.len() > 16 => {
            format!("{name}:{}…", clean(&digits.chars().take(16).collect::<String>()))
        }
        _ => clean(digest),
    }
}

/// `halfkey eventlog`.
pub fn log(log: &Log, style: &Style) -> String {
    let mut table = table(style, &["EVENT", "PCR", "TYPE", "WHAT", "STANDING", "DIGEST"]);
    for event in &log.events {
        // The longest one: the bank that said what is verified.
        let digest = event.digests.iter().max_by_key(|digest| digest.len());
        table.add_row(vec![
            Cell::new(event.number),
            Cell::new(if event.digests.is_empty() { "-".to_owned() } else { event.pcr.to_string() }),
            Cell::new(clean(event.kind.strip_prefix("EV_").unwrap_or(&event.kind))),
            Cell::new(clean(&event.what)),
            Cell::new(event.standing),
            Cell::new(digest.map_or("-".to_owned(), |digest| short(digest))),
        ]);
    }
    let mut text = table.trim_fmt();
    let count = log.events.len();
    write!(text, "\n\n{count} events, format {}", log.format).expect("a String takes everything");
    for bank in &log.banks {
        write!(text, "\n\nPCRs, bank {}", bank.bank).expect("a String takes everything");
        for pcr in &bank.pcrs {
            let events =
                if pcr.events == 1 { "1 event".to_owned() } else { format!("{} events", pcr.events) };
            write!(text, "\n  {:2}  {}  {}, {events}", pcr.pcr, pcr.value, words::pcr(pcr.pcr))
                .expect("a String takes everything");
        }
    }
    for alg in &log.unknown_algorithms {
        write!(text, "\n\nbank of algorithm {alg:#06x}: not replayed, the algorithm is not known")
            .expect("a String takes everything");
    }
    text
}
