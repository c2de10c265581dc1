//! Machines as their owners have them: a disk that the distribution's own programs have laid out, encrypted, filled and made bootable,
//! in a virtual machine of their own. Nothing of Halfkey is on it: that comes as it comes to an owner, by its packages.

use super::cache::{cached, remove};
use super::packages::Packages;
use super::system::BootPath;
use super::tree::{Tree, as_root};
use super::{guest, luks};
use crate::error::{Context, Result};
use crate::lab::machine::PROMPT;
use crate::marker;
use crate::paths::{Key, Paths};
use crate::process::{Guard, tail_of};
use crate::qemu::{self, Accel, Linux};
use crate::variables::Partition;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How a machine is installed.
#[derive(Debug, PartialEq, Eq)]
pub struct Installation {
    /// For names of files.
    name: &'static str,
    /// What people read.
    title: &'static str,
    /// What the distribution installs on it, besides the essential packages, a kernel and what scenarios call.
    packages: &'static [&'static str],
    /// How the firmware gets to the kernel.
    pub path: BootPath,
    /// What the firmware starts: a path on the EFI system partition.
    pub starts: &'static str,
    /// Lays out the disk and fills it: a script that follows `guest/install.sh`.
    script: &'static str,
    /// Its encrypted volumes, the root's first: devices, and the names by which the system knows what is in them.
    pub volumes: &'static [(&'static str, &'static str)],
    /// How the name of what is mounted at / begins.
    pub root: &'static str,
    /// What its first initramfs asks.
    pub asks: &'static str,
    /// The unit that gets its initramfs an address.
    pub network: &'static str,
    /// What an owner types to put the words on the kernel's command line that no policy does without.
    pub floor: &'static [&'static str],
}

/// systemd-boot with ukify.
pub static UKI: Installation = Installation {
    name: "uki",
    title: "systemd-boot, a UKI by kernel-install, btrfs, /var on a volume of its own",
    #[rustfmt::skip]
    packages: &[
        "systemd", "systemd-sysv", "systemd-cryptsetup", "systemd-boot", "systemd-boot-efi", "systemd-ukify", "udev", "dbus", "kmod", "iproute2",
        "cryptsetup-bin", "dracut", "zstd", "btrfs-progs", "dosfstools", "e2fsprogs", "fdisk",
    ],
    path: BootPath::Uki,
    starts: "EFI/systemd/systemd-bootx64.efi",
    script: include_str!("../../guest/install-uki.sh"),
    volumes: &[("/dev/vda2", "root_crypt"), ("/dev/vda3", "var_crypt")],
    root: "/dev/mapper/root_crypt",
    asks: PROMPT,
    network: "systemd-networkd.service",
    floor: UKI_FLOOR,
};

/// NetworkManager as on Fedora and SUSE, with Debian's packages; the root's volume is called luks-UUID, as [`guest::ROOT_LUKS`].
pub static NM: Installation = Installation {
    name: "nm",
    title: "systemd-boot, a UKI by kernel-install, ext4, NetworkManager, an initramfs for this machine alone",
    #[rustfmt::skip]
    packages: &[
        "systemd", "systemd-sysv", "systemd-cryptsetup", "systemd-boot", "systemd-boot-efi", "systemd-ukify", "udev", "dbus", "kmod", "iproute2",
        "network-manager", "cryptsetup-bin", "dracut", "dracut-network", "zstd", "dosfstools", "e2fsprogs", "fdisk",
    ],
    path: BootPath::Uki,
    starts: "EFI/systemd/systemd-bootx64.efi",
    script: include_str!("../../guest/install-nm.sh"),
    volumes: &[("/dev/vda2", "luks-0b5f4c0e-6d1b-4f0a-9f2d-1d0c7a5e0001")],
    root: "/dev/mapper/luks-0b5f4c0e-6d1b-4f0a-9f2d-1d0c7a5e0001",
    asks: PROMPT,
    // dracut's: in the running system it is NetworkManager.service.
    network: "nm-initrd.service",
    floor: UKI_FLOOR,
};

/// shim and GRUB with Microsoft's keys, as Debian's installer leaves a machine with encrypted LVM: initramfs-tools, no words of dracut's.
pub static GRUB: Installation = Installation {
    name: "grub",
    title: "shim and GRUB, LVM on LUKS, /boot beside it, ifupdown, initramfs-tools",
    #[rustfmt::skip]
    packages: &[
        "systemd", "systemd-sysv", "udev", "dbus", "kmod", "iproute2", "ifupdown", "dhcpcd-base", "cryptsetup", "cryptsetup-initramfs",
        "initramfs-tools", "zstd", "lvm2", "grub-efi-amd64", "grub-efi-amd64-signed", "shim-signed", "dosfstools", "e2fsprogs", "fdisk",
    ],
    path: BootPath::Grub,
    starts: "EFI/debian/shimx64.efi",
    script: include_str!("../../guest/install-grub.sh"),
    volumes: &[("/dev/vda3", "vda3_crypt")],
    root: "/dev/mapper/guest--vg-root",
    asks: "unlock disk vda3_crypt",
    network: "systemd-networkd.service",
    // Secure Boot is on.
    floor: &[
        "mkdir -p /etc/dracut.conf.d",
        "echo 'hostonly=\"yes\"' >/etc/dracut.conf.d/hostonly.conf",
        "sed -i 's/^GRUB_CMDLINE_LINUX=\"/&systemd.import_credentials=no /' /etc/default/grub",
        "update-grub",
    ],
};

const UKI_FLOOR: &[&str] =
    &["sed -i 's/$/ systemd.import_credentials=no efi=noruntime/' /etc/kernel/cmdline"];

/// The EFI system partition of all of them.
pub const ESP: Partition = Partition { size: (512 << 20) / 512, ..super::disk::ESP };

/// What the agent's package depends on and is not installed everywhere.
const BROUGHT: &str = "dracut dracut-network systemd-cryptsetup";
/// Where an owner's apt finds that and another kernel, as it finds them in the distribution's archive: these machines see no other.
const ARCHIVE: &str = "srv/archive";
/// Where the script is, in the tree.
const INSTALL: &str = "usr/lib/rig/install";
const HEAD: &str = include_str!("../../guest/install.sh");
/// Of the disk: sparse in the cache.
const SIZE: u64 = 3200 << 20;
/// A root with its packages, unpacked, and as much room as an installer needs.
const LIVE: u64 = 2048 << 20;
/// How long an installer may take, emulated on a busy host.
const PATIENCE: Duration = Duration::from_secs(1800);
/// What the script says at its end if all went well.
const INSTALLED: &str = "\nINSTALLED";

/// Lists what is in the archive, and has apt know it.
const LIST: &str = r#"cd /srv/archive
for deb in *.deb; do
    dpkg-deb -f "$deb"
    printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "$deb" "$(stat -c %s "$deb")" "$(sha256sum "$deb" | cut -d ' ' -f 1)"
done >Packages
rm -f /etc/apt/sources.list.d/*
echo 'deb [trusted=yes] file:/srv/archive ./' >/etc/apt/sources.list
apt-get -o APT::Sandbox::User=root update --quiet
"#;

/// The disk of a machine that is installed so, from the cache or made now.
///
/// # Errors
/// If a package is not to be had, a tool fails, or the installer does not come to its end: the error holds its last words.
pub(super) fn disk(
    paths: &Paths,
    packages: &Packages,
    installation: &Installation,
    accel: Accel,
    say: &mut dyn FnMut(&str),
) -> Result<PathBuf> {
    let Installation { name, title, .. } = installation;
    let on = packages.distribution;
    let recipe = Recipe::new(packages, installation)?;
    let script = recipe.script();
    let key = recipe.key("installed 1").text(&script).text(LIST).text(&guest::fingerprint(on)).hex();
    cached(paths.cache.join(format!("installed-{}-{name}-{key}.img", on.name)), |partial| {
        let at = |kind: &str| partial.with_extension(kind);
        let tree = Tree::unpack(&recipe.root(paths, say)?, at("tree"))?;
        tree.add(|layout| {
            guest::lay_out(layout, on)?;
            let to = layout.place(INSTALL)?;
            fs::write(&to, &script).context("can't write a script")?;
            fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).context("can't set a mode")
        })?;
        tree.run(&[], &["sh", "-ec", LIST])?;
        say(&format!("installing {}: {title}", on.title));
        let live = at("ext4");
        let result = luks::ext4(as_root("mkfs.ext4"), Some(tree.path()), guest::ROOT_FS, LIVE, &live)
            .and_then(|()| marker::blank(partial, SIZE))
            .and_then(|()| recipe.install(&tree, accel, &[partial, &live], &at("log")));
        remove(&live)?;
        result
    })
}

/// An installation of a distribution.
struct Recipe<'a> {
    packages: &'a Packages,
    installation: &'a Installation,
    /// Packages: what is installed, and what its owner will install.
    kernels: [String; 2],
}

impl<'a> Recipe<'a> {
    fn new(packages: &'a Packages, installation: &'a Installation) -> Result<Self> {
        Ok(Self { packages, installation, kernels: packages.kernels()? })
    }

    fn include(&self) -> String {
        let [first, _] = &self.kernels;
        [self.installation.packages, self.packages.distribution.tools, &[first]].concat().join(",")
    }

    fn key(&self, what: &str) -> Key {
        let [_, second] = &self.kernels;
        Key::new(what).text(&self.packages.key).text(&self.include()).text(second)
    }

    fn cmdline(&self) -> String {
        format!("{} {}", guest::CMDLINE, self.packages.distribution.cmdline.join(" ")).trim_end().to_owned()
    }

    fn script(&self) -> String {
        [HEAD, self.installation.script]
            .concat()
            .replace("@PASSPHRASE@", guest::PASSPHRASE)
            .replace("@ROOT_LUKS@", guest::ROOT_LUKS)
            .replace("@DATA_LUKS@", guest::DATA_LUKS)
            .replace("@ROOT_FS@", guest::ROOT_FS)
            .replace("@CMDLINE@", &self.cmdline())
    }

    /// A root with all its packages and the first kernel, and what its owner will install besides as files.
    fn root(&self, paths: &Paths, say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
        let [_, second] = &self.kernels;
        let apt = |what: &str| format!("APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get {what}");
        let fetched = format!("{BROUGHT} {second}");
        let steps = [
            apt("clean"),
            apt(&format!("--yes --download-only install {fetched}")),
            format!("mkdir -p $1/{ARCHIVE} && mv $1/var/cache/apt/archives/*.deb $1/{ARCHIVE}/"),
        ];
        let key = self.key("installed root 1").text(&steps.join("\n")).hex();
        cached(paths.cache.join(format!("rootfs-{key}.tar")), |partial| {
            let title = self.packages.distribution.title;
            say(&format!("making a {title} with the packages of: {}", self.installation.title));
            self.packages.bootstrap(&self.include(), &steps.each_ref().map(String::as_str), partial)
        })
    }

    /// Runs the installer to its end, with the kernel and the initramfs of its root.
    fn install(&self, root: &Tree, accel: Accel, disks: &[&Path], log: &Path) -> Result<()> {
        let [first, _] = &self.kernels;
        let version = first.trim_start_matches("linux-image-");
        let boot = root.path().join("boot");
        let (kernel, initrd) =
            (boot.join(format!("vmlinuz-{version}")), boot.join(format!("initrd.img-{version}")));
        let cmdline = format!("root=/dev/vdb rw init=/{INSTALL} {}", self.cmdline());
        remove(log)?;
        let cpu = self.packages.distribution.cpu;
        let mut command = qemu::bare(accel, cpu, &Linux { kernel, initrd, cmdline }, disks, log);
        let output = log.with_extension("qemu.log");
        let ended = Guard::start("qemu", &mut command, &output)?.wait(PATIENCE);
        let said = String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned();
        crate::ensure!(
            ended.is_ok() && said.contains(INSTALLED),
            "the installer did not come to its end ({}):\n{}{}",
            log.display(),
            tail_of(&output, 5),
            tail_of(log, 25)
        );
        remove(log)?;
        remove(&output)
    }
}
