//! Boots of real machines: Debian's OVMF and swtpm under QEMU, as `halfkey-qemu-tests record` writes them.
//!
//! Their files are in `testkit/boots`: the firmware's log (`.bin`), `/proc/cmdline` (`.cmdline`), the PCRs that the TPM quoted
//! (`.pcrs`, SHA-256), what each event of the log is (`.events`), and systemd's own log (`.systemd`) if it had measured anything.

use crate::log::{Record, read};
use serde_json::Value;

/// A boot that was recorded.
pub struct Boot {
    /// Name of its files.
    pub name: &'static str,
    /// `binary_bios_measurements`: crypto-agile.
    pub log: &'static [u8],
    /// `/run/log/systemd/tpm2-measure.log`; empty if there was none.
    pub systemd: &'static [u8],
    command_line: &'static str,
}

macro_rules! boots {
    ($($name:literal)+) => {
        &[$(Boot {
            name: $name,
            log: include_bytes!(concat!("../boots/", $name, ".bin")),
            systemd: &[],
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

/// A UKI of Debian testing with Secure Boot and keys of the owner's own: its stub adds a secret of the machine to the initrd, and systemd 262
/// measures its boundary events before the agent runs.
pub const SYSTEMD_262: &Boot =
    &Boot { systemd: include_bytes!("../boots/uki-systemd-262.systemd"), ..boots!["uki-systemd-262"][0] };

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

    /// PCR, SHA-256 digest and text of what systemd has measured.
    ///
    /// # Panics
    /// If its log is none.
    pub fn systemd_events(&self) -> Vec<(u8, Vec<u8>, String)> {
        let text = std::str::from_utf8(self.systemd).expect("a log of text");
        let records = text.split('\x1e').skip(1).map(|record| {
            let record: Value = serde_json::from_str(record).expect("a record of systemd's log");
            let digest = record["digests"][0]["digest"].as_str().expect("a digest");
            let text = record["content"]["string"].as_str().unwrap_or_default();
            let bytes = (0..digest.len()).step_by(2);
            let bytes = bytes.map(|at| u8::from_str_radix(&digest[at..at + 2], 16).expect("hex"));
            (record["pcr"].as_u64().expect("a PCR") as u8, bytes.collect(), text.to_owned())
        });
        records.collect()
    }
}
