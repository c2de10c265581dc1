//! A distribution's root and its kernels and loaders, as it ships them.

use super::archive::{Archive, numbers};
use super::cache::cached;
use super::distribution::Distribution;
use crate::error::{Context, Result};
use crate::paths::{Key, Paths};
use crate::process::run;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The first version that measures each initrd: commit c004703ed7ae, "efi/libstub: measure initrd to PCR9 independent of source".
const MEASURES: [u64; 2] = [6, 13];

/// What [`Packages::get`] found or fetched.
pub struct Packages {
    /// Of which they are.
    pub distribution: &'static Distribution,
    /// Names the root.
    pub key: String,
    /// The root, as a tar archive.
    pub rootfs: PathBuf,
    /// The newest kernel.
    pub newest: Kernel,
    /// shim, signed by Microsoft.
    pub shim: PathBuf,
    /// GRUB, signed by the distribution.
    pub grub: PathBuf,
    /// systemd's EFI stub.
    pub stub: PathBuf,
    /// systemd-boot.
    pub systemd_boot: PathBuf,
    archive: Archive,
}

/// A kernel of the distribution.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Its version, as `uname -r` prints it.
    pub version: String,
    /// The image.
    pub image: PathBuf,
    /// `lib/modules/VERSION`.
    pub modules: PathBuf,
}

impl Packages {
    /// From the cache, or from the package mirror.
    ///
    /// # Errors
    /// If the mirror does not answer or a tool fails.
    pub fn get(
        paths: &Paths,
        distribution: &'static Distribution,
        say: &mut dyn FnMut(&str),
    ) -> Result<Self> {
        let Distribution { name, title, sources, stage, loaders, .. } = distribution;
        let archive = Archive::release(paths, name, &sources.iter().collect::<Vec<_>>(), *stage)?;
        let included = included(distribution);
        let key = Key::new("rootfs 2").text(&archive.lines().join("\n")).text(&included).hex();
        let rootfs = cached(paths.cache.join(format!("rootfs-{key}.tar")), |partial| {
            say(&format!("making a small {title} with mmdebstrap"));
            bootstrap(distribution, &archive, &included, &[], partial)
        })?;
        let newest = archive.newest_kernel(distribution.kernel)?;
        let unpacked = archive.fetch(paths, loaders.packages, say)?;
        Ok(Self {
            distribution,
            key,
            rootfs,
            newest: Kernel::get(paths, &archive, &newest, say)?,
            shim: unpacked.join(loaders.shim),
            grub: unpacked.join(loaders.grub),
            stub: unpacked.join(loaders.stub),
            systemd_boot: unpacked.join(loaders.systemd_boot),
            archive,
        })
    }

    /// Makes another root, with these packages as well.
    pub(super) fn bootstrap_with(&self, packages: &[&str], tar: &Path) -> Result<()> {
        let included = format!("{},{}", included(self.distribution), packages.join(","));
        bootstrap(self.distribution, &self.archive, &included, &[], tar)
    }

    /// The newest kernel but one: of the distribution, or of where it looks for earlier ones.
    ///
    /// # Errors
    /// If there is none, or it can't be fetched.
    pub fn kernel_before(&self, paths: &Paths, say: &mut dyn FnMut(&str)) -> Result<Kernel> {
        let Distribution { kernel: meta, flavour, earlier, .. } = self.distribution;
        let newest = self.archive.newest_kernel(meta)?;
        if let Some(earlier) = earlier
            && self.archive.older(&newest, flavour)?.is_none()
        {
            let archive = Archive::open(paths, earlier.suite, &[earlier])?;
            let package = archive.newest_kernel(meta)?;
            return Kernel::get(paths, &archive, &package, say);
        }
        Kernel::get(paths, &self.archive, &self.archive.kernel_before(&newest, flavour)?, say)
    }

    /// The packages of the newest kernel but one and of the newest.
    ///
    /// # Errors
    /// If the distribution itself has but one.
    pub fn kernels(&self) -> Result<[String; 2]> {
        let Distribution { kernel: meta, flavour, .. } = self.distribution;
        let newest = self.archive.newest_kernel(meta)?;
        Ok([self.archive.kernel_before(&newest, flavour)?, newest])
    }

    /// Makes another root of the distribution with these packages; `customize` are commands for a shell, in the end: $1 is the root.
    ///
    /// # Errors
    /// If the mirror does not answer or a command fails.
    pub fn bootstrap(&self, include: &str, customize: &[&str], tar: &Path) -> Result<()> {
        bootstrap(self.distribution, &self.archive, include, customize, tar)
    }

    /// The newest kernel that measures each initrd, whether a loader hands it over or `initrd=` names it: of the distribution, or
    /// of where it looks for backports.
    ///
    /// # Errors
    /// If there is none to be had.
    pub fn kernel_that_measures(&self, paths: &Paths, say: &mut dyn FnMut(&str)) -> Result<Kernel> {
        let Distribution { title, kernel: meta, backports, .. } = self.distribution;
        let of = |archive: &Archive, say: &mut dyn FnMut(&str)| -> Result<Option<Kernel>> {
            let package = archive.newest_kernel(meta)?;
            let measures = numbers(&package).as_slice() >= MEASURES.as_slice();
            measures.then(|| Kernel::get(paths, archive, &package, say)).transpose()
        };
        if let Some(kernel) = of(&self.archive, say)? {
            return Ok(kernel);
        }
        let suite = backports.suite;
        let kernel = Archive::open(paths, suite, &[backports]).and_then(|archive| of(&archive, say));
        let [major, minor] = MEASURES;
        kernel
            .context(format_args!("no kernel that measures each initrd (Linux {major}.{minor}): neither {title} has one, nor {suite}"))?
            .context(format_args!("the newest kernel of {suite} is older than {major}.{minor}"))
    }
}

impl Kernel {
    fn get(paths: &Paths, archive: &Archive, package: &str, say: &mut dyn FnMut(&str)) -> Result<Self> {
        let version = package.trim_start_matches("linux-image-").to_string();
        // Newer packages are empty, and need others that hold the parts.
        let of_version = format!("-{version}");
        let parts = archive.depends(package)?.into_iter().filter(|name| name.ends_with(&of_version));
        let parts: Vec<String> = std::iter::once(package.to_string()).chain(parts).collect();
        let tree = archive.fetch(paths, &parts.iter().map(String::as_str).collect::<Vec<_>>(), say)?;
        // Newer packages have the modules below /usr, and the newest ones the image beside them.
        let base =
            [tree.join("usr"), tree.clone()].into_iter().find(|base| base.join("lib/modules").is_dir());
        let base = base.context(format_args!("{package} has no modules"))?;
        let modules = base.join("lib/modules").join(&version);
        if !modules.join("modules.dep").is_file() {
            run(Command::new("/sbin/depmod").arg("-b").arg(&base).arg(&version))?;
        }
        let images = [tree.join(format!("boot/vmlinuz-{version}")), modules.join("vmlinuz")];
        let image = images.into_iter().find(|image| image.is_file());
        Ok(Self { image: image.context(format_args!("{package} has no image"))?, modules, version })
    }
}

fn included(Distribution { include, tools, .. }: &Distribution) -> String {
    [*include, *tools].concat().join(",")
}

/// `customize` are commands for a shell, at the end: $1 is the root.
fn bootstrap(
    distribution: &Distribution,
    archive: &Archive,
    included: &str,
    customize: &[&str],
    tar: &Path,
) -> Result<()> {
    let mut command = Command::new("mmdebstrap");
    command.args(["--quiet", "--variant=minbase", "--format=tar"]);
    command.arg(format!("--include={included}"));
    for path in ["/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/man/*", "/usr/share/info/*"] {
        command.arg(format!("--dpkgopt=path-exclude={path}"));
    }
    for step in customize {
        command.arg(format!("--customize-hook={step}"));
    }
    let suite = distribution.sources.first().context("a distribution without sources")?.suite;
    run(command.args(archive.apt_options()).arg(suite).arg(tar).args(archive.lines()))?;
    Ok(())
}
