//! Reading little-endian structures off the front of hostile bytes.

use super::guid::Guid;

/// What is left to read. Each method takes from the front, or is `None` and takes nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a>(pub(crate) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(crate) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn guid(&mut self) -> Option<Guid> {
        self.array().map(Guid)
    }

    /// As many bytes as a 64-bit length says; too many for this machine is too many.
    pub(crate) fn take_u64(&mut self, length: u64) -> Option<&'a [u8]> {
        self.take(usize::try_from(length).ok()?)
    }

    /// A byte with the length, then that many bytes: a description in the second versions of structures.
    pub(crate) fn counted(&mut self) -> Option<&'a [u8]> {
        let mut after = *self;
        let length = after.u8()?;
        let taken = after.take(length.into())?;
        *self = after;
        Some(taken)
    }
}
