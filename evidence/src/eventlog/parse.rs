//! Firmware event logs (TCG PC Client Platform Firmware Profile, section 10.2; Linux:
//! `binary_bios_measurements`). All integers are little-endian.
//!
//! Bounded: an event takes at least 32 bytes, so a log of [`MAX_LOG`] has at most
//! 32768. One pass, no backtracking.

use crate::Rejection;
use crate::rejection::refuse;
use halfkey_protocol::{MAX_LOG, Reason};

/// Event types that matter for replay (section 10.4.1).
pub mod kind {
    /// Extends nothing: information for whoever reads the log.
    pub const NO_ACTION: u32 = 0x3;
    /// End of the firmware's part of a PCR.
    pub const SEPARATOR: u32 = 0x4;
    /// Measured by hardware before TPM2_Startup.
    pub const EFI_HCRTM_EVENT: u32 = 0x8000_0010;
}

/// Which of the two formats a log has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `TCG_PCR_EVENT` only: SHA-1.
    Sha1,
    /// `TCG_PCR_EVENT2` after a Spec ID event.
    CryptoAgile,
}

/// A log, split into events. Nothing of it is proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirmwareLog<'a> {
    /// The format.
    pub format: Format,
    /// `TPM_ALG_ID` and digest length of each bank in the log.
    pub algorithms: Vec<(u16, usize)>,
    /// The events, without the Spec ID event.
    pub events: Vec<FirmwareEvent<'a>>,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirmwareEvent<'a> {
    /// PCR index; below 24 unless the type is [`kind::NO_ACTION`].
    pub pcr: u32,
    /// Event type.
    pub kind: u32,
    /// `TPM_ALG_ID` and digest, each bank at most once.
    pub digests: Vec<(u16, &'a [u8])>,
    /// Event data.
    pub data: &'a [u8],
}

impl<'a> FirmwareEvent<'a> {
    /// The digest of one bank.
    pub fn digest(&self, alg: u16) -> Option<&'a [u8]> {
        self.digests.iter().find(|(found, _)| *found == alg).map(|(_, digest)| *digest)
    }
}

/// Splits a log into events.
///
/// # Errors
/// `TooLarge`: more than [`MAX_LOG`] bytes. `LogMalformed`: empty, truncated, or not a log.
pub fn parse(log: &[u8]) -> Result<FirmwareLog<'_>, Rejection> {
    if log.len() > MAX_LOG {
        return refuse!(TooLarge, "expected an event log of at most {MAX_LOG} bytes, found {}", log.len());
    }
    let mut reader = Reader { log, rest: log };
    let first = reader.sha1_event()?;
    if let Some(spec_id) = first.data.strip_prefix(SPEC_ID_03)
        && (first.pcr, first.kind) == (0, kind::NO_ACTION)
    {
        let algorithms = spec_id_algorithms(spec_id)?;
        let mut events = Vec::new();
        while !reader.rest.is_empty() {
            events.push(reader.agile_event(&algorithms)?);
        }
        return Ok(FirmwareLog { format: Format::CryptoAgile, algorithms, events });
    }
    let mut events = vec![first];
    while !reader.rest.is_empty() {
        events.push(reader.sha1_event()?);
    }
    Ok(FirmwareLog { format: Format::Sha1, algorithms: vec![(SHA1, 20)], events })
}

const SHA1: u16 = 0x0004;
const SPEC_ID_03: &[u8] = b"Spec ID Event03\0";
/// More banks than any TPM has.
const MAX_ALGORITHMS: usize = 16;

struct Reader<'a> {
    log: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// `TCG_PCR_EVENT`
    fn sha1_event(&mut self) -> Result<FirmwareEvent<'a>, Rejection> {
        let (pcr, kind) = self.head()?;
        let digests = vec![(SHA1, self.take(20)?)];
        let data = self.data()?;
        Ok(FirmwareEvent { pcr, kind, digests, data })
    }

    /// `TCG_PCR_EVENT2`
    fn agile_event(&mut self, algorithms: &[(u16, usize)]) -> Result<FirmwareEvent<'a>, Rejection> {
        let (pcr, kind) = self.head()?;
        let count = self.u32()? as usize;
        if count > algorithms.len() {
            return self.malformed(format!("expected at most {} digests, found {count}", algorithms.len()));
        }
        let mut digests: Vec<(u16, &[u8])> = Vec::with_capacity(count);
        for _ in 0..count {
            let alg = self.u16()?;
            let Some((_, length)) = algorithms.iter().find(|(known, _)| *known == alg) else {
                return self
                    .malformed(format!("expected an algorithm of the spec id event, found {alg:#06x}"));
            };
            // Which of two would count?
            if digests.iter().any(|(seen, _)| *seen == alg) {
                return self.malformed(format!("expected one digest of each bank, found two of {alg:#06x}"));
            }
            digests.push((alg, self.take(*length)?));
        }
        let data = self.data()?;
        Ok(FirmwareEvent { pcr, kind, digests, data })
    }

    fn head(&mut self) -> Result<(u32, u32), Rejection> {
        let (pcr, kind) = (self.u32()?, self.u32()?);
        // Information has no PCR: some firmware says so with 0xffffffff.
        if pcr as usize >= super::PCRS && kind != self::kind::NO_ACTION {
            return self.malformed(format!("expected pcr 0 to {}, found {pcr}", super::PCRS - 1));
        }
        Ok((pcr, kind))
    }

    fn data(&mut self) -> Result<&'a [u8], Rejection> {
        let length = self.u32()?;
        self.take(length as usize)
    }

    fn u32(&mut self) -> Result<u32, Rejection> {
        let bytes = self.take(4)?.try_into().expect("4 bytes were taken");
        Ok(u32::from_le_bytes(bytes))
    }

    fn u16(&mut self) -> Result<u16, Rejection> {
        let bytes = self.take(2)?.try_into().expect("2 bytes were taken");
        Ok(u16::from_le_bytes(bytes))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Rejection> {
        let Some((taken, rest)) = self.rest.split_at_checked(length) else {
            return self.malformed(format!("expected {length} more bytes, found {}", self.rest.len()));
        };
        self.rest = rest;
        Ok(taken)
    }

    fn malformed<T>(&self, what: String) -> Result<T, Rejection> {
        let at = self.log.len() - self.rest.len();
        Err(Rejection::new(Reason::LogMalformed, format!("{what}, at byte {at} of the event log")))
    }
}

/// The rest of `TCG_EfiSpecIDEvent` after its signature (section 10.4.5.1): platform
/// class, versions and uintn size (8 bytes), algorithms, vendor information.
fn spec_id_algorithms(rest: &[u8]) -> Result<Vec<(u16, usize)>, Rejection> {
    let mut reader = Reader { log: rest, rest };
    reader.take(8)?;
    let count = reader.u32()? as usize;
    if count == 0 || count > MAX_ALGORITHMS {
        return reader.malformed(format!("expected 1 to {MAX_ALGORITHMS} algorithms, found {count}"));
    }
    let mut algorithms: Vec<(u16, usize)> = Vec::with_capacity(count);
    for _ in 0..count {
        let (alg, length) = (reader.u16()?, usize::from(reader.u16()?));
        // A wrong length would shift what is read as digest and as data.
        let known = match alg {
            0x0004 => 20,
            0x000b | 0x0012 | 0x0027 => 32,
            0x000c | 0x0028 => 48,
            0x000d | 0x0029 => 64,
            _ => length,
        };
        if length != known || length == 0 || length > 64 {
            return reader
                .malformed(format!("expected digests of {known} bytes for {alg:#06x}, found {length}"));
        }
        if algorithms.iter().any(|(seen, _)| *seen == alg) {
            return reader.malformed(format!("expected each algorithm once, found {alg:#06x} twice"));
        }
        algorithms.push((alg, length));
    }
    let vendor = reader.take(1)?[0];
    reader.take(vendor.into())?;
    // Bytes after it are left unread: nothing depends on them, and the event has its own length.
    Ok(algorithms)
}
