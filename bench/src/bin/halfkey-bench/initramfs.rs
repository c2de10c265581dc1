//! What an unlocker adds to an initramfs that has crypt and network already, on each distribution.

use crate::run::{self, Result};
use halfkey_qemu_tests::image::compared::Compared;
use halfkey_qemu_tests::image::distribution::{self, Distribution, Stage};
use halfkey_qemu_tests::image::listing::regular_files;
use halfkey_qemu_tests::image::packages::Packages;
use halfkey_qemu_tests::paths::Paths;
use std::path::Path;
use std::process::Command;

/// The image that both peers are added to.
const BASE: &str = "base bash systemd systemd-initrd dracut-systemd systemd-networkd network crypt dm \
    kernel-modules kernel-network-modules rootfs-block udev-rules fs-lib shutdown usrmount";
/// A module of its own from dracut-ng 103 on; before, it is crypt's.
const CRYPTSETUP: &str = "systemd-cryptsetup";
/// Clevis with both of its pins and the one that combines them.
const CLEVIS: &str = "clevis clevis-pin-tang clevis-pin-tpm2 clevis-pin-sss";
/// Its packages, as they are installed beside ours.
const PEERS: &[&str] = &["clevis", "clevis-luks", "clevis-tpm2", "clevis-dracut"];

/// Size of an image, or of a difference of two.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Uncompressed cpio archive, bytes.
    pub cpio: i64,
    /// The same after `zstd -19`, bytes.
    pub zstd: i64,
    /// Regular files: folders, links and further names of the same file cost next to nothing.
    pub files: i64,
    /// Those of them that are the unlocker's own: the rest are programs and libraries of the distribution, and drivers of the kernel.
    pub own: i64,
}

impl std::ops::Sub for Size {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self {
            cpio: self.cpio - other.cpio,
            zstd: self.zstd - other.zstd,
            files: self.files - other.files,
            own: self.own - other.own,
        }
    }
}

/// The three images of a distribution.
pub struct Images {
    /// Of which they are.
    pub of: &'static Distribution,
    /// Crypt and network.
    pub base: Size,
    /// What the dracut module adds.
    pub halfkey: Size,
    /// What Clevis adds.
    pub clevis: Size,
}

/// Builds and measures three images of each distribution in `dir`. One that is not released may be missing, which is said.
pub fn measure(dir: &Path, paths: &Paths) -> Result<Vec<Images>> {
    let mut all = Vec::new();
    for of in distribution::ALL {
        match (images(dir, paths, of), of.stage) {
            (Ok(images), _) => all.push(images),
            (Err(error), Stage::Moving { .. }) => eprintln!("{}: not measured: {error}", of.title),
            (Err(error), Stage::Stable) => return Err(error),
        }
    }
    Ok(all)
}

fn images(dir: &Path, paths: &Paths, of: &'static Distribution) -> Result<Images> {
    let mut say = |what: &str| eprintln!("{what} ...");
    let packages = Packages::get(paths, of, &mut say)?;
    let tree = Compared::new(paths, &packages, PEERS, &mut say)?;
    let crypt = if tree.has(CRYPTSETUP) { CRYPTSETUP } else { "" };
    let image = |name: &str, extra: &str| -> Result<Size> {
        eprintln!(
            "{}: building the initramfs with {} ...",
            of.title,
            if name.is_empty() { "crypt and network" } else { name }
        );
        let image = dir.join("compared.cpio");
        tree.build(&format!("{BASE} {crypt} {extra}"), &image)?;
        size(&image, name)
    };
    let base = image("", "")?;
    let (halfkey, clevis) = (image("halfkey", "halfkey")?, image("clevis", CLEVIS)?);
    Ok(Images { of, base, halfkey: halfkey - base, clevis: clevis - base })
}

/// `unlocker` is in the path of each file of its own, and of no other.
fn size(image: &Path, unlocker: &str) -> Result<Size> {
    let files = regular_files(&std::fs::read(image)?, unlocker)?;
    let own = if unlocker.is_empty() { 0 } else { files.named };
    let zstd = run::output(Command::new("zstd").args(["-19", "-q", "-c"]).arg(image))?;
    Ok(Size {
        cpio: i64::try_from(std::fs::metadata(image)?.len())?,
        zstd: i64::try_from(zstd.len())?,
        files: i64::try_from(files.all)?,
        own: i64::try_from(own)?,
    })
}

/// For people.
pub fn print(all: &[Images]) {
    println!("added to an initramfs         cpio bytes   zstd -19   files  its own");
    for Images { of, base, halfkey, clevis } in all {
        println!("{}", of.title);
        for (name, size) in [("(crypt and network alone)", base), ("halfkey", halfkey), ("clevis", clevis)] {
            println!("  {name:<25} {:>12} {:>10} {:>7} {:>8}", size.cpio, size.zstd, size.files, size.own);
        }
    }
}

/// For programs, by the distribution's name.
pub fn json(all: &[Images]) -> serde_json::Value {
    let size = |size: &Size| serde_json::json!({ "cpio": size.cpio, "zstd": size.zstd, "files": size.files, "own_files": size.own });
    let one = |images: &Images| {
        let sizes = serde_json::json!({ "halfkey": size(&images.halfkey), "clevis": size(&images.clevis) });
        (images.of.name.to_owned(), sizes)
    };
    all.iter().map(one).collect::<serde_json::Map<_, _>>().into()
}
