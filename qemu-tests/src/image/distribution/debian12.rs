//! Debian 12 (bookworm): dracut 059, systemd 252, Linux 6.1.

use super::{Distribution, Loaders, Source, Stage};

pub(super) const DEBIAN: Distribution = Distribution {
    name: "debian12",
    title: "Debian 12 (bookworm)",
    sources: &[
        Source { archive: ARCHIVE, suite: "bookworm" },
        Source { archive: ARCHIVE, suite: "bookworm-updates" },
        Source { archive: SECURITY, suite: "bookworm-security" },
    ],
    stage: Stage::Stable,
    #[rustfmt::skip]
    include: &[
        "systemd", "systemd-sysv", "udev", "dbus", "kmod", "iproute2", "cryptsetup-bin", "dracut-core",
        "dracut-network", "zstd",
    ],
    tools: &["tpm2-tools"],
    kernel: "linux-image-cloud-amd64",
    flavour: "-cloud-amd64",
    earlier: None,
    backports: Source { archive: ARCHIVE, suite: "trixie-backports" },
    loaders: LOADERS,
    #[rustfmt::skip]
    omit: &[
        "nfs", "iscsi", "lvm", "mdraid", "multipath", "dmraid", "btrfs", "plymouth", "cifs", "nbd", "ifcfg",
        "nvdimm", "virtiofs", "lunmask", "kernel-modules-extra", "qemu-net", "i18n",
    ],
    omit_drivers: DRIVERS,
    hooks: "usr/lib/dracut/hooks",
    cmdline: &[],
    in_initramfs: "",
    files: &[],
    masked: MASKED,
    cpu: CPU,
};

/// The mirror that has all of Debian.
pub(super) const ARCHIVE: &str = "http://deb.debian.org/debian";
/// The one of its security team.
pub(super) const SECURITY: &str = "http://deb.debian.org/debian-security";

/// The same in each release since 12.
pub(super) const LOADERS: Loaders = Loaders {
    packages: &["shim-signed", "grub-efi-amd64-signed", "systemd-boot-efi"],
    shim: "usr/lib/shim/shimx64.efi.signed",
    grub: "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed",
    stub: "usr/lib/systemd/boot/efi/linuxx64.efi.stub",
    systemd_boot: "usr/lib/systemd/boot/efi/systemd-bootx64.efi",
};

/// Every memory access would walk one more level of page tables; and cmpxchg16b of QEMU 7.2 panics kernels from 6.12 on.
pub(super) const CPU: &str = "max,la57=off,cx16=off";

/// Drivers of hardware that QEMU is not asked for.
#[rustfmt::skip]
pub(super) const DRIVERS: &[&str] = &[
    "mlx5_core", "mlx4_core", "mlx4_en", "mlx5_ib", "mlx4_ib", "libceph", "ceph", "rbd", "target_core_mod", "libata",
    "bcache", "bridge", "mpi3mr", "ipr", "mei", "raid456", "raid10", "raid1", "raid0", "md_mod", "scsi_transport_iscsi",
    "scsi_transport_fc", "libiscsi", "scsi_debug", "surface_aggregator", "hv_netvsc", "hid_wiimote", "null_blk",
    "dm_cache", "dm_thin_pool", "dm_persistent_data", "vxlan", "ena", "gve", "mana", "ixgbevf", "i40e", "iavf", "ice",
    "bnxt_en", "bonding", "tls", "hid", "sunrpc", "nvme_core", "nvme_fabrics", "usbcore", "drm", "btrfs", "xfs", "cifs",
    "tcrypt", "dm_vdo", "drbd", "ionic", "idpf", "libnvdimm", "nvmet", "vmxnet3", "hv_vmbus", "xen_netback", "xen_netfront",
    "xen_blkfront", "aoe", "zram", "dm_zoned", "dm_raid", "streebog_generic",
];

/// Timers, mounts and bookkeeping.
pub(super) const MASKED: &[&str] = &[
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
