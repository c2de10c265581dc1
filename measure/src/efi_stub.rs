//! The EFI stub of Linux: what it measures of what a loader hands to it, in PCR 9.

use crate::command_line::normal;

/// Tag of the event for an initrd (`INITRD_EVENT_TAG_ID`). The digest is that of the initrd.
pub const INITRD_TAG: u32 = 0x8f3b_22ec;
/// Tag of the event for the command line (`LOAD_OPTIONS_EVENT_TAG_ID`). The digest is that of [`load_options`].
pub const LOAD_OPTIONS_TAG: u32 = 0x8f3b_22ed;
/// The first Linux whose stub measures an initrd wherever it comes from (commit c004703ed7ae); it may have been ported back.
pub const MEASURES_INITRD: (u32, u32) = (6, 13);

/// Longest release; the kernel's own bound is 64.
pub const MAX_RELEASE: usize = 128;

/// The release that a bzImage has for boot loaders, by its first 64 KiB: its header has the place of a text that begins with it
/// (Documentation/arch/x86/boot.rst, `kernel_version`).
pub fn release_of(image: &[u8]) -> Option<String> {
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let at = usize::from(u16::from_le_bytes(image.get(0x20e..0x210)?.try_into().ok()?));
    if at == 0 { None } else { first_word(image.get(0x200 + at..)?) }
}

/// Up to a blank or a NUL.
pub fn first_word(text: &[u8]) -> Option<String> {
    let word = text.split(|byte| *byte == 0 || byte.is_ascii_whitespace()).next()?;
    let fits = (1..=MAX_RELEASE).contains(&word.len());
    fits.then(|| String::from_utf8(word.to_vec()).ok())?
}

/// A command line as it is measured: UTF-16LE, with its NUL.
pub fn load_options(line: &str) -> Vec<u8> {
    utf16(&format!("{line}\0"))
}

/// All that may be measured for a command line, as its loader passed it on. GRUB's word for the kernel's file is part of it from
/// GRUB 2.12 on.
pub fn forms_of(line: &str) -> [Vec<u8>; 6] {
    let (whole, line) = (line.trim_ascii(), normal(line));
    [
        format!("{line}\0"),
        line.to_owned(),
        format!("{line} \0"),
        format!("{whole}\0"),
        whole.to_owned(),
        format!("{whole} \0"),
    ]
    .map(|line| utf16(&line))
}

/// Whether a kernel of this release (`6.13.0-rc1`) measures an initrd wherever it comes from, as far as the number tells.
pub fn measures_initrd(release: &str) -> bool {
    let mut numbers = release.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    version >= MEASURES_INITRD
}

/// Text as UEFI has it: UTF-16LE, without a NUL of its own.
pub fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_few_forms() {
        let line = "BOOT_IMAGE=/vmlinuz ro quiet";
        let forms = forms_of(&format!(" {line} \n"));
        for text in ["ro quiet\0", "ro quiet", "ro quiet \0"] {
            assert!(forms.contains(&utf16(text)), "{text:?}");
        }
        assert!(forms.contains(&load_options(line)) && !forms.contains(&load_options("ro")));
        assert_eq!(forms[0], load_options("ro quiet"));
    }

    #[test]
    fn a_kernel_says_its_release() {
        let mut image = vec![0; 0x300];
        image[0x20e] = 0x80;
        image[0x280..0x290].copy_from_slice(b"6.13.2-x (a) #1\0");
        assert_eq!(release_of(&image), None);
        image[0x202..0x206].copy_from_slice(b"HdrS");
        assert_eq!(release_of(&image).as_deref(), Some("6.13.2-x"));
        for end in [0, 0x202, 0x210, 0x280] {
            assert_eq!(release_of(&image[..end]), None, "{end:#x}");
        }
    }

    #[test]
    fn releases_are_compared_by_their_numbers() {
        for release in ["6.13.0-rc1", "6.13", "7.0.1-generic", "10.0"] {
            assert!(measures_initrd(release), "{release}");
        }
        for release in ["6.12.9", "6.1.0-56-cloud-amd64", "5.15", "", "x.y"] {
            assert!(!measures_initrd(release), "{release}");
        }
    }
}
