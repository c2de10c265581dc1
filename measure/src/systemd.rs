//! systemd in initrd and system: what it measures after the firmware.

/// The words that systemd-pcrphase extends [`PHASE_PCR`] with, in the order of a boot (systemd-pcrphase.service(8)). A word is
/// measured without a terminating NUL.
pub static PHASES: [&str; 4] = [ENTER_INITRD, "leave-initrd", "sysinit", "ready"];

/// The PCR of [`PHASES`].
pub const PHASE_PCR: u8 = 11;

/// The phase that is measured before the agent runs.
pub const ENTER_INITRD: &str = "enter-initrd";

/// systemd 261 and later, in PCR 0 to 7, 9 and 12 to 14: what comes after it is the system's.
pub const OS_SEPARATOR: &str = "os-separator";

/// systemd 262 and later, in PCR 9.
pub const NVPCR_SEPARATOR: &str = "nvpcr-separator";

/// How a record begins in PCR 9 that an NV index which serves as a PCR was made.
pub const NVPCR_INIT: &str = "nvpcr-init:";
