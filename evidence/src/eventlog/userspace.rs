//! What systemd measures after the firmware: its log, `/run/log/systemd/tpm2-measure.log`
//! (systemd 255 and later), and the boot phases, which older ones measure without a log.
//!
//! The log is a JSON text sequence (RFC 7464) of records as in the TCG Canonical Event
//! Log: `{"pcr":11,"digests":[{"hashAlg":"sha256","digest":"..."}],"content":{..}}`.

use crate::Rejection;
use crate::rejection::refuse;
use halfkey_protocol::MAX_LOG;
use halfkey_protocol::kdf::Hash;
use serde::Deserialize;

/// A record of systemd's log, in one bank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserspaceEvent {
    /// Which PCR, 0 to 23.
    pub pcr: u8,
    /// What it was extended with.
    pub digest: Vec<u8>,
    /// `phase`, `machine-id`, `filesystem`, ...: claimed, not proven.
    pub kind: Option<String>,
    /// What was measured: claimed, not proven.
    pub text: Option<String>,
}

/// The words that systemd-pcrphase extends PCR 11 with, in the order of a boot
/// (systemd-pcrphase.service(8)). A word is measured without a terminating NUL.
pub static PHASES: [&str; 4] = ["enter-initrd", "leave-initrd", "sysinit", "ready"];

/// The PCR of [`PHASES`].
pub const PHASE_PCR: u8 = 11;

#[derive(Deserialize)]
struct Record {
    /// Absent in records about NV indices that systemd uses as PCRs.
    pcr: Option<u32>,
    #[serde(default)]
    digests: Vec<Digest>,
    content: Option<Content>,
}

#[derive(Deserialize)]
struct Digest {
    #[serde(rename = "hashAlg")]
    alg: String,
    digest: String,
}

#[derive(Deserialize)]
struct Content {
    #[serde(rename = "eventType")]
    kind: Option<String>,
    string: Option<String>,
}

/// Parses systemd's log for one bank. Records that are not about PCRs are left out.
///
/// # Errors
/// `TooLarge`: more than [`MAX_LOG`] bytes. `LogMalformed`: not a JSON text sequence,
/// or a record without a digest of the bank.
pub fn parse(log: &[u8], bank: Hash) -> Result<Vec<UserspaceEvent>, Rejection> {
    if log.len() > MAX_LOG {
        return refuse!(TooLarge, "expected a log of at most {MAX_LOG} bytes, found {}", log.len());
    }
    let mut records = log.split(|byte| *byte == 0x1e);
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

fn event(number: usize, pcr: u32, record: Record, bank: Hash) -> Result<UserspaceEvent, Rejection> {
    if pcr as usize >= super::PCRS {
        return refuse!(
            LogMalformed,
            "expected pcr 0 to 23 in record {number} of systemd's log, found {pcr}"
        );
    }
    let mut digests = record.digests.iter().filter(|digest| digest.alg == bank.name());
    let (Some(digest), None) = (digests.next(), digests.next()) else {
        return refuse!(
            LogMalformed,
            "expected one {} digest in record {number} of systemd's log, found none or several",
            bank.name()
        );
    };
    let Some(digest) = unhex(&digest.digest).filter(|digest| digest.len() == bank.digest_len()) else {
        return refuse!(
            LogMalformed,
            "expected {} bytes as hex in record {number} of systemd's log, found something else",
            bank.digest_len()
        );
    };
    let (kind, text) = record.content.map_or((None, None), |content| (content.kind, content.string));
    Ok(UserspaceEvent { pcr: pcr as u8, digest, kind, text })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Some((digit(pair[0])? << 4 | digit(*pair.get(1)?)?) as u8)).collect()
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
        let events = parse(log.as_bytes(), Hash::Sha256).expect("two records");
        assert_eq!(events.len(), 1);
        assert_eq!((events[0].pcr, events[0].digest.as_slice()), (11, [0xab; 32].as_slice()));
        assert_eq!(events[0].text.as_deref(), Some("ready"));
        assert!(parse(b"", Hash::Sha256).expect("an empty log").is_empty());
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
            assert!(parse(log.as_bytes(), Hash::Sha256).is_err(), "{log}");
        }
        assert!(parse(good.as_bytes(), Hash::Sha384).is_err());
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
            if let Ok(events) = parse(&log, Hash::Sha256) {
                prop_assert!(events.iter().all(|event| event.pcr < 24 && event.digest.len() == 32));
            }
        }
    }
}
