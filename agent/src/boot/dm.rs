//! The two ioctls that take a block device away: device-mapper's (linux/dm-ioctl.h) and that of MD
//! (linux/raid/md_u.h). No library, no daemon and no udev cookie is needed for that.

use nix::errno::Errno;
use nix::libc;
use nix::sys::stat::{major, minor};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// A block device's number.
pub type Number = (u32, u32);

/// `struct dm_ioctl`, version 4.
#[repr(C)]
struct DmIoctl {
    version: [u32; 3],
    data_size: u32,
    data_start: u32,
    target_count: u32,
    open_count: i32,
    flags: u32,
    event_nr: u32,
    padding: u32,
    dev: u64,
    name: [u8; 128],
    uuid: [u8; 129],
    data: [u8; 7],
}

const SIZE: u32 = size_of::<DmIoctl>() as u32;
/// `_IOWR(DM_IOCTL, DM_DEV_REMOVE_CMD, struct dm_ioctl)`
const DM_DEV_REMOVE: u32 = 3 << 30 | SIZE << 16 | 0xfd << 8 | 4;
/// `_IO(MD_MAJOR, 0x32)`
const STOP_ARRAY: u32 = 9 << 8 | 0x32;

impl DmIoctl {
    /// About the device with this number. No flag is set: in particular no deferred removal.
    fn about(number: Number) -> Self {
        Self {
            version: [4, 0, 0],
            data_size: SIZE,
            data_start: 0,
            target_count: 0,
            open_count: 0,
            flags: 0,
            event_nr: 0,
            padding: 0,
            dev: encode(number),
            name: [0; 128],
            uuid: [0; 129],
            data: [0; 7],
        }
    }
}

/// As the kernel's `huge_encode_dev` does.
fn encode((major, minor): Number) -> u64 {
    u64::from(minor & 0xff) | u64::from(major) << 8 | u64::from(minor & !0xff) << 12
}

/// Removes the mapping with this number. One that is gone already is fine.
///
/// # Errors
/// [`Errno::EBUSY`] while something holds it open.
pub fn remove(control: &Path, number: Number) -> Result<(), Errno> {
    let control = open(control, true)?;
    let mut request = DmIoctl::about(number);
    // SAFETY: the kernel reads and writes `data_size` bytes at the pointer, which is the size of what it points to; the
    // structure is plain data, for which any bytes are valid, and lives until the call returns.
    let result = unsafe { libc::ioctl(control.as_raw_fd(), DM_DEV_REMOVE as _, &raw mut request) };
    match Errno::result(result) {
        Ok(_) | Err(Errno::ENXIO | Errno::ENODEV) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Stops the array with this number, whose node is `node`.
///
/// # Errors
/// [`Errno::EBUSY`] while something holds it open, [`Errno::ENODEV`] if the node is another device.
pub fn stop_array(node: &Path, number: Number) -> Result<(), Errno> {
    let array = open(node, false)?;
    let found = array.metadata().map_err(|e| errno(&e))?;
    if !found.file_type().is_block_device() || number_of(found.rdev()) != number {
        return Err(Errno::ENODEV);
    }
    // SAFETY: this request has no argument.
    let result = unsafe { libc::ioctl(array.as_raw_fd(), STOP_ARRAY as _, 0) };
    match Errno::result(result) {
        Ok(_) | Err(Errno::ENXIO | Errno::ENODEV) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Of a device number as `stat(2)` gives it.
pub fn number_of(device: u64) -> Number {
    // Both have at most 32 bits.
    (major(device) as u32, minor(device) as u32)
}

fn open(path: &Path, write: bool) -> Result<File, Errno> {
    let options = libc::O_NONBLOCK | libc::O_NOFOLLOW;
    File::options().read(true).write(write).custom_flags(options).open(path).map_err(|e| errno(&e))
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::mem::offset_of;

    #[test]
    fn the_structure_is_that_of_the_kernel() {
        // pahole(1) on a kernel, and the values of dmsetup under strace(1).
        assert_eq!(SIZE, 312);
        assert_eq!(offset_of!(DmIoctl, flags), 28);
        assert_eq!(offset_of!(DmIoctl, dev), 40);
        assert_eq!(offset_of!(DmIoctl, name), 48);
        assert_eq!(offset_of!(DmIoctl, uuid), 176);
        assert_eq!(offset_of!(DmIoctl, data), 305);
        assert_eq!(DM_DEV_REMOVE, 0xc138_fd04);
        assert_eq!(STOP_ARRAY, 0x932);
    }

    #[test]
    fn only_a_control_node_and_an_array_are_asked() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(remove(file.path(), (253, 0)), Err(Errno::ENOTTY));
        assert_eq!(stop_array(file.path(), (9, 127)), Err(Errno::ENODEV));
        assert_eq!(remove(Path::new("/nowhere"), (253, 0)), Err(Errno::ENOENT));
    }

    proptest! {
        /// The C library's makedev(3) is what user space hands to the kernel.
        #[test]
        fn numbers_are_encoded_as_the_kernel_reads_them(major in 0u32..1 << 12, minor in 0u32..1 << 20) {
            prop_assert_eq!(encode((major, minor)), libc::makedev(major, minor));
            prop_assert_eq!(number_of(libc::makedev(major, minor)), (major, minor));
        }
    }
}
