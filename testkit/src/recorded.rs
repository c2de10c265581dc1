//! Boots of real machines: Debian's OVMF and swtpm under QEMU, as `halfkey-qemu-tests record` writes them.
//!
//! Their files are in `testkit/boots`: the firmware's log (`.bin`), `/proc/cmdline` (`.cmdline`), the PCRs that the TPM quoted
//! (`.pcrs`, SHA-256), and what each event of the log is (`.events`).

use crate::log::{Record, read};

/// A boot that was recorded.
pub struct Boot {
    /// Name of its files.
    pub name: &'static str,
    /// `binary_bios_measurements`: crypto-agile.
    pub log: &'static [u8],
    command_line: &'static str,
}

macro_rules! boots {
    ($($name:literal)+) => {
        &[$(Boot {
            name: $name,
            log: include_bytes!(concat!("../boots/", $name, ".bin")),
            command_line: include_str!(concat!("../boots/", $name, ".cmdline")),
        },)+]
    };
}

/// Each way to boot once.
pub const BOOTS: &[Boot] =
    boots!["uki-no-secure-boot" "uki-secure-boot-own-keys" "systemd-boot-type1" "grub-shim-ms-keys"];

/// The entry of `systemd-boot-type1` after an attacker had written to it, on a kernel (6.1) that does not measure the initrd
/// that its command line names: that initrd has put the event and the digest of the honest one into log and PCR 9.
pub const UNMEASURED_INITRD: &Boot = &boots!["systemd-boot-type1-unmeasured-initrd"][0];

/// One of [`BOOTS`].
///
/// # Panics
/// If there is none of this name.
pub fn boot(name: &str) -> &'static Boot {
    BOOTS.iter().find(|boot| boot.name == name).expect("one of the boots")
}

impl Boot {
    /// The kernel's command line.
    pub fn line(&self) -> &'static str {
        self.command_line.trim_end()
    }

    /// `/proc/cmdline`, with its newline.
    pub fn proc_cmdline(&self) -> &'static [u8] {
        self.command_line.as_bytes()
    }

    /// The events after the first, which says that it is a log.
    pub fn records(&self) -> Vec<Record> {
        read(self.log)
    }
}
