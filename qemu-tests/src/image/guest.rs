//! The guest's root file system: a small real system, the agent, and what the test needs in it.

use super::cache::cached;
use super::distribution::Distribution;
use super::luks;
use super::packages::Packages;
use super::tree::{Layout, Tree, as_root};
use crate::error::{Context, Result};
use crate::paths::{Key, Paths};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// UUID of the LUKS2 volume that holds the root file system.
pub const ROOT_LUKS: &str = "0b5f4c0e-6d1b-4f0a-9f2d-1d0c7a5e0001";
/// UUID of the root file system in it.
pub const ROOT_FS: &str = "0b5f4c0e-6d1b-4f0a-9f2d-1d0c7a5e0002";
/// UUID of the LUKS2 volume on the third disk.
pub const DATA_LUKS: &str = "0b5f4c0e-6d1b-4f0a-9f2d-1d0c7a5e0003";
/// UUID of a LUKS2 volume that no enrollment knows.
pub const OTHER_LUKS: &str = "0b5f4c0e-6d1b-4f0a-9f2d-1d0c7a5e0004";
/// The passphrase in keyslot 0, as a person would type it.
pub const PASSPHRASE: &str = "correct horse battery staple";

/// What every machine of the tests has on its kernel's command line. On a busy host the kernel would take an emulated timer that is
/// late for a broken one, and may find none that works.
pub const CMDLINE: &str = "no_timer_check console=ttyS0 loglevel=4 systemd.show_status=yes";

const SIZE: u64 = 448 << 20;

/// What is added to the distribution's packages: path, mode, content.
const FILES: &[(&str, u32, &str)] = &[
    ("etc/hostname", 0o644, "guest\n"),
    // A known id: otherwise the first boot sets up every unit anew.
    ("etc/machine-id", 0o444, "5b1d7d4c9a0e4c6f8a2b3c4d5e6f7a8b\n"),
    // Else the first boot makes everything anew that may depend on /usr.
    ("etc/.updated", 0o644, ""),
    ("var/.updated", 0o644, ""),
    ("etc/fstab", 0o644, "/dev/mapper/root / ext4 defaults 0 0\n"),
    ("etc/systemd/network/10-ether.network", 0o644, "[Match]\nType=ether\n[Network]\nDHCP=yes\n"),
    (
        "etc/systemd/system/serial-getty@ttyS0.service.d/autologin.conf",
        0o644,
        "[Service]\nExecStart=\nExecStart=-/sbin/agetty --autologin root --keep-baud 115200 - dumb\n",
    ),
    ("usr/lib/rig/marker", 0o755, include_str!("../../guest/marker.sh")),
    ("usr/lib/rig/shell", 0o755, include_str!("../../guest/shell.sh")),
    (
        "etc/systemd/system/rig-marker.service",
        0o644,
        "[Unit]\nDescription=Marker for the rig\n[Service]\nType=oneshot\nExecStart=/usr/lib/rig/marker\n",
    ),
    (
        "etc/systemd/system/rig-shell.service",
        0o644,
        "[Unit]\nDescription=Shell for the rig\nWants=rig-marker.service\nAfter=rig-marker.service\n\
         [Service]\nExecStart=/usr/lib/rig/shell\n",
    ),
];

const ENABLED: &[&str] =
    &["/etc/systemd/system/rig-shell.service", "/lib/systemd/system/systemd-networkd.service"];

/// Builds the LUKS2 volume with the root file system, or takes it from the cache.
///
/// # Errors
/// If a tool fails or the disk is full.
pub(super) fn build(
    paths: &Paths,
    packages: &Packages,
    passphrase: &str,
    say: &mut dyn FnMut(&str),
) -> Result<PathBuf> {
    let Distribution { name, title, .. } = packages.distribution;
    let key = Key::new("root 3").text(&packages.key).text(ROOT_LUKS).text(ROOT_FS).text(passphrase);
    let key = key.text(&fingerprint(packages.distribution)).text(&SIZE.to_string());
    let key = key.file(&paths.programs.agent)?.hex();
    cached(paths.cache.join(format!("root-{name}-{key}.luks")), |partial| {
        say(&format!("encrypting the root file system of {title}"));
        let ext4 = partial.with_extension("ext4");
        let result = populate(paths, packages, partial.with_extension("tree"))
            .and_then(|tree| luks::ext4(as_root("mkfs.ext4"), Some(tree.path()), ROOT_FS, SIZE, &ext4))
            .and_then(|()| luks::create(&ext4, ROOT_LUKS, passphrase, partial));
        super::cache::remove(&ext4)?;
        result
    })
}

fn populate(paths: &Paths, packages: &Packages, at: PathBuf) -> Result<Tree> {
    let tree = Tree::unpack(&packages.rootfs, at)?;
    tree.add(|layout| {
        lay_out(layout, packages.distribution)?;
        fs::copy(&paths.programs.agent, layout.place("usr/sbin/halfkey-agent")?)
            .context("can't copy the agent")?;
        Ok(())
    })?;
    Ok(tree)
}

/// What the tests need in the system of a machine, whoever has installed it.
pub(super) fn lay_out(layout: &Layout, on: &Distribution) -> Result<()> {
    for (path, mode, content) in FILES {
        let to = layout.place(path)?;
        fs::write(&to, content).context("can't write a guest file")?;
        fs::set_permissions(&to, fs::Permissions::from_mode(*mode)).context("can't set a mode")?;
    }
    for (path, content) in on.files {
        fs::write(layout.place(path)?, content).context("can't write a guest file")?;
    }
    for unit in ENABLED {
        let name = unit.rsplit('/').next().unwrap_or_default();
        let link = layout.place(&format!("etc/systemd/system/multi-user.target.wants/{name}"))?;
        symlink(unit, link).context("can't enable a unit")?;
    }
    for unit in on.masked {
        symlink("/dev/null", layout.place(&format!("etc/systemd/system/{unit}"))?)
            .context("can't mask a unit")?;
    }
    Ok(())
}

/// All of that, for names in the cache.
pub(super) fn fingerprint(on: &Distribution) -> String {
    format!("{FILES:?} {ENABLED:?} {:?} {:?}", on.files, on.masked)
}

/// The least that systemd takes for a root file system: os-release and this init, for a static busybox.
pub(super) fn plaintext(tree: &Path, init: &str) -> Result<()> {
    super::cache::remove(tree)?;
    for folder in ["bin", "etc", "sbin", "usr/lib", "proc", "sys", "dev", "run", "tmp", "mnt"] {
        fs::create_dir_all(tree.join(folder)).context("can't make a folder")?;
    }
    fs::copy("/bin/busybox", tree.join("bin/busybox")).context("can't copy busybox\nhint: make deps")?;
    symlink("busybox", tree.join("bin/sh")).context("can't link a shell")?;
    let release = "ID=rogue\nNAME=\"Rogue\"\n";
    for (path, content) in [("etc/os-release", release), ("usr/lib/os-release", release), ("sbin/init", init)]
    {
        fs::write(tree.join(path), content).context("can't write a file")?;
    }
    fs::set_permissions(tree.join("sbin/init"), fs::Permissions::from_mode(0o755)).context("can't set a mode")
}
