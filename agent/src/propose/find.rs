//! What the boot loader will start for a kernel version: by the places that distributions and kernel-install use.
//!
//! | place (below /efi, /boot or /boot/efi) | what |
//! | --- | --- |
//! | `EFI/Linux/*.efi` | unified kernel images (Boot Loader Specification, type 2), by name or by what is in them |
//! | `loader/entries/*.conf` | kernel, initrds and options (type 1) |
//! | `vmlinuz-VERSION`, `initrd.img-VERSION` | as Debian names them for GRUB |
//!
//! Files that are there now: which of several kernels will be started is the boot loader's choice. Somebody else may be able to write these
//! places: what is found there is read below its place only, and nothing that stands there (a name, a time, the text of an entry) decides between
//! two: [`choice`] does, or nobody.

use super::entry::{Entry, entry, is_variable};
use super::file::BootFile;
use super::grub;
use super::written::Written;
use crate::bounded;
use crate::error::{Error, Kind, Result};
use crate::firmware::{self, Came};
use choice::{Candidate, What};
use halfkey_measure::grub::BOOT_IMAGE;
use std::path::{Path, PathBuf};

mod choice;
mod lines;
pub use lines::NextLine;

/// Of boot files.
const PLACES: [&str; 3] = ["efi", "boot", "boot/efi"];
/// GRUB's environment, below a place of boot files.
const ENVIRONMENTS: [&str; 2] = ["grub2/grubenv", "grub/grubenv"];
/// Entries of type 1, below a place of boot files.
pub(super) const ENTRIES: &str = "loader/entries";
/// Names looked at in one folder.
const MAX_NAMES: usize = 4096;
/// Of an entry, in bytes; systemd-boot reads no more.
const MAX_ENTRY: usize = 64 << 10;

/// What will be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A unified kernel image.
    Uki(BootFile),
    /// A kernel.
    Kernel {
        /// Its file.
        kernel: BootFile,
        /// In the order of loading.
        initrds: Vec<BootFile>,
        /// All that the boot loader will pass; none if that is not known.
        command_line: Option<String>,
    },
}

/// The running system, as far as it tells something about the next one.
#[derive(Clone, Debug)]
pub struct System {
    /// `/`; in tests another folder.
    pub root: PathBuf,
    /// Instead of /efi, /boot and /boot/efi.
    pub boot_root: Option<PathBuf>,
    /// Command line of the running kernel.
    pub command_line: String,
    /// Version of the running kernel.
    pub release: String,
    /// How it was started; none if the firmware's log does not tell.
    pub came: Option<Came>,
}

impl System {
    /// This one.
    pub fn running(boot_root: Option<PathBuf>) -> Self {
        let read = |path| bounded::read_text(path, 64 << 10).unwrap_or_default();
        Self {
            root: "/".into(),
            boot_root,
            command_line: read("/proc/cmdline"),
            release: read("/proc/sys/kernel/osrelease"),
            came: firmware::came(),
        }
    }

    /// What will be started for this version: what an update has just written, whatever stands beside it; else what comes as this boot did.
    ///
    /// # Errors
    /// When nothing is there, or what is named is not, or what is there differs.
    pub fn find(&self, version: &str, written: &Written) -> Result<Source> {
        if !is_version(version) {
            return Err(Error::usage(format!(
                "expected a kernel version, found '{}'",
                version.escape_debug()
            )));
        }
        let roots = self.roots();
        let found = self.candidates(&roots, version)?;
        let of_update = |one: &Candidate| one.source.as_ref().is_ok_and(|source| written.has(source));
        let (of_update, others): (Vec<_>, Vec<_>) = found.into_iter().partition(of_update);
        let found = match self.as_this_boot(of_update.clone()) {
            // The first image of a machine that comes by something else yet.
            none if none.is_empty() && !of_update.is_empty() => of_update,
            none if none.is_empty() => self.as_this_boot(others),
            found => found,
        };
        match choice::one(found, version)? {
            Some(source) => Ok(source),
            None => {
                let places: Vec<_> = roots.iter().map(|root| root.display().to_string()).collect();
                let kind = self.came.map(|came| format!(", as this boot came: {came}")).unwrap_or_default();
                Err(missing(format!("no kernel {version} is in {}{kind}", places.join(", "))).hint(
                    "name the files: --uki FILE, --entry FILE, or --kernel FILE --initrd FILE --cmdline TEXT",
                ))
            }
        }
    }

    /// What this boot entry starts.
    ///
    /// # Errors
    /// When it is in no `loader/entries`, can't be read, or names what is not there.
    pub fn of_entry(&self, path: &Path, version: &str) -> Result<Source> {
        let root = path.ancestors().nth(3).filter(|_| path.parent().is_some_and(|at| at.ends_with(ENTRIES)));
        let root = root.ok_or_else(|| {
            Error::usage(format!("expected an entry in {ENTRIES}, found {}", path.display()))
        })?;
        let file = BootFile::from(path.to_owned());
        let text = file.text(MAX_ENTRY).map_err(|e| Error::system(path.display(), e))?;
        let entry = entry(&text);
        let version = if entry.version.is_empty() { version } else { &entry.version };
        self.entry(root, &file, &entry, version)
    }

    /// All that fits a version, of every kind.
    fn candidates(&self, roots: &[PathBuf], version: &str) -> Result<Vec<Candidate>> {
        let mut found = Vec::new();
        for root in roots {
            let ukis = ukis(root, version)?;
            found.extend(ukis.map(|file| Candidate::new(What::Uki, file.clone(), Ok(Source::Uki(file)))));
            for (file, entry) in entries(root, version)? {
                let what = if entry.uki.is_some() { What::EntryOfUki } else { What::Entry };
                let source = self.entry(root, &file, &entry, version);
                let options = Some(self.expanded(&entry.options));
                found.push(Candidate { options, ..Candidate::new(what, file, source) });
            }
        }
        found.extend(self.plain(roots, version));
        Ok(found)
    }

    /// Whether GRUB started the running system, as far as its command line tells.
    pub fn by_grub(&self) -> bool {
        self.boot_image().is_some()
    }

    pub(super) fn roots(&self) -> Vec<PathBuf> {
        match &self.boot_root {
            Some(root) => vec![root.clone()],
            None => PLACES.iter().map(|root| self.root.join(root)).collect(),
        }
    }

    /// Where boot files may be, wherever they are looked for.
    pub(super) fn places(&self) -> Vec<PathBuf> {
        self.boot_root.iter().cloned().chain(PLACES.iter().map(|root| self.root.join(root))).collect()
    }

    fn entry(&self, root: &Path, file: &BootFile, entry: &Entry, version: &str) -> Result<Source> {
        let file = file.path().display();
        let resolve = |path: &String| {
            resolved(root, path).ok_or_else(|| {
                missing(format!("{file} names {path}, and no such file is in {}", root.display()))
            })
        };
        if let Some(uki) = &entry.uki {
            return resolve(uki).map(Source::Uki);
        }
        let linux = entry.linux.as_ref();
        let kernel = linux.ok_or_else(|| missing(format!("{file} names no kernel")))?;
        let options = self.expanded(&entry.options);
        Ok(Source::Kernel {
            kernel: resolve(kernel)?,
            initrds: entry.initrds.iter().map(resolve).collect::<Result<_>>()?,
            command_line: Some(self.passed(version, Some(&options), &entry.initrds)),
        })
    }

    /// Without GRUB's variables: `$kernelopts` is in its environment, `$tuned_params` and others are empty unless somebody has set them.
    fn expanded(&self, options: &str) -> String {
        if !options.contains('$') {
            return options.to_owned();
        }
        let kernelopts = || {
            let files =
                self.roots().into_iter().flat_map(|root| ENVIRONMENTS.map(|name| (root.clone(), name)));
            let read =
                |(root, name): (PathBuf, &str)| bounded::read_beneath(&root, Path::new(name), MAX_ENTRY).ok();
            let text = String::from_utf8(files.filter_map(read).next()?).ok()?;
            text.lines().find_map(|line| line.strip_prefix("kernelopts=")).map(|line| line.trim().to_owned())
        };
        let words = options.split_ascii_whitespace().filter_map(|word| match word {
            "$kernelopts" | "${kernelopts}" => kernelopts(),
            word if is_variable(word) => None,
            word => Some(word.to_owned()),
        });
        words.collect::<Vec<_>>().join(" ")
    }

    /// Kernels by their names, in each place that has one: a name decides nothing.
    fn plain(&self, roots: &[PathBuf], version: &str) -> Vec<Candidate> {
        let there =
            |root: &Path, name: String| Some(BootFile::beneath(root, name)).filter(BootFile::is_there);
        let names = [format!("initrd.img-{version}"), format!("initramfs-{version}.img")];
        let configured = bounded::read_text(self.root.join("etc/kernel/cmdline"), MAX_ENTRY).ok();
        // GRUB has its own configuration, which the running system was booted with.
        let options = configured.filter(|_| self.boot_image().is_none());
        let candidate = |root: &PathBuf| {
            let kernel = there(root, format!("vmlinuz-{version}"))?;
            let initrd = names.iter().find_map(|name| there(root, name.clone()));
            let initrd = initrd.ok_or_else(|| {
                missing(format!("{} has no {} beside it", kernel.path().display(), names[0]))
                    .hint("build it first, or name the files: --kernel FILE --initrd FILE --cmdline TEXT")
            });
            let source = initrd.map(|initrd| Source::Kernel {
                kernel: kernel.clone(),
                initrds: vec![initrd],
                command_line: Some(self.passed(version, options.as_deref(), &[])),
            });
            Some(Candidate::new(What::Plain, kernel, source))
        };
        roots.iter().filter_map(candidate).collect()
    }

    fn boot_image(&self) -> Option<&str> {
        self.command_line.split_ascii_whitespace().find(|word| word.starts_with(BOOT_IMAGE))
    }

    /// The command line as the boot loader will pass it: GRUB puts the name of the kernel before the options, systemd-boot
    /// those of the initrds. `options` of an entry; without one those of the running system.
    fn passed(&self, version: &str, options: Option<&str>, initrds: &[String]) -> String {
        let own = |word: &&str| !word.starts_with(BOOT_IMAGE) && !word.starts_with("initrd=");
        let running = || self.command_line.split_ascii_whitespace().filter(own).collect::<Vec<_>>().join(" ");
        let options = options.map_or_else(running, str::to_owned);
        let before: Vec<String> = match self.boot_image() {
            Some(image) if self.release.is_empty() => vec![image.to_owned()],
            Some(image) => vec![image.replace(&self.release, version)],
            None => initrds.iter().map(|path| format!("initrd={}", path.replace('/', "\\"))).collect(),
        };
        let words = before.into_iter().chain((!options.is_empty()).then_some(options));
        words.collect::<Vec<_>>().join(" ")
    }
}

/// The file that an entry names, by its path on its partition. Where the place is no file system of its own, that begins with the names
/// of the place.
fn resolved(root: &Path, path: &str) -> Option<BootFile> {
    let path = Path::new(path.trim_start_matches('/'));
    let mut ends = root.ancestors().skip(1).filter_map(|before| root.strip_prefix(before).ok());
    let behind = ends.find_map(|end| path.strip_prefix(end).ok());
    let paths = [Some(path), behind].into_iter().flatten();
    paths.map(|path| BootFile::beneath(root, path)).find(BootFile::is_there)
}

fn missing(message: String) -> Error {
    Error::new(Kind::System, message)
}

fn is_version(text: &str) -> bool {
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"._+~-".contains(byte);
    (1..=128).contains(&text.len()) && text.as_bytes().iter().all(fits)
}

/// Files of a folder below a place whose names end like this, whatever the case, in the order of their names.
///
/// # Errors
/// When there are too many to look at all: one that is not looked at could be the one that was meant.
fn files(root: &Path, folder: &'static str, suffix: &'static str) -> Result<impl Iterator<Item = BootFile>> {
    let mut names = bounded::names_beneath(root, Path::new(folder), MAX_NAMES + 1).unwrap_or_default();
    if names.len() > MAX_NAMES {
        let folder = root.join(folder);
        return Err(missing(format!("{}: expected at most {MAX_NAMES} files, found more", folder.display())));
    }
    names.sort();
    let names = names.into_iter().map(PathBuf::from);
    let ends = move |name: &PathBuf| name.extension().is_some_and(|e| e.eq_ignore_ascii_case(suffix));
    Ok(names.filter(ends).map(move |name| BootFile::beneath(root, Path::new(folder).join(name))))
}

/// UKIs whose names have this version: `TOKEN-VERSION.efi` and `TOKEN-VERSION+TRIES.efi` of kernel-install,
/// `linux-VERSION-MACHINE.efi` of dracut. Others (`arch-linux.efi`) say in them which kernel they have.
fn ukis(root: &Path, version: &str) -> Result<impl Iterator<Item = BootFile>> {
    Ok(files(root, "EFI/Linux", "efi")?.filter(move |file| {
        let name = file.path().file_stem().unwrap_or_default().to_string_lossy();
        let mut named = name.match_indices(version).filter(|(at, _)| {
            let (before, after) = (&name[..*at], &name[at + version.len()..]);
            (before.is_empty() || before.ends_with('-')) && ends_version(after)
        });
        named.next().is_some() || file.release().as_deref() == Some(version)
    }))
}

/// Whether a version ends where this follows: nothing, tries, or a machine id. A further part of a version does not.
fn ends_version(after: &str) -> bool {
    let machine = |text: &str| {
        let id = text.split('-').next().unwrap_or_default();
        id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    after.is_empty() || after.starts_with('+') || after.strip_prefix('-').is_some_and(machine)
}

fn entries(root: &Path, version: &str) -> Result<impl Iterator<Item = (BootFile, Entry)>> {
    let read = |file: BootFile| Some((file.text(MAX_ENTRY).ok()?, file));
    let found = files(root, ENTRIES, "conf")?.filter_map(read);
    let found = found.map(|(text, file)| (file, entry(&text)));
    Ok(found.filter(move |(file, entry)| {
        let image = || entry.image().filter(|_| entry.version.is_empty());
        let release = || resolved(root, image()?)?.release();
        entry.is_of(file.path(), version) || release().as_deref() == Some(version)
    }))
}

#[cfg(test)]
mod tests;
