//! Files read with a bound: most of what the agent reads is not in its hands.

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// All of a file, if it has at most `max` bytes. Kernel files report a size of 0, so the
/// bound is on what is read.
///
/// # Errors
/// When it can't be read, or is larger ([`io::ErrorKind::FileTooLarge`]).
pub fn read(path: impl AsRef<Path>, max: usize) -> io::Result<Vec<u8>> {
    read_open(File::open(path)?, max)
}

/// As [`read`], of a regular file below a folder that somebody else can write, as /boot: links lead to nothing outside of it, and nothing
/// that is there is waited for.
///
/// # Errors
/// As [`read`]; when it is no regular file, or leads outside.
pub fn read_beneath(folder: &Path, path: &Path, max: usize) -> io::Result<Vec<u8>> {
    let folder = open(folder, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH);
    let file = File::from(openat2(&folder, path, how)?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "expected a regular file"));
    }
    read_open(file, max)
}

fn read_open(file: File, max: usize) -> io::Result<Vec<u8>> {
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
    }
}
