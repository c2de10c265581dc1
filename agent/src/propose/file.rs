//! A file that the boot loader will start.

use crate::bounded;
use crate::error::{Error, Result};
use halfkey_measure::efi_stub::{MAX_RELEASE, first_word, release_of};
use halfkey_measure::pe::{Extent, Image};
use halfkey_measure::predict::MAX_COMMAND_LINE;
use halfkey_measure::stub;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Of an image or an initrd, in bytes. A UKI with firmware and drivers has 100 MiB.
const MAX_FILE: u64 = 1 << 30;
/// Bytes at the beginning of an image in which its headers are, and of a kernel what it says of itself.
const HEAD: u64 = 64 << 10;
/// Read at once of two files that are compared.
const CHUNK: u64 = 1 << 20;

/// A regular file, by the folder that it must be in if it was found there: who can write /boot or an ESP, and is not root here, does not
/// choose what else is read, nor how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootFile {
    folder: Option<PathBuf>,
    path: PathBuf,
}

impl From<PathBuf> for BootFile {
    /// As the operator named it: it may be anywhere.
    fn from(path: PathBuf) -> Self {
        Self { folder: None, path }
    }
}

impl BootFile {
    /// Found below a place of boot files; `path` from there.
    pub fn beneath(folder: &Path, path: impl AsRef<Path>) -> Self {
        Self { folder: Some(folder.into()), path: folder.join(path) }
    }

    /// All of its path, for people.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is there. A link that leads out of its folder is: whoever reads it is told what is wrong.
    pub fn is_there(&self) -> bool {
        self.open().map_or_else(|e| e.kind() == io::ErrorKind::CrossesDevices, |_| true)
    }

    /// # Errors
    /// As [`BootFile::whole`].
    pub fn readable(&self) -> Result<()> {
        self.open().map(|_| ()).map_err(|e| Error::system(self.path.display(), e))
    }

    /// Whether both have the same content. What can't be read is the same as nothing.
    pub fn is_same(&self, other: &Self) -> bool {
        self.same(other).unwrap_or(false)
    }

    fn same(&self, other: &Self) -> io::Result<bool> {
        let (one, other) = (self.open()?, other.open()?);
        let (about, about_other) = (one.metadata()?, other.metadata()?);
        if (about.dev(), about.ino()) == (about_other.dev(), about_other.ino()) {
            return Ok(true);
        }
        if about.len() != about_other.len() || about.len() > MAX_FILE {
            return Ok(false);
        }
        let (mut one, mut other) = (one.take(MAX_FILE), other.take(MAX_FILE));
        let (mut bytes, mut others) = (Vec::new(), Vec::new());
        loop {
            bytes.clear();
            others.clear();
            one.by_ref().take(CHUNK).read_to_end(&mut bytes)?;
            other.by_ref().take(CHUNK).read_to_end(&mut others)?;
            if bytes != others || bytes.is_empty() {
                return Ok(bytes == others);
            }
        }
    }

    /// The file system that it is on.
    ///
    /// # Errors
    /// As [`BootFile::whole`].
    pub fn device(&self) -> io::Result<u64> {
        Ok(self.open()?.metadata()?.dev())
    }

    fn open(&self) -> io::Result<File> {
        match &self.folder {
            None => bounded::open_regular(&self.path),
            Some(folder) => {
                let from_there = self.path.strip_prefix(folder).map_err(io::Error::other)?;
                bounded::file_beneath(folder, from_there)
            }
        }
    }

    /// All of it as text, if it has at most `max` bytes.
    ///
    /// # Errors
    /// As [`BootFile::whole`]; when it is not UTF-8.
    pub fn text(&self, max: usize) -> io::Result<String> {
        let bytes = bounded::read_open(self.open()?, max)?;
        String::from_utf8(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
    }

    /// The release of the kernel in it: the section of a unified kernel image, or what an x86 kernel has for boot loaders.
    pub fn release(&self) -> Option<String> {
        let (file, head) = self.head()?;
        let image = Image::within(head.extent()).ok()?;
        let Some(range) = image.range_of(stub::RELEASE).ok()? else { return release_of(&head.bytes) };
        first_word(&read_at(&file, &range, MAX_RELEASE + 1)?)
    }

    /// The command line that is in a unified kernel image.
    pub fn command_line(&self) -> Option<String> {
        let (file, head) = self.head()?;
        let range = Image::within(head.extent()).ok()?.range_of(stub::COMMAND_LINE).ok()??;
        let text = String::from_utf8(read_at(&file, &range, MAX_COMMAND_LINE)?).ok()?;
        Some(text.trim_matches(['\0', '\n', ' ']).to_owned())
    }

    /// What an image says of itself stands at its beginning, or is found by that.
    fn head(&self) -> Option<(File, Head)> {
        let file = self.open().ok()?;
        let size = file.metadata().ok()?.len();
        let mut bytes = Vec::new();
        (&file).take(HEAD).read_to_end(&mut bytes).ok()?;
        let more = usize::try_from(size).ok()?.checked_sub(bytes.len())?;
        Some((file, Head { bytes, more }))
    }

    /// All of it in memory, once. Not mapped: a package manager may be about to replace it, and a file that shrinks under a mapping kills
    /// the process.
    ///
    /// # Errors
    /// When it can't be read, is no regular file, or leads outside of its folder.
    pub fn whole(&self) -> Result<Vec<u8>> {
        let io = |e| Error::system(self.path.display(), e);
        let file = self.open().map_err(io)?;
        let size = file.metadata().map_err(io)?.len();
        if size > MAX_FILE {
            return Err(Error::system(
                self.path.display(),
                format!("expected at most {MAX_FILE} bytes, found {size}"),
            ));
        }
        let mut bytes = Vec::new();
        // One more, so that the end is found without growing.
        bytes.try_reserve_exact(size as usize + 1).map_err(|e| Error::system(self.path.display(), e))?;
        file.take(MAX_FILE).read_to_end(&mut bytes).map_err(io)?;
        Ok(bytes)
    }
}

/// The beginning of a file, and how many bytes follow.
struct Head {
    bytes: Vec<u8>,
    more: usize,
}

impl Head {
    /// With zeros for what was not read: headers are read of it, and no content.
    fn extent(&self) -> Extent<'_> {
        Extent { data: &self.bytes, zeros: self.more }
    }
}

/// At most `max` bytes of a range.
fn read_at(file: &File, range: &Range<usize>, max: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; range.len().min(max)];
    file.read_exact_at(&mut bytes, range.start as u64).ok()?;
    Some(bytes)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Behind what is read of an image first.
    const FAR: usize = 2 * HEAD as usize;

    /// An image with these sections far behind its headers, and what a bzImage says of itself.
    pub fn image(sections: &[(&str, &[u8])], kernel: Option<&str>) -> Vec<u8> {
        let far = [(".far", &[0; FAR][..], FAR)];
        let sections = sections.iter().map(|(name, content)| (*name, *content, content.len()));
        let mut file = halfkey_testkit::pe::image(&far.into_iter().chain(sections).collect::<Vec<_>>(), b"");
        if let Some(text) = kernel {
            // The headers end before, with as few sections.
            let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
            put(0x202, b"HdrS");
            put(0x20e, &0x80u16.to_le_bytes());
            put(0x280, text.as_bytes());
        }
        file
    }

    fn release(content: &[u8]) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("image"), content).unwrap();
        BootFile::beneath(folder.path(), "image").release()
    }

    #[test]
    fn what_an_image_says_of_its_kernel_is_read_with_a_bound() {
        let of = |text: &[u8]| release(&image(&[(".linux", &[7; 0x3000]), (".uname", text)], None));
        assert_eq!(of(b"6.12.1\n").unwrap(), "6.12.1");
        assert_eq!(of(b"6.12.1\0\0").unwrap(), "6.12.1");
        for text in [&b"\n6.12.1"[..], &[b'6'; 129], &[b'6'; 4096], b"\xff6"] {
            assert_eq!(of(text), None);
        }
        // The section counts where both are there.
        let both = image(&[(".uname", b"6.12.2")], Some("6.12.1 (x) #1"));
        assert_eq!(release(&both).unwrap(), "6.12.2");
        assert_eq!(release(&image(&[], Some("6.12.1 (x) #1"))).unwrap(), "6.12.1");
        // It says more than there is.
        for end in [0, 0x40, 0x210, FAR, FAR + 3] {
            assert_eq!(release(&both[..end]), None, "{end:#x}");
        }
    }

    proptest! {
        #[test]
        fn any_file_has_a_release_or_not(at in 0usize..0x400, with: Vec<u8>) {
            let mut file = image(&[(".uname", b"6.12.2")], Some("6.12.1"));
            for (byte, with) in file[at..].iter_mut().zip(with) {
                *byte = with;
            }
            release(&file);
        }
    }
}
