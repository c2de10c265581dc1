//! Entries that are in a list and not in the PCR: which the kernel failed to extend.
//!
//! Any of them could be missing, so only what is near the end is tried: one run of entries among the last few. That is where a TPM
//! that fails is seen by a server that looks in time. What it costs is a constant.

use super::IMA_PCR;
use super::entry::TEMPLATE_HASH;
use super::parse::Reader;
use super::replay::{Attempt, extended};
use super::state::Extension;
use crate::Rejection;
use crate::digest::{Bank, Digest};
use std::collections::VecDeque;
use std::ops::Range;

/// Among so many of the last entries a failure is looked for.
pub const SEARCHED: usize = 32;

/// A failure that explains the quoted value.
pub(super) struct Lost {
    /// The entries, counted from the first that is new.
    pub entries: Range<u64>,
    /// How many entries, and bytes, the value covers with them.
    pub count: u64,
    /// As `count`.
    pub bytes: usize,
    /// Template hash of the last entry that it covers.
    pub last: [u8; TEMPLATE_HASH],
    /// How the kernel extends.
    pub extension: Extension,
}

/// What an entry was to add, and the value before it if none before was lost.
struct Step {
    before: Digest,
    extended: Digest,
    end: usize,
    hash: [u8; TEMPLATE_HASH],
}

/// Looks for a run of entries without which the list gives the quoted value.
pub(super) fn lost(attempt: &Attempt<'_, '_>, list: &[u8]) -> Result<Option<Lost>, Rejection> {
    let known = attempt.state.extension;
    for extension in Extension::ALL {
        if known.is_none_or(|known| known == extension)
            && let Some(lost) = of_extension(attempt, list, extension)?
        {
            return Ok(Some(lost));
        }
    }
    Ok(None)
}

fn of_extension(
    attempt: &Attempt<'_, '_>,
    list: &[u8],
    extension: Extension,
) -> Result<Option<Lost>, Rejection> {
    let bank = Bank::from(attempt.state.bank);
    let mut value = attempt.state.value;
    let mut steps: VecDeque<Step> = VecDeque::with_capacity(SEARCHED);
    let mut first = 0u64;
    let mut reader = Reader::new(list);
    while let Some(entry) = reader.next() {
        let entry = entry?;
        if entry.pcr != u32::from(IMA_PCR) {
            return Ok(None);
        }
        let extended = extended(&entry, bank, extension)?;
        if steps.len() == SEARCHED {
            steps.pop_front();
            first += 1;
        }
        steps.push_back(Step { before: value, extended, end: reader.consumed(), hash: *entry.template_hash });
        value = bank.extend(&value, &extended);
    }
    let steps = steps.make_contiguous();
    for from in 0..steps.len() {
        for to in from + 1..=steps.len() {
            let mut value = steps[from].before;
            // Lost at the very end is not lost: the kernel may be about to extend it.
            for (at, step) in steps.iter().enumerate().skip(to) {
                value = bank.extend(&value, &step.extended);
                if value == *attempt.wanted() {
                    return Ok(Some(Lost {
                        entries: first + from as u64..first + to as u64,
                        count: first + at as u64 + 1,
                        bytes: step.end,
                        last: step.hash,
                        extension,
                    }));
                }
            }
        }
    }
    Ok(None)
}
