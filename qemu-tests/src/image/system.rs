//! What boots on a machine: kernel, initramfs and command line, and the way on which the firmware gets to them.

use super::cache::cached;
use super::disk::{Content, EspFile};
use super::initrd::{ExtraFile, with_files};
use super::keys::{Keys, Signer, revoked};
use super::packages::{Kernel, Packages};
use super::uki;
use crate::error::{Context, Result};
use crate::paths::{Key, Paths};
use crate::qemu::Firmware;
use crate::variables::Trust;
use std::fs;
use std::path::{Path, PathBuf};

/// From the firmware to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootPath {
    /// A unified kernel image; no Secure Boot.
    Uki,
    /// A unified kernel image under Secure Boot with the owner's own keys.
    SignedUki,
    /// shim and GRUB with the distribution's signed kernel, under Secure Boot with Microsoft's keys.
    Grub,
    /// systemd-boot with a boot loader entry of type 1; no Secure Boot.
    Entry,
}

impl BootPath {
    /// For names of files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uki => "uki-no-secure-boot",
            Self::SignedUki => "uki-secure-boot-own-keys",
            Self::Grub => "grub-shim-ms-keys",
            Self::Entry => "systemd-boot-type1",
        }
    }

    /// The firmware that it takes.
    pub fn firmware(self) -> Firmware {
        match self {
            Self::Uki | Self::Entry => Firmware::Plain,
            Self::SignedUki | Self::Grub => Firmware::SecureBoot,
        }
    }

    /// Whom the firmware trusts at first.
    ///
    /// # Errors
    /// If a key can't be read.
    pub fn trust(self, keys: &Keys) -> Result<Trust> {
        Ok(match self {
            Self::Uki | Self::Entry => Trust::Nobody,
            Self::SignedUki => Trust::Own(keys.enrolled(&[Signer::Owner], REVOKED)?),
            Self::Grub => Trust::Microsoft(revoked(REVOKED_BY_MICROSOFT)),
        })
    }
}

/// Images in the dbx of a machine with its owner's keys.
pub const REVOKED: u32 = 3;
/// About as many are in that of a PC of today.
const REVOKED_BY_MICROSOFT: u32 = 400;

/// Which kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// The last but one in the archive.
    Previous,
    /// The newest.
    Newest,
    /// One that measures each initrd, wherever it comes from; of its backports, if the distribution itself has none.
    Measuring,
}

/// A boot loader entry of type 1, and who wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The owner.
    Owners,
    /// Somebody who took its line `initrd` away: the options begin with `initrd=`, and here, from the top of the partition, is the
    /// initramfs.
    Names(String),
    /// Somebody who did the same without an initramfs.
    Bare,
    /// Somebody who names a file that is no kernel, so that the loader gives up; a second entry of the firmware starts the
    /// kernel with these options.
    Fails(String),
}

/// What boots.
#[derive(Clone, Debug)]
pub struct System {
    /// How the firmware gets to it.
    pub path: BootPath,
    /// The kernel, with its initramfs.
    pub release: Release,
    /// The kernel's command line.
    pub cmdline: String,
    /// Behind the initramfs.
    pub extra: Vec<ExtraFile>,
    /// Who signed the unified kernel image.
    pub signer: Option<Signer>,
    /// A command in GRUB's configuration, before the entries.
    pub grub_command: Option<String>,
    /// What systemd-boot reads.
    pub entry: Entry,
}

impl System {
    /// The newest kernel with this command line, as the owner of the machine would boot it.
    pub fn new(path: BootPath, cmdline: String) -> Self {
        let signer = (path == BootPath::SignedUki).then_some(Signer::Owner);
        let (release, entry) = (Release::Newest, Entry::Owners);
        Self { path, release, cmdline, extra: Vec::new(), signer, grub_command: None, entry }
    }
}

/// What systems are made from.
pub(super) struct Workshop<'a> {
    pub paths: &'a Paths,
    pub packages: &'a Packages,
    pub keys: &'a Keys,
    pub kernel: &'a Kernel,
    pub initrd: &'a Path,
}

const LOADER_CONF: &str = "loader/loader.conf";

impl Workshop<'_> {
    /// The unified kernel image of a system that has one.
    pub fn uki(&self, system: &System) -> Result<PathBuf> {
        let image =
            uki::build(self.paths, &self.packages.stub, self.kernel, &self.initrd(system)?, &system.cmdline)?;
        system.signer.map_or(Ok(image.clone()), |signer| self.keys.sign(&image, signer))
    }

    /// The files of its EFI system partition; the first is what the firmware starts.
    pub fn files(&self, system: &System) -> Result<Vec<EspFile>> {
        let version = &self.kernel.version;
        let file =
            |path: &str, from: &Path| EspFile { path: path.into(), content: Content::File(from.into()) };
        let text = |path: &str, text: String| EspFile { path: path.into(), content: Content::Text(text) };
        let kernel = format!("linux/vmlinuz-{version}");
        let initrd = format!("linux/initrd.img-{version}");
        Ok(match system.path {
            BootPath::Uki | BootPath::SignedUki => {
                vec![file(&format!("EFI/Linux/linux-{version}.efi"), &self.uki(system)?)]
            }
            BootPath::Grub => vec![
                file("EFI/debian/shimx64.efi", &self.packages.shim),
                file("EFI/debian/grubx64.efi", &self.packages.grub),
                text("EFI/debian/grub.cfg", self.grub(system, &kernel, &initrd)),
                file(&kernel, &self.kernel.image),
                file(&initrd, &self.initrd(system)?),
            ],
            BootPath::Entry => {
                let mut files = vec![
                    file("EFI/systemd/systemd-bootx64.efi", &self.packages.systemd_boot),
                    text(LOADER_CONF, "timeout 0\n".into()),
                    text("loader/entries/linux.conf", self.entry(system, &kernel, &initrd)),
                    file(&kernel, &self.kernel.image),
                ];
                match &system.entry {
                    Entry::Owners | Entry::Fails(_) => files.push(file(&initrd, &self.initrd(system)?)),
                    Entry::Names(path) => files.push(file(path, &self.initrd(system)?)),
                    Entry::Bare => {}
                }
                files
            }
        })
    }

    fn initrd(&self, system: &System) -> Result<PathBuf> {
        if system.extra.is_empty() {
            return Ok(self.initrd.to_path_buf());
        }
        let mut key = Key::new("initrd with files 1").text(&self.initrd.to_string_lossy());
        for file in &system.extra {
            key = key.text(&file.path).text(&String::from_utf8_lossy(&file.content));
        }
        let key = key.hex();
        cached(self.paths.cache.join(format!("extra-{key}.img")), |partial| {
            let initrd =
                fs::read(self.initrd).context(format_args!("can't read {}", self.initrd.display()))?;
            fs::write(partial, with_files(&initrd, &system.extra)).context("can't write an initramfs")
        })
    }

    /// A configuration as `grub-mkconfig` writes it.
    fn grub(&self, system: &System, kernel: &str, initrd: &str) -> String {
        include_str!("../../guest/grub.cfg")
            .replace("@VERSION@", &self.kernel.version)
            .replace("@KERNEL@", &format!("/{kernel}"))
            .replace("@INITRD@", &format!("/{initrd}"))
            .replace("@CMDLINE@", &system.cmdline)
            .replace("@COMMAND@", system.grub_command.as_deref().unwrap_or("true"))
    }

    fn entry(&self, system: &System, kernel: &str, initrd: &str) -> String {
        let (version, options) = (&self.kernel.version, &system.cmdline);
        let rest = match &system.entry {
            Entry::Owners | Entry::Fails(_) => format!("initrd /{initrd}\noptions {options}"),
            Entry::Names(path) => format!("options {} {options}", names_initrd(path)),
            Entry::Bare => format!("options {options}"),
        };
        let linux = if matches!(system.entry, Entry::Fails(_)) { LOADER_CONF } else { kernel };
        format!("title Debian\nversion {version}\nlinux /{linux}\n{rest}\n")
    }
}

/// What systemd-boot puts before the options for the `initrd` line of an entry, and the kernel's EFI stub looks for.
pub fn names_initrd(path: &str) -> String {
    format!("initrd=\\{}", path.replace('/', "\\"))
}
