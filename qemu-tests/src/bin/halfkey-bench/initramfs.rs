//! What an unlocker adds to an initramfs that has crypt and network already.

use crate::run::{self, Result};
use halfkey_qemu_tests::paths::MODULE;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The image that both peers are added to.
const BASE: &str = "base bash systemd systemd-initrd dracut-systemd systemd-networkd network crypt dm \
    kernel-modules kernel-network-modules rootfs-block udev-rules fs-lib shutdown usrmount";
/// Clevis with both of its pins and the one that combines them.
const CLEVIS: &str = "clevis clevis-pin-tang clevis-pin-tpm2 clevis-pin-sss";

/// Size of an image, or of a difference of two.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Uncompressed cpio archive, bytes.
    pub cpio: i64,
    /// The same after `zstd -19`, bytes.
    pub zstd: i64,
    /// Regular files: links and folders cost next to nothing.
    pub files: i64,
}

impl std::ops::Sub for Size {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self { cpio: self.cpio - other.cpio, zstd: self.zstd - other.zstd, files: self.files - other.files }
    }
}

/// The three images.
pub struct Images {
    /// Crypt and network.
    pub base: Size,
    /// With the dracut module.
    pub halfkey: Size,
    /// With Clevis.
    pub clevis: Size,
}

/// Builds and measures the three images in `dir`.
///
/// `modules` is a kernel's folder below `lib/modules`, `dist` holds the agent and the dracut module.
pub fn measure(dir: &Path, modules: &Path, dist: &Path) -> Result<Images> {
    let tree = module_tree(dir, dist)?;
    let image = |name: &str, extra: &str| -> Result<Size> {
        let image = dir.join(format!("{name}.cpio"));
        let version = modules.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        run::quiet(
            Command::new("dracut")
                .env("dracutbasedir", &tree)
                .env("HALFKEY_AGENT", dist.join("halfkey-agent"))
                .args(["--force", "--no-hostonly", "--no-compress", "--reproducible", "--kver", version])
                .arg("--kmoddir")
                .arg(modules)
                .arg("--modules")
                .arg(format!("{BASE} {extra}"))
                .arg(&image),
        )?;
        size(&image)
    };
    Ok(Images {
        base: image("base", "")?,
        halfkey: image("halfkey", "halfkey")?,
        clevis: image("clevis", CLEVIS)?,
    })
}

/// dracut's own folder with ours and Clevis's modules linked in: nothing is installed on this machine.
fn module_tree(dir: &Path, dist: &Path) -> Result<PathBuf> {
    let tree = dir.join("dracut");
    let modules = tree.join("modules.d");
    std::fs::create_dir_all(&modules)?;
    let link = |from: &Path, to: PathBuf| -> Result<()> {
        let _ = std::fs::remove_file(&to);
        Ok(std::os::unix::fs::symlink(from, to)?)
    };
    for entry in std::fs::read_dir("/usr/lib/dracut")?.flatten() {
        if entry.file_name() != "modules.d" {
            link(&entry.path(), tree.join(entry.file_name()))?;
        }
    }
    let clevis = run::unpack_package(dir, "clevis-dracut")?.join("usr/lib/dracut/modules.d");
    for folder in [Path::new("/usr/lib/dracut/modules.d"), &clevis] {
        for entry in std::fs::read_dir(folder)?.flatten() {
            link(&entry.path(), modules.join(entry.file_name()))?;
        }
    }
    link(&dist.join(MODULE), modules.join(MODULE))?;
    Ok(tree)
}

fn size(image: &Path) -> Result<Size> {
    let listing =
        run::output(Command::new("cpio").args(["-tv", "--quiet"]).stdin(std::fs::File::open(image)?))?;
    let zstd = run::output(Command::new("zstd").args(["-19", "-q", "-c"]).arg(image))?;
    Ok(Size {
        cpio: i64::try_from(std::fs::metadata(image)?.len())?,
        zstd: i64::try_from(zstd.len())?,
        files: i64::try_from(
            String::from_utf8_lossy(&listing).lines().filter(|line| line.starts_with('-')).count(),
        )?,
    })
}
