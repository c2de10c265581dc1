//! What the PCRs of a bank become by the events of a log.

use super::event::{self, Event, PCRS};
use super::parse::{FirmwareEvent, FirmwareLog, Format, parse};
use super::{kind, quirks};
use crate::Rejection;
use crate::digest::{Bank, Digest};
use crate::quote::hex;
use crate::rejection::refuse;
use halfkey_protocol::tpm::bank::PcrBank;

/// Proof: this is what the PCRs of one bank become by the events of a firmware log.
#[derive(Clone, Debug)]
pub struct ReplayedLog<'a> {
    bank: Bank,
    format: Format,
    events: Vec<Event<'a>>,
    pcrs: [Digest; PCRS],
}

/// A log replayed in all its banks.
#[derive(Clone, Debug)]
pub struct AllBanks<'a> {
    /// The log in each bank of a known algorithm, as they stand in the log; at least one.
    pub banks: Vec<ReplayedLog<'a>>,
    /// `TPM_ALG_ID`s that can't be replayed.
    pub unknown: Vec<u16>,
}

/// Parses a firmware log and replays it in one bank.
///
/// # Errors
/// `TooLarge`, `LogMalformed`, `LogReplay` (the log has no digests of this bank).
pub fn replay(log: &[u8], bank: PcrBank) -> Result<ReplayedLog<'_>, Rejection> {
    let log = parse(log)?;
    let bank = Bank::from(bank);
    if !log.algorithms().iter().any(|(alg, _)| *alg == bank.alg()) {
        return refuse!(
            LogReplay,
            "expected a log with {} digests, found algorithms {}",
            bank.name(),
            list(log.algorithms().iter().map(|(alg, _)| *alg))
        );
    }
    replay_bank(&log, bank)
}

/// Parses a firmware log and replays it in every bank that it has.
///
/// # Errors
/// `TooLarge`, `LogMalformed`, `LogReplay` (no bank is of a known algorithm).
pub fn replay_all(log: &[u8]) -> Result<AllBanks<'_>, Rejection> {
    let log = parse(log)?;
    let mut all = AllBanks { banks: Vec::new(), unknown: Vec::new() };
    for (alg, _) in log.algorithms() {
        match Bank::from_alg(*alg) {
            Some(bank) => all.banks.push(replay_bank(&log, bank)?),
            None => all.unknown.push(*alg),
        }
    }
    if all.banks.is_empty() {
        return refuse!(
            LogReplay,
            "expected a log with sha1, sha256, sha384 or sha512 digests, found algorithms {}",
            list(all.unknown)
        );
    }
    Ok(all)
}

fn list(algorithms: impl IntoIterator<Item = u16>) -> String {
    algorithms.into_iter().map(|alg| format!("{alg:#06x}")).collect::<Vec<_>>().join(" ")
}

fn replay_bank<'a>(log: &FirmwareLog<'a>, bank: Bank) -> Result<ReplayedLog<'a>, Rejection> {
    let mut replay = Replay::new(bank, log.len());
    for event in log.events() {
        replay.step(&event, log.digest(&event, bank.alg()))?;
    }
    Ok(ReplayedLog { bank, format: log.format(), events: replay.events, pcrs: replay.pcrs })
}

struct Replay<'a> {
    bank: Bank,
    events: Vec<Event<'a>>,
    pcrs: [Digest; PCRS],
    separator: Digest,
    separator_error: Digest,
    /// The locality of TPM2_Startup is settled: stated, or PCR 0 was extended.
    started: bool,
}

impl<'a> Replay<'a> {
    fn new(bank: Bank, events: usize) -> Self {
        let mut pcrs = [Digest::filled(bank, 0); PCRS];
        // Dynamic launch PCRs start with all ones (PC Client Platform TPM Profile, section 4.6).
        pcrs[17..23].fill(Digest::filled(bank, 0xff));
        Self {
            bank,
            events: Vec::with_capacity(events),
            pcrs,
            separator: bank.digest(&[0; 4]),
            separator_error: bank.digest(&event::SEPARATOR_ERROR),
            started: false,
        }
    }

    fn step(&mut self, event: &FirmwareEvent<'a>, digest: Option<&'a [u8]>) -> Result<(), Rejection> {
        let FirmwareEvent { number, pcr, kind, data, .. } = *event;
        if kind == kind::NO_ACTION {
            if let Some(locality) = event::startup_locality(pcr, data) {
                self.start(number, locality)?;
            }
            self.record(event, &[]);
            return Ok(());
        }
        let Some(digest) = digest else {
            return refuse!(
                LogMalformed,
                "expected a {} digest in event {number}, found none",
                self.bank.name()
            );
        };
        // A separator ends the firmware's part of a PCR: what is called one must be one.
        if kind == kind::SEPARATOR && !self.is_separator(digest, data) {
            return refuse!(
                LogReplay,
                "expected the separator in event {number} to have the digest of its data, found {}",
                hex(digest)
            );
        }
        let index = pcr as usize;
        if index == 0 && !self.started {
            if quirks::STARTUP_LOCALITY_UNSTATED.applies(kind) {
                self.set_locality(4);
            }
            self.started = true;
        }
        let Some(pcr) = self.pcrs.get_mut(index) else {
            return refuse!(LogMalformed, "expected pcr 0 to {} in event {number}, found {index}", PCRS - 1);
        };
        *pcr = self.bank.extend(pcr, digest);
        self.record(event, digest);
        Ok(())
    }

    fn is_separator(&self, digest: &[u8], data: &[u8]) -> bool {
        *digest == *self.separator_error
            || data == [0; 4] && *digest == *self.separator
            || *digest == *self.bank.digest(data)
    }

    fn record(&mut self, event: &FirmwareEvent<'a>, digest: &'a [u8]) {
        let FirmwareEvent { number, pcr, kind, data, .. } = *event;
        self.events.push(Event { number, pcr, kind, digest, data, bank: self.bank });
    }

    fn start(&mut self, number: u32, locality: u8) -> Result<(), Rejection> {
        if self.started {
            return refuse!(
                LogMalformed,
                "expected the startup locality once and before pcr 0 is extended, found it in event {number}"
            );
        }
        if !matches!(locality, 0 | 3 | 4) {
            return refuse!(
                LogMalformed,
                "expected startup locality 0, 3 or 4 in event {number}, found {locality}"
            );
        }
        self.started = true;
        self.set_locality(locality);
        Ok(())
    }

    /// The initial value of PCR 0 is the locality of TPM2_Startup (TPM 2.0 Part 3, section 9.3).
    fn set_locality(&mut self, locality: u8) {
        self.pcrs[0].set_last(locality);
    }
}

impl<'a> ReplayedLog<'a> {
    /// The bank that was replayed.
    pub fn bank(&self) -> Bank {
        self.bank
    }

    /// The format of the log.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The events, in order.
    pub fn events(&self) -> &[Event<'a>] {
        &self.events
    }

    pub(super) fn value(&self, index: usize) -> &Digest {
        &self.pcrs[index]
    }

    /// What the PCR becomes; `None` above 23.
    pub fn pcr(&self, index: u8) -> Option<&[u8]> {
        self.pcrs.get(usize::from(index)).map(|value| &**value)
    }
}
