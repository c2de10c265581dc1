//! Debian 13 (trixie): dracut 106, systemd 257, Linux 6.12.

use super::debian12::{ARCHIVE, CPU, DRIVERS, LOADERS, MASKED, SECURITY};
use super::{Distribution, Source, Stage};

pub(super) const DEBIAN: Distribution = Distribution {
    name: "debian13",
    title: "Debian 13 (trixie)",
    sources: &[
        Source { archive: ARCHIVE, suite: "trixie" },
        Source { archive: ARCHIVE, suite: "trixie-updates" },
        Source { archive: SECURITY, suite: "trixie-security" },
    ],
    stage: Stage::Stable,
    #[rustfmt::skip]
    include: &[
        "systemd", "systemd-sysv", "systemd-cryptsetup", "udev", "dbus", "kmod", "iproute2", "cryptsetup-bin",
        "dracut-core", "dracut-network", "zstd",
    ],
    tools: &["tpm2-tools"],
    kernel: "linux-image-cloud-amd64",
    flavour: "-cloud-amd64",
    earlier: None,
    backports: Source { archive: ARCHIVE, suite: "trixie-backports" },
    loaders: LOADERS,
    omit: OMIT,
    omit_drivers: DRIVERS,
    hooks: HOOKS,
    cmdline: CMDLINE,
    in_initramfs: IN_INITRAMFS,
    files: FILES,
    masked: MASKED,
    cpu: CPU,
};

#[rustfmt::skip]
pub(super) const OMIT: &[&str] = &[
    "nfs", "iscsi", "lvm", "mdraid", "multipath", "dmraid", "btrfs", "plymouth", "cifs", "nbd", "nvdimm", "virtiofs",
    "lunmask", "kernel-modules-extra", "qemu-net", "i18n", "systemd-bsod", "systemd-battery-check", "hwdb",
];

/// From dracut 106 on; /usr/lib/dracut/hooks is a link to it.
pub(super) const HOOKS: &str = "var/lib/dracut/hooks";

/// Its generic initramfs has no root password, and then gives no shell. What an owner sets: docs/operations.md, "Repair a machine".
pub(super) const IN_INITRAMFS: &str = "SYSTEMD_SULOGIN_FORCE=1";

/// Without bpf in the list systemd loads no program of its own in the initramfs: the kernel would first parse all of its types,
/// which takes half a minute under emulation.
pub(super) const CMDLINE: &[&str] = &["lsm=landlock,lockdown,yama,integrity,apparmor"];

/// The same for what watches sysctls.
pub(super) const FILES: &[(&str, &str)] =
    &[("etc/systemd/system/systemd-networkd.service.d/no-bpf.conf", NO_BPF)];

/// Its own list, without CAP_BPF and CAP_SYS_ADMIN.
const NO_BPF: &str = "[Service]\nAmbientCapabilities=\nCapabilityBoundingSet=\n\
    AmbientCapabilities=CAP_NET_ADMIN CAP_NET_BIND_SERVICE CAP_NET_BROADCAST CAP_NET_RAW\n\
    CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_BIND_SERVICE CAP_NET_BROADCAST CAP_NET_RAW\n";
