//! What an update has written, as its hook says: the files themselves, where they were made.
//!
//! What stands on an ESP or an unencrypted /boot may have been put there while the machine was off. It is the update's if it has the content of
//! these files, and if nobody could have put these there: then they are on no file system that boot files are read from but the root's own.

use super::file::BootFile;
use super::find::{Source, System};
use crate::error::{Error, Result};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// Empty where nobody says.
#[derive(Debug, Default)]
pub struct Written {
    files: Vec<BootFile>,
    /// One that somebody else could have written.
    foreign: Option<PathBuf>,
}

impl Written {
    /// These files, and what they were made of.
    ///
    /// # Errors
    /// When one can't be opened.
    pub fn of(written: &[PathBuf], made_of: &[PathBuf], system: &System) -> Result<Self> {
        let device = |place: PathBuf| Some(File::open(place).ok()?.metadata().ok()?.dev());
        let root = device(system.root.clone());
        let places: Vec<u64> = system.places().into_iter().filter_map(device).collect();
        let mut foreign = None;
        for path in written.iter().chain(made_of) {
            let found = BootFile::from(path.clone()).device();
            let found = found.map_err(|e| Error::system(path.display(), e))?;
            if is_foreign(found, root, &places) {
                foreign.get_or_insert_with(|| path.clone());
            }
        }
        Ok(Self { files: written.iter().cloned().map(BootFile::from).collect(), foreign })
    }

    /// Whether all of it has the content of one of them.
    pub fn has(&self, source: &Source) -> bool {
        !self.files.is_empty()
            && source.files().all(|file| self.files.iter().any(|written| written.is_same(file)))
    }

    /// Why what is proposed can't be called the update's; empty if it can, none if nobody said so.
    pub fn doubt(&self, source: &Source) -> Option<String> {
        match &self.foreign {
            _ if self.files.is_empty() => None,
            _ if !self.has(source) => Some("it is not what the update has written".to_owned()),
            Some(path) => Some(format!(
                "the update has it from {}, and that is on a file system that others can write while the machine is off",
                path.display()
            )),
            None => Some(String::new()),
        }
    }
}

/// On the file system of a place of boot files, if that is not the root's.
fn is_foreign(device: u64, root: Option<u64>, places: &[u64]) -> bool {
    Some(device) != root && places.contains(&device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_a_boot_partition_is_foreign() {
        let (root, boot, esp, tmp) = (1, 2, 3, 4);
        for (device, places, foreign) in [
            (boot, &[boot, esp][..], true),
            (esp, &[root, esp], true),
            (root, &[root, esp], false),
            (tmp, &[boot, esp], false),
            (boot, &[], false),
        ] {
            assert_eq!(is_foreign(device, Some(root), places), foreign, "{device} {places:?}");
        }
        assert!(is_foreign(boot, None, &[boot]));
    }
}
