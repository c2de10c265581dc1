//! The quote.
use crate::Rejection;
use crate::public::AkPublic;
use crate::rejection::refuse;
use halfkey_protocol::kdf::Hash;
use halfkey_protocol::qualify::Qualifier;
use halfkey_protocol::wire::Finish;

/// What a quote must be.
#[derive(Clone, Copy, Debug)]
pub struct QuoteContext<'a> {
    /// The AK that was registered.
    pub ak: &'a AkPublic,
    /// What the quote must commit to.
    pub qualifier: Qualifier<'a>,
    /// The enrolled bank.
    pub bank: Hash,
}

/// Proof: the AK signed these PCR values for this exchange.
#[derive(Clone, Debug)]
pub struct VerifiedQuote {
    bank: Hash,
    pcrs: Vec<u8>,
    pcr_digest: Vec<u8>,
    clock: u64,
    reset_count: u32,
    restart_count: u32,
    safe: bool,
    firmware_version: u64,
}

/// Checks a quote.
///
/// # Errors
/// In this order: `Signature`, `NotAQuote`, `Qualifier`, `PcrSelection`, `Bank`, `Malformed`, `PcrDigest`, `Bank`.
pub fn verify(context: &QuoteContext<'_>, finish: &Finish) -> Result<VerifiedQuote, Rejection> {
    refuse!(Signature, "not yet: {:?} {}", context.bank, finish.bank)
}

/// PCR 15 is zero: the boot is not over.
///
/// # Errors
/// `FenceExtended`.
pub fn require_open_fence(quote: &VerifiedQuote) -> Result<(), Rejection> {
    if quote.pcr(halfkey_protocol::FENCE_PCR).iter().all(|byte| *byte == 0) {
        return Ok(());
    }
    refuse!(FenceExtended, "expected pcr 15 to be zero")
}

impl VerifiedQuote {
    /// The bank.
    pub fn bank(&self) -> Hash {
        self.bank
    }
    /// PCR `index`, 0 to 15. Panics above.
    pub fn pcr(&self, index: u8) -> &[u8] {
        &self.pcrs[usize::from(index) * self.bank.digest_len()..][..self.bank.digest_len()]
    }
    /// SHA-256 over the 16 values.
    pub fn pcr_digest(&self) -> &[u8] {
        &self.pcr_digest
    }
    /// Milliseconds that the TPM was powered since it was cleared.
    pub fn clock(&self) -> u64 {
        self.clock
    }
    /// TPM resets (boots).
    pub fn reset_count(&self) -> u32 {
        self.reset_count
    }
    /// Resumes since the last reset.
    pub fn restart_count(&self) -> u32 {
        self.restart_count
    }
    /// Whether the clock can't be behind an earlier value.
    pub fn safe(&self) -> bool {
        self.safe
    }
    /// Of the TPM.
    pub fn firmware_version(&self) -> u64 {
        self.firmware_version
    }
}
