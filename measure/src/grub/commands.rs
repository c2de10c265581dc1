//! What GRUB's commands can do, by their names.

/// Commands that start a kernel: as upstream has them, and as distributions with Secure Boot had them.
pub(super) const LINUX: [&str; 3] = ["linux", "linuxefi", "linux16"];
/// Commands that read an initrd.
pub(super) const INITRD: [&str; 3] = ["initrd", "initrdefi", "initrd16"];
/// Starts a program of the firmware's.
pub(super) const CHAINLOADER: &str = "chainloader";
/// Commands whose text contains what they would run, which is measured when it runs.
pub(super) const BODIES: [&str; 2] = ["menuentry", "submenu"];

/// Commands after which what is measured is not what runs.
#[rustfmt::skip]
pub(super) const OTHERS: &[&str] = &[
    // They start something else than a kernel of Linux, or give more to it.
    CHAINLOADER, "multiboot", "multiboot2", "module", "module2", "xen_hypervisor", "xen_module", "legacy_kernel", "legacy_initrd",
    "legacy_initrd_nounzip", "kfreebsd", "kfreebsd_module", "kfreebsd_module_elf", "knetbsd", "knetbsd_module", "kopenbsd",
    "kopenbsd_ramdisk", "ntldr", "plan9", "xnu_kernel", "xnu_kernel64", "xnu_kext", "xnu_kextdir", "xnu_mkext", "xnu_ramdisk",
    "freedos", "truecrypt", "pxechainloader", "appleloader", "acpi", "devicetree",
    // They run another command without its being measured.
    "time", "normal_exit",
    // They take away what measures, or change GRUB itself, memory or hardware behind it.
    "rmmod", "gdbstub", "gdbstub_break", "write_byte", "write_word", "write_dword", "outb", "outw", "outl", "wrmsr", "setpci", "cutmem",
    "badram", "loadbios", "fakebios", "lua",
];

/// Besides those above that load and contain: commands of configurations that distributions' grub-mkconfig writes, and functions that it defines there. What else is run was typed at
/// its console, or is of a file that somebody wrote by hand.
#[rustfmt::skip]
const USUAL: &[&str] = &[
    "[", "test", "true", "false", "set", "unset", "export", "setparams", "increment", "decrement", "regexp", "echo", "sleep", "clear",
    ".", "source", "configfile", "blscfg", "insmod", "load_env", "save_env", "list_env", "search", "search.fs_uuid", "search.fs_label",
    "search.file", "search.part_uuid", "cryptomount", "probe", "smbios", "cpuid", "fwsetup", "keystatus",
    "hwmatch", "btrfs-mount-subvol", "tpm_record_pcrs", "password", "password_pbkdf2", "loadfont", "terminal_input", "terminal_output",
    "terminfo", "serial", "background_image", "background_color", "play", CHAINLOADER,
    "load_video", "savedefault", "recordfail", "gfxmode", "initrdfail", "set_background_image",
];

/// Whether a generated configuration has commands of this name, or it is an assignment, which runs nothing.
pub(super) fn is_usual(name: &str) -> bool {
    [&LINUX[..], &INITRD, &BODIES, USUAL].iter().any(|names| names.contains(&name))
        || name.split_once('=').is_some_and(|(variable, _)| is_name(variable))
}

/// Whether a word can be the name of a command, a function or a variable.
pub(super) fn is_name(word: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && word.chars().all(plain)
}
