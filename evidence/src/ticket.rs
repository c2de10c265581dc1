//! The name of a boot.

use crate::eventlog::EXPLAINED;
use crate::quote::{VerifiedQuote, hex};
use aws_lc_rs::digest::{Context, SHA256};
use std::fmt;

/// Names one boot of one node, by what a quote says: bank, resetCount, restartCount and the values of PCR 0 to 9 and
/// 11 to 14. Approvals, and repeats of `enroll`, hold for just that. [`IMA_PCR`](crate::ima::IMA_PCR) is not in it: no two
/// quotes of a machine with IMA would have the same name. Nor is PCR 15: the fence has a check of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootTicket(String);

impl BootTicket {
    /// Of a quote.
    pub fn of(quote: &VerifiedQuote) -> Self {
        let mut hash = Context::new(&SHA256);
        // Every field has a length that the bank settles.
        hash.update(&quote.committed().node.0);
        hash.update(&quote.bank().alg().to_be_bytes());
        hash.update(&quote.reset_count().to_be_bytes());
        hash.update(&quote.restart_count().to_be_bytes());
        for pcr in EXPLAINED {
            hash.update(quote.pcr(pcr));
        }
        Self(hex(&hash.finish().as_ref()[..16]))
    }

    /// As on the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BootTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
