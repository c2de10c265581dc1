//! `halfkey eventlog`: a firmware event log from a file, read and replayed without asking anybody.

use crate::context::Context;
use crate::documents::source;
use crate::error::{Error, Exit, Result};
use crate::render::text::{clean, hex, short_digest};
use crate::render::{Style, table, words};
use comfy_table::Cell;
use halfkey_evidence::eventlog::{self, AllBanks, Event, Format, MAX_FILE, PCRS, Standing};
use serde::Serialize;
use std::fmt::Write;
use std::path::Path;

/// `halfkey eventlog --json`.
#[derive(Serialize)]
pub struct Log {
    /// `sha1` (TPM 1.2) or `crypto_agile`.
    pub format: &'static str,
    /// Each event once, with its digests in all banks.
    pub events: Vec<Line>,
    /// What the PCRs become, of each bank.
    pub banks: Vec<Bank>,
    /// `TPM_ALG_ID`s in the log that can't be replayed.
    pub unknown_algorithms: Vec<u16>,
}

/// One event.
#[derive(Serialize)]
pub struct Line {
    /// Its number in the log, from 0.
    pub number: u32,
    /// Number of the PCR, 0 to 23; as the log claims.
    pub pcr: u32,
    /// Event type: as the log claims.
    pub kind: String,
    /// What it is, for people; claims included.
    pub what: String,
    /// `verified`: the digest is that of what it says. `opaque`: only the digest is proven. `informational`: extends nothing.
    pub standing: &'static str,
    /// `sha256:<hex>`, one of each bank.
    pub digests: Vec<String>,
}

/// One bank.
#[derive(Serialize)]
pub struct Bank {
    /// Its name: `sha1`, `sha256`, ...
    pub bank: &'static str,
    /// PCR 0 to 23, hex, those that an event extends.
    pub pcrs: Vec<Pcr>,
}

/// One PCR.
#[derive(Serialize)]
pub struct Pcr {
    /// Its number, 0 to 23.
    pub pcr: u8,
    /// Its value, hex.
    pub value: String,
    /// How many events extend it.
    pub events: usize,
}

/// Reads a log.
///
/// # Errors
/// `Usage` when there is no such file; `Failed` when it is not well formed.
pub fn run(context: &Context, path: &Path) -> Result<()> {
    let bytes = source::read(path, MAX_FILE as u64)?;
    let log = read(&bytes).map_err(|e| e.context(path.display()))?;
    context.out.value(&log, || shown(&log, &context.style()))
}

/// Replays a log in all its banks.
///
/// # Errors
/// `Failed` when it is not well formed.
pub fn read(bytes: &[u8]) -> Result<Log> {
    let all = eventlog::replay_all(bytes).map_err(|e| Error { exit: Exit::Failed, ..Error::from(e) })?;
    // Type and data are those of the log, the same in each bank; the strongest says what is verified.
    let best = all.banks.iter().enumerate().max_by_key(|(_, log)| log.bank().digest_len());
    let (best, events) = best.map_or((0, &[][..]), |(index, log)| (index, log.events()));
    let format = match all.banks.get(best).map(|log| log.format()) {
        Some(Format::Sha1) => "sha1",
        _ => "crypto_agile",
    };
    let events = events.iter().enumerate().map(|(index, event)| line(&all, index, event)).collect();
    Ok(Log {
        format,
        events,
        banks: all.banks.iter().map(bank).collect(),
        unknown_algorithms: all.unknown.clone(),
    })
}

fn line(all: &AllBanks<'_>, index: usize, event: &Event<'_>) -> Line {
    let digest = |log: &eventlog::ReplayedLog<'_>| {
        let event = log.events().get(index).filter(|event| !event.digest.is_empty())?;
        Some(format!("{}:{}", log.bank().name(), hex(event.digest)))
    };
    Line {
        number: event.number,
        pcr: event.pcr,
        kind: eventlog::kind::name(event.kind).map_or(format!("{:#x}", event.kind), str::to_owned),
        what: event.what(),
        standing: match event.standing() {
            Standing::Verified => "verified",
            Standing::Opaque => "opaque",
            Standing::Informational => "informational",
        },
        digests: all.banks.iter().filter_map(digest).collect(),
    }
}

fn bank(log: &eventlog::ReplayedLog<'_>) -> Bank {
    let mut count = [0; PCRS];
    for event in log.events().iter().filter(|event| !event.digest.is_empty()) {
        if let Some(count) = count.get_mut(event.pcr as usize) {
            *count += 1;
        }
    }
    let pcr = |(pcr, events): (u8, usize)| Some(Pcr { pcr, value: hex(log.pcr(pcr)?), events });
    let extended = (0u8..).zip(count).filter(|(_, events)| *events > 0);
    Bank { bank: log.bank().name(), pcrs: extended.filter_map(pcr).collect() }
}

/// `halfkey eventlog`.
pub fn shown(log: &Log, style: &Style) -> String {
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
            Cell::new(digest.map_or("-".to_owned(), |digest| short_digest(digest))),
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
