//! GRUB: it measures every command of its script into PCR 8, and every file that it reads into PCR 9.
//!
//! These are the facts. What a boot path pins, and what is demanded of it, is in `evidence/src/policy/boot_path.rs`.

/// What it writes in the log before a command. The digest is that of the text without it, as for the other two.
pub const COMMAND: &str = "grub_cmd: ";
/// Before the command line that the kernel gets.
pub const KERNEL_LINE: &str = "kernel_cmdline: ";
/// Before that of a module.
pub const MODULE_LINE: &str = "module_cmdline: ";
/// How the event begins for the command that makes it read an initrd: `initrd`, `initrdefi`, `initrd16`.
pub const INITRD_COMMAND: &str = "grub_cmd: initrd";
/// The word for the kernel's file, at the front of the line that it passes on.
pub const BOOT_IMAGE: &str = "BOOT_IMAGE=";

/// The part of an event's text that is measured, if it begins as one of GRUB's.
pub fn measured(text: &str) -> Option<&str> {
    [COMMAND, KERNEL_LINE, MODULE_LINE].iter().find_map(|word| text.strip_prefix(word))
}

/// Whether an event's data calls itself a command line.
pub fn is_line(data: &[u8]) -> bool {
    data.starts_with(KERNEL_LINE.as_bytes()) || data.starts_with(MODULE_LINE.as_bytes())
}

/// The line as the kernel gets it: what is measured begins with the kernel's file, which is measured itself.
pub fn as_passed(measured: &str) -> String {
    format!("{BOOT_IMAGE}{measured}")
}
