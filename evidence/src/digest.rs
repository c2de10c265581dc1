//! Digests of the banks of a TPM, without an allocation each.

use aws_lc_rs::digest;
use halfkey_protocol::tpm::bank::PcrBank;
use std::fmt;
use std::ops::Deref;

/// The hash of a PCR bank that can be replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bank {
    /// `TPM_ALG_SHA1`: to read old logs; no quote over it is ever accepted.
    Sha1,
    /// `TPM_ALG_SHA256`
    Sha256,
    /// `TPM_ALG_SHA384`
    Sha384,
    /// `TPM_ALG_SHA512`
    Sha512,
}

/// A digest: 20 to 64 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest {
    length: u8,
    /// Zero after `length`, so that equal digests are equal values.
    bytes: [u8; MAX_DIGEST],
}

/// Longest digest of a bank.
pub const MAX_DIGEST: usize = 64;

impl Bank {
    /// From a `TPM_ALG_ID`.
    pub fn from_alg(alg: u16) -> Option<Self> {
        match alg {
            0x0004 => Some(Self::Sha1),
            0x000b => Some(Self::Sha256),
            0x000c => Some(Self::Sha384),
            0x000d => Some(Self::Sha512),
            _ => None,
        }
    }

    /// From [`Bank::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512].into_iter().find(|bank| bank.name() == name)
    }

    /// The `TPM_ALG_ID`.
    pub fn alg(self) -> u16 {
        match self {
            Self::Sha1 => 0x0004,
            Self::Sha256 => 0x000b,
            Self::Sha384 => 0x000c,
            Self::Sha512 => 0x000d,
        }
    }

    /// `sha1`, `sha256`, `sha384`, `sha512`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    /// Digest length in bytes.
    pub fn digest_len(self) -> usize {
        self.algorithm().output_len()
    }

    /// The digest of `data`.
    pub fn digest(self, data: &[u8]) -> Digest {
        Digest::copy(digest::digest(self.algorithm(), data).as_ref())
    }

    /// The digest of the concatenation of `parts`, each of any length.
    pub fn digest_parts(self, parts: &[&[u8]]) -> Digest {
        let mut hash = digest::Context::new(self.algorithm());
        parts.iter().for_each(|part| hash.update(part));
        Digest::copy(hash.finish().as_ref())
    }

    /// What a PCR becomes when it is extended (TPM 2.0 Part 1, section 11.4.7).
    ///
    /// # Panics
    /// If `extended` is longer than [`MAX_DIGEST`]: parsers have checked that.
    pub fn extend(self, pcr: &Digest, extended: &[u8]) -> Digest {
        // One call over one buffer: a context would be an allocation per event.
        let mut buffer = [0; 2 * MAX_DIGEST];
        let length = pcr.len() + extended.len();
        buffer[..pcr.len()].copy_from_slice(pcr);
        buffer[pcr.len()..length].copy_from_slice(extended);
        self.digest(&buffer[..length])
    }

    fn algorithm(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        }
    }
}

impl From<PcrBank> for Bank {
    fn from(bank: PcrBank) -> Self {
        match bank {
            PcrBank::Sha256 => Self::Sha256,
            PcrBank::Sha384 => Self::Sha384,
        }
    }
}

impl PartialEq<PcrBank> for Bank {
    fn eq(&self, other: &PcrBank) -> bool {
        *self == Self::from(*other)
    }
}

impl Digest {
    /// As many bytes of one value as the bank's digests have.
    pub fn filled(bank: Bank, byte: u8) -> Self {
        Self::copy(&[byte; MAX_DIGEST][..bank.digest_len()])
    }

    /// From bytes; `None` if they are more than [`MAX_DIGEST`].
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        (bytes.len() <= MAX_DIGEST).then(|| Self::copy(bytes))
    }

    /// From hex digits in lower case; `None` from anything else, or from more than [`MAX_DIGEST`] bytes.
    pub fn from_hex(digits: &str) -> Option<Self> {
        let (pairs, []) = digits.as_bytes().as_chunks::<2>() else { return None };
        let mut bytes = [0; MAX_DIGEST];
        let nibble = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        for (byte, [high, low]) in bytes.get_mut(..pairs.len())?.iter_mut().zip(pairs) {
            *byte = nibble(*high)? << 4 | nibble(*low)?;
        }
        Some(Self { length: pairs.len() as u8, bytes })
    }

    fn copy(from: &[u8]) -> Self {
        let mut bytes = [0; MAX_DIGEST];
        bytes[..from.len()].copy_from_slice(from);
        Self { length: from.len() as u8, bytes }
    }

    /// Takes these bytes; at most [`MAX_DIGEST`].
    pub(crate) fn set(&mut self, bytes: &[u8]) {
        *self = Self::copy(bytes);
    }

    /// Sets the last byte: where a PCR keeps the locality that it was started from.
    pub(crate) fn set_last(&mut self, byte: u8) {
        if let Some(last) = usize::from(self.length).checked_sub(1) {
            self.bytes[last] = byte;
        }
    }
}

impl Deref for Digest {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// As hex.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_the_other_library() {
        for hash in PcrBank::ALL {
            let bank = Bank::from(hash);
            assert_eq!(bank.digest(b"abc").to_vec(), hash.digest(&[b"abc"]));
            assert_eq!(bank.digest_parts(&[b"a", b"", b"bc"]), bank.digest(b"abc"));
            let zero = Digest::filled(bank, 0);
            assert_eq!(bank.extend(&zero, b"abc").to_vec(), hash.digest(&[&zero, b"abc"]));
            assert_eq!(
                (bank.alg(), bank.name(), bank.digest_len()),
                (hash.alg(), hash.name(), hash.digest_len())
            );
        }
        assert_eq!(Bank::Sha1.digest(b"abc").to_string(), "a9993e364706816aba3e25717850c26c9cd0d89d");
    }
}
