//! Takes away what was opened in this boot, before somebody gets a shell or a prompt.
//!
//! All LUKS mappings and all that stands on them, from the top down: swap, file systems, then the devices. What was done
//! counts for nothing, sysfs decides. There is no deferred removal (it would succeed while the disk is open), no table of
//! errors and no wiping of the key in a mapping that stays (the page cache would keep the plaintext).

use super::dm::{self, Number};
use super::mountinfo::{self, Mount};
use super::processes;
use super::stack::{self, Device, Kind};
use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::tpm::machine::is_sysfs;
use crate::{apart, bounded, console};
use nix::errno::Errno;
use nix::libc;
use nix::mount::{MntFlags, umount2};
use std::collections::HashSet;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// No teardown may take longer.
pub const LIMIT: Duration = Duration::from_secs(10);
/// Before it is looked again whether a device is free.
const AGAIN: Duration = Duration::from_millis(100);
/// How often something may be busy before whoever uses it is killed.
const PATIENCE: u32 = 5;

const SYS: &str = "/sys";
const CONTROL: &str = "/dev/mapper/control";

/// Closes every LUKS mapping of this boot and all that stands on it, and sees in sysfs that they are gone. It may be
/// called again, and by several processes at once. Only in the initramfs: elsewhere it would take the root away.
///
/// # Errors
/// What is still there at the deadline, 10 s from now at the latest. Then something may still be open, and nothing but
/// switching the machine off helps. Also when sysfs is not to be read, and outside of the initramfs.
pub fn close_all(deadline: Deadline) -> Result<()> {
    if !console::in_initramfs() {
        return Err(Error::system("close all mappings", "this is not the initramfs"));
    }
    let deadline = deadline.within(LIMIT);
    // Unmounting from a disk that does not answer can take for ever.
    let done =
        apart::run("teardown", deadline.remaining() + Duration::from_millis(200), move || run(deadline));
    let late = || Error::volume("closing the mappings took longer than there was time");
    done.map_err(|e| Error::system("thread", e))?.ok_or_else(late)?
}

fn run(deadline: Deadline) -> Result<()> {
    if devices()?.is_empty() && !processes::has_openers() {
        return Ok(());
    }
    let _frozen = processes::freeze_udevd();
    let mut rounds = 0;
    loop {
        processes::kill_openers();
        let open = devices()?;
        if open.is_empty() && !processes::has_openers() {
            return Ok(());
        }
        let busy = round(&open, rounds >= PATIENCE);
        if devices()?.is_empty() && !processes::has_openers() {
            let names: Vec<_> = open.iter().map(|device| device.name.as_str()).collect();
            console::say(&format!("closed the volumes of this boot ({})", names.join(", ")));
            return Ok(());
        }
        if deadline.is_over() {
            let names: Vec<_> = open.iter().map(|device| device.name.as_str()).collect();
            let why = busy.map(|busy| format!(" ({busy})")).unwrap_or_default();
            return Err(Error::volume(format!("expected no open volume, found {}{why}", names.join(", "))));
        }
        rounds += 1;
        thread::sleep(AGAIN.min(deadline.remaining()));
    }
}

fn devices() -> Result<Vec<Device>> {
    if !is_sysfs(Path::new(SYS)) {
        return Err(Error::system(SYS, "sysfs is not mounted there"));
    }
    stack::above_luks(Path::new(SYS)).map_err(|e| Error::system("block devices in sysfs", e))
}

/// One pass from the top down. Says what was in the way last.
fn round(open: &[Device], kill: bool) -> Option<String> {
    let mut busy = None;
    let mut failed = |what: String, errno: Errno| busy = Some(format!("{what}: {}", errno.desc()));
    let numbers: HashSet<Number> = open.iter().map(|device| device.number).collect();
    let (points, mut used) = to_unmount(&mountinfo::now(), &numbers, block_device);
    used.extend(open.iter().map(|device| device.number));
    if kill {
        processes::kill_users(&used);
    }
    for path in swaps(&bounded::read_text("/proc/swaps", 64 << 10).unwrap_or_default()) {
        if is_on(&path, &used)
            && let Err(errno) = swap_off(&path)
        {
            failed(format!("swap on {}", path.display()), errno);
        }
    }
    for point in points {
        match umount2(Path::new(&point), MntFlags::UMOUNT_NOFOLLOW) {
            // Not mounted any more: somebody else was faster.
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(errno) => failed(point, errno),
        }
    }
    for device in open {
        let result = match device.kind {
            Kind::Mapping => dm::remove(Path::new(CONTROL), device.number),
            Kind::Array => dm::stop_array(&Path::new("/dev").join(&device.name), device.number),
            // It goes with its device.
            Kind::Partition => Ok(()),
            Kind::Other => Err(Errno::ENOTSUP),
        };
        if let Err(errno) = result {
            failed(device.name.clone(), errno);
        }
    }
    busy
}

/// What must be unmounted, the last mounted first, and the device numbers of the files there. That is what is on one of
/// these devices, what is mounted below that, and all below /sysroot: an overlay there has its own number, and keeps the
/// file systems of its layers.
fn to_unmount(
    mounts: &[Mount],
    numbers: &HashSet<Number>,
    block_device: impl Fn(&str) -> Option<Number>,
) -> (Vec<String>, Vec<Number>) {
    let on = |mount: &Mount| {
        numbers.contains(&mount.device)
            // btrfs gives each subvolume a number of its own.
            || (mount.device.0 == 0 && block_device(&mount.source).is_some_and(|number| numbers.contains(&number)))
    };
    let tops: Vec<&str> = mounts
        .iter()
        .filter(|mount| on(mount))
        .map(|mount| mount.point.as_str())
        .chain(["/sysroot"])
        .collect();
    let below = |mount: &Mount| tops.iter().any(|top| Path::new(&mount.point).starts_with(top));
    let chosen = mounts.iter().rev().filter(|mount| on(mount) || below(mount));
    let points = chosen.map(|mount| mount.point.clone()).collect();
    let used = mounts.iter().filter(|mount| on(mount)).map(|mount| mount.device).collect();
    (points, used)
}

fn block_device(source: &str) -> Option<Number> {
    let found = std::fs::metadata(source).ok()?;
    found.file_type().is_block_device().then(|| dm::number_of(found.rdev()))
}

/// `/proc/swaps`: a line of headings, then one for each area.
fn swaps(text: &str) -> Vec<PathBuf> {
    let lines = text.lines().skip(1).filter_map(|line| line.split_ascii_whitespace().next());
    lines.map(|path| PathBuf::from(mountinfo::unescape(path))).collect()
}

/// A swap area that is one of these devices, or a file on one. One that can't be looked at is taken for one.
fn is_on(path: &Path, numbers: &[Number]) -> bool {
    std::fs::metadata(path).map_or(true, |found| {
        let device = if found.file_type().is_block_device() { found.rdev() } else { found.dev() };
        numbers.contains(&dm::number_of(device))
    })
}

fn swap_off(path: &Path) -> Result<(), Errno> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the path is a C string that lives until the call returns; the kernel only reads it.
    Errno::result(unsafe { libc::swapoff(path.as_ptr()) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
        1 1 0:2 / / rw - rootfs rootfs rw\n\
        21 1 0:20 / /sys rw - sysfs sysfs rw\n\
        28 1 253:2 / /sysroot rw - ext4 /dev/mapper/vg-root rw\n\
        29 28 0:31 / /sysroot/home rw - tmpfs tmpfs rw\n\
        30 1 0:40 /@a /mnt/a rw - btrfs /dev/mapper/data rw\n\
        31 30 254:2 / /mnt/a/esp rw - vfat /dev/vda2 rw\n\
        32 1 254:3 / /mnt/plain rw - ext4 /dev/vda3 rw\n\
        33 1 0:50 / /sysroot-not rw - tmpfs tmpfs rw\n";

    #[test]
    fn the_last_mounted_is_unmounted_first() {
        let mounts = mountinfo::parse(MOUNTS);
        let numbers = HashSet::from([(253, 2), (253, 5)]);
        let source = |source: &str| (source == "/dev/mapper/data").then_some((253, 5));
        let (points, used) = to_unmount(&mounts, &numbers, source);
        assert_eq!(points, ["/mnt/a/esp", "/mnt/a", "/sysroot/home", "/sysroot"]);
        assert_eq!(used, [(253, 2), (0, 40)]);
    }

    #[test]
    fn an_overlay_over_the_root_is_unmounted_before_its_layers() {
        let text = "28 1 253:0 / /run/lower ro - ext4 /dev/mapper/root ro\n\
                    29 1 0:60 / /sysroot rw - overlay overlay rw,lowerdir=/run/lower\n";
        let (points, _) = to_unmount(&mountinfo::parse(text), &HashSet::from([(253, 0)]), |_| None);
        assert_eq!(points, ["/sysroot", "/run/lower"]);
    }

    #[test]
    fn swap_areas_are_read() {
        let text = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n\
                    /dev/dm-1                               partition\t1048572\t\t0\t\t-2\n\
                    /sysroot/a\\040file                      file\t\t1\t\t0\t\t-3\n";
        assert_eq!(swaps(text), [PathBuf::from("/dev/dm-1"), PathBuf::from("/sysroot/a file")]);
        assert!(swaps("").is_empty());
        // What is not there can't be ruled out.
        assert!(is_on(Path::new("/nowhere"), &[]));
    }

    #[test]
    fn the_running_system_keeps_its_root() {
        assert!(close_all(Deadline::after(LIMIT)).is_err());
    }
}
