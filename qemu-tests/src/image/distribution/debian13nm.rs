//! Debian 13 with NetworkManager, in the running system and so in the initramfs: it stands for Fedora, EL and SUSE.

use super::Distribution;
use super::debian13;

pub(super) const DEBIAN: Distribution = Distribution {
    name: "debian13nm",
    title: "Debian 13 with NetworkManager",
    #[rustfmt::skip]
    include: &[
        "systemd", "systemd-sysv", "systemd-cryptsetup", "udev", "dbus", "kmod", "iproute2", "cryptsetup-bin",
        "dracut-core", "dracut-network", "zstd", "network-manager",
    ],
    // Of two networks one would be in the other's way. (An empty unit is masked.)
    files: &[("etc/systemd/system/systemd-networkd.service", "")],
    ..debian13::DEBIAN
};
