//! Where things are: the work tree, the cache, and the programs under test.

use crate::error::{Context, Error, Result};
use sha2::{Digest, Sha256};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// The folders and programs of one run.
#[derive(Clone, Debug)]
pub struct Paths {
    /// Root of the work tree.
    pub tree: PathBuf,
    /// What is built once: packages, initrds, disks. Safe to delete.
    pub cache: PathBuf,
    /// Logs and disks of this run.
    pub run: PathBuf,
    /// The static agent that goes into initramfs and root file system.
    pub agent: PathBuf,
    /// `halfkey-verifier`, run on this host.
    pub verifier: PathBuf,
    /// `halfkey`, run on this host.
    pub tenant: PathBuf,
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
        let tree = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the crate has a parent folder")?;
        let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| tree.join("target"), PathBuf::from);
        let program = |variable: &str, name: &str| -> PathBuf {
            let places = [tree.join("dist").join(name), target.join("release").join(name)];
            env::var_os(variable).map(PathBuf::from).unwrap_or_else(|| {
                // The newer one, so that a build of either kind is what gets tested.
                let age = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified()).ok();
                places.iter().max_by_key(|path| age(path)).expect("there are two places").clone()
            })
        };
        let cache =
            env::var_os("HALFKEY_QEMU_CACHE").map_or_else(|| target.join("qemu-cache"), PathBuf::from);
        let run = env::var_os("HALFKEY_QEMU_RUN").map_or_else(|| target.join("qemu-run"), PathBuf::from);
        for folder in [&cache, &run] {
            fs::create_dir_all(folder).context(format_args!("can't make {}", folder.display()))?;
        }
        Ok(Self {
            agent: env::var_os("HALFKEY_AGENT")
                .map_or_else(|| tree.join("dist/halfkey-agent"), PathBuf::from),
            verifier: program("HALFKEY_VERIFIER", "halfkey-verifier"),
            tenant: program("HALFKEY_TENANT", "halfkey"),
            module: tree.join("dracut-module/90halfkey"),
            tree: tree.to_path_buf(),
            cache,
            run,
        })
    }

    /// Checks that the programs under test were built.
    ///
    /// # Errors
    /// Names the first that is missing, and how to build it.
    pub fn check_programs(&self) -> Result<()> {
        for program in [&self.agent, &self.verifier, &self.tenant] {
            if !program.is_file() {
                let text = format!("{} is missing\nhint: make dist", program.display());
                return Err(Error::new(text));
            }
        }
        Ok(())
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
