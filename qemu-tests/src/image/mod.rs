//! Images from the distribution's packages, without root mounts, loop devices or device-mapper. Each layer is built
//! once and cached under a name that is a hash of what went into it.
//!
//! | layer | made by | seconds |
//! | --- | --- | --- |
//! | [`packages`] | mmdebstrap; apt-get download of the kernel | 60 |
//! | [`initrd`] | dracut with the module and agent under test | 30 |
//! | [`uki`] | objcopy: stub, kernel, initrd, command line | 1 |
//! | [`luks`] | cryptsetup's header, [`xts`] over the file system | 10 |
//! | [`disk`] | sfdisk, mtools | 2 |

pub mod disk;
pub mod guest;
pub mod header;
pub mod initrd;
pub mod luks;
pub mod packages;
pub mod uki;
pub mod xts;

use crate::error::Result;
use crate::paths::Paths;
use packages::Packages;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What every machine starts from.
pub struct Images {
    paths: Paths,
    packages: Packages,
    initrd: PathBuf,
    root: PathBuf,
}

impl Images {
    /// Builds what the cache does not hold. `say` hears what is about to take time.
    ///
    /// # Errors
    /// If a tool is missing or fails.
    pub fn build(paths: &Paths, say: &mut dyn FnMut(&str)) -> Result<Self> {
        let packages = Packages::get(paths, say)?;
        let initrd = initrd::build(paths, &packages, say)?;
        let root = guest::build(paths, &packages, guest::PASSPHRASE, say)?;
        Ok(Self { paths: paths.clone(), packages, initrd, root })
    }

    /// A UKI with this command line; `extra` is appended to the initrd as a cpio of its own.
    ///
    /// # Errors
    /// If objcopy fails.
    pub fn uki(&self, cmdline: &str, extra: Option<&initrd::ExtraFile>) -> Result<PathBuf> {
        uki::build(&self.paths, &self.packages, &self.initrd, cmdline, extra)
    }

    /// A LUKS2 volume that looks like the root volume, with another volume key and this passphrase only.
    ///
    /// # Errors
    /// If it can't be built.
    pub fn lookalike(&self, passphrase: &str) -> Result<PathBuf> {
        guest::build(&self.paths, &self.packages, passphrase, &mut |_| ())
    }

    /// Writes an empty LUKS2 volume for the third disk.
    ///
    /// # Errors
    /// If it can't be built.
    pub fn data(&self, to: &Path) -> Result<()> {
        let ext4 = to.with_extension("ext4");
        luks::ext4(Command::new("/sbin/mkfs.ext4"), None, guest::DATA_LUKS, 16 << 20, &ext4)?;
        luks::create(&ext4, guest::DATA_LUKS, guest::PASSPHRASE, to)?;
        remove(&ext4)
    }

    /// Writes a plaintext file system with the UUID of the root file system, and an init that says `says`.
    ///
    /// # Errors
    /// If it can't be built.
    pub fn plaintext_root(&self, says: &str, to: &Path) -> Result<()> {
        let tree = to.with_extension("tree");
        guest::plaintext(&tree, says)?;
        luks::ext4(Command::new("/sbin/mkfs.ext4"), Some(&tree), guest::ROOT_FS, 32 << 20, to)?;
        remove(&tree)
    }

    /// Writes a fresh disk that boots this UKI.
    ///
    /// # Errors
    /// If the disk can't be written.
    pub fn disk(&self, uki: &Path, to: &Path) -> Result<()> {
        disk::create(&self.root, uki, to)
    }
}

/// Takes a path of the cache: `make` writes to a temporary name, which becomes the final one when all went well, so an
/// interrupted build leaves nothing that looks finished.
pub(crate) fn cached(path: PathBuf, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    use crate::error::Context;
    if path.exists() {
        return Ok(path);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let partial = path.with_file_name(format!("{name}.{}.partial", std::process::id()));
    remove(&partial)?;
    make(&partial)?;
    // Someone else may have been faster: then theirs is as good.
    if let Err(error) = std::fs::rename(&partial, &path) {
        remove(&partial)?;
        if !path.exists() {
            return Err(error).context(format_args!("can't rename to {}", path.display()));
        }
    }
    Ok(path)
}

fn remove(path: &Path) -> Result<()> {
    use crate::error::Context;
    let result = match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(_) => return Ok(()),
    };
    result.context(format_args!("can't remove {}", path.display()))
}
