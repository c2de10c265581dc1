//! The files of a root file system, or of a package that was unpacked. Nothing of it is run, and no link is followed.

use crate::error::{Error, Result};
use crate::render::text::clean_short;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// Deeper than any file is.
const MAX_DEPTH: usize = 128;
/// A machine with several distributions' sources on it has some.
const MAX_FILES: usize = 5_000_000;

/// Unpacks a Debian package into a private folder, which is removed when it is dropped.
///
/// # Errors
/// `Usage` when it can't be unpacked.
pub fn unpack(package: &Path) -> Result<TempDir> {
    let folder =
        tempfile::tempdir().map_err(|e| Error::failed(format!("can't make a temporary folder: {e}")))?;
    let unpacked = Command::new("dpkg-deb")
        .arg("--extract")
        .arg(package)
        .arg(folder.path())
        .stdin(Stdio::null())
        .output()
        .map_err(|e| {
            Error::failed(format!("can't run dpkg-deb: {e}")).hint("install dpkg, or unpack it yourself")
        })?;
    if !unpacked.status.success() {
        let said = clean_short(String::from_utf8_lossy(&unpacked.stderr).trim(), 300);
        return Err(Error::usage(format!("can't unpack {}: {said}", package.display())));
    }
    Ok(folder)
}

/// The regular files below a folder, sorted: a link could lead anywhere on this machine. Other file systems that are mounted there are
/// left out, and so is what `skip` says of a path from the folder on, with a `/` in front and, for a folder, one behind.
///
/// # Errors
/// `Usage` when it can't be looked through.
pub fn files(folder: &Path, skip: impl Fn(&[u8]) -> bool) -> Result<Vec<PathBuf>> {
    let failed = |path: &Path, e: io::Error| {
        let error = Error::usage(format!("can't look through {}: {e}", path.display()));
        match e.kind() {
            io::ErrorKind::PermissionDenied => error.hint("run it as root, or leave it out by --without"),
            _ => error,
        }
    };
    let device = fs::metadata(folder).map_err(|e| failed(folder, e))?.dev();
    let mut files = Vec::new();
    let mut folders = vec![(folder.to_owned(), 0)];
    while let Some((at, depth)) = folders.pop() {
        for entry in fs::read_dir(&at).map_err(|e| failed(&at, e))? {
            let path = entry.map_err(|e| failed(&at, e))?.path();
            let of = fs::symlink_metadata(&path).map_err(|e| failed(&path, e))?;
            let mut name = inside(folder, &path);
            if of.is_dir() {
                name.push(b'/');
                if of.dev() == device && !skip(&name) {
                    folders.push((path, depth + 1));
                }
            } else if of.is_file() && !skip(&name) {
                files.push(path);
            }
            if files.len() > MAX_FILES || depth > MAX_DEPTH {
                let most = format!("expected at most {MAX_FILES} files, {MAX_DEPTH} folders deep");
                return Err(failed(&at, io::Error::other(most)));
            }
        }
    }
    files.sort();
    Ok(files)
}

/// The path of a file in the tree: `/usr/bin/true`.
pub fn inside(folder: &Path, file: &Path) -> Vec<u8> {
    let inside = file.strip_prefix(folder).unwrap_or(file);
    [b"/", inside.as_os_str().as_encoded_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_nowhere_and_what_is_left_out_is_not_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["boot", "home/me"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        for file in ["boot/b", "a", "home/me/x"] {
            fs::write(dir.path().join(file), "").unwrap();
        }
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("boot/vmlinuz-1")).unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("root")).unwrap();
        let found = files(dir.path(), |path| path == b"/home/").unwrap();
        let found: Vec<_> = found.iter().map(|file| inside(dir.path(), file)).collect();
        assert_eq!(found, [b"/a".to_vec(), b"/boot/b".to_vec()]);
        assert!(files(&dir.path().join("none"), |_| false).is_err());
    }
}
