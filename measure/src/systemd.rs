//! systemd in initrd and system: what it measures after the firmware, and its log of that,
//! `/run/log/systemd/tpm2-measure.log` (systemd 255 and later).
//!
//! The log is a JSON text sequence (RFC 7464) of records as in the TCG Canonical Event Log:
//! `{"pcr":11,"digests":[{"hashAlg":"sha256","digest":"..."}],"content":{..}}`.

use halfkey_protocol::tpm::bank::PcrBank;

/// The words that systemd-pcrphase extends [`PHASE_PCR`] with, in the order of a boot (systemd-pcrphase.service(8)). A word is
/// measured without a terminating NUL.
pub static PHASES: [&str; 4] = [ENTER_INITRD, "leave-initrd", "sysinit", "ready"];

/// The PCR of [`PHASES`].
pub const PHASE_PCR: u8 = 11;

/// The phase that is measured before the agent runs.
pub const ENTER_INITRD: &str = "enter-initrd";

/// systemd 261 and later, in PCR 0 to 7, 9 and 12 to 14: what comes after it is the system's.
pub const OS_SEPARATOR: &str = "os-separator";

/// systemd 262 and later, in PCR 9.
pub const NVPCR_SEPARATOR: &str = "nvpcr-separator";

/// How a record begins in PCR 9 that an NV index which serves as a PCR was made.
pub const NVPCR_INIT: &str = "nvpcr-init:";

/// One record of the log.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "miniserde", derive(miniserde::Deserialize))]
#[cfg_attr(feature = "serde", derive(serde::Deserialize))]
pub struct Record {
    /// Absent in records about NV indices that systemd uses as PCRs.
    pub pcr: Option<u32>,
    /// One of each active bank.
    pub digests: Option<Vec<RecordDigest>>,
    /// What was measured, by the log's word.
    pub content: Option<Content>,
}

/// What a PCR of one bank was extended with.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "miniserde", derive(miniserde::Deserialize))]
#[cfg_attr(feature = "serde", derive(serde::Deserialize))]
pub struct RecordDigest {
    /// `sha256`
    #[cfg_attr(any(feature = "miniserde", feature = "serde"), serde(rename = "hashAlg"))]
    pub alg: String,
    /// Hex.
    pub digest: String,
}

/// What a record says that was measured.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "miniserde", derive(miniserde::Deserialize))]
#[cfg_attr(feature = "serde", derive(serde::Deserialize))]
pub struct Content {
    /// `phase`, `machine-id`, `filesystem`, ...
    #[cfg_attr(any(feature = "miniserde", feature = "serde"), serde(rename = "eventType"))]
    pub kind: Option<String>,
    /// The text.
    pub string: Option<String>,
}

/// Why a record has no digest of a bank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoDigest {
    /// It has none, or several.
    NotOne,
    /// It is not as many bytes as the bank has, as hex.
    NotHex,
}

/// The texts of a log's records. The first is what stands before them, which is nothing.
pub fn records(log: &[u8]) -> impl Iterator<Item = &[u8]> {
    log.split(|byte| *byte == 0x1e)
}

impl Record {
    /// What this bank was extended with.
    ///
    /// # Errors
    /// Why it is not known.
    pub fn digest(&self, bank: PcrBank) -> Result<Vec<u8>, NoDigest> {
        let all = self.digests.as_deref().unwrap_or_default();
        let mut own = all.iter().filter(|digest| digest.alg == bank.name());
        let (Some(digest), None) = (own.next(), own.next()) else { return Err(NoDigest::NotOne) };
        hex(&digest.digest, bank.digest_len()).ok_or(NoDigest::NotHex)
    }
}

fn hex(text: &str, length: usize) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    if pairs.len() != length {
        return None;
    }
    pairs.iter().map(|[high, low]| Some((digit(*high)? << 4 | digit(*low)?) as u8)).collect()
}
