//! The first entry of each kernel: a digest of the PCRs that were extended before it ran.
//!
//! PCR 0 to 7; from 5.8 on 0 to 9 if the bank is not SHA-1. The values are those of the moment when IMA started. What is quoted later
//! need not be the same: systemd extends PCR 9, and from 261 on also 0 to 7. So the values by the firmware's log alone are offered
//! beside the quoted ones.

use super::entry::FileDigest;
use crate::digest::Bank;

/// PCR 0 to 9 of one bank: as quoted, or by the events of a log.
#[derive(Clone, Copy, Debug)]
pub struct BootPcrs<'a> {
    /// The bank.
    pub bank: Bank,
    /// Ten values, one behind the other.
    pub values: &'a [u8],
}

/// What a boot aggregate was found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootAggregate {
    /// Of this boot.
    Matches,
    /// Of a bank that nobody has offered: nothing to compare it with. The quote binds the PCRs to the list in any case.
    OfAnotherBank,
    /// Zeros: the kernel found no TPM when IMA started.
    Zero,
    /// Of other values.
    Differs,
}

/// How many PCRs are in it: of kernels from 5.8 on, and before or with SHA-1.
const COUNTS: [usize; 2] = [10, 8];

/// Compares it with all values that are known of its bank.
pub fn compare(found: &FileDigest<'_>, offered: &[BootPcrs<'_>]) -> BootAggregate {
    if found.is_zero() {
        return BootAggregate::Zero;
    }
    let of_bank = offered.iter().filter(|pcrs| found.hash() == Some(pcrs.bank));
    let mut result = BootAggregate::OfAnotherBank;
    for pcrs in of_bank {
        result = BootAggregate::Differs;
        let values = COUNTS.iter().filter_map(|count| pcrs.values.get(..count * pcrs.bank.digest_len()));
        if values.map(|values| pcrs.bank.digest(values)).any(|digest| *digest == *found.bytes) {
            return BootAggregate::Matches;
        }
    }
    result
}
