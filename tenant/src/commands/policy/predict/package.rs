//! Images in a Debian package. It is unpacked, nothing of it is run.

use crate::documents::{source, tree};
use crate::error::{Error, Result};
use halfkey_measure::predict::is_uki;
use std::path::Path;

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
    let folder = tree::unpack(package)?;
    let files = tree::files(folder.path(), |_| false)?;
    let mut found = Vec::new();
    for file in files {
        let inside = file.strip_prefix(folder.path()).unwrap_or(&file);
        let Some(name) = version(inside) else { continue };
        let content = source::read(&file, max)?;
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
}
