//! A file that the boot loader will start.

use crate::bounded;
use crate::error::{Error, Result};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Of an image or an initrd, in bytes. A UKI with firmware and drivers has 100 MiB.
const MAX_FILE: u64 = 1 << 30;

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

    /// Whether it is there, as far as that can be said without opening it.
    pub fn is_there(&self) -> bool {
        self.path.is_file()
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
