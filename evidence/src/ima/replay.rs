//! Following a list to the PCR that was quoted.
//!
//! The list is read after the quote, and the kernel adds an entry before it extends the PCR: so a list is longer than what the quote
//! covers, or as long. The prefix that gives the quoted value is proven; what is behind it is left for the next time, and is not even
//! read. Each call costs what is new, and a few passes more only where something is wrong.

use super::IMA_PCR;
use super::ahead::Ahead;
use super::entry::{Entry, TEMPLATE_HASH};
use super::parse::Reader;
use super::search;
use super::state::{Extension, State};
use crate::Rejection;
use crate::digest::{Bank, Digest, MAX_DIGEST};
use crate::quote::{VerifiedQuote, hex};
use crate::rejection::refuse;
use halfkey_protocol::tpm::bank::PcrBank;
use std::ops::Range;

/// Longest list that is looked at in one call, in bytes.
pub const MAX_LIST: usize = 64 << 20;

/// What the kernel's first entry is called.
pub const BOOT_AGGREGATE: &[u8] = b"boot_aggregate";

/// A part of a list, as a node sent it. All of it is the node's word.
#[derive(Clone, Copy, Debug)]
pub struct Increment<'a> {
    /// Number of the first entry, from 0: how many the node has left out.
    pub first: u64,
    /// The entries. The last may be cut off.
    pub bytes: &'a [u8],
    /// Whether they were all that the kernel had when they were read, after the quote.
    pub complete: bool,
}

/// The value of IMA's PCR.
#[derive(Clone, Copy, Debug)]
pub struct QuotedPcr {
    bank: PcrBank,
    value: Digest,
}

impl QuotedPcr {
    /// As the TPM has signed it.
    pub fn of(quote: &VerifiedQuote) -> Self {
        let value = Digest::from_bytes(quote.pcr(IMA_PCR)).expect("no bank has longer digests");
        Self { bank: quote.bank(), value }
    }

    /// A value that nobody vouches for: to look at a list that somebody has. None if it is not of the bank's length.
    pub fn assumed(bank: PcrBank, value: &[u8]) -> Option<Self> {
        let value = Digest::from_bytes(value).filter(|value| value.len() == bank.digest_len())?;
        Some(Self { bank, value })
    }
}

/// What came of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The list explains the PCR.
    Proven,
    /// The same, but the kernel has begun a new list, in a kernel that was started by kexec and was not given the old one. The
    /// PCR went on, so nothing is missing in between. Entries are counted anew.
    Restarted,
    /// The list ends before the quoted value is reached, and there is more of it. Ask for more, and come with all from
    /// [`State::count`] on; or, where that is too much for one message, go on with what is next by [`Ahead::follow`].
    Waiting {
        /// Behind all whole entries. It takes the kernel for one that extends each bank with its own hash, as long as that is
        /// not known: one from before 5.8 has to come with all of its first list at once.
        ahead: Ahead,
    },
    /// The kernel did not extend the PCR for these entries: the TPM refused, or was gone. No attack, and no health until the
    /// next reboot. Everything but these is proven.
    Broken {
        /// Numbers of the entries that are in the list only.
        lost: Range<u64>,
    },
    /// The list is all there and does not explain the PCR: an entry was changed, taken out or put in; somebody else extends the
    /// PCR; or the kernel has failed long ago.
    Differs {
        /// How many new entries were tried.
        tried: u64,
    },
    /// Nothing can be said by this list.
    Unverifiable(Unverifiable),
}

/// Why a list can't be followed, though it may be genuine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unverifiable {
    /// It begins behind what was proven. Ask for what is missing; a kernel whose list was trimmed has it no more.
    Missing {
        /// Number of the first entry that is needed.
        wanted: u64,
        /// Number of the first that came.
        found: u64,
    },
    /// It is all that the kernel has and does not begin with `boot_aggregate`: its beginning was trimmed.
    Trimmed,
    /// It has fewer entries than were proven before.
    Shorter {
        /// How many were proven.
        proven: u64,
        /// How many there are.
        found: u64,
    },
    /// The kernel writes a list and extends nothing: it found no TPM when it started.
    NotExtended,
    /// There is no entry, and the PCR was never extended in this boot: nothing is measured. A kernel with IMA has at least the entry
    /// `boot_aggregate`, so an empty list is no proof that nothing was used.
    NoEntries,
    /// An entry is measured into another PCR, by a rule `pcr=` of IMA's policy; the quote does not say what became of it.
    OtherPcr {
        /// Number of the entry.
        entry: u64,
        /// Its PCR.
        pcr: u32,
    },
}

/// A list that was followed.
#[derive(Clone, Debug)]
pub struct Advance<'a> {
    pub(super) outcome: Outcome,
    pub(super) state: State,
    first: u64,
    followed: &'a [u8],
}

impl<'a> Advance<'a> {
    /// What came of it.
    pub fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// Where to go on: behind what was proven, or where it was before.
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether the list explains the PCR, and the kernel has not failed in this boot.
    pub fn is_healthy(&self) -> bool {
        matches!(self.outcome, Outcome::Proven | Outcome::Restarted) && !self.state.broken
    }

    /// The entries that are new and proven, with their numbers. With [`Outcome::Broken`] also those that were lost. With
    /// [`Outcome::Waiting`] those of this part, which are not proven yet and come only once: judge them now, and believe it when a later
    /// part is proven.
    pub fn entries(&self) -> impl Iterator<Item = (u64, Entry<'a>)> + use<'a> {
        // All of it was read once, so nothing fails.
        (self.first..).zip(Reader::new(self.followed).map_while(Result::ok))
    }

    fn unproven(state: &State, outcome: Outcome) -> Self {
        Self { outcome, state: *state, first: state.count, followed: &[] }
    }
}

/// Follows a list from where it was left.
///
/// # Errors
/// `TooLarge`: more than [`MAX_LIST`] bytes. `LogMalformed`: what has to be read is no list. `LogReplay`: the quote is of another
/// bank than the state, or an entry does not have the SHA-1 that stands at its head, which no kernel writes.
pub fn advance<'a>(
    state: &State,
    list: &Increment<'a>,
    quoted: &QuotedPcr,
) -> Result<Advance<'a>, Rejection> {
    if list.bytes.len() > MAX_LIST {
        return refuse!(
            TooLarge,
            "expected an ima list of at most {MAX_LIST} bytes, found {}",
            list.bytes.len()
        );
    }
    if quoted.bank != state.bank {
        let (expected, found) = (state.bank.name(), quoted.bank.name());
        return refuse!(LogReplay, "expected a quote of bank {expected}, found one of {found}");
    }
    if list.first > state.count {
        let missing = Unverifiable::Missing { wanted: state.count, found: list.first };
        return Ok(Advance::unproven(state, Outcome::Unverifiable(missing)));
    }
    Attempt { state, list, quoted }.run()
}

/// Follows a whole list to wherever it leads: to look at one that somebody has, without a quote. Takes the kernel for one that extends
/// each bank with its own hash.
///
/// # Errors
/// As [`advance`], and `LogMalformed` when it ends within an entry.
pub fn assume<'a>(list: &'a [u8], bank: PcrBank) -> Result<Advance<'a>, Rejection> {
    let mut value = Digest::filled(bank.into(), 0);
    let mut reader = Reader::new(list.get(..MAX_LIST).unwrap_or(list));
    for entry in reader.by_ref() {
        value = Bank::from(bank).extend(&value, &extended(&entry?, bank.into(), Extension::OwnHash)?);
    }
    if !reader.rest().is_empty() && list.len() <= MAX_LIST {
        let rest = reader.rest().len();
        return refuse!(
            LogMalformed,
            "expected the end of the ima list behind an entry, found {rest} more bytes"
        );
    }
    let whole = Increment { first: 0, bytes: list, complete: true };
    advance(&State::new(bank), &whole, &QuotedPcr { bank, value })
}

/// One call of [`advance`].
pub(super) struct Attempt<'s, 'a> {
    pub(super) state: &'s State,
    list: &'s Increment<'a>,
    quoted: &'s QuotedPcr,
}

/// Where a pass ended.
enum Pass {
    /// Behind so many entries and bytes the value is the quoted one.
    Found { count: u64, bytes: usize, last: [u8; TEMPLATE_HASH] },
    /// So many entries are whole, and none gave it.
    NotFound { count: u64, bytes: usize, value: Digest, last: [u8; TEMPLATE_HASH] },
    /// One is of another PCR.
    OtherPcr { at: u64, pcr: u32 },
}

impl<'a> Attempt<'_, 'a> {
    /// The value that was quoted.
    pub(super) fn wanted(&self) -> &Digest {
        &self.quoted.value
    }

    fn run(&self) -> Result<Advance<'a>, Rejection> {
        let (state, list) = (self.state, self.list);
        let skipped = self.skip(state.count - list.first)?;
        let mut tried = 0;
        if let Some(rest) = skipped {
            match self.follow(rest, state.extension)? {
                (Pass::NotFound { count, .. }, _) => tried = count,
                found => return Ok(self.reached(state.count, rest, found, Outcome::Proven)),
            }
        }
        // The entries that are known may stand elsewhere: the list may have begun anew, or may have lost its beginning.
        let begins = self.begins_with_boot()?;
        if list.first == 0 && state.count > 0 {
            let other = match begins {
                // Maybe of another kernel, which may do it in another way.
                Some(true) => Some((list.bytes, 0, None, Outcome::Restarted)),
                Some(false) => {
                    self.behind_last()?.map(|rest| (rest, state.count, state.extension, Outcome::Proven))
                }
                None => None,
            };
            if let Some((rest, first, extension, outcome)) = other
                && let found @ (Pass::Found { .. }, _) = self.follow(rest, extension)?
            {
                return Ok(self.reached(first, rest, found, outcome));
            }
        }
        if !list.complete {
            return self.waiting(skipped.unwrap_or_default());
        }
        if list.first == 0 && begins == Some(false) {
            return Ok(Advance::unproven(state, Outcome::Unverifiable(Unverifiable::Trimmed)));
        }
        let Some(rest) = skipped else {
            let found = list.first + self.whole()?;
            let shorter = Unverifiable::Shorter { proven: state.count, found };
            return Ok(Advance::unproven(state, Outcome::Unverifiable(shorter)));
        };
        match search::lost(self, rest)? {
            Some(lost) => Ok(self.broken(rest, &lost)),
            None => Ok(Advance::unproven(state, Outcome::Differs { tried })),
        }
    }

    /// What is behind so many entries; none if there are not as many.
    fn skip(&self, entries: u64) -> Result<Option<&'a [u8]>, Rejection> {
        let mut reader = Reader::new(self.list.bytes);
        for _ in 0..entries {
            match reader.next() {
                Some(entry) => entry?,
                None => return Ok(None),
            };
        }
        Ok(Some(reader.rest()))
    }

    /// How many whole entries there are.
    fn whole(&self) -> Result<u64, Rejection> {
        Reader::new(self.list.bytes).try_fold(0, |count, entry| entry.map(|_| count + 1))
    }

    /// Whether the first entry is the one that a kernel writes first; none if there is no entry.
    fn begins_with_boot(&self) -> Result<Option<bool>, Rejection> {
        let first = Reader::new(self.list.bytes).next().transpose()?;
        Ok(first.map(|entry| entry.name() == Some(BOOT_AGGREGATE)))
    }

    /// What is behind the entry that was proven last. A kernel lists no entry twice, but for violations and across kexec.
    fn behind_last(&self) -> Result<Option<&'a [u8]>, Rejection> {
        let mut reader = Reader::new(self.list.bytes);
        let mut rest = None;
        while let Some(entry) = reader.next() {
            let entry = entry?;
            if !entry.is_violation() && *entry.template_hash == self.state.last {
                rest = Some(reader.rest());
            }
        }
        Ok(rest)
    }

    /// Behind all whole entries.
    fn waiting(&self, list: &'a [u8]) -> Result<Advance<'a>, Rejection> {
        let state = self.state;
        let extension = state.extension.unwrap_or(Extension::OwnHash);
        let (reached, bytes) = match self.pass(list, extension)? {
            Pass::NotFound { count, bytes, value, last } if count > 0 => {
                let count = state.count + count;
                (State { extension: Some(extension), count, value, last, ..*state }, bytes)
            }
            Pass::NotFound { .. } | Pass::Found { .. } | Pass::OtherPcr { .. } => (*state, 0),
        };
        let outcome = Outcome::Waiting { ahead: Ahead::new(*state, reached) };
        Ok(Advance { followed: &list[..bytes], ..Advance::unproven(state, outcome) })
    }

    /// Follows the list from the state's value on, in each way that this kernel may extend the PCR.
    fn follow(&self, list: &'a [u8], known: Option<Extension>) -> Result<(Pass, Extension), Rejection> {
        let mut extension = known.unwrap_or(Extension::OwnHash);
        let mut pass = self.pass(list, extension)?;
        if known.is_none() {
            for other in &Extension::ALL[1..] {
                if let Pass::NotFound { count: 1.., .. } = pass {
                    (pass, extension) = (self.pass(list, *other)?, *other);
                }
            }
        }
        Ok((pass, extension))
    }

    fn pass(&self, list: &'a [u8], extension: Extension) -> Result<Pass, Rejection> {
        let bank = Bank::from(self.state.bank);
        let (mut value, mut last) = (self.state.value, self.state.last);
        let mut reader = Reader::new(list);
        let mut count = 0;
        loop {
            if value == self.quoted.value {
                return Ok(Pass::Found { count, bytes: reader.consumed(), last });
            }
            let Some(entry) = reader.next() else {
                return Ok(Pass::NotFound { count, bytes: reader.consumed(), value, last });
            };
            let entry = entry?;
            if entry.pcr != u32::from(IMA_PCR) {
                return Ok(Pass::OtherPcr { at: count, pcr: entry.pcr });
            }
            value = bank.extend(&value, &extended(&entry, bank, extension)?);
            last = *entry.template_hash;
            count += 1;
        }
    }

    fn reached(&self, first: u64, list: &'a [u8], pass: (Pass, Extension), outcome: Outcome) -> Advance<'a> {
        let (state, (pass, extension)) = (self.state, pass);
        match pass {
            // Zero: nothing was extended.
            Pass::Found { count: 0, .. } if state.count == 0 => {
                let why = if list.is_empty() { Unverifiable::NoEntries } else { Unverifiable::NotExtended };
                Advance::unproven(state, Outcome::Unverifiable(why))
            }
            Pass::Found { count, bytes, last } => {
                let extension = if count > 0 { Some(extension) } else { state.extension };
                let state =
                    State { extension, count: first + count, value: self.quoted.value, last, ..*state };
                Advance { outcome, state, first, followed: &list[..bytes] }
            }
            Pass::OtherPcr { at, pcr } => {
                let entry = first + at;
                Advance::unproven(state, Outcome::Unverifiable(Unverifiable::OtherPcr { entry, pcr }))
            }
            Pass::NotFound { count, .. } => Advance::unproven(state, Outcome::Differs { tried: count }),
        }
    }

    /// What was lost is known, so one can go on; the machine stays what it is.
    fn broken(&self, list: &'a [u8], lost: &search::Lost) -> Advance<'a> {
        let first = self.state.count;
        let state = State {
            broken: true,
            extension: Some(lost.extension),
            count: first + lost.count,
            value: self.quoted.value,
            last: lost.last,
            ..*self.state
        };
        let outcome = Outcome::Broken { lost: first + lost.entries.start..first + lost.entries.end };
        Advance { outcome, state, first, followed: &list[..lost.bytes] }
    }
}

/// With what the bank was extended for an entry.
///
/// # Errors
/// `LogReplay`: the SHA-1 at its head is not that of its data.
pub(super) fn extended(entry: &Entry<'_>, bank: Bank, extension: Extension) -> Result<Digest, Rejection> {
    let padded = |bytes: &[u8; TEMPLATE_HASH]| {
        let mut digest = [0; MAX_DIGEST];
        digest[..TEMPLATE_HASH].copy_from_slice(bytes);
        Digest::from_bytes(&digest[..bank.digest_len()]).expect("a bank's digest")
    };
    if entry.is_violation() {
        return Ok(match extension {
            Extension::OwnHash | Extension::PaddedSha1FullViolation => Digest::filled(bank, 0xff),
            Extension::PaddedSha1 => padded(&[0xff; TEMPLATE_HASH]),
        });
    }
    let sha1 = entry.template_digest(Bank::Sha1);
    if *sha1 != *entry.template_hash {
        let (name, found) = (super::shown(entry.name()), hex(entry.template_hash));
        return refuse!(LogReplay, "expected sha1 {sha1} at the head of the ima entry {name}, found {found}");
    }
    Ok(match extension {
        Extension::OwnHash => entry.template_digest(bank),
        Extension::PaddedSha1 | Extension::PaddedSha1FullViolation => padded(entry.template_hash),
    })
}
