//! `UEFI_GPT_DATA` (PC Client Platform Firmware Profile, section 10.2.5).

use super::cursor::Cursor;
use super::guid::Guid;
use std::fmt::{self, Write};

/// The header of a GPT and its partitions that are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionTable<'a> {
    /// The disk.
    pub disk: Guid,
    entry_size: usize,
    entries: &'a [u8],
}

/// One partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Type of the partition.
    pub kind: Guid,
    /// The partition itself.
    pub id: Guid,
    /// First block.
    pub first: u64,
    /// Last block.
    pub last: u64,
}

impl<'a> PartitionTable<'a> {
    pub(super) fn parse(data: &'a [u8]) -> Option<Self> {
        let mut cursor = Cursor(data);
        if cursor.take(8)? != b"EFI PART" {
            return None;
        }
        // Revision, size, checksum, reserved, two blocks of headers, two of usable space.
        cursor.take(48)?;
        let disk = cursor.guid()?;
        cursor.take(12)?;
        let entry_size = cursor.u32()? as usize;
        cursor.take(4)?;
        let count = usize::try_from(cursor.u64()?).ok()?;
        let entries = cursor.take(count.checked_mul(entry_size)?)?;
        (cursor.0.is_empty() && entry_size >= 56).then_some(Self { disk, entry_size, entries })
    }

    /// The partitions.
    pub fn partitions(&self) -> impl Iterator<Item = Partition> + use<'a> {
        self.entries.chunks_exact(self.entry_size).filter_map(|entry| {
            let mut cursor = Cursor(entry);
            Some(Partition {
                kind: cursor.guid()?,
                id: cursor.guid()?,
                first: cursor.u64()?,
                last: cursor.u64()?,
            })
        })
    }

    pub(super) fn describe(&self, f: &mut dyn Write) -> fmt::Result {
        let count = self.entries.len() / self.entry_size;
        write!(f, "partition table of disk {}, {count} partitions", self.disk)
    }
}
