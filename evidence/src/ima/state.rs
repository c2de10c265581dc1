//! How far a list was followed: all that a server keeps of a node's list.

use super::entry::TEMPLATE_HASH;
use crate::digest::{Bank, Digest};
use crate::eventlog::cursor::Cursor;
use halfkey_protocol::tpm::bank::PcrBank;

/// With what a kernel extends a bank for an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// The bank's own digest of the data (5.8 and later), ones for a violation.
    OwnHash,
    /// SHA-1 and zeros, 20 bytes of ones and zeros for a violation (before 5.8).
    PaddedSha1,
    /// SHA-1 and zeros, ones for a violation: a kernel without the bank's hash.
    PaddedSha1FullViolation,
}

impl Extension {
    /// All of them; the likeliest first.
    pub const ALL: [Self; 3] = [Self::OwnHash, Self::PaddedSha1, Self::PaddedSha1FullViolation];

    fn code(self) -> u8 {
        match self {
            Self::OwnHash => 1,
            Self::PaddedSha1 => 2,
            Self::PaddedSha1FullViolation => 3,
        }
    }
}

/// Where a list was left: how many entries, and the value of the PCR by them. It holds for one boot of one machine; a reset of the
/// TPM begins a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    pub(super) bank: PcrBank,
    /// Known as soon as an entry was replayed.
    pub(super) extension: Option<Extension>,
    /// The kernel has failed to extend an entry in this boot.
    pub(super) broken: bool,
    pub(super) count: u64,
    pub(super) value: Digest,
    /// Template hash of the last entry, to find it in a list that begins elsewhere.
    pub(super) last: [u8; TEMPLATE_HASH],
}

/// Of [`State::to_bytes`].
const VERSION: u8 = 1;
const BROKEN: u8 = 1;

impl State {
    /// Of a boot of which no entry was seen.
    pub fn new(bank: PcrBank) -> Self {
        Self {
            bank,
            extension: None,
            broken: false,
            count: 0,
            value: Digest::filled(bank.into(), 0),
            last: [0; TEMPLATE_HASH],
        }
    }

    /// The bank that is followed.
    pub fn bank(&self) -> PcrBank {
        self.bank
    }

    /// How many entries were proven: the next one wanted has this number, from 0, in the list of the kernel that runs.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// What the PCR was after them.
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    /// How this kernel extends the bank; none before the first entry.
    pub fn extension(&self) -> Option<Extension> {
        self.extension
    }

    /// Whether the kernel has failed to extend an entry since the machine was started: no list of this boot proves much any more.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// To be kept: 65 bytes for SHA-256, 81 for SHA-384.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend(self.bank.alg().to_le_bytes());
        bytes.push(self.extension.map_or(0, Extension::code));
        bytes.push(if self.broken { BROKEN } else { 0 });
        bytes.extend(self.count.to_le_bytes());
        bytes.extend(self.last);
        bytes.extend(&*self.value);
        bytes
    }

    /// From [`State::to_bytes`]; none from anything else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor(bytes);
        if cursor.u8()? != VERSION {
            return None;
        }
        let alg = cursor.u16()?;
        let bank = PcrBank::ALL.into_iter().find(|bank| bank.alg() == alg)?;
        let extension = match cursor.u8()? {
            0 => None,
            code => Some(Extension::ALL.into_iter().find(|extension| extension.code() == code)?),
        };
        let broken = match cursor.u8()? {
            0 => false,
            BROKEN => true,
            _ => return None,
        };
        let count = cursor.u64()?;
        let last = *cursor.take(TEMPLATE_HASH)?.first_chunk()?;
        let value =
            Digest::from_bytes(cursor.0).filter(|value| value.len() == Bank::from(bank).digest_len())?;
        Some(Self { bank, extension, broken, count, value, last })
    }
}
