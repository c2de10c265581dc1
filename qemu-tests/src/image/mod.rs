//! Images from a distribution's packages, without root mounts, loop devices or device-mapper. What the host runs does not matter:
//! [`distribution`] says what each release calls things, and `tree` is where its own programs run. Each layer is built once and
//! cached under a name that is a hash of what went into it.
//!
//! | layer | made by | seconds |
//! | --- | --- | --- |
//! | [`packages`] | apt with lists of its own; mmdebstrap; apt-get download of two kernels and the loaders | 70 |
//! | [`initrd`] | the distribution's dracut with the module and agent under test, for each kernel | 30 |
//! | [`compared`] | the same, next to a peer's: for `halfkey-bench` | 60 |
//! | [`keys`] | openssl, sbsign | 1 |
//! | [`uki`] | objcopy: stub, kernel, initrd, command line | 1 |
//! | [`luks`] | cryptsetup's header, [`xts`] over the file system | 10 |
//! | [`system`] | the files of a boot path | 0 |
//! | [`disk`] | sfdisk, mtools | 2 |
//! | [`installation`] | the distribution's own tools, in a machine of their own | 300 |

mod archive;
mod cache;
pub mod compared;
pub mod disk;
pub mod distribution;
pub mod guest;
pub mod header;
pub mod initrd;
pub mod installation;
pub mod keys;
pub mod listing;
pub mod luks;
pub mod packages;
pub mod system;
mod tree;
pub mod uki;
pub mod xts;

use crate::error::{Context, Result};
use crate::paths::Paths;
use crate::process::run;
use crate::qemu::Accel;
use cache::remove;
use disk::{Content, EspFile};
use distribution::Distribution;
use installation::Installation;
use keys::Keys;
use packages::{Kernel, Packages};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use system::{Release, System, Workshop};

/// What every machine starts from.
pub struct Images {
    paths: Paths,
    packages: Packages,
    /// Of the newest kernel.
    initrd: PathBuf,
    /// The other kernels, once somebody asked: few scenarios do.
    previous: Asked,
    measuring: Asked,
    root: PathBuf,
    /// Of Secure Boot.
    pub keys: Keys,
}

/// A kernel with its initramfs, or why there is none.
type Asked = OnceLock<Result<(Kernel, PathBuf), String>>;

impl Images {
    /// Builds what the cache does not hold. `say` hears what is about to take time.
    ///
    /// # Errors
    /// If a tool is missing or fails.
    pub fn build(
        paths: &Paths,
        distribution: &'static Distribution,
        say: &mut dyn FnMut(&str),
    ) -> Result<Self> {
        let packages = Packages::get(paths, distribution, say)?;
        let initrd = initrd::build(paths, &packages, &packages.newest, say)?;
        let root = guest::build(paths, &packages, guest::PASSPHRASE, say)?;
        let (previous, measuring) = (OnceLock::new(), OnceLock::new());
        let keys = Keys::get(paths)?;
        Ok(Self { paths: paths.clone(), packages, initrd, previous, measuring, root, keys })
    }

    /// The distribution's root as it ships it, a tar archive.
    pub fn root_archive(&self) -> &Path {
        &self.packages.rootfs
    }

    /// A kernel.
    ///
    /// # Errors
    /// If it is not to be had.
    pub fn kernel(&self, release: Release) -> Result<&Kernel> {
        self.of(release).map(|(kernel, _)| kernel)
    }

    /// A kernel with its initramfs.
    fn of(&self, release: Release) -> Result<(&Kernel, &Path)> {
        let Self { paths, packages, .. } = self;
        let asked = match release {
            Release::Newest => return Ok((&packages.newest, &self.initrd)),
            Release::Previous => &self.previous,
            Release::Measuring => &self.measuring,
        };
        let made = asked.get_or_init(|| {
            let kernel = match release {
                Release::Measuring => packages.kernel_that_measures(paths, &mut |_| ()),
                _ => packages.kernel_before(paths, &mut |_| ()),
            };
            let with = |kernel| {
                let initrd = initrd::build(paths, packages, &kernel, &mut |_| ())?;
                Ok((kernel, initrd))
            };
            kernel.and_then(with).map_err(|error| error.to_string())
        });
        let (kernel, initrd) = made.as_ref().map_err(|error| error.as_str())?;
        Ok((kernel, initrd))
    }

    /// The unified kernel image of a system that has one.
    ///
    /// # Errors
    /// If objcopy or sbsign fails.
    pub fn uki(&self, system: &System) -> Result<PathBuf> {
        self.workshop(system)?.uki(system)
    }

    /// What is on the EFI system partition of a system; the first file is what the firmware starts.
    ///
    /// # Errors
    /// If a part can't be built.
    pub fn files(&self, system: &System) -> Result<Vec<EspFile>> {
        self.workshop(system)?.files(system)
    }

    /// The content of one of these files.
    ///
    /// # Errors
    /// If there is none with this path, or it can't be read.
    pub fn file(&self, system: &System, path: &str) -> Result<Vec<u8>> {
        let file = self.files(system)?.into_iter().find(|file| file.path == path);
        match file.context(format_args!("no file {path}"))?.content {
            Content::File(from) => fs::read(&from).context(format_args!("can't read {}", from.display())),
            Content::Text(text) => Ok(text.into_bytes()),
        }
    }

    fn workshop(&self, system: &System) -> Result<Workshop<'_>> {
        let (kernel, initrd) = self.of(system.release)?;
        Ok(Workshop { paths: &self.paths, packages: &self.packages, keys: &self.keys, kernel, initrd })
    }

    /// A LUKS2 volume that looks like the root volume, with another volume key and this passphrase only.
    ///
    /// # Errors
    /// If it can't be built.
    pub fn lookalike(&self, passphrase: &str) -> Result<PathBuf> {
        guest::build(&self.paths, &self.packages, passphrase, &mut |_| ())
    }

    /// Writes a LUKS2 volume with this UUID that holds an empty file system.
    ///
    /// # Errors
    /// If it can't be built.
    pub fn volume(&self, uuid: &str, to: &Path) -> Result<()> {
        let ext4 = to.with_extension("ext4");
        luks::ext4(Command::new("/sbin/mkfs.ext4"), None, uuid, 16 << 20, &ext4)?;
        luks::create(&ext4, uuid, guest::PASSPHRASE, to)?;
        remove(&ext4)
    }

    /// Writes an empty plaintext file system with this label.
    ///
    /// # Errors
    /// If it can't be built.
    pub fn plaintext(&self, label: &str, to: &Path) -> Result<()> {
        let mut mkfs = Command::new("/sbin/mkfs.ext4");
        mkfs.args(["-L", label]);
        luks::ext4(mkfs, None, guest::OTHER_LUKS, 16 << 20, to)
    }

    /// Writes a plaintext file system with the UUID of the root file system, and an init that says `says`; and a file
    /// with a command for the shell that says something else.
    ///
    /// # Errors
    /// If it can't be built.
    pub fn plaintext_root(&self, says: &str, file: (&str, &str), to: &Path) -> Result<()> {
        let tree = to.with_extension("tree");
        let init = format!("#!/bin/sh\necho {says} >/dev/console\nexec /bin/busybox sleep 3600\n");
        guest::plaintext(&tree, &init)?;
        let (path, command) = (tree.join(file.0), format!("echo {} >/dev/console\n", file.1));
        fs::write(path, command).context("can't write a file")?;
        luks::ext4(Command::new("/sbin/mkfs.ext4"), Some(&tree), guest::ROOT_FS, 32 << 20, to)?;
        remove(&tree)
    }

    /// Writes a disk whose one partition the kernel can mount by itself: its init goes on in the initramfs of a system, with the file
    /// that this has besides as that one's /init. Returns the partition's UUID.
    ///
    /// # Errors
    /// If it can't be built, or there is no such file.
    pub fn bare_root(&self, system: &System, to: &Path) -> Result<&'static str> {
        let init = system.extra.first().context("no other /init")?;
        let (_, initrd) = self.of(system.release)?;
        let (tree, ext4) = (to.with_extension("tree"), to.with_extension("ext4"));
        guest::plaintext(&tree, include_str!("../../guest/bare.sh"))?;
        let pretend = tree.join("pretend");
        fs::write(&pretend, &init.content).context("can't write a file")?;
        fs::set_permissions(&pretend, fs::Permissions::from_mode(0o755)).context("can't set a mode")?;
        let image = fs::read(initrd).context(format_args!("can't read {}", initrd.display()))?;
        let (plain, compressed) = image.split_at(listing::compressed_at(&image)?);
        for (name, part) in [("plain.cpio", plain), ("initramfs.cpio.zst", compressed)] {
            fs::write(tree.join(name), part).context("can't write a file")?;
        }
        run(Command::new("zstd").args(["-q", "-d", "--rm"]).arg(tree.join("initramfs.cpio.zst")))?;
        luks::ext4(Command::new("/sbin/mkfs.ext4"), Some(&tree), guest::ROOT_FS, 256 << 20, &ext4)?;
        remove(&tree)?;
        let partition = disk::single(&ext4, to)?;
        remove(&ext4)?;
        Ok(partition)
    }

    /// Writes the disk of a machine whose owner has installed it so. `say` hears what takes time, if it is not in the cache.
    ///
    /// # Errors
    /// If it can't be installed, or the disk can't be written.
    pub fn installed(
        &self,
        installation: &Installation,
        accel: Accel,
        say: &mut dyn FnMut(&str),
        to: &Path,
    ) -> Result<()> {
        let disk = installation::disk(&self.paths, &self.packages, installation, accel, say)?;
        run(Command::new("cp").arg("--sparse=always").arg(&disk).arg(to)).map(drop)
    }

    /// Writes a fresh disk; nothing boots from it yet.
    ///
    /// # Errors
    /// If the disk can't be written.
    pub fn disk(&self, to: &Path) -> Result<()> {
        disk::create(&self.root, to)
    }
}
