//! Event logs.
use crate::Rejection;
use crate::quote::VerifiedQuote;
use crate::rejection::refuse;
use halfkey_protocol::kdf::Hash;

/// Proof: this log was replayed in this bank.
#[derive(Clone, Debug)]
pub struct ReplayedLog {
    bank: Hash,
}

/// Proof: the logs explain the quoted PCRs.
#[derive(Clone, Debug)]
pub struct ExplainedLog {
    log: ReplayedLog,
}

/// Parses and replays a firmware log.
///
/// # Errors
/// `TooLarge`, `LogMalformed`, `LogReplay`.
pub fn replay(log: &[u8], bank: Hash) -> Result<ReplayedLog, Rejection> {
    refuse!(LogMalformed, "not yet: {} {bank:?}", log.len())
}

impl ReplayedLog {
    /// The bank.
    pub fn bank(&self) -> Hash {
        self.bank
    }
    /// Compares with the quoted PCRs.
    ///
    /// # Errors
    /// `TooLarge`, `LogMalformed`, `LogReplay`.
    pub fn explain(
        self,
        quote: &VerifiedQuote,
        userspace_log: Option<&[u8]>,
    ) -> Result<ExplainedLog, Rejection> {
        refuse!(LogReplay, "not yet: {} {:?}", quote.clock(), userspace_log.map(<[u8]>::len))
    }
}

impl ExplainedLog {
    /// The log.
    pub fn log(&self) -> &ReplayedLog {
        &self.log
    }
}
