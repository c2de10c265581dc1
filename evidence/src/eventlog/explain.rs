//! Comparison of the logs with a quote.

use super::event::{Event, PCRS};
use super::replay::ReplayedLog;
use super::systemd_log::{self, SystemdEvent};
use crate::Rejection;
use crate::digest::{Bank, Digest};
use crate::quote::{VerifiedQuote, hex};
use crate::rejection::refuse;
use halfkey_measure::systemd::{PHASE_PCR, PHASES};
use halfkey_protocol::QUOTED_PCRS;
use halfkey_protocol::tpm::bank::PcrBank;

/// PCRs that the logs must explain: not [`IMA_PCR`](crate::ima::IMA_PCR), which no two quotes have the same, and not 15, which is the
/// fence and has its own check.
pub const EXPLAINED: [u8; 14] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14];

/// PCR values with the firmware log, and what systemd measured after it, that give them. By itself it proves nothing:
/// the values may be those of a quote ([`ProvenLog`]), or taken from the log itself ([`AssumedLog`]).
#[derive(Clone, Debug)]
pub struct ExplainedLog<'a> {
    bank: PcrBank,
    log: ReplayedLog<'a>,
    systemd: Vec<SystemdEvent>,
    coverage: Vec<Coverage>,
    quoted: [Digest; QUOTED_PCRS],
    tpm_firmware: Option<u64>,
}

/// Proof: the firmware log, and what systemd measured after it, give the PCRs of one quote.
#[derive(Clone, Debug)]
pub struct ProvenLog<'a> {
    log: ExplainedLog<'a>,
    qualifying_data: [u8; 32],
}

impl ProvenLog<'_> {
    /// Whether it is proven by this quote, and not by another with the same values.
    pub fn is_of(&self, quote: &VerifiedQuote) -> bool {
        self.qualifying_data == *quote.qualifying_data()
    }

    /// The qualifying data of its quote.
    pub fn qualifying_data(&self) -> &[u8; 32] {
        &self.qualifying_data
    }
}

impl<'a> std::ops::Deref for ProvenLog<'a> {
    type Target = ExplainedLog<'a>;

    fn deref(&self) -> &ExplainedLog<'a> {
        &self.log
    }
}

/// **No proof**: a log that is taken at its word, as if a quote had just the values that it replays to. For trying a policy on a log
/// from a file. Nothing is released for it: what may be asks for a [`ProvenLog`].
#[derive(Clone, Debug)]
pub struct AssumedLog<'a>(ExplainedLog<'a>);

impl<'a> std::ops::Deref for AssumedLog<'a> {
    type Target = ExplainedLog<'a>;

    fn deref(&self) -> &ExplainedLog<'a> {
        &self.0
    }
}

/// What explains one PCR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coverage {
    /// 0 to 14.
    pub pcr: u8,
    /// How many events of the firmware log.
    pub firmware: usize,
    /// How many records of systemd's log after them.
    pub systemd: usize,
    /// Phases after them that no log has, but that are the ones that systemd measures.
    pub phases: &'static [&'static str],
}

impl<'a> ReplayedLog<'a> {
    /// Compares with the quoted PCRs 0 to 9 and 11 to 14. A PCR without events must be
    /// zero: a log that leaves events out does not pass.
    ///
    /// Systemd's log may be ahead of the quote, being read after it; what the quote does
    /// not have yet is not part of the result.
    ///
    /// # Errors
    /// `LogReplay` names the first PCR that differs; `TooLarge`, `LogMalformed` for
    /// systemd's log.
    pub fn explain(
        self,
        quote: &VerifiedQuote,
        systemd_log: Option<&[u8]>,
    ) -> Result<ProvenLog<'a>, Rejection> {
        let bank = quote.bank();
        if self.bank() != bank {
            return refuse!(
                LogReplay,
                "expected a log in bank {}, found {}",
                bank.name(),
                self.bank().name()
            );
        }
        let recorded = match systemd_log {
            Some(log) => systemd_log::parse(log, bank)?,
            None => Vec::new(),
        };
        // Sorted once by PCR, so that the work is linear in the logs.
        let mut of_pcr: [Vec<SystemdEvent>; PCRS] = Default::default();
        for event in recorded {
            of_pcr[usize::from(event.pcr)].push(event);
        }
        let mut firmware = [0; PCRS];
        for event in self.events().iter().filter(|event| !event.digest.is_empty()) {
            firmware[event.pcr as usize] += 1;
        }
        let mut systemd = Vec::new();
        let mut coverage = Vec::with_capacity(EXPLAINED.len());
        for pcr in EXPLAINED {
            let index = usize::from(pcr);
            let recorded = std::mem::take(&mut of_pcr[index]);
            let (used, phases) = explain_pcr(self.bank(), pcr, self.value(index), &recorded, quote.pcr(pcr))?;
            systemd.extend(recorded.into_iter().take(used));
            systemd.extend(phases.iter().map(|phase| SystemdEvent::phase(self.bank(), phase)));
            coverage.push(Coverage { pcr, firmware: firmware[index], systemd: used, phases });
        }
        let mut quoted = [Digest::filled(bank.into(), 0); QUOTED_PCRS];
        for (pcr, value) in (0..).zip(&mut quoted) {
            value.set(quote.pcr(pcr));
        }
        let log = ExplainedLog {
            bank,
            log: self,
            systemd,
            coverage,
            quoted,
            tpm_firmware: Some(quote.firmware_version()),
        };
        Ok(ProvenLog { log, qualifying_data: *quote.qualifying_data() })
    }
}

impl<'a> ReplayedLog<'a> {
    /// Takes the log at its word.
    ///
    /// # Errors
    /// `LogReplay`: no quote is over this bank.
    pub fn assume(self) -> Result<AssumedLog<'a>, Rejection> {
        self.assume_with(None)
    }

    /// The same with systemd's log, every record of it.
    ///
    /// # Errors
    /// As [`Self::assume`]; as [`systemd_log::parse`].
    pub fn assume_with(self, systemd_log: Option<&[u8]>) -> Result<AssumedLog<'a>, Rejection> {
        let Some(bank) = PcrBank::from_alg(self.bank().alg()) else {
            return refuse!(
                LogReplay,
                "expected a log in bank sha256 or sha384, found {}",
                self.bank().name()
            );
        };
        let mut systemd = systemd_log.map_or(Ok(Vec::new()), |log| systemd_log::parse(log, bank))?;
        systemd.retain(|event| EXPLAINED.contains(&event.pcr));
        systemd.sort_by_key(|event| event.pcr);
        let firmware =
            |pcr| self.events().iter().filter(|e| !e.digest.is_empty() && e.pcr == u32::from(pcr)).count();
        let recorded = |pcr| systemd.iter().filter(|event| event.pcr == pcr).count();
        let coverage = EXPLAINED.map(|pcr| Coverage {
            pcr,
            firmware: firmware(pcr),
            systemd: recorded(pcr),
            phases: &[],
        });
        let mut quoted: [Digest; QUOTED_PCRS] = std::array::from_fn(|pcr| *self.value(pcr));
        for event in &systemd {
            let value = &mut quoted[usize::from(event.pcr)];
            *value = self.bank().extend(value, &event.digest);
        }
        let coverage = coverage.into();
        Ok(AssumedLog(ExplainedLog { bank, coverage, quoted, systemd, log: self, tpm_firmware: None }))
    }
}

/// How many of the records, and which phases, lead from the firmware's value to the quoted one.
fn explain_pcr(
    bank: Bank,
    pcr: u8,
    firmware: &Digest,
    recorded: &[SystemdEvent],
    quoted: &[u8],
) -> Result<(usize, &'static [&'static str]), Rejection> {
    let mut value = *firmware;
    for (used, event) in recorded.iter().enumerate() {
        if *value == *quoted {
            return Ok((used, &[]));
        }
        value = bank.extend(&value, &event.digest);
    }
    if *value == *quoted {
        return Ok((recorded.len(), &[]));
    }
    if pcr == PHASE_PCR
        && let Some(phases) = unlogged_phases(bank, &value, quoted)
    {
        return Ok((recorded.len(), phases));
    }
    refuse!(
        LogReplay,
        "expected the event log to replay to {} in pcr {pcr}, found {value} after {} more records of systemd's log",
        hex(quoted),
        recorded.len()
    )
}

/// Systemd before 255 has no log. Its phases are constants, so they can be tried: every
/// run of consecutive ones, since a boot may enter late (no initrd) and be quoted early.
fn unlogged_phases(bank: Bank, start: &Digest, quoted: &[u8]) -> Option<&'static [&'static str]> {
    for first in 0..PHASES.len() {
        let mut value = *start;
        for (count, phase) in PHASES[first..].iter().enumerate() {
            value = bank.extend(&value, &bank.digest(phase.as_bytes()));
            if *value == *quoted {
                return Some(&PHASES[first..=first + count]);
            }
        }
    }
    None
}

impl<'a> ExplainedLog<'a> {
    /// The bank of log and quote.
    pub fn bank(&self) -> PcrBank {
        self.bank
    }

    /// The version of the TPM's firmware, from the quote; none without one.
    pub fn tpm_firmware(&self) -> Option<u64> {
        self.tpm_firmware
    }

    /// The firmware log.
    pub fn log(&self) -> &ReplayedLog<'a> {
        &self.log
    }

    /// The firmware's events, in order.
    pub fn events(&self) -> &[Event<'a>] {
        self.log.events()
    }

    /// What systemd measured into the quoted values, by PCR and in order: the records of its log, and
    /// phases that no log has.
    pub fn systemd(&self) -> &[SystemdEvent] {
        &self.systemd
    }

    /// What explains each PCR of [`EXPLAINED`], in order.
    pub fn coverage(&self) -> &[Coverage] {
        &self.coverage
    }

    /// The value of a PCR, as quoted.
    ///
    /// # Panics
    /// If `index` is not in 0 to 15: that is a constant of the caller's.
    pub fn pcr(&self, index: u8) -> &[u8] {
        &self.quoted[usize::from(index)]
    }
}
