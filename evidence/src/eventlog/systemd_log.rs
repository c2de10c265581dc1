//! What systemd measures after the firmware: its log ([`halfkey_measure::systemd`]), and the boot phases, which versions before 255
//! measure without a log.

use super::content::Standing;
use super::event::PCRS;
use super::text;
use crate::Rejection;
use crate::digest::{Bank, Digest};
use crate::rejection::refuse;
use halfkey_measure::systemd::{self, NoDigest, PHASE_PCR, Record};
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::{MAX_LOG, Reason};

/// What systemd extended a PCR with, in one bank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemdEvent {
    /// Which PCR, 0 to 23.
    pub pcr: u8,
    /// What it was extended with.
    pub digest: Digest,
    /// Whether a record of systemd's log says so; else it is a phase that was found by trying.
    pub logged: bool,
    kind: Option<String>,
    text: Option<String>,
    measured: bool,
}

impl SystemdEvent {
    /// A phase that no log has.
    pub(super) fn phase(bank: Bank, phase: &str) -> Self {
        Self {
            pcr: PHASE_PCR,
            digest: bank.digest(phase.as_bytes()),
            logged: false,
            kind: Some("phase".to_owned()),
            text: Some(phase.to_owned()),
            measured: true,
        }
    }

    /// The text that was measured, if the digest is that of it.
    pub fn measured_text(&self) -> Option<&str> {
        self.text.as_deref().filter(|_| self.measured)
    }

    /// The text as the log has it: not to decide by.
    pub fn claimed_text(&self) -> Option<&str> {
        self.text.as_deref()
    }

    /// Whether its text is proven.
    pub fn standing(&self) -> Standing {
        if self.measured { Standing::Verified } else { Standing::Opaque }
    }

    /// What it is, in one line for people; claims included.
    pub fn what(&self) -> String {
        text::line(200, |f| {
            f.write_str("systemd ")?;
            text::clean(f, self.kind.as_deref().unwrap_or("record").chars())?;
            let Some(text) = &self.text else { return Ok(()) };
            f.write_str(" ")?;
            text::clean(f, text.chars())?;
            f.write_str(if self.measured { "" } else { " (claimed)" })
        })
    }
}

/// Parses systemd's log for one bank. Records that are not about PCRs are left out.
///
/// # Errors
/// `TooLarge`: more than [`MAX_LOG`] bytes. `LogMalformed`: not a JSON text sequence,
/// or a record without a digest of the bank.
pub fn parse(log: &[u8], bank: PcrBank) -> Result<Vec<SystemdEvent>, Rejection> {
    if log.len() > MAX_LOG {
        return refuse!(TooLarge, "expected a log of at most {MAX_LOG} bytes, found {}", log.len());
    }
    let mut records = systemd::records(log);
    if records.next().is_some_and(|before| !before.is_empty()) {
        return refuse!(
            LogMalformed,
            "expected a record separator at the start of systemd's log, found other bytes"
        );
    }
    let mut events = Vec::new();
    for (number, text) in records.enumerate() {
        let record: Record = match serde_json::from_slice(text) {
            Ok(record) => record,
            Err(error) => {
                return refuse!(
                    LogMalformed,
                    "expected json in record {number} of systemd's log, found {error}"
                );
            }
        };
        if let Some(pcr) = record.pcr {
            events.push(event(number, pcr, record, bank)?);
        }
    }
    Ok(events)
}

fn event(number: usize, pcr: u32, record: Record, bank: PcrBank) -> Result<SystemdEvent, Rejection> {
    if pcr as usize >= PCRS {
        return refuse!(
            LogMalformed,
            "expected pcr 0 to 23 in record {number} of systemd's log, found {pcr}"
        );
    }
    let digest = match record.digest(bank) {
        Ok(digest) => digest,
        Err(NoDigest::NotOne) => {
            return refuse!(
                LogMalformed,
                "expected one {} digest in record {number} of systemd's log, found none or several",
                bank.name()
            );
        }
        Err(NoDigest::NotHex) => {
            return refuse!(
                LogMalformed,
                "expected {} bytes as hex in record {number} of systemd's log, found something else",
                bank.digest_len()
            );
        }
    };
    let digest = Digest::from_bytes(&digest).ok_or_else(|| {
        Rejection::new(Reason::LogMalformed, format!("digest of {} bytes in record {number}", digest.len()))
    })?;
    let (kind, text) = record.content.map_or((None, None), |content| (content.kind, content.string));
    let measured = text.as_ref().is_some_and(|text| Bank::from(bank).digest(text.as_bytes()) == digest);
    Ok(SystemdEvent { pcr: pcr as u8, digest, logged: true, kind, text, measured })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(pcr: u32, digest: &str) -> String {
        format!(
            "\x1e{{\"pcr\":{pcr},\"digests\":[{{\"hashAlg\":\"sha1\",\"digest\":\"00\"}},{{\"hashAlg\":\"sha256\",\"digest\":\"{digest}\"}}],\
             \"content_type\":\"systemd\",\"content\":{{\"eventType\":\"phase\",\"string\":\"ready\",\"timestamp\":5}}}}\n"
        )
    }

    #[test]
    fn records_of_systemd_are_read() {
        let log = record(11, &"ab".repeat(32)) + "\x1e{\"nv_index_name\":\"cryptsetup\",\"digests\":[]}\n";
        let events = parse(log.as_bytes(), PcrBank::Sha256).expect("two records");
        assert_eq!(events.len(), 1);
        assert_eq!((events[0].pcr, &*events[0].digest), (11, &[0xab; 32][..]));
        // Another digest than that of the text.
        assert_eq!((events[0].measured_text(), events[0].claimed_text()), (None, Some("ready")));
        assert_eq!(events[0].what(), "systemd phase ready (claimed)");
        let honest = record(11, &Bank::Sha256.digest(b"ready").to_string());
        let events = parse(honest.as_bytes(), PcrBank::Sha256).expect("a record");
        assert_eq!(
            (events[0].measured_text(), events[0].what().as_str()),
            (Some("ready"), "systemd phase ready")
        );
        assert!(parse(b"", PcrBank::Sha256).expect("an empty log").is_empty());
    }

    #[test]
    fn damaged_records_are_refused() {
        let good = record(11, &"ab".repeat(32));
        for log in [
            good[1..].to_owned(),
            good.clone() + "\x1e",
            good[..good.len() - 3].to_owned(),
            record(24, &"ab".repeat(32)),
            record(11, &"ab".repeat(31)),
            record(11, &"zz".repeat(32)),
            record(11, &"a".repeat(63)),
        ] {
            assert!(parse(log.as_bytes(), PcrBank::Sha256).is_err(), "{log}");
        }
        assert!(parse(good.as_bytes(), PcrBank::Sha384).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_bounded(
            records in proptest::collection::vec("\x1e?\\{(\"pcr\":[0-9]{1,11})?,?(\"digests\":\\[\\{?\\}?\\])?\\}?\n?|.{0,40}", 0..6),
            cut in 0usize..300,
            at in 0usize..300,
            to: u8,
        ) {
            let mut log = (record(11, &"ab".repeat(32)) + &records.concat()).into_bytes();
            log.truncate(cut);
            if let Some(byte) = log.get_mut(at) {
                *byte = to;
            }
            if let Ok(events) = parse(&log, PcrBank::Sha256) {
                prop_assert!(events.iter().all(|event| event.pcr < 24 && event.digest.len() == 32));
            }
        }
    }
}
