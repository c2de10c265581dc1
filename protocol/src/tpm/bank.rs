//! The PCR banks that Halfkey quotes.

use super::kdf::Hash;

/// A PCR bank: all PCRs of a TPM in one hash. Only of a hash that is still trusted; a log may show others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PcrBank {
    /// The bank of SHA-256, which every enrolled TPM has.
    Sha256,
    /// The bank of SHA-384.
    Sha384,
}

impl PcrBank {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha384];

    /// The hash that its PCRs are extended with.
    pub fn hash(self) -> Hash {
        match self {
            Self::Sha256 => Hash::Sha256,
            Self::Sha384 => Hash::Sha384,
        }
    }

    /// From the `TPM_ALG_ID` of its hash; `None` for a bank that is not quoted.
    pub fn from_alg(alg: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|bank| bank.alg() == alg)
    }

    /// The `TPM_ALG_ID` of its hash.
    pub fn alg(self) -> u16 {
        self.hash().alg()
    }

    /// The name on the wire: `sha256` or `sha384`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
        }
    }

    /// From the name on the wire.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|bank| bank.name() == name)
    }

    /// Length of a PCR of this bank, in bytes.
    pub fn digest_len(self) -> usize {
        self.hash().digest_len()
    }

    /// What `parts`, one after the other, are measured as in this bank.
    pub fn digest(self, parts: &[&[u8]]) -> Vec<u8> {
        self.hash().digest(parts)
    }
}
