//! Where things are: the work tree, the cache, and the programs under test.

use crate::error::{Context, Result};
use halfkey_testkit::programs::{Programs, target, tree};
use sha2::{Digest, Sha256};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// What the dracut module's folder is called: dracut keeps 50 to 59 for modules that are not its own.
pub const MODULE: &str = "55halfkey";

/// The folders and programs of one run.
#[derive(Clone, Debug)]
pub struct Paths {
    /// Root of the work tree.
    pub tree: PathBuf,
    /// What is built once: packages, initrds, disks. Safe to delete.
    pub cache: PathBuf,
    /// Logs and disks of this run.
    pub run: PathBuf,
    /// The programs under test.
    pub programs: Programs,
    /// The dracut module's folder.
    pub module: PathBuf,
}

impl Paths {
    /// Finds everything. `HALFKEY_AGENT`, `HALFKEY_VERIFIER`, `HALFKEY_TENANT`, `HALFKEY_QEMU_CACHE` and
    /// `HALFKEY_QEMU_RUN` take precedence over `dist/` and `target/release/`.
    ///
    /// # Errors
    /// If a folder can't be made. Programs that are missing are only reported when they are used.
    pub fn find() -> Result<Self> {
        let (tree, target) = (tree(), target());
        let cache =
            env::var_os("HALFKEY_QEMU_CACHE").map_or_else(|| target.join("qemu-cache"), PathBuf::from);
        let run = env::var_os("HALFKEY_QEMU_RUN").map_or_else(|| target.join("qemu-run"), PathBuf::from);
        for folder in [&cache, &run] {
            fs::create_dir_all(folder).context(format_args!("can't make {}", folder.display()))?;
        }
        Ok(Self {
            programs: Programs::released(),
            module: tree.join("dracut-module").join(MODULE),
            tree: tree.to_path_buf(),
            cache,
            run,
        })
    }
}

/// A short name for a set of inputs: the same inputs, the same name.
pub struct Key(Sha256);

impl Key {
    /// `what` names the kind of thing that is cached.
    pub fn new(what: &str) -> Self {
        Self(Sha256::new()).text(what)
    }

    /// Adds a text.
    pub fn text(mut self, text: &str) -> Self {
        self.0.update((text.len() as u64).to_le_bytes());
        self.0.update(text);
        self
    }

    /// Adds the content of a file.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn file(mut self, path: &Path) -> Result<Self> {
        let content = fs::read(path).context(format_args!("can't read {}", path.display()))?;
        self.0.update((content.len() as u64).to_le_bytes());
        self.0.update(&content);
        Ok(self)
    }

    /// Adds the names and contents of a folder's files (one level).
    ///
    /// # Errors
    /// If one can't be read.
    pub fn folder(mut self, path: &Path) -> Result<Self> {
        let entries = fs::read_dir(path).context(format_args!("can't read {}", path.display()))?;
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        files.sort();
        for file in files.iter().filter(|file| file.is_file()) {
            self = self.text(&file.file_name().unwrap_or_default().to_string_lossy()).file(file)?;
        }
        Ok(self)
    }

    /// Sixteen hex digits.
    pub fn hex(self) -> String {
        self.0.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
