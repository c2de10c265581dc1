//! The guest's Debian and its kernel, as the distribution ships them.

use super::cached;
use crate::error::{Context, Result};
use crate::paths::{Key, Paths};
use crate::process::run;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What goes into the guest's root file system besides the essential packages.
const INCLUDE: &str = "systemd,systemd-sysv,udev,dbus,kmod,iproute2,cryptsetup-bin,tpm2-tools";
/// Stands for the newest kernel that is small and has virtio and TPM drivers.
const KERNEL: &str = "linux-image-cloud-amd64";
/// What the names of such kernels end with.
const FLAVOUR: &str = "-cloud-amd64";
/// A boot path that other people signed.
const LOADERS: &[&str] = &["shim-signed", "grub-efi-amd64-signed"];

/// What [`Packages::get`] found or fetched.
pub struct Packages {
    /// Names the guest's root file system.
    pub key: String,
    /// The guest's root file system.
    pub rootfs: PathBuf,
    /// The newest kernel.
    pub newest: Kernel,
    /// The one before it.
    pub previous: Kernel,
    /// shim, signed by Microsoft.
    pub shim: PathBuf,
    /// GRUB, signed by Debian.
    pub grub: PathBuf,
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
    pub fn get(paths: &Paths, say: &mut dyn FnMut(&str)) -> Result<Self> {
        let suite = suite();
        let key = Key::new("rootfs 1").text(&suite).text(INCLUDE).hex();
        let rootfs = cached(paths.cache.join(format!("rootfs-{key}.tar")), |partial| {
            say(&format!("making a small Debian ({suite}) with mmdebstrap"));
            bootstrap(&suite, partial)
        })?;
        let (previous, newest) = kernels()?;
        let loaders = fetch(paths, LOADERS, say)?;
        Ok(Self {
            key,
            rootfs,
            newest: Kernel::get(paths, &newest, say)?,
            previous: Kernel::get(paths, &previous, say)?,
            shim: loaders.join("usr/lib/shim/shimx64.efi.signed"),
            grub: loaders.join("usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"),
        })
    }
}

impl Kernel {
    fn get(paths: &Paths, package: &str, say: &mut dyn FnMut(&str)) -> Result<Self> {
        let tree = fetch(paths, &[package], say)?;
        let version = package.trim_start_matches("linux-image-").to_string();
        let modules = tree.join("lib/modules").join(&version);
        if !modules.join("modules.dep").is_file() {
            run(Command::new("/sbin/depmod").arg("-b").arg(&tree).arg(&version))?;
        }
        Ok(Self { image: tree.join(format!("boot/vmlinuz-{version}")), modules, version })
    }
}

/// The host's own Debian release, so that initramfs and root are of one kind.
fn suite() -> String {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let field = |name: &str| {
        let line = release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_default().trim_matches('"').to_string()
    };
    if field("ID") == "debian" && !field("VERSION_CODENAME").is_empty() {
        return field("VERSION_CODENAME");
    }
    "bookworm".into()
}

/// The packages with the two newest kernels, the older one first.
fn kernels() -> Result<(String, String)> {
    const HINT: &str = "the guest's kernels come from Debian's archive\nhint: apt-get update";
    let depends = run(Command::new("apt-cache").args(["depends", "--important", KERNEL])).context(HINT)?;
    let newest = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-image-"));
    let newest = format!("linux-image-{}", newest.context(format_args!("{KERNEL} depends on no kernel"))?);
    let names = run(Command::new("apt-cache").args(["pkgnames", "linux-image-"])).context(HINT)?;
    let older = names
        .lines()
        .filter(|name| name.ends_with(FLAVOUR) && numbers(name) < numbers(&newest))
        .max_by_key(|name| numbers(name));
    let older = older.context(format_args!("the archive has no older kernel than {newest}"))?;
    Ok((older.to_string(), newest))
}

/// The numbers in a name, for comparing versions.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

/// The unpacked content of packages, without installing them.
fn fetch(paths: &Paths, packages: &[&str], say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    let policy = run(Command::new("apt-cache").arg("policy").args(packages))?;
    let candidates: Vec<&str> =
        policy.lines().filter_map(|line| line.trim().strip_prefix("Candidate: ")).collect();
    let key = Key::new("packages 2").text(&packages.join(" ")).text(&candidates.join(" ")).hex();
    cached(paths.cache.join(format!("packages-{key}")), |partial| {
        say(&format!("fetching {}", packages.join(", ")));
        fs::create_dir_all(partial).context("can't make a folder in the cache")?;
        run(Command::new("apt-get").args(["download", "--quiet"]).args(packages).current_dir(partial))
            .context("hint: apt-get update")?;
        let files: Vec<PathBuf> = fs::read_dir(partial)
            .context("can't read the cache")?
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|ext| ext == "deb"))
            .collect();
        for deb in files {
            run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(partial))?;
            fs::remove_file(&deb).context("can't remove a package")?;
        }
        Ok(())
    })
}

fn bootstrap(suite: &str, tar: &Path) -> Result<()> {
    let mut command = Command::new("mmdebstrap");
    command.args(["--quiet", "--variant=minbase", "--format=tar"]).arg(format!("--include={INCLUDE}"));
    for path in ["/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/man/*", "/usr/share/info/*"] {
        command.arg(format!("--dpkgopt=path-exclude={path}"));
    }
    run(command.arg(suite).arg(tar))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::numbers;

    #[test]
    fn versions_are_compared_by_number() {
        let mut names = ["linux-image-6.1.0-10-cloud-amd64", "linux-image-6.1.0-9-cloud-amd64"];
        names.sort_by_key(|name| numbers(name));
        assert_eq!(names, ["linux-image-6.1.0-9-cloud-amd64", "linux-image-6.1.0-10-cloud-amd64"]);
    }
}
