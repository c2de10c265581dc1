//! Firmware event logs (TCG PC Client Platform Firmware Profile, section 10.2; Linux:
//! `binary_bios_measurements`). All integers are little-endian.
//!
//! Bounded: [`MAX_FILE`] bytes and [`MAX_EVENTS`] events. One pass, no backtracking, nothing
//! is copied or allocated per event.

use super::cursor::Cursor;
use super::event::PCRS;
use super::{kind, quirks};
use crate::Rejection;
use crate::digest::MAX_DIGEST;
use crate::rejection::refuse;
use halfkey_protocol::Reason;

/// Largest log, in bytes: sixteen times what the verifier takes over the wire.
pub const MAX_FILE: usize = 16 << 20;

/// Most events of a log. Real ones have some hundreds.
pub const MAX_EVENTS: usize = 1 << 17;

/// Which of the two formats a log has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `TCG_PCR_EVENT` only: SHA-1.
    Sha1,
    /// `TCG_PCR_EVENT2` after a Spec ID event.
    CryptoAgile,
}

/// A log, well formed to its end. Nothing of it is proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirmwareLog<'a> {
    format: Format,
    algorithms: Vec<(u16, usize)>,
    events: &'a [u8],
    count: usize,
}

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirmwareEvent<'a> {
    /// Its number in the log, from 0; the Spec ID event counts.
    pub number: u32,
    /// PCR index; below 24 unless the type is [`kind::NO_ACTION`].
    pub pcr: u32,
    /// Event type.
    pub kind: u32,
    /// Event data.
    pub data: &'a [u8],
    /// Algorithm and digest of each bank.
    digests: &'a [u8],
}

/// Splits a log into events.
///
/// # Errors
/// `TooLarge`: more than [`MAX_FILE`] bytes or [`MAX_EVENTS`] events. `LogMalformed`: empty, truncated, or not a log.
pub fn parse(log: &[u8]) -> Result<FirmwareLog<'_>, Rejection> {
    if log.len() > MAX_FILE {
        return refuse!(TooLarge, "expected an event log of at most {MAX_FILE} bytes, found {}", log.len());
    }
    let mut reader = Reader { log, rest: Cursor(log) };
    let first = reader.sha1_event(0)?;
    let mut parsed = match first.data.strip_prefix(SPEC_ID_03) {
        Some(spec_id) if (first.pcr, first.kind) == (0, kind::NO_ACTION) => {
            let algorithms = spec_id_algorithms(spec_id)?;
            FirmwareLog { format: Format::CryptoAgile, algorithms, events: reader.rest.0, count: 0 }
        }
        _ => {
            reader.rest = Cursor(log);
            FirmwareLog { format: Format::Sha1, algorithms: vec![(SHA1, 20)], events: log, count: 0 }
        }
    };
    while !reader.rest.0.is_empty() {
        if parsed.count == MAX_EVENTS {
            return refuse!(TooLarge, "expected an event log of at most {MAX_EVENTS} events, found more");
        }
        parsed.next(&mut reader, parsed.count)?;
        parsed.count += 1;
    }
    Ok(parsed)
}

const SHA1: u16 = 0x0004;
const SPEC_ID_03: &[u8] = b"Spec ID Event03\0";
/// More banks than any TPM has.
const MAX_ALGORITHMS: usize = 16;

impl<'a> FirmwareLog<'a> {
    /// The format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// `TPM_ALG_ID` and digest length of each bank in the log.
    pub fn algorithms(&self) -> &[(u16, usize)] {
        &self.algorithms
    }

    /// How many events there are, without the Spec ID event.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is no event but the Spec ID event.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The events, without the Spec ID event.
    pub fn events(&self) -> impl Iterator<Item = FirmwareEvent<'a>> {
        let mut reader = Reader { log: self.events, rest: Cursor(self.events) };
        // All of it was read once, so nothing fails.
        (0..self.count).map_while(move |at| self.next(&mut reader, at).ok())
    }

    /// An event's digest in one bank; `None` if it has none.
    pub fn digest(&self, event: &FirmwareEvent<'a>, alg: u16) -> Option<&'a [u8]> {
        let mut digests = Cursor(event.digests);
        if self.format == Format::Sha1 {
            return (alg == SHA1).then_some(event.digests);
        }
        loop {
            let found = digests.u16()?;
            let digest = digests.take(self.digest_len(found)?)?;
            if found == alg {
                return Some(digest);
            }
        }
    }

    fn digest_len(&self, alg: u16) -> Option<usize> {
        self.algorithms.iter().find(|(known, _)| *known == alg).map(|(_, length)| *length)
    }

    /// The event after `at` others.
    fn next(&self, reader: &mut Reader<'a>, at: usize) -> Result<FirmwareEvent<'a>, Rejection> {
        match self.format {
            Format::Sha1 => reader.sha1_event(at as u32),
            Format::CryptoAgile => reader.agile_event(at as u32 + 1, &self.algorithms),
        }
    }
}

struct Reader<'a> {
    log: &'a [u8],
    rest: Cursor<'a>,
}

impl<'a> Reader<'a> {
    /// `TCG_PCR_EVENT`
    fn sha1_event(&mut self, number: u32) -> Result<FirmwareEvent<'a>, Rejection> {
        let (pcr, kind) = self.head()?;
        let digest = self.take(20)?;
        Ok(FirmwareEvent { number, pcr, kind, digests: digest, data: self.data()? })
    }

    /// `TCG_PCR_EVENT2`
    fn agile_event(
        &mut self,
        number: u32,
        algorithms: &[(u16, usize)],
    ) -> Result<FirmwareEvent<'a>, Rejection> {
        let (pcr, kind) = self.head()?;
        let count = self.u32()? as usize;
        if count > algorithms.len() {
            return self.malformed(format!("expected at most {} digests, found {count}", algorithms.len()));
        }
        let before = self.rest.0;
        // A bit for each algorithm.
        let mut seen = 0u32;
        for _ in 0..count {
            let alg = self.u16()?;
            let Some(known) = algorithms.iter().position(|(known, _)| *known == alg) else {
                return self
                    .malformed(format!("expected an algorithm of the spec id event, found {alg:#06x}"));
            };
            // Which of two would count?
            if seen & 1 << known != 0 {
                return self.malformed(format!("expected one digest of each bank, found two of {alg:#06x}"));
            }
            seen |= 1 << known;
            self.take(algorithms[known].1)?;
        }
        let digests = &before[..before.len() - self.rest.0.len()];
        Ok(FirmwareEvent { number, pcr, kind, digests, data: self.data()? })
    }

    fn head(&mut self) -> Result<(u32, u32), Rejection> {
        let (pcr, kind) = (self.u32()?, self.u32()?);
        if pcr as usize >= PCRS && !quirks::INFORMATION_WITHOUT_PCR.applies(kind) {
            return self.malformed(format!("expected pcr 0 to {}, found {pcr}", PCRS - 1));
        }
        Ok((pcr, kind))
    }

    fn data(&mut self) -> Result<&'a [u8], Rejection> {
        let length = self.u32()?;
        self.take(length as usize)
    }

    fn u32(&mut self) -> Result<u32, Rejection> {
        self.rest.u32().ok_or_else(|| self.short(4))
    }

    fn u16(&mut self) -> Result<u16, Rejection> {
        self.rest.u16().ok_or_else(|| self.short(2))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Rejection> {
        self.rest.take(length).ok_or_else(|| self.short(length))
    }

    fn short(&self, length: usize) -> Rejection {
        self.rejection(format!("expected {length} more bytes, found {}", self.rest.0.len()))
    }

    fn malformed<T>(&self, what: String) -> Result<T, Rejection> {
        Err(self.rejection(what))
    }

    fn rejection(&self, what: String) -> Rejection {
        let at = self.log.len() - self.rest.0.len();
        Rejection::new(Reason::LogMalformed, format!("{what}, at byte {at} of the event log"))
    }
}

/// The rest of `TCG_EfiSpecIDEvent` after its signature (section 10.4.5.1): platform
/// class, versions and uintn size (8 bytes), algorithms, vendor information.
fn spec_id_algorithms(rest: &[u8]) -> Result<Vec<(u16, usize)>, Rejection> {
    let mut reader = Reader { log: rest, rest: Cursor(rest) };
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
        if length != known || length == 0 || length > MAX_DIGEST {
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
