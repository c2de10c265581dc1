//! Debian testing (forky, to be 14): dracut 112, systemd 262, Linux 7.2. A mirror may lack what it needs, or the keys for it.

use super::debian12::{ARCHIVE, CPU, DRIVERS, LOADERS, MASKED};
use super::debian13::{CMDLINE, FILES, HOOKS, IN_INITRAMFS, OMIT};
use super::{Distribution, Source, Stage};

pub(super) const DEBIAN: Distribution = Distribution {
    name: "testing",
    title: "Debian testing (forky)",
    // There are no updates besides: what is new comes to the suite itself.
    sources: &[Source { archive: ARCHIVE, suite: "forky" }],
    stage: Stage::Moving { keys: STABLE },
    // systemd's own recommendations are no dependencies any more: a TPM is its own package, and what it loads when it needs it.
    // Only where tpm2-tools are does dracut take along what systemd measures with: without, its units in the initramfs measure nothing.
    #[rustfmt::skip]
    include: &[
        "systemd", "systemd-sysv", "systemd-cryptsetup", "systemd-tpm", "udev", "dbus", "login", "kmod", "iproute2",
        "cryptsetup-bin", "dracut-core", "dracut-network", "tpm2-tools", "zstd",
    ],
    tools: &[],
    kernel: "linux-image-cloud-amd64",
    flavour: "-cloud-amd64",
    earlier: Some(STABLE),
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

/// The release before it, which knows its keys, and has a kernel to update from.
const STABLE: Source = Source { archive: ARCHIVE, suite: "trixie" };
