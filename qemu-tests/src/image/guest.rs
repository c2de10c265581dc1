//! The guest's root file system: a small real Debian, the agent, and what the test needs in it.

use super::cache::cached;
use super::luks;
use super::packages::Packages;
use crate::error::{Context, Result};
use crate::paths::{Key, Paths};
use crate::process::run;
use nix::unistd::geteuid;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

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

const SIZE: u64 = 448 << 20;

/// What is added to Debian: path, mode, content.
const FILES: &[(&str, u32, &str)] = &[
    ("etc/hostname", 0o644, "guest\n"),
    // A known id: otherwise the first boot sets up every unit anew.
    ("etc/machine-id", 0o444, "5b1d7d4c9a0e4c6f8a2b3c4d5e6f7a8b\n"),
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

/// Nothing that is tested, but seconds under emulation.
const MASKED: &[&str] = &[
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@tty1.service",
    "modprobe@configfs.service",
    "modprobe@drm.service",
    "modprobe@efi_pstore.service",
    "modprobe@fuse.service",
    "modprobe@loop.service",
    "proc-sys-fs-binfmt_misc.automount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-binfmt.service",
    "systemd-journal-flush.service",
    "systemd-logind.service",
    "systemd-networkd-wait-online.service",
    "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service",
];

/// Builds the LUKS2 volume with the root file system, or takes it from the cache.
///
/// # Errors
/// If a tool fails or the disk is full.
pub fn build(
    paths: &Paths,
    packages: &Packages,
    passphrase: &str,
    say: &mut dyn FnMut(&str),
) -> Result<PathBuf> {
    let mut key = Key::new("root 1").text(&packages.key).text(ROOT_LUKS).text(ROOT_FS).text(passphrase);
    for (path, _, content) in FILES {
        key = key.text(path).text(content);
    }
    let key = key.text(&format!("{SIZE} {ENABLED:?} {MASKED:?}")).file(&paths.programs.agent)?.hex();
    cached(paths.cache.join(format!("root-{key}.luks")), |partial| {
        say("encrypting the root file system");
        let tree = partial.with_extension("tree");
        let ext4 = partial.with_extension("ext4");
        let result = populate(paths, packages, &tree)
            .and_then(|()| make_ext4(&tree, &ext4))
            .and_then(|()| luks::create(&ext4, ROOT_LUKS, passphrase, partial));
        run(as_root("rm").arg("-rf").arg(&tree).arg(&ext4))?;
        result
    })
}

fn make_ext4(tree: &Path, to: &Path) -> Result<()> {
    luks::ext4(as_root("mkfs.ext4"), Some(tree), ROOT_FS, SIZE, to)
}

fn populate(paths: &Paths, packages: &Packages, tree: &Path) -> Result<()> {
    run(as_root("rm").arg("-rf").arg(tree))?;
    fs::create_dir_all(tree).context("can't make a folder in the cache")?;
    run(as_root("tar").arg("-xf").arg(&packages.rootfs).args(["--exclude=./dev/*", "-C"]).arg(tree))?;

    // Laid out beside it first: the tree belongs to (a mapped) root.
    let extra = tree.with_extension("extra");
    super::cache::remove(&extra)?;
    let place = |path: &str| -> Result<PathBuf> {
        let to = extra.join(path);
        let folder = to.parent().expect("a file is in a folder");
        fs::create_dir_all(folder).context("can't make a folder in the cache")?;
        Ok(to)
    };
    for (path, mode, content) in FILES {
        let to = place(path)?;
        fs::write(&to, content).context("can't write a guest file")?;
        fs::set_permissions(&to, fs::Permissions::from_mode(*mode)).context("can't set a mode")?;
    }
    for unit in ENABLED {
        let name = unit.rsplit('/').next().unwrap_or_default();
        symlink(unit, place(&format!("etc/systemd/system/multi-user.target.wants/{name}"))?)
            .context("can't enable a unit")?;
    }
    for unit in MASKED {
        symlink("/dev/null", place(&format!("etc/systemd/system/{unit}"))?).context("can't mask a unit")?;
    }
    fs::copy(&paths.programs.agent, place("usr/sbin/halfkey-agent")?).context("can't copy the agent")?;

    // -h: usr-merge links of the tree stay.
    let archive = extra.with_extension("extra.tar");
    run(Command::new("tar")
        .arg("-C")
        .arg(&extra)
        .args(["--owner=0", "--group=0", "-cf"])
        .arg(&archive)
        .arg("."))?;
    let unpacked = run(as_root("tar")
        .arg("-C")
        .arg(tree)
        .args(["--keep-directory-symlink", "--no-overwrite-dir", "-xf"])
        .arg(&archive));
    super::cache::remove(&archive)?;
    super::cache::remove(&extra)?;
    unpacked?;
    Ok(())
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

/// The command as root, of the machine or of a user namespace: ownership in the tree must be right.
fn as_root(program: &str) -> Command {
    if geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--map-auto", "--", program]);
    command
}
