//! dracut, run before anybody is talked to: what it can't build it says now, and not at the next kernel update.

use super::alone::Root;
use super::look::{self, Drivers};
use super::{run, tool};
use crate::bounded;
use crate::console;
use crate::enroll::running::Warning;
use crate::error::{Error, Kind, Result};
use nix::sys::statvfs::statvfs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// What a FAT file system rounds times to.
const ROUNDED: Duration = Duration::from_secs(2);
/// A slow machine takes some minutes for a generic image. What takes longer waits for something that does not come.
const LONGEST: Duration = Duration::from_secs(30 * 60);

/// Has dracut build the initramfs of the running kernel, and looks into what it built.
///
/// # Errors
/// When this host builds its initramfs with something else, dracut fails, or the image lacks something that the machine needs to
/// unlock itself: [`Kind::System`], with dracut's own words and the package to install.
pub fn rebuild() -> Result<()> {
    check_builder(Path::new("/"))?;
    check_room(&images(Path::new("/"), &kernel()))?;
    other_dracut(Path::new("/")).iter().flat_map(Warning::lines).for_each(|line| console::say(&line));
    let begun = SystemTime::now() - ROUNDED;
    console::print("building the initramfs with dracut ...\n");
    let mut dracut = tool("dracut");
    dracut.arg("--force");
    let ran = run::run(dracut, LONGEST, super::FROM)?;
    let said = [String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr)].concat();
    if !ran.status.success() {
        return Err(failed(&said, format!("dracut --force: {}", ran.status)));
    }
    let built = built_since(&images(Path::new("/"), &kernel()), begun);
    if built.is_empty() {
        return Err(Error::system("dracut --force", "it wrote no image for the running kernel that could be found")
            .hint("halfkey-agent status --image FILE looks into the one that it wrote; then enroll without --rebuild-initramfs"));
    }
    for file in built {
        let image = look::look(&file, &Drivers::here(), &Root::here())?;
        if image.missing.is_empty() {
            image.warnings.iter().flat_map(Warning::lines).for_each(|line| console::say(&line));
            console::print(&format!("{}: it has all that it takes to unlock itself\n", file.display()));
            continue;
        }
        let error = image.complete().err().map(|error| error.message).unwrap_or_default();
        let why = failed(&said, error);
        // What dracut says is worth more than what follows from it.
        return Err(if dracut_lines(&said).is_empty() {
            why.hint(image.missing[0].hint.clone())
        } else {
            why
        });
    }
    Ok(())
}

/// Refuses where an image would not fit once more: dracut takes an image away that it can't write to the end, and with it what boots.
fn check_room(images: &[PathBuf]) -> Result<()> {
    for image in images {
        let (Ok(file), Some(folder)) = (image.metadata(), image.parent()) else { continue };
        let Ok(system) = statvfs(folder) else { continue };
        let free = system.blocks_available() * system.fragment_size();
        if free < file.len() {
            let (free, size) = (free >> 10, file.len() >> 10);
            return Err(Error::new(
                Kind::System,
                format!(
                    "expected room for one more {} of {size} KiB, found {free} KiB free in {}",
                    image.display(),
                    folder.display()
                ),
            )
            .hint("remove kernels that are not needed any more, then run this again: nothing was enrolled"));
        }
    }
    Ok(())
}

/// What is said where the initramfs is not to be rebuilt: nothing is refused then, for the image may come from elsewhere.
pub fn warn() {
    if let Err(error) = check_builder(Path::new("/")) {
        console::say(&format!("warning: {error}"));
        error.hint.iter().for_each(|hint| console::say(&format!("hint: {hint}")));
    }
    other_dracut(Path::new("/")).iter().flat_map(Warning::lines).for_each(|line| console::say(&line));
}

/// A second dracut, that root's shell and the hooks of kernel packages find first, and that has modules of its own.
fn other_dracut(root: &Path) -> Option<Warning> {
    let other = ["usr/local/sbin/dracut", "usr/local/bin/dracut"]
        .map(|path| root.join(path))
        .into_iter()
        .find(|path| path.exists())?;
    Some(Warning {
        what: format!(
            "there is another dracut, {}, and the module 'halfkey' is for the one in /usr/bin",
            other.display()
        ),
        hint: "after a kernel update, before the reboot: halfkey-agent status --image FILE; better, remove one of the two".into(),
    })
}

/// Refuses a host whose kernel updates build an initramfs without dracut.
fn check_builder(root: &Path) -> Result<()> {
    let has = |path: &str| root.join(path).exists();
    let any = |paths: &[&str]| paths.iter().any(|path| has(path));
    let dracut = any(&["usr/bin/dracut", "usr/sbin/dracut", "sbin/dracut"]);
    let hook = any(&["etc/kernel/postinst.d/dracut", "usr/share/kernel/postinst.d/dracut"]);
    let tools = any(&["etc/kernel/postinst.d/initramfs-tools", "usr/sbin/mkinitramfs"]);
    if tools && !hook {
        return Err(Error::new(Kind::System, "expected dracut, found that initramfs-tools builds the initramfs of this host")
            .hint("mkdir -p /etc/dracut.conf.d; echo 'hostonly=\"yes\"' >/etc/dracut.conf.d/hostonly.conf; apt install dracut dracut-network takes its place"));
    }
    if !dracut {
        return Err(Error::new(Kind::System, "expected dracut, found none on this host")
            .hint("install dracut and its network modules (Debian, Fedora: dracut dracut-network)"));
    }
    check_network(root)
}

/// Refuses a host whose dracut has nothing that could bring a network up.
fn check_network(root: &Path) -> Result<()> {
    let any = |paths: &[&str]| paths.iter().any(|path| root.join(path).exists());
    let folder = root.join("usr/lib/dracut/modules.d");
    let names: Vec<_> =
        folder.read_dir().into_iter().flatten().flatten().map(|entry| entry.file_name()).collect();
    // Two digits stand before it.
    let module =
        |wanted: &str| names.iter().any(|name| name.to_str().and_then(|name| name.get(2..)) == Some(wanted));
    let manager = any(&["usr/libexec/nm-initrd-generator", "usr/lib/nm-initrd-generator"]);
    let networkd = any(&["usr/lib/systemd/systemd-networkd", "lib/systemd/systemd-networkd"]);
    if (module("network-manager") && manager) || (module("systemd-networkd") && networkd) {
        return Ok(());
    }
    let found = match (module("network-manager") || module("systemd-networkd"), manager || networkd) {
        (true, _) => "neither of them on this host",
        (false, true) => "none of dracut's modules for them",
        (false, false) => "neither of them on this host, and none of dracut's modules for them",
    };
    Err(Error::new(
        Kind::System,
        format!("expected NetworkManager or systemd-networkd for the initramfs, found {found}"),
    )
    .hint(super::NETWORK_PACKAGES))
}

/// Where the initramfs of a kernel can be, alone or in a unified kernel image.
fn images(root: &Path, kernel: &str) -> Vec<PathBuf> {
    let mut images = vec![root.join("usr/lib/modules").join(kernel).join("initrd")];
    let named = |name: &str| name.contains(kernel) && !name.ends_with("kdump.img");
    for folder in ["boot", "efi/EFI/Linux", "boot/EFI/Linux", "boot/efi/EFI/Linux"] {
        let entries = root.join(folder).read_dir().into_iter().flatten().flatten();
        images.extend(entries.filter_map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_image = name.starts_with("init") || name.ends_with(".efi");
            (is_image && named(&name)).then(|| entry.path())
        }));
    }
    let id = bounded::read_text(root.join("etc/machine-id"), 64).unwrap_or_default();
    let folders =
        ["efi", "boot", "boot/efi"].map(|folder| root.join(folder).join(&id).join(kernel).join("initrd"));
    if !id.is_empty() {
        images.extend(folders);
    }
    images
}

fn built_since(images: &[PathBuf], begun: SystemTime) -> Vec<PathBuf> {
    let is_new =
        |path: &&PathBuf| path.metadata().and_then(|found| found.modified()).is_ok_and(|at| at >= begun);
    images.iter().filter(is_new).cloned().collect()
}

fn kernel() -> String {
    bounded::read_text("/proc/sys/kernel/osrelease", 256).unwrap_or_default()
}

/// What dracut says went wrong; from 103 on `dracut[E]: Module 'x' ..`, before `dracut: dracut module 'x' ..`.
fn dracut_lines(said: &str) -> Vec<&str> {
    let is_error = |line: &&str| {
        [
            "dracut[E]",
            "dracut[F]",
            "can't be installed",
            "cannot be found or installed",
            "cannot be installed",
            "cannot be found",
        ]
        .iter()
        .any(|word| line.contains(word))
            || line.contains("FAILED")
    };
    let ours = |line: &&str| line.contains("halfkey");
    let lines: Vec<_> = said.lines().map(str::trim).filter(is_error).collect();
    let about_us: Vec<_> = lines.iter().copied().filter(ours).collect();
    // A generic image complains of modules that nobody misses.
    if about_us.is_empty() {
        lines.into_iter().filter(|line| !line.contains("dracut module '")).collect()
    } else {
        about_us
    }
}

fn failed(said: &str, what: String) -> Error {
    let lines = dracut_lines(said);
    let mut message = what;
    for line in lines.iter().take(3) {
        message.push_str(&format!("; {}", line.replace(char::is_control, " ")));
    }
    Error::new(Kind::System, message).hint(remedy(&lines))
}

/// Which package helps, by the module that is missing.
fn remedy(lines: &[&str]) -> &'static str {
    let says = |word: &str| lines.iter().any(|line| line.contains(word));
    if says("systemd-cryptsetup") || says("'crypt'") {
        "install systemd-cryptsetup (Debian 13) or cryptsetup, then run this again: nothing was enrolled"
    } else if ["'network-manager'", "'systemd-networkd'", "'kernel-network-modules'", "'dbus'"]
        .into_iter()
        .any(says)
    {
        "install dracut-network, and what it brings into the initramfs: NetworkManager with dbus, or systemd-networkd; then run this again: nothing was enrolled"
    } else if says("'halfkey'") {
        "the module 'halfkey' must be in /usr/lib/dracut/modules.d, halfkey-agent in /usr/bin, and cryptsetup installed; nothing was enrolled"
    } else {
        "dracut --force shows all of it; nothing was enrolled"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir_all, write};

    fn host(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            create_dir_all(path.parent().unwrap()).unwrap();
            write(path, "").unwrap();
        }
        root
    }

    #[test]
    fn a_host_that_builds_with_something_else_is_refused() {
        const NETWORK: &[&str] =
            &["usr/lib/dracut/modules.d/01systemd-networkd/x", "usr/lib/systemd/systemd-networkd"];
        let refused = |files: &[&str]| {
            check_builder(host(&[files, NETWORK].concat()).path()).err().map(|error| error.message)
        };
        assert_eq!(refused(&["usr/bin/dracut"]), None);
        assert_eq!(refused(&["usr/bin/dracut", "etc/kernel/postinst.d/dracut"]), None);
        // dracut-core beside initramfs-tools builds nothing at a kernel update.
        for files in [
            &["usr/bin/dracut", "etc/kernel/postinst.d/initramfs-tools"][..],
            &["usr/sbin/mkinitramfs", "usr/sbin/update-initramfs"],
        ] {
            assert!(refused(files).unwrap().contains("initramfs-tools builds"), "{files:?}");
        }
        assert!(refused(&["usr/bin/mkinitcpio"]).unwrap().contains("expected dracut, found none"));
    }

    #[test]
    fn a_host_without_a_network_for_the_initramfs_is_refused() {
        const MANAGER: &str = "usr/lib/dracut/modules.d/35network-manager/module-setup.sh";
        const NETWORKD: &str = "usr/lib/dracut/modules.d/01systemd-networkd/module-setup.sh";
        for (files, expected) in [
            (&[MANAGER, "usr/libexec/nm-initrd-generator"][..], None),
            (&[MANAGER, "usr/lib/nm-initrd-generator"], None),
            (&[NETWORKD, "usr/lib/systemd/systemd-networkd"], None),
            (&[NETWORKD, MANAGER], Some("neither of them on this host")),
            (&[NETWORKD, "usr/libexec/nm-initrd-generator"], Some("neither of them on this host")),
            (&["usr/lib/systemd/systemd-networkd"], Some("none of dracut's modules for them")),
            (&[], Some("neither of them on this host, and none of dracut's modules for them")),
        ] {
            let refused = check_builder(host(&[&["usr/bin/dracut"], files].concat()).path()).err();
            let found = refused.as_ref().and_then(|error| error.message.split(", found ").nth(1));
            assert_eq!(found, expected, "{files:?}");
            assert!(refused.is_none_or(|error| error.hint.unwrap().contains("NetworkManager")), "{files:?}");
        }
    }

    #[test]
    fn a_second_dracut_is_told_of() {
        assert_eq!(other_dracut(host(&["usr/bin/dracut"]).path()), None);
        let found = other_dracut(host(&["usr/bin/dracut", "usr/local/bin/dracut"]).path()).unwrap();
        assert!(found.what.contains("usr/local/bin/dracut,"), "{found:?}");
    }

    #[test]
    fn dracut_is_not_begun_where_an_image_does_not_fit_once_more() {
        let host = host(&["boot/initrd.img-6.12.1"]);
        let image = host.path().join("boot/initrd.img-6.12.1");
        let missing = host.path().join("boot/initrd.img-6.12.2");
        check_room(&[image.clone(), missing]).unwrap();
        // A hole takes no room, and dracut would fill it.
        let free = statvfs(host.path()).unwrap();
        let size = free.blocks_available() * free.fragment_size() + (1 << 30);
        std::fs::File::options().write(true).open(&image).unwrap().set_len(size).unwrap();
        let error = check_room(&[image]).unwrap_err();
        assert!(error.message.contains("KiB free in") && error.message.contains("/boot"), "{error}");
    }

    #[test]
    fn the_images_of_this_kernel_are_found() {
        let root = host(&[
            "boot/initrd.img-6.12.1",
            "boot/initramfs-6.12.1.img",
            "boot/initramfs-6.12.1kdump.img",
            "boot/initrd.img-6.12.0",
            "boot/vmlinuz-6.12.1",
            "efi/EFI/Linux/0123-6.12.1.efi",
            "efi/0123/6.12.1/initrd",
            "usr/lib/modules/6.12.1/initrd",
        ]);
        write(root.path().join("etc-machine-id"), "").unwrap();
        create_dir_all(root.path().join("etc")).unwrap();
        write(root.path().join("etc/machine-id"), "0123\n").unwrap();
        let mut found: Vec<_> = built_since(&images(root.path(), "6.12.1"), SystemTime::UNIX_EPOCH)
            .iter()
            .map(|path| path.strip_prefix(root.path()).unwrap().display().to_string())
            .collect();
        found.sort();
        assert_eq!(
            found,
            [
                "boot/initramfs-6.12.1.img",
                "boot/initrd.img-6.12.1",
                "efi/0123/6.12.1/initrd",
                "efi/EFI/Linux/0123-6.12.1.efi",
                "usr/lib/modules/6.12.1/initrd"
            ]
        );
        let later = SystemTime::now() + Duration::from_secs(60);
        assert!(built_since(&images(root.path(), "6.12.1"), later).is_empty());
    }

    #[test]
    fn dracut_is_quoted_and_the_package_named() {
        for (said, package) in [
            (
                "dracut: Executing: /usr/bin/dracut --force\n\
                 dracut: dracut module 'plymouth' cannot be found or installed.\n\
                 dracut: dracut module 'halfkey' depends on 'systemd-networkd', which can't be installed\n",
                "install dracut-network",
            ),
            (
                "dracut[E]: Module 'halfkey' depends on module 'systemd-networkd', which can't be installed\n",
                "install dracut-network",
            ),
            (
                "dracut[E]: Module 'halfkey' depends on module 'network-manager', which can't be installed",
                "install dracut-network",
            ),
            (
                "dracut[E]: Module 'halfkey' depends on module 'systemd-cryptsetup', which can't be installed",
                "install systemd-cryptsetup",
            ),
            ("dracut[E]: Module 'halfkey' cannot be found.\n", "must be in /usr/lib/dracut/modules.d"),
        ] {
            let error = failed(said, "the image has no halfkey-agent".into());
            assert!(error.message.contains("'halfkey'") && !error.message.contains("plymouth"), "{error}");
            assert!(
                error.hint.unwrap().starts_with(package) || said.contains("cannot be found.\n"),
                "{said}"
            );
        }
        let full = failed("dracut[F]: No space left on device\n", "dracut --force: exit status: 1".into());
        assert!(full.message.ends_with("No space left on device"), "{full}");
        assert!(failed("", "x".into()).hint.unwrap().contains("dracut --force shows"));
    }
}
