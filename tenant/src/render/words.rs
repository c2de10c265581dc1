//! What a PCR means (TCG PC Client Platform Firmware Profile, section 3.3.4; systemd's TPM2_PCR_MEASUREMENTS).

/// What is measured into a PCR, in a few words.
pub fn pcr(number: u8) -> &'static str {
    match number {
        0 => "firmware code",
        1 => "firmware settings, boot order",
        2 => "option ROMs, drivers of cards",
        3 => "settings of option ROMs",
        4 => "boot loader, kernel image or UKI",
        5 => "partition table, boot loader settings",
        6 => "vendor specific, wake-up events",
        7 => "Secure Boot state and keys",
        8 => "commands and kernel command line (GRUB)",
        9 => "initrd and files read by the boot loader",
        10 => "files measured by IMA",
        11 => "sections of the UKI, boot phases",
        12 => "kernel command line, credentials, overrides (systemd-stub)",
        13 => "system extensions of the initrd",
        14 => "shim and its keys (MOK)",
        15 => "the fence of Halfkey",
        _ => "not measured at boot",
    }
}
