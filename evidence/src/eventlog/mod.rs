//! Event logs: what firmware, boot loader and systemd say that they measured.
//!
//! A log is hearsay until it replays to quoted PCRs. Even then only its **digests**
//! are proven; an event's data is proven only if its digest is that of the data
//! ([`Event::measured_data`]).
//!
//! | module | what |
//! | --- | --- |
//! | [`parse`](fn@parse) | firmware log, SHA-1 (TPM 1.2 format) or crypto-agile |
//! | [`userspace`] | systemd's log and the boot phases that it measures |
//! | [`replay`] | one bank of a firmware log |
//! | [`ReplayedLog::explain`] | comparison with a quote |

mod explain;
mod parse;
pub mod userspace;

pub use explain::{Coverage, EXPLAINED, ExplainedLog};
pub use parse::{FirmwareEvent, FirmwareLog, Format, kind, parse};

use crate::Rejection;
use crate::quote::hex;
use crate::rejection::refuse;
use halfkey_protocol::kdf::Hash;

/// PCRs that a log may speak of (TCG PC Client platforms have 24).
pub const PCRS: usize = 24;

/// Proof: this is what the PCRs of one bank become by the events of a firmware log.
#[derive(Clone, Debug)]
pub struct ReplayedLog {
    bank: Hash,
    events: Vec<Event>,
    pcrs: Vec<Vec<u8>>,
}

/// One event of a replayed log, in one bank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Which PCR; up to 23 unless the event extends nothing.
    pub pcr: u32,
    /// Event type: [`kind`].
    pub kind: u32,
    /// What the PCR was extended with; empty if the event extends nothing.
    pub digest: Vec<u8>,
    data: Vec<u8>,
    measured: bool,
}

/// Parses a firmware log and replays it in one bank.
///
/// # Errors
/// `TooLarge`, `LogMalformed`, `LogReplay` (the log has no digests of this bank).
pub fn replay(log: &[u8], bank: Hash) -> Result<ReplayedLog, Rejection> {
    let log = parse(log)?;
    if !log.algorithms.iter().any(|(alg, _)| *alg == bank.alg()) {
        let found: Vec<_> = log.algorithms.iter().map(|(alg, _)| format!("{alg:#06x}")).collect();
        return refuse!(
            LogReplay,
            "expected a log with {} digests, found algorithms {}",
            bank.name(),
            found.join(" ")
        );
    }
    let mut replay = Replay::new(bank);
    for (number, event) in log.events.iter().enumerate() {
        replay.step(number, event)?;
    }
    Ok(ReplayedLog { bank, events: replay.events, pcrs: replay.pcrs })
}

struct Replay {
    bank: Hash,
    events: Vec<Event>,
    pcrs: Vec<Vec<u8>>,
    /// The locality of TPM2_Startup is settled: stated, or PCR 0 was extended.
    started: bool,
}

impl Replay {
    fn new(bank: Hash) -> Self {
        let mut pcrs = vec![vec![0; bank.digest_len()]; PCRS];
        // Dynamic launch PCRs start with all ones (PC Client Platform TPM Profile, section 4.6).
        for pcr in &mut pcrs[17..23] {
            pcr.fill(0xff);
        }
        Self { bank, events: Vec::new(), pcrs, started: false }
    }

    fn step(&mut self, number: usize, event: &FirmwareEvent<'_>) -> Result<(), Rejection> {
        if event.kind == kind::NO_ACTION {
            if let Some(locality) = startup_locality(event) {
                self.start(number, locality)?;
            }
            self.record(event, Vec::new(), false);
            return Ok(());
        }
        let Some(digest) = event.digest(self.bank.alg()) else {
            return refuse!(
                LogMalformed,
                "expected a {} digest in event {number}, found none",
                self.bank.name()
            );
        };
        let measured = self.bank.digest(&[event.data]) == digest;
        // A separator ends the firmware's part of a PCR: what is called one must be one.
        if event.kind == kind::SEPARATOR && !measured && self.bank.digest(&[&SEPARATOR_ERROR]) != digest {
            return refuse!(
                LogReplay,
                "expected the separator in event {number} to have the digest of its data, found {}",
                hex(digest)
            );
        }
        let index = event.pcr as usize;
        if index == 0 && !self.started {
            // Measured before TPM2_Startup: as if that came from locality 4.
            if event.kind == kind::EFI_HCRTM_EVENT {
                self.set_locality(4);
            }
            self.started = true;
        }
        let Some(pcr) = self.pcrs.get_mut(index) else {
            return refuse!(LogMalformed, "expected pcr 0 to {} in event {number}, found {index}", PCRS - 1);
        };
        *pcr = self.bank.digest(&[pcr, digest]);
        self.record(event, digest.to_vec(), measured);
        Ok(())
    }

    fn record(&mut self, event: &FirmwareEvent<'_>, digest: Vec<u8>, measured: bool) {
        self.events.push(Event {
            pcr: event.pcr,
            kind: event.kind,
            digest,
            data: event.data.to_vec(),
            measured,
        });
    }

    fn start(&mut self, number: usize, locality: u8) -> Result<(), Rejection> {
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
        let last = self.bank.digest_len() - 1;
        self.pcrs[0][last] = locality;
    }
}

/// What firmware extends in place of a separator when it failed (PC Client Platform
/// Firmware Profile, section 3.3.2.2); the data is then the error.
const SEPARATOR_ERROR: [u8; 4] = 1u32.to_le_bytes();

/// `TCG_EfiStartupLocalityEvent` (PC Client Platform Firmware Profile, section 10.4.5.3).
fn startup_locality(event: &FirmwareEvent<'_>) -> Option<u8> {
    match event.data.strip_prefix(b"StartupLocality\0") {
        Some([locality]) if event.pcr == 0 => Some(*locality),
        _ => None,
    }
}

impl Event {
    /// The event's data, if the PCR was extended with the digest of just that data.
    /// Then it is as trustworthy as the PCR.
    pub fn measured_data(&self) -> Option<&[u8]> {
        self.measured.then_some(&self.data)
    }

    /// The event's data as the log has it. Whoever wrote the log could write anything
    /// here: for people to read, not to decide by.
    pub fn claimed_data(&self) -> &[u8] {
        &self.data
    }
}

impl ReplayedLog {
    /// The bank.
    pub fn bank(&self) -> Hash {
        self.bank
    }

    /// The events, in order.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// What the PCR becomes; `None` above 23.
    pub fn pcr(&self, index: u8) -> Option<&[u8]> {
        self.pcrs.get(usize::from(index)).map(Vec::as_slice)
    }
}
