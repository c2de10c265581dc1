//! Files read with a bound: most of what the agent reads is not in its hands.

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// How often a file is opened again that could not be found because something was renamed.
const AGAIN: usize = 1000;

/// All of a file, if it has at most `max` bytes. Kernel files report a size of 0, so the
/// bound is on what is read.
///
/// # Errors
/// When it can't be read, or is larger ([`io::ErrorKind::FileTooLarge`]).
pub fn read(path: impl AsRef<Path>, max: usize) -> io::Result<Vec<u8>> {
    read_open(File::open(path)?, max)
}

/// As [`read`], of a regular file below a folder that somebody else can write, as /boot: as [`file_beneath`].
///
/// # Errors
/// As [`read`] and [`file_beneath`].
pub fn read_beneath(folder: &Path, path: &Path, max: usize) -> io::Result<Vec<u8>> {
    read_open(file_beneath(folder, path)?, max)
}

/// Opens a regular file below a folder that somebody else can write: links lead to nothing outside of it, and nothing that is there is
/// waited for.
///
/// # Errors
/// When it can't be opened, is no regular file, or leads outside ([`io::ErrorKind::CrossesDevices`]).
pub fn file_beneath(folder: &Path, path: &Path) -> io::Result<File> {
    regular(open_beneath(folder, path, OFlag::O_NONBLOCK)?)
}

/// Opens a regular file, wherever it is; nothing that is there is waited for.
///
/// # Errors
/// When it can't be opened, or is no regular file.
pub fn open_regular(path: &Path) -> io::Result<File> {
    regular(File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?)
}

fn regular(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "expected a regular file"))
}

/// Names of what is in such a folder, in no order: `max` at most.
///
/// # Errors
/// When it can't be read, is no folder, or leads outside.
pub fn names_beneath(folder: &Path, path: &Path, max: usize) -> io::Result<Vec<OsString>> {
    let open = open_beneath(folder, path, OFlag::O_DIRECTORY)?;
    let entries = std::fs::read_dir(format!("/proc/self/fd/{}", open.as_raw_fd()))?;
    Ok(entries.take(max).flatten().map(|entry| entry.file_name()).collect())
}

fn open_beneath(folder: &Path, path: &Path, flags: OFlag) -> io::Result<File> {
    // Not O_PATH: what is mounted on demand, as systemd does with an ESP, would not be mounted by that.
    let open_folder = open(folder, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | flags)
        .resolve(ResolveFlag::RESOLVE_BENEATH);
    // While anything is renamed anywhere, the kernel can't tell where a `..` of a link leads.
    let mut found = openat2(&open_folder, path, how);
    for _ in 0..AGAIN {
        match found {
            Err(Errno::EAGAIN) => found = openat2(&open_folder, path, how),
            _ => break,
        }
    }
    match found {
        Err(Errno::EXDEV) => {
            let expected = format!("expected what is below {}, found a way out of it", folder.display());
            Err(io::Error::new(io::ErrorKind::CrossesDevices, expected))
        }
        found => Ok(File::from(found?)),
    }
}

/// All of an open file, if it has at most `max` bytes.
///
/// # Errors
/// As [`read`].
pub fn read_open(file: File, max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(max as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {max} bytes")));
    }
    Ok(bytes)
}

/// The same as text; a value of sysfs without its line feed.
///
/// # Errors
/// As [`read`], or when it is not UTF-8.
pub fn read_text(path: impl AsRef<Path>, max: usize) -> io::Result<String> {
    let text =
        String::from_utf8(read(path, max)?).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    Ok(text.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_link_on_boot_leads_nowhere_else() {
        let top = tempfile::tempdir().unwrap();
        let boot = top.path().join("boot");
        fs::create_dir_all(boot.join("grub")).unwrap();
        fs::write(top.path().join("secret"), "root's").unwrap();
        fs::write(boot.join("efi"), "grubenv").unwrap();
        symlink("../efi", boot.join("grub/grubenv")).unwrap();
        symlink("../../secret", boot.join("grub/one")).unwrap();
        symlink(top.path().join("secret"), boot.join("grub/two")).unwrap();
        symlink("/proc/kmsg", boot.join("grub/three")).unwrap();
        nix::unistd::mkfifo(&boot.join("grub/four"), Mode::S_IRWXU).unwrap();
        let read = |name: &str| read_beneath(&boot, Path::new(name), 100);
        assert_eq!(read("grub/grubenv").unwrap(), b"grubenv");
        for name in ["grub/one", "grub/two", "grub/three", "grub/four", "grub", "none"] {
            assert!(read(name).is_err(), "{name}");
        }
        for name in ["grub/one", "grub/two"] {
            assert!(read(name).unwrap_err().to_string().ends_with("found a way out of it"), "{name}");
        }
        for name in ["grub/four", "grub"] {
            assert!(open_regular(&boot.join(name)).is_err(), "{name}");
        }
        open_regular(&boot.join("grub/two")).unwrap();
        fs::create_dir(top.path().join("keys")).unwrap();
        symlink("../keys", boot.join("entries")).unwrap();
        let names = |folder: &str, max| names_beneath(&boot, Path::new(folder), max).map(|names| names.len());
        assert_eq!((names("grub", 10).unwrap(), names("grub", 2).unwrap()), (5, 2));
        for folder in ["entries", "efi", "none"] {
            assert!(names(folder, 10).is_err(), "{folder}");
        }
    }

    #[test]
    fn what_others_rename_meanwhile_is_in_nobodys_way() {
        let top = tempfile::tempdir().unwrap();
        let boot = top.path();
        fs::create_dir_all(boot.join("grub")).unwrap();
        fs::write(boot.join("env"), "grubenv").unwrap();
        symlink("../env", boot.join("grub/grubenv")).unwrap();
        fs::write(boot.join("one"), "").unwrap();
        let end = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !end.load(std::sync::atomic::Ordering::Relaxed) {
                    fs::rename(boot.join("one"), boot.join("two")).unwrap();
                    fs::rename(boot.join("two"), boot.join("one")).unwrap();
                }
            });
            let read = (0..2000).map(|_| read_beneath(boot, Path::new("grub/grubenv"), 100));
            let failed =
                read.filter(|read| read.as_ref().ok().is_none_or(|found| found != b"grubenv")).count();
            end.store(true, std::sync::atomic::Ordering::Relaxed);
            assert_eq!(failed, 0);
        });
    }
}
