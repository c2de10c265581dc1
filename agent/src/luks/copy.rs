//! The copy of a header that cryptsetup opens, in sealed memory.

use super::check::Checked;
use super::fields::Fields;
use super::header::BINARY;
use super::names::is_flag;
use crate::error::{Error, Result};
use halfkey_protocol::tpm::kdf::Hash;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

impl Checked {
    /// The header for cryptsetup: both copies ours, and the area of the one keyslot. It is opened with `flags`, of which those
    /// that the agent does not know are left out.
    ///
    /// # Errors
    /// When the area can't be read or memory can't be had.
    pub fn copy(self, device: &File, flags: &[String]) -> Result<HeaderCopy> {
        let slot = &self.fields.keyslot;
        let offset = slot.area_offset;
        let mut key_material = vec![0; slot.area_size as usize];
        device
            .read_exact_at(&mut key_material, offset)
            .map_err(|e| Error::volume(format!("keyslot {}: {e}", self.slot)))?;
        let io = |e| Error::system("header copy in memory", e);
        // Without close-on-exec: cryptsetup inherits it. There is no secret in it.
        let fd = memfd_create(c"halfkey-header", MFdFlags::MFD_ALLOW_SEALING).map_err(|e| io(e.into()))?;
        let file = File::from(fd);
        // As if the data followed: what tests a key takes it for the volume. There is nothing in the hole.
        let segment = &self.fields.segment;
        file.set_len(segment.offset + segment.sector_size).map_err(io)?;
        for at in [0, self.size] {
            file.write_all_at(&self.header(at, flags), at).map_err(io)?;
        }
        file.write_all_at(&key_material, offset).map_err(io)?;
        let seals =
            SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).map_err(|e| io(e.into()))?;
        let area_sha256 = Hash::Sha256.digest(&[&key_material]).try_into().expect("SHA-256 has 32 bytes");
        Ok(HeaderCopy {
            uuid: self.uuid,
            slot: self.slot,
            flags: self.flags,
            fields: self.fields,
            area_sha256,
            file,
        })
    }

    /// Binary header and JSON area, as they stand at offset `at`.
    pub fn header(&self, at: u64, flags: &[String]) -> Vec<u8> {
        let flags: Vec<_> = flags.iter().map(String::as_str).filter(|flag| is_flag(flag)).collect();
        let json = self.fields.json(self.slot, self.size - BINARY as u64, self.keyslots_size, &flags);
        let mut out = self.binary.clone();
        out[..6].copy_from_slice(if at == 0 { b"LUKS\xba\xbe" } else { b"SKUL\xba\xbe" });
        out[256..264].copy_from_slice(&at.to_be_bytes());
        out[264..].fill(0);
        out.extend_from_slice(json.as_bytes());
        out.resize(self.size as usize, 0);
        let checksum = Hash::Sha256.digest(&[&out]);
        out[448..480].copy_from_slice(&checksum);
        out
    }
}

/// A checked header in sealed memory: what was checked is what is tested is what is opened.
pub struct HeaderCopy {
    /// UUID of the volume.
    pub uuid: String,
    /// Its only keyslot.
    pub slot: u32,
    /// Activation flags that the header has, whatever the copy has.
    pub flags: Vec<String>,
    pub(super) fields: Fields,
    /// SHA-256 of the keyslot's area, as it is in the copy.
    pub(super) area_sha256: [u8; 32],
    file: File,
}

impl HeaderCopy {
    /// The path under which a child process finds it.
    pub fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.file.as_raw_fd())
    }
}
