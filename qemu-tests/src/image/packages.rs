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
/// Small, with virtio and TPM drivers.
const KERNEL: &str = "linux-image-cloud-amd64";

/// What [`Packages::get`] found or fetched.
pub struct Packages {
    /// Names this set.
    pub key: String,
    /// The guest's root file system.
    pub rootfs: PathBuf,
    /// The kernel image.
    pub kernel: PathBuf,
    /// `lib/modules/VERSION` of that kernel.
    pub modules: PathBuf,
    /// VERSION.
    pub version: String,
}

impl Packages {
    /// From the cache, or from the package mirror.
    ///
    /// # Errors
    /// If the mirror does not answer or a tool fails.
    pub fn get(paths: &Paths, say: &mut dyn FnMut(&str)) -> Result<Self> {
        let suite = suite();
        let package = kernel_package()?;
        let key = Key::new("packages 1").text(&suite).text(INCLUDE).text(&package).hex();
        let folder = paths.cache.join(format!("packages-{key}"));
        let folder = cached(folder, |partial| {
            fs::create_dir_all(partial).context("can't make a folder in the cache")?;
            say(&format!("fetching {package}"));
            fetch_kernel(&package, partial)?;
            say(&format!("making a small Debian ({suite}) with mmdebstrap"));
            bootstrap(&suite, &partial.join("rootfs.tar"))
        })?;
        let tree = folder.join("kernel");
        let all = tree.join("lib/modules");
        let entry = fs::read_dir(&all).ok().and_then(|mut entries| entries.next());
        let version = entry.and_then(Result::ok).context(format_args!("no kernel in {}", all.display()))?;
        let version = version.file_name().to_string_lossy().into_owned();
        Ok(Self {
            key,
            rootfs: folder.join("rootfs.tar"),
            kernel: tree.join(format!("boot/vmlinuz-{version}")),
            modules: all.join(&version),
            version,
        })
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

/// The package that the meta package stands for at present.
fn kernel_package() -> Result<String> {
    let text = run(Command::new("apt-cache").args(["depends", "--important", KERNEL]))
        .context("the guest's kernel comes from Debian's archive\nhint: apt-get update")?;
    let package = text.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-image-"));
    Ok(format!("linux-image-{}", package.context(format_args!("{KERNEL} depends on no kernel"))?))
}

fn fetch_kernel(package: &str, folder: &Path) -> Result<()> {
    run(Command::new("apt-get").args(["download", "--quiet", package]).current_dir(folder))
        .context("hint: apt-get update")?;
    let mut files = fs::read_dir(folder).context("can't read the cache")?.flatten().map(|entry| entry.path());
    let deb = files.find(|path| path.extension().is_some_and(|ext| ext == "deb"));
    let deb = deb.context("apt-get download left no package")?;
    let tree = folder.join("kernel");
    run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&tree))?;
    fs::remove_file(&deb).context("can't remove the package")?;
    let modules = fs::read_dir(tree.join("lib/modules")).ok().and_then(|mut entries| entries.next());
    let version = modules.and_then(Result::ok).context("the kernel package holds no modules")?.file_name();
    run(Command::new("/sbin/depmod").arg("-b").arg(&tree).arg(version))?;
    Ok(())
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
