//! Images in a Debian package. It is unpacked, nothing of it is run.

use crate::error::{Error, Result};
use halfkey_measure::predict::is_uki;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Deeper than any package is.
const MAX_DEPTH: usize = 16;
/// A package of all of Linux has some ten thousand files.
const MAX_FILES: usize = 200_000;

/// An image of a package.
pub struct Packaged {
    /// Where the package puts it: `/boot/vmlinuz-6.1.0-56-amd64`.
    pub path: String,
    /// The version of the kernel, if the name has one.
    pub name: String,
    /// Whether it is a unified kernel image.
    pub uki: bool,
    /// Its content.
    pub content: Vec<u8>,
}

/// Unpacks a package into a private folder that is removed again, and takes kernels and unified kernel images from it.
///
/// # Errors
/// `Usage` when it can't be unpacked or has no image.
pub fn images(package: &Path, max: u64) -> Result<Vec<Packaged>> {
    let folder =
        tempfile::tempdir().map_err(|e| Error::failed(format!("can't make a temporary folder: {e}")))?;
    let unpacked = Command::new("dpkg-deb")
        .arg("--extract")
        .arg(package)
        .arg(folder.path())
        .stdin(Stdio::null())
        .output()
        .map_err(|e| {
            Error::failed(format!("can't run dpkg-deb: {e}"))
                .hint("install dpkg, or unpack it yourself and use --uki or --kernel")
        })?;
    if !unpacked.status.success() {
        let said = crate::render::text::clean_short(String::from_utf8_lossy(&unpacked.stderr).trim(), 300);
        return Err(Error::usage(format!("can't unpack {}: {said}", package.display())));
    }
    let mut files = Vec::new();
    walk(folder.path(), 0, &mut files)
        .map_err(|e| Error::usage(format!("can't look through {}: {e}", package.display())))?;
    files.sort();
    let mut found = Vec::new();
    for file in files {
        let inside = file.strip_prefix(folder.path()).unwrap_or(&file);
        let Some(name) = version(inside) else { continue };
        let content = crate::documents::source::read(&file, max)?;
        let uki = is_uki(&content);
        if uki || !efi(inside) {
            found.push(Packaged { path: format!("/{}", inside.display()), name, uki, content });
        }
    }
    if found.is_empty() {
        return Err(Error::usage(format!("{} has no kernel and no unified kernel image", package.display()))
            .hint("give the package with the image itself: linux-image-VERSION, not a metapackage"));
    }
    Ok(found)
}

/// Regular files only: a link of the package could lead anywhere on this machine.
fn walk(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::other(format!("expected at most {MAX_DEPTH} folders in each other")));
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            walk(&entry.path(), depth + 1, files)?;
        } else if kind.is_file() {
            files.push(entry.path());
        }
        if files.len() > MAX_FILES {
            return Err(io::Error::other(format!("expected at most {MAX_FILES} files")));
        }
    }
    Ok(())
}

/// The version in the name of an image; `None` for any other file.
fn version(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    if let Some(version) = name.strip_prefix("vmlinuz-") {
        return Some(version.to_owned());
    }
    if name == "vmlinuz" {
        // usr/lib/modules/VERSION/vmlinuz
        return path.parent()?.file_name()?.to_str().map(str::to_owned);
    }
    efi(path).then(|| name.strip_suffix(".efi").unwrap_or(name).to_owned())
}

fn efi(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "efi")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_known_by_their_names() {
        for (path, expected) in [
            ("boot/vmlinuz-6.1.0-56-amd64", Some("6.1.0-56-amd64")),
            ("usr/lib/modules/6.12.9/vmlinuz", Some("6.12.9")),
            ("usr/lib/linux/efi/linux-6.1.efi", Some("linux-6.1")),
            ("boot/System.map-6.1", None),
            ("usr/share/doc/linux/README", None),
        ] {
            assert_eq!(version(Path::new(path)).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn links_of_a_package_lead_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("boot")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("boot/vmlinuz-1")).unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("root")).unwrap();
        let mut files = Vec::new();
        walk(dir.path(), 0, &mut files).unwrap();
        assert!(files.is_empty(), "{files:?}");
    }
}
