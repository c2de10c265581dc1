//! systemd's stub: what it measures, and what it hands over to the kernel.

use crate::command_line::normal;
use crate::efi_stub::utf16;

/// The kernel: what has it is a unified kernel image.
pub const LINUX: &str = ".linux";
/// The initrd that is in the image.
pub const INITRD: &str = ".initrd";
/// The kernel's release.
pub const RELEASE: &str = ".uname";
/// The command line that is in the image.
pub const COMMAND_LINE: &str = ".cmdline";

/// What the stub calls the archives of credentials that it measures into PCR 12: of those in the folder named as the image, and in
/// `\loader\credentials`.
pub const CREDENTIALS: [&str; 2] = ["Credentials initrd", "Global credentials initrd"];

/// The systemd whose stub first measured into PCR 11.
pub(crate) const FIRST_STUB: u32 = 252;
/// From here on the stub starts the kernel itself: the firmware does not see, hence not measure, it.
pub(crate) const STUB_LOADS_KERNEL: u32 = 258;
/// From here on `.osrel` and `.profile` are also handed over in the initrd.
pub(crate) const STUB_HANDS_OVER_OSREL: u32 = 257;

/// From here on a secret of the machine (`/.extra/boot-secret`) hangs behind the initrd: nobody else knows the digest of the whole.
pub(crate) const STUB_ADDS_SECRET: u32 = 261;
/// The last one that was read. What a newer one measures or hands over is not known.
pub(crate) const LAST_STUB: u32 = 262;

/// The sections that a stub measures, in this order, and the version that began to.
pub(crate) const MEASURED: &[(&str, u32)] = &[
    (".linux", 252),
    (".osrel", 252),
    (".cmdline", 252),
    (".initrd", 252),
    (".ucode", 256),
    (".splash", 252),
    (".dtb", 252),
    (".uname", 254),
    (".sbat", 254),
    (".pcrpkey", 252),
    (".profile", 257),
    (".hwids", 257),
];

/// Sections of which the stub chooses one that fits the hardware.
pub(crate) const CHOSEN_AT_BOOT: &[&str] = &[".dtbauto", ".efifw"];

/// Names of all sections that a stub may measure.
pub fn sections() -> impl Iterator<Item = &'static str> {
    MEASURED.iter().map(|(name, _)| *name).chain(CHOSEN_AT_BOOT.iter().copied())
}

/// The name of a section as the stub measures it, before the section: ASCII with its NUL.
pub fn section_name(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}

/// The data of the event for a section in the log: its size, and the name as UTF-16 with its NUL.
pub fn section_event(name: &str) -> Vec<u8> {
    let name = utf16(&format!("{name}\0"));
    [&(name.len() as u32).to_le_bytes()[..], &name].concat()
}

/// What may be in the section that a command line came from: build tools write blanks around it, and end it with a line feed or a
/// NUL.
pub fn command_line_sections(line: &str) -> impl Iterator<Item = Vec<u8>> {
    let line = normal(line);
    ["", " "].into_iter().flat_map(move |before| {
        ["", "\0", "\n", "\n\0", " ", " \0", " \n", " \n\0"]
            .into_iter()
            .map(move |after| [before, line, after].concat().into_bytes())
    })
}

/// What the stub writes around the content of a section that it hands over as file `/.extra/NAME` (cpio, `newc`).
pub(crate) struct Archive {
    pub before: Vec<u8>,
    pub after: Vec<u8>,
}

impl Archive {
    pub fn around(name: &str, size: usize) -> Self {
        let mut before = cpio_header(1, 0o040_555, 0, ".extra");
        before.extend(cpio_header(2, 0o100_444, size, &format!(".extra/{name}")));
        // The stub's trailer has upper case digits, and no mode.
        let after = cpio_header(0, 0, 0, "TRAILER!!!").to_ascii_uppercase();
        Self { before, after }
    }
}

fn cpio_header(inode: u32, mode: u32, size: usize, name: &str) -> Vec<u8> {
    let links = 1;
    let words = [inode, mode, 0, 0, links, 0, size as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
    let mut header = b"070701".to_vec();
    for word in words {
        header.extend(format!("{word:08x}").into_bytes());
    }
    header.extend(name.as_bytes());
    header.push(0);
    header.resize(header.len().next_multiple_of(4), 0);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As cpio(1) writes it in the format newc, with the numbers that the stub gives.
    #[test]
    fn archives_are_cpio() {
        let archive = Archive::around("os-release", 5);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let words = |text: &str| text.replace(' ', "");
        let directory = "070701 00000001 0000416d 00000000 00000000 00000001 00000000 00000000 00000000 00000000 00000000 00000000 00000007 00000000";
        let file = "070701 00000002 00008124 00000000 00000000 00000001 00000000 00000005 00000000 00000000 00000000 00000000 00000012 00000000";
        let trailer = "070701 00000000 00000000 00000000 00000000 00000001 00000000 00000000 00000000 00000000 00000000 00000000 0000000B 00000000";
        let before = words(directory) + ".extra\0\0\0\0" + &words(file) + ".extra/os-release\0";
        assert_eq!(text(&archive.before), before);
        assert_eq!(text(&archive.after), words(trailer) + "TRAILER!!!\0\0\0\0");
    }
}
