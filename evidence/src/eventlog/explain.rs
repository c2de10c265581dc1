//! Comparison of the logs with a quote.

use super::ReplayedLog;
use super::userspace::{self, PHASE_PCR, PHASES, UserspaceEvent};
use crate::Rejection;
use crate::quote::{VerifiedQuote, hex};
use crate::rejection::refuse;
use halfkey_protocol::kdf::Hash;

/// PCRs that the logs must explain. Not 10: that is the IMA list's. Not 15: that is
/// the fence, which has its own check.
pub const EXPLAINED: [u8; 14] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14];

/// Proof: the firmware log, and what systemd measured after it, give the quoted PCRs.
#[derive(Clone, Debug)]
pub struct ExplainedLog {
    log: ReplayedLog,
    userspace: Vec<UserspaceEvent>,
    coverage: Vec<Coverage>,
}

/// What explains one PCR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    /// 0 to 14.
    pub pcr: u8,
    /// How many events of the firmware log.
    pub firmware: usize,
    /// How many records of systemd's log after them.
    pub userspace: usize,
    /// Phases after them that no log has, but that are the ones that systemd measures.
    pub phases: &'static [&'static str],
}

impl ReplayedLog {
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
        userspace_log: Option<&[u8]>,
    ) -> Result<ExplainedLog, Rejection> {
        if self.bank != quote.bank() {
            return refuse!(
                LogReplay,
                "expected a log in bank {}, found {}",
                quote.bank().name(),
                self.bank.name()
            );
        }
        let recorded = match userspace_log {
            Some(log) => userspace::parse(log, self.bank)?,
            None => Vec::new(),
        };
        // Sorted once by PCR, so that the work is linear in the logs.
        let mut of_pcr: Vec<Vec<&UserspaceEvent>> = vec![Vec::new(); super::PCRS];
        for event in &recorded {
            of_pcr[usize::from(event.pcr)].push(event);
        }
        let mut firmware = [0; super::PCRS];
        for event in self.events.iter().filter(|event| !event.digest.is_empty()) {
            firmware[event.pcr as usize] += 1;
        }
        let mut userspace = Vec::new();
        let mut coverage = Vec::new();
        for pcr in EXPLAINED {
            let index = usize::from(pcr);
            let (used, phases) =
                explain_pcr(self.bank, pcr, &self.pcrs[index], &of_pcr[index], quote.pcr(pcr))?;
            userspace.extend(of_pcr[index][..used].iter().map(|event| (*event).clone()));
            coverage.push(Coverage { pcr, firmware: firmware[index], userspace: used, phases });
        }
        Ok(ExplainedLog { log: self, userspace, coverage })
    }
}

/// How many of the records, and which phases, lead from the firmware's value to the quoted one.
fn explain_pcr(
    bank: Hash,
    pcr: u8,
    firmware: &[u8],
    recorded: &[&UserspaceEvent],
    quoted: &[u8],
) -> Result<(usize, &'static [&'static str]), Rejection> {
    let mut value = firmware.to_vec();
    for (used, event) in recorded.iter().enumerate() {
        if value == quoted {
            return Ok((used, &[]));
        }
        value = bank.digest(&[&value, &event.digest]);
    }
    if value == quoted {
        return Ok((recorded.len(), &[]));
    }
    if pcr == PHASE_PCR
        && let Some(phases) = unlogged_phases(bank, &value, quoted)
    {
        return Ok((recorded.len(), phases));
    }
    refuse!(
        LogReplay,
        "expected the event log to replay to {} in pcr {pcr}, found {} after {} more records of systemd's log",
        hex(quoted),
        hex(&value),
        recorded.len()
    )
}

/// Systemd before 255 has no log. Its phases are constants, so they can be tried: every
/// run of consecutive ones, since a boot may enter late (no initrd) and be quoted early.
fn unlogged_phases(bank: Hash, start: &[u8], quoted: &[u8]) -> Option<&'static [&'static str]> {
    for first in 0..PHASES.len() {
        let mut value = start.to_vec();
        for (count, phase) in PHASES[first..].iter().enumerate() {
            value = bank.digest(&[&value, &bank.digest(&[phase.as_bytes()])]);
            if value == quoted {
                return Some(&PHASES[first..=first + count]);
            }
        }
    }
    None
}

impl ExplainedLog {
    /// The firmware log.
    pub fn log(&self) -> &ReplayedLog {
        &self.log
    }

    /// The records of systemd's log that are part of the quoted values, by PCR.
    pub fn userspace(&self) -> &[UserspaceEvent] {
        &self.userspace
    }

    /// What explains each PCR of [`EXPLAINED`], in order.
    pub fn coverage(&self) -> &[Coverage] {
        &self.coverage
    }
}
