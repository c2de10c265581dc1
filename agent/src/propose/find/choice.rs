//! Which of several boots that fit a version is meant. Whoever has the disk can add files to an ESP or an unencrypted /boot while the machine is
//! off, under any name and of any time: only how this boot came, by the firmware's log, and what files contain is asked.

use super::{BootFile, Source, System};
use crate::error::{Error, Kind, Result};
use crate::firmware::Came;

/// Most names in a message.
const SHOWN: usize = 8;

/// What fits a version.
#[derive(Clone)]
pub(super) struct Candidate {
    pub what: What,
    /// The UKI, the entry or the kernel.
    pub file: BootFile,
    /// What it starts, or why it does not.
    pub source: Result<Source>,
    /// Of an entry, without GRUB's variables.
    pub options: Option<String>,
}

/// A kind of boot file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Uki,
    EntryOfUki,
    Entry,
    /// `vmlinuz-VERSION`
    Plain,
}

impl Candidate {
    /// What can't be read can't be started.
    pub fn new(what: What, file: BootFile, source: Result<Source>) -> Self {
        let source = source.and_then(|source| source.readable().map(|()| source));
        Self { what, file, source, options: None }
    }

    fn is_started(&self) -> Option<&Source> {
        self.source.as_ref().ok()
    }

    /// Whether this is a kernel by its name, and the other the entry of just that one.
    fn is_copied_to(&self, other: &Self) -> bool {
        if (self.what, other.what) != (What::Plain, What::Entry) {
            return false;
        }
        match (self.is_started(), other.is_started()) {
            (
                Some(Source::Kernel { kernel, initrds, .. }),
                Some(Source::Kernel { kernel: copy, initrds: copies, .. }),
            ) => {
                kernel.is_same(copy)
                    && initrds.iter().all(|initrd| copies.iter().any(|copy| initrd.is_same(copy)))
            }
            _ => false,
        }
    }
}

impl System {
    /// Those of the kind that this boot is of. Where that is not known, a kernel without an entry counts for nothing beside others.
    pub(super) fn as_this_boot(&self, mut found: Vec<Candidate>) -> Vec<Candidate> {
        let (uki, grub_or_kernel) = ([What::Uki, What::EntryOfUki], [What::Entry, What::Plain]);
        match self.came {
            Some(Came::Uki) => found.retain(|one| uki.contains(&one.what)),
            Some(Came::Grub { entries: false }) => found.retain(|one| one.what == What::Plain),
            Some(Came::Grub { entries: true } | Came::Kernel) => {
                found.retain(|one| grub_or_kernel.contains(&one.what));
            }
            None if self.by_grub() => found.retain(|one| grub_or_kernel.contains(&one.what)),
            None => {}
        }
        // GRUB that reads entries starts these, and what is beside them by name alone is what they are made of.
        if matches!(self.came, None | Some(Came::Grub { .. }))
            && found.iter().any(|one| one.what != What::Plain)
        {
            found.retain(|one| one.what != What::Plain);
        }
        found
    }
}

/// The one that is left, or several that are the same; none if there are none.
///
/// # Errors
/// When they differ, or none of them could be started.
pub(super) fn one(mut found: Vec<Candidate>, version: &str) -> Result<Option<Source>> {
    // kernel-install copies it from there: the entry says with what it is started.
    let copied: Vec<bool> =
        found.iter().map(|one| found.iter().any(|other| one.is_copied_to(other))).collect();
    let mut copied = copied.into_iter();
    found.retain(|_| copied.next() != Some(true));
    let (started, mut others): (Vec<_>, Vec<_>) = found.into_iter().partition(|one| one.source.is_ok());
    let mut sources = started.iter().filter_map(Candidate::is_started);
    match sources.next() {
        None if others.is_empty() => Ok(None),
        None => others.swap_remove(0).source.map(Some),
        Some(first) if sources.all(|other| first.is_same(other)) => Ok(Some(first.clone())),
        Some(_) => Err(several(&started, version)),
    }
}

fn several(found: &[Candidate], version: &str) -> Error {
    let names = found.iter().take(SHOWN).map(|one| one.file.path().display().to_string());
    let mut names: Vec<_> = names.map(|name| name.escape_debug().to_string()).collect();
    if found.len() > SHOWN {
        names.push(format!("{} more", found.len() - SHOWN));
    }
    let message =
        format!("expected one boot of kernel {version}, found several that differ: {}", names.join(", "));
    Error::new(Kind::System, message).hint(
        "what did you not put there? Remove it, or name the one that will be booted: --uki FILE, --entry FILE, or --kernel FILE --initrd FILE --cmdline TEXT",
    )
}

impl Source {
    /// All files of it.
    pub fn files(&self) -> impl Iterator<Item = &BootFile> {
        let (first, others): (_, &[BootFile]) = match self {
            Self::Uki(uki) => (uki, &[]),
            Self::Kernel { kernel, initrds, .. } => (kernel, initrds),
        };
        std::iter::once(first).chain(others)
    }

    fn readable(&self) -> Result<()> {
        self.files().try_for_each(BootFile::readable)
    }

    /// Whether another measures the same.
    fn is_same(&self, other: &Self) -> bool {
        let line = |source: &Self| match source {
            Self::Uki(_) => None,
            Self::Kernel { command_line, .. } => Some(command_line.clone()),
        };
        line(self) == line(other)
            && self.files().count() == other.files().count()
            && self.files().zip(other.files()).all(|(one, other)| one.is_same(other))
    }
}
