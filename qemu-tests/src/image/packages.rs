//! The guest's Debian and its kernel, as the distribution ships them.

use super::cache::cached;
use crate::error::{Context, Result};
use crate::paths::{Key, Paths};
use crate::process::run;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What goes into the guest's root file system besides the essential packages.
const INCLUDE: &str = "systemd,systemd-sysv,udev,dbus,kmod,iproute2,cryptsetup-bin,tpm2-tools,dracut-core";
/// Stands for the newest kernel that is small and has virtio and TPM drivers.
const KERNEL: &str = "linux-image-cloud-amd64";
/// What the names of such kernels end with.
const FLAVOUR: &str = "-cloud-amd64";
/// Where to look for a kernel that measures each initrd, if the host's own suite has none.
const BACKPORTS: &str = "trixie-backports";
/// The first version that does: commit c004703ed7ae, "efi/libstub: measure initrd to PCR9 independent of source".
const MEASURES: [u64; 2] = [6, 13];
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
        let host = Archive::host();
        let newest = host.newest_kernel()?;
        let previous = host.kernel_before(&newest)?;
        let loaders = host.fetch(paths, LOADERS, say)?;
        Ok(Self {
            key,
            rootfs,
            newest: Kernel::get(paths, &host, &newest, say)?,
            previous: Kernel::get(paths, &host, &previous, say)?,
            shim: loaders.join("usr/lib/shim/shimx64.efi.signed"),
            grub: loaders.join("usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"),
        })
    }
}

impl Kernel {
    fn get(paths: &Paths, archive: &Archive, package: &str, say: &mut dyn FnMut(&str)) -> Result<Self> {
        let version = package.trim_start_matches("linux-image-").to_string();
        let parts = archive.parts(package, &version)?;
        let tree = archive.fetch(paths, &parts.iter().map(String::as_str).collect::<Vec<_>>(), say)?;
        // Newer packages have all of it below /usr, the image beside the modules.
        let base = [tree.join("usr"), tree].into_iter().find(|base| base.join("lib/modules").is_dir());
        let base = base.context(format_args!("{package} has no modules"))?;
        let modules = base.join("lib/modules").join(&version);
        if !modules.join("modules.dep").is_file() {
            run(Command::new("/sbin/depmod").arg("-b").arg(&base).arg(&version))?;
        }
        let images = [base.join(format!("boot/vmlinuz-{version}")), modules.join("vmlinuz")];
        let image = images.into_iter().find(|image| image.is_file());
        Ok(Self { image: image.context(format_args!("{package} has no image"))?, modules, version })
    }

    /// The newest that measures each initrd, whether a loader hands it over or `initrd=` names it: of the host's suite, or of
    /// backports.
    ///
    /// # Errors
    /// If there is none to be had.
    pub fn that_measures(paths: &Paths, say: &mut dyn FnMut(&str)) -> Result<Self> {
        let of = |archive: &Archive, say: &mut dyn FnMut(&str)| -> Result<Option<Self>> {
            let package = archive.newest_kernel()?;
            let measures = numbers(&package).as_slice() >= MEASURES.as_slice();
            measures.then(|| Self::get(paths, archive, &package, say)).transpose()
        };
        if let Some(kernel) = of(&Archive::host(), say)? {
            return Ok(kernel);
        }
        let kernel = Archive::of_suite(paths, BACKPORTS).and_then(|archive| of(&archive, say));
        let [major, minor] = MEASURES;
        kernel
            .context(format_args!("no kernel that measures each initrd (Linux {major}.{minor}): neither Debian {} has one, nor {BACKPORTS}", suite()))?
            .context(format_args!("the newest kernel of {BACKPORTS} is older than {major}.{minor}"))
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

/// What to do about a package that is not to be had.
const UPDATE: &str = "packages come from Debian's archive\nhint: apt-get update";

/// The numbers in a name, for comparing versions.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

/// Where packages come from: the options of apt.
struct Archive(Vec<String>);

impl Archive {
    /// As this host is set up.
    fn host() -> Self {
        Self(Vec::new())
    }

    /// Another suite of Debian, with lists of its own: nothing on the host changes.
    fn of_suite(paths: &Paths, suite: &str) -> Result<Self> {
        let folder = paths.cache.join(format!("apt-{suite}"));
        for below in ["lists/partial", "archives/partial"] {
            fs::create_dir_all(folder.join(below)).context("can't make a folder in the cache")?;
        }
        let keyrings =
            ["gpg", "pgp"].map(|kind| format!("/usr/share/keyrings/debian-archive-keyring.{kind}"));
        let keyring = keyrings.iter().find(|file| Path::new(file).exists());
        let keyring = keyring.context("no keyring of Debian\nhint: install debian-archive-keyring")?;
        let write = |name: &str, content: &str| -> Result<String> {
            let path = folder.join(name);
            fs::write(&path, content).context(format_args!("can't write {}", path.display()))?;
            Ok(path.to_string_lossy().into_owned())
        };
        let source = format!("deb [signed-by={keyring}] http://deb.debian.org/debian {suite} main\n");
        let (source, status) = (write("sources.list", &source)?, write("status", "")?);
        let folder = folder.to_string_lossy();
        let options = [
            format!("Dir::Etc::SourceList={source}"),
            "Dir::Etc::SourceParts=/dev/null".into(),
            "Dir::Etc::Preferences=/dev/null".into(),
            "Dir::Etc::PreferencesParts=/dev/null".into(),
            format!("Dir::State={folder}"),
            format!("Dir::State::Status={status}"),
            format!("Dir::Cache={folder}"),
            // Whoever runs this can write the cache; apt's own user can't.
            "APT::Sandbox::User=".into(),
            "APT::Update::Error-Mode=any".into(),
        ];
        let archive = Self(options.into_iter().flat_map(|option| ["-o".into(), option]).collect());
        if let Err(error) = run(archive.command("apt-get").args(["update", "--quiet"])) {
            // The lists of the last time are as good, as long as the mirror has what they name.
            archive.newest_kernel().map_err(|_| error).context("hint: is deb.debian.org to be reached?")?;
        }
        Ok(archive)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(&self.0);
        command
    }

    /// The package with the newest kernel.
    fn newest_kernel(&self) -> Result<String> {
        let newest = self.depends(KERNEL)?.into_iter().find(|name| name.starts_with("linux-image-"));
        newest.context(format_args!("{KERNEL} depends on no kernel"))
    }

    /// The package with the one before it.
    fn kernel_before(&self, newest: &str) -> Result<String> {
        let names = run(self.command("apt-cache").args(["pkgnames", "linux-image-"])).context(UPDATE)?;
        let older = names
            .lines()
            .filter(|name| name.ends_with(FLAVOUR) && numbers(name) < numbers(newest))
            .max_by_key(|name| numbers(name));
        Ok(older.context(format_args!("the archive has no older kernel than {newest}"))?.to_string())
    }

    /// A kernel's package, and those that hold parts of it: of newer ones it is empty.
    fn parts(&self, package: &str, version: &str) -> Result<Vec<String>> {
        let parts = self.depends(package)?.into_iter().filter(|name| name.ends_with(&format!("-{version}")));
        Ok(std::iter::once(package.to_string()).chain(parts).collect())
    }

    fn depends(&self, package: &str) -> Result<Vec<String>> {
        let text =
            run(self.command("apt-cache").args(["depends", "--important", package])).context(UPDATE)?;
        Ok(text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "))
            .map(str::to_string)
            .collect())
    }

    /// The unpacked content of packages, without installing them.
    fn fetch(&self, paths: &Paths, packages: &[&str], say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
        let policy = run(self.command("apt-cache").arg("policy").args(packages))?;
        let candidates: Vec<&str> =
            policy.lines().filter_map(|line| line.trim().strip_prefix("Candidate: ")).collect();
        let key = Key::new("packages 2").text(&packages.join(" ")).text(&candidates.join(" ")).hex();
        cached(paths.cache.join(format!("packages-{key}")), |partial| {
            say(&format!("fetching {}", packages.join(", ")));
            fs::create_dir_all(partial).context("can't make a folder in the cache")?;
            run(self.command("apt-get").args(["download", "--quiet"]).args(packages).current_dir(partial))
                .context(UPDATE)?;
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
