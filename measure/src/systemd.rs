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
const NVPCR_INIT: &str = "nvpcr-init:";

/// Whether this is such a record, whole: `nvpcr-init:NAME:0xHANDLE:` and the index's TPM name, or an algorithm and the value, in
/// hexadecimal digits. The text is its own preimage, so whatever else could be measured into that PCR must not have its form: a
/// file is longer, or has other characters.
pub fn is_nvpcr_init(text: &str) -> bool {
    const LONGEST: usize = 512;
    let hex = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let word = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    let handle = |text: &str| text.strip_prefix("0x").is_some_and(|digits| digits.len() <= 8 && hex(digits));
    let Some(rest) = text.strip_prefix(NVPCR_INIT).filter(|_| text.len() <= LONGEST) else { return false };
    match rest.split(':').collect::<Vec<_>>()[..] {
        [name, index, value] => word(name) && handle(index) && hex(value),
        [name, index, algorithm, value] => word(name) && handle(index) && word(algorithm) && hex(value),
        _ => false,
    }
}

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

#[cfg(test)]
mod tests {
    use super::is_nvpcr_init;

    #[test]
    fn a_record_of_an_nvpcr_is_told_from_a_file() {
        for right in [
            "nvpcr-init:cryptsetup:0x1d10200:000bde3857f637c6",
            "nvpcr-init:hardware:0x1d10200:sha256:de3857f637c61e82",
        ] {
            assert!(is_nvpcr_init(right), "{right}");
            for at in 0..right.len() {
                assert!(!is_nvpcr_init(&right.replacen(&right[at..=at], "\0", 1)), "{right}, {at}");
                assert!(!is_nvpcr_init(&right.replacen(&right[at..=at], " ", 1)), "{right}, {at}");
            }
        }
        let long = format!("nvpcr-init:x:0x1:{}", "a".repeat(512));
        for wrong in [
            "",
            "nvpcr-init:",
            "nvpcr-init:x:0x1:",
            "nvpcr-init:x:1:aa",
            "nvpcr-init:x:0x123456789:aa",
            "nvpcr-init:x:0x1:a:b:aa",
            &long,
        ] {
            assert!(!is_nvpcr_init(wrong), "{wrong}");
        }
    }
}
