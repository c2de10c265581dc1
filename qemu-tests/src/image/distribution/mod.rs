//! What differs from one distribution to the next. Adding one is a file here, and its line in [`ALL`]; `docs/architecture.md` says
//! what to look up.

mod debian12;
mod debian13;
mod debian13nm;
mod testing;

use crate::error::{Context, Result};

/// Those that machines of the tests can run. The first is what a run is about if nobody says otherwise.
pub static ALL: &[Distribution] = &[debian12::DEBIAN, debian13::DEBIAN, testing::DEBIAN];

/// What one of them is otherwise: by name only, and a column of docs/matrix.md if it was asked for.
pub static VARIANTS: &[Distribution] = &[debian13nm::DEBIAN];

/// A release of a distribution whose packages apt fetches.
#[derive(Debug)]
pub struct Distribution {
    /// What `--on` is told, and what names of files begin with.
    pub name: &'static str,
    /// What people read.
    pub title: &'static str,
    /// Where its packages come from: the release itself, then its updates.
    pub sources: &'static [Source],
    /// What may be expected of these.
    pub stage: Stage,
    /// What is in the root of a machine besides the essential packages: systemd, dracut and what that needs for the agent.
    pub include: &'static [&'static str],
    /// What scenarios call in the running system, and dracut does not see: it would take it along.
    pub tools: &'static [&'static str],
    /// Stands for the newest kernel that is small and has drivers for virtio and TPMs.
    pub kernel: &'static str,
    /// What the names of such kernels end with.
    pub flavour: &'static str,
    /// Where a kernel before its newest is, should it have but one.
    pub earlier: Option<Source>,
    /// Where a kernel is that measures each initrd, wherever it comes from, should the newest of [`Self::sources`] not do so.
    pub backports: Source,
    /// What starts a kernel.
    pub loaders: Loaders,
    /// dracut's modules that are no use to a machine of the tests: firmware reads and measures every byte of an initramfs, and
    /// under emulation that shows.
    pub omit: &'static [&'static str],
    /// The same of the kernel's modules.
    pub omit_drivers: &'static [&'static str],
    /// Where an initramfs has dracut's hooks. (A file that goes through a link would take the place of the link, and of all that
    /// is behind it.)
    pub hooks: &'static str,
    /// Words on the kernel's command line that only the tests need.
    pub cmdline: &'static [&'static str],
    /// Words that dracut finds in the initramfs, as if they were on the kernel's command line, and nobody else does.
    pub in_initramfs: &'static str,
    /// Files in the running system, besides those that all have: path and content.
    pub files: &'static [(&'static str, &'static str)],
    /// Units that are off in the running system: nothing that is tested, but seconds under emulation.
    pub masked: &'static [&'static str],
    /// QEMU's processor, where it is emulated.
    pub cpu: &'static str,
}

/// What may be expected of a suite.
#[derive(Clone, Copy, Debug)]
pub enum Stage {
    /// It is released: its packages are to be had, and the host's keys of Debian know it.
    Stable,
    /// It is not yet. A mirror that copies it now and then has a list that says it is out of date; or it has none, which is said and
    /// is no failure.
    Moving {
        /// Whose debian-archive-keyring holds the keys that sign it.
        keys: Source,
    },
}

/// A suite of an archive.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// Where it is.
    pub archive: &'static str,
    /// Its name there.
    pub suite: &'static str,
}

/// What a firmware or a loader starts before a kernel, as paths in packages that are unpacked and not installed.
#[derive(Debug)]
pub struct Loaders {
    /// The packages.
    pub packages: &'static [&'static str],
    /// shim, signed by Microsoft.
    pub shim: &'static str,
    /// GRUB, signed by the distribution.
    pub grub: &'static str,
    /// systemd's EFI stub, for unified kernel images.
    pub stub: &'static str,
    /// systemd-boot.
    pub systemd_boot: &'static str,
}

/// [`ALL`] and [`VARIANTS`].
pub fn every() -> impl Iterator<Item = &'static Distribution> {
    ALL.iter().chain(VARIANTS)
}

/// The distribution with this name.
///
/// # Errors
/// If there is none: the error lists them.
pub fn find(name: &str) -> Result<&'static Distribution> {
    let known = || every().map(|known| known.name).collect::<Vec<_>>().join(", ");
    every()
        .find(|known| known.name == name)
        .context(format_args!("expected a distribution, one of {}, found {name:?}", known()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_fit_into_paths() {
        let all: Vec<_> = every().collect();
        for (number, one) in all.iter().enumerate() {
            assert!(one.name.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{}", one.name);
            assert!(all[..number].iter().all(|other| other.name != one.name), "{}", one.name);
            assert_eq!(find(one.name).unwrap().name, one.name);
        }
        assert!(find("debian").unwrap_err().to_string().contains("debian12, debian13, testing"));
    }
}
