//! What a machine will measure when it boots given files: [`Proposal`]s, before the boot happens.
//!
//! | PCR | UKI | kernel and initrd |
//! | --- | --- | --- |
//! | 4 | the UKI; then the kernel in it, if the stub has the firmware load it | the kernel |
//! | 9 | the initrd as the stub hands it over: `.initrd` and small archives that the stub makes of other sections; not to be foretold from systemd 261 on, where the stub adds a secret of the machine | the initrds, one after the other |
//! | 11 | name and content of each section that the stub knows | |
//!
//! What the stub does depends on its version (systemd 252 to 262 were read; a newer one is refused) and on Secure Boot. What comes from beside
//! the image (credentials, extensions, addons, options of the boot entry) can't be foretold from it.

use crate::efi_stub::release_of;
use crate::pe::{Extent, Image, PeError};
use crate::stub::{
    Archive, CHOSEN_AT_BOOT, FIRST_STUB, LAST_STUB, MEASURED, STUB_ADDS_SECRET, STUB_HANDS_OVER_OSREL,
    STUB_LOADS_KERNEL,
};
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::wire::{Proposal, ProposedImage, ProposedSection};
use std::fmt;

/// Version of [`Proposal`].
pub const VERSION: u32 = 1;
/// Longest command line, in bytes; the kernel takes 2048 on x86.
pub const MAX_COMMAND_LINE: usize = 16 << 10;

/// Why there is no telling what will be measured.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProposalError {
    /// A file (the first field says which) is no image.
    Image(&'static str, PeError),
    /// A UKI without this section.
    NoSection(&'static str),
    /// The image has no stub of systemd, one that measures nothing, or one that is newer than those that were read.
    Stub(String),
    /// The section is one of several, and the hardware decides.
    ChosenAtBoot(&'static str),
    /// The command line is not text, or too long.
    CommandLine,
}

impl fmt::Display for ProposalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(which, error) => write!(f, "{which}: {error}"),
            Self::NoSection(name) => write!(f, "expected a unified kernel image, found no section {name}"),
            Self::Stub(found) => {
                write!(f, "expected the stub of systemd {FIRST_STUB} to {LAST_STUB}, found {found}")
            }
            Self::ChosenAtBoot(name) => {
                write!(f, "section {name}: the hardware decides at boot what is measured")
            }
            Self::CommandLine => {
                write!(f, "expected a command line in UTF-8 of at most {MAX_COMMAND_LINE} bytes")
            }
        }
    }
}

impl std::error::Error for ProposalError {}

/// What a prediction needs to know besides the files.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'a> {
    /// For people: the kernel's version.
    pub name: &'a str,
    /// The bank that digests are made for: the enrolled one.
    pub bank: PcrBank,
    /// Whether the machine will boot with Secure Boot on. Then the stub keeps the firmware's verifier away from the kernel
    /// inside a UKI, and with it the firmware's measuring.
    pub secure_boot: bool,
}

/// What booting this UKI will measure. `path` is for people.
///
/// # Errors
/// [`ProposalError`]
pub fn from_uki(file: &[u8], path: &str, about: &Circumstances) -> Result<Proposal, ProposalError> {
    let bank = about.bank;
    let image = Image::parse(file).map_err(|e| ProposalError::Image("the UKI", e))?;
    let uki = Uki { image: &image };
    let linux = uki.section(".linux")?.ok_or(ProposalError::NoSection(".linux"))?;
    let stub = uki.stub()?;
    for name in CHOSEN_AT_BOOT {
        // Duplicates are the rule here, so an error says the same as finding one.
        if !matches!(image.section(name), Ok(None)) {
            return Err(ProposalError::ChosenAtBoot(name));
        }
    }
    let mut images = vec![ProposedImage {
        role: "uki".into(),
        path: path.into(),
        authenticode: image.authenticode(bank.hash()).into(),
        release: None,
    }];
    if stub < STUB_LOADS_KERNEL && !about.secure_boot {
        let kernel = Image::within(linux).map_err(|e| ProposalError::Image("the kernel in the UKI", e))?;
        let path = format!("{path} .linux");
        images.push(ProposedImage {
            role: "kernel".into(),
            path,
            authenticode: kernel.authenticode(bank.hash()).into(),
            release: None,
        });
    }
    let mut sections = Vec::new();
    for (name, since) in MEASURED {
        if stub >= *since
            && let Some(content) = uki.section(name)?
        {
            sections
                .push(ProposedSection { name: (*name).into(), digest: content.digest(bank.hash()).into() });
        }
    }
    Ok(Proposal {
        version: VERSION,
        name: about.name.into(),
        bank: bank.name().into(),
        images,
        sections,
        initrd: uki.initrd(stub, bank)?.map(Into::into),
        command_line: uki.section(".cmdline")?.map(|text| command_line(text.data)).transpose()?,
        loader: None,
        written_by_update: false,
    })
}

/// What booting this kernel with these initrds (in the order of loading) will measure. `path` is for people;
/// `command_line` is all that the boot loader will pass, if that is known.
///
/// # Errors
/// [`ProposalError`]
pub fn from_kernel(
    kernel: &[u8],
    path: &str,
    initrds: &[&[u8]],
    command_line: Option<&str>,
    about: &Circumstances,
) -> Result<Proposal, ProposalError> {
    let bank = about.bank;
    let image = Image::parse(kernel).map_err(|e| ProposalError::Image("the kernel", e))?;
    if command_line.is_some_and(|text| text.len() > MAX_COMMAND_LINE) {
        return Err(ProposalError::CommandLine);
    }
    Ok(Proposal {
        version: VERSION,
        name: about.name.into(),
        bank: bank.name().into(),
        images: vec![ProposedImage {
            role: "kernel".into(),
            path: path.into(),
            authenticode: image.authenticode(bank.hash()).into(),
            release: release_of(kernel),
        }],
        sections: Vec::new(),
        initrd: (!initrds.is_empty()).then(|| bank.digest(initrds).into()),
        command_line: command_line.map(str::to_owned),
        loader: None,
        written_by_update: false,
    })
}

/// Whether a file is a unified kernel image: a PE image with a section `.linux`.
pub fn is_uki(file: &[u8]) -> bool {
    Image::parse(file).is_ok_and(|image| !matches!(image.section(".linux"), Ok(None)))
}

/// The command line in a section, as the stub passes it on: up to a NUL, control characters as spaces, none at the ends.
fn command_line(section: &[u8]) -> Result<String, ProposalError> {
    let end = section.iter().position(|byte| *byte == 0).unwrap_or(section.len());
    let text = section.get(..end).filter(|text| text.len() <= MAX_COMMAND_LINE);
    let text = text.and_then(|text| std::str::from_utf8(text).ok()).ok_or(ProposalError::CommandLine)?;
    let plain: String = text.chars().map(|c| if c.is_ascii_control() { ' ' } else { c }).collect();
    Ok(plain.trim_matches(' ').to_owned())
}

struct Uki<'a, 'f> {
    image: &'a Image<'f>,
}

impl<'f> Uki<'_, 'f> {
    fn section(&self, name: &'static str) -> Result<Option<Extent<'f>>, ProposalError> {
        self.image.section(name).map_err(|e| ProposalError::Image("the UKI", e))
    }

    /// Version of systemd's stub: it says so itself (`#### LoaderInfo: systemd-stub 252.39-1 ####`).
    fn stub(&self) -> Result<u32, ProposalError> {
        let magic = self.section(".sdmagic")?.map_or(&[][..], |section| section.data);
        let text = String::from_utf8_lossy(&magic[..magic.len().min(128)]);
        let version = text.split_once("systemd-stub ").and_then(|(_, rest)| {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            rest[..digits].parse().ok()
        });
        match version {
            Some(version) if (FIRST_STUB..=LAST_STUB).contains(&version) => Ok(version),
            Some(version) => Err(ProposalError::Stub(format!("that of {version}"))),
            None => Err(ProposalError::Stub("another one".into())),
        }
    }

    /// Digest of the initrd that the stub hands to the kernel: what there is of these, in this order. None as well if only the machine
    /// knows all of it.
    fn initrd(&self, stub: u32, bank: PcrBank) -> Result<Option<Vec<u8>>, ProposalError> {
        if stub >= STUB_ADDS_SECRET {
            return Ok(None);
        }
        let mut parts: Vec<(Extent<'f>, Option<Archive>)> = Vec::new();
        let sections: [(&str, u32, Option<&str>); 6] = [
            (".ucode", 256, None),
            (".initrd", FIRST_STUB, None),
            (".pcrsig", FIRST_STUB, Some("tpm2-pcr-signature.json")),
            (".pcrpkey", FIRST_STUB, Some("tpm2-pcr-public-key.pem")),
            (".osrel", STUB_HANDS_OVER_OSREL, Some("os-release")),
            (".profile", STUB_HANDS_OVER_OSREL, Some("profile")),
        ];
        for (name, since, file) in sections {
            if stub >= since
                && let Some(content) = self.section(name)?
            {
                parts.push((content, file.map(|file| Archive::around(file, content.len()))));
            }
        }
        if parts.is_empty() {
            return Ok(None);
        }
        let single = parts.len() == 1;
        let mut hashed: Vec<&[u8]> = Vec::new();
        for (content, archive) in &parts {
            hashed.extend(archive.as_ref().map(|archive| archive.before.as_slice()));
            content.push(0, content.len(), &mut hashed);
            // An archive is padded to a multiple of 4 in itself, anything else where another one follows.
            if !single || archive.is_some() {
                hashed.push(&[0; 3][..content.len().next_multiple_of(4) - content.len()]);
            }
            hashed.extend(archive.as_ref().map(|archive| archive.after.as_slice()));
        }
        Ok(Some(bank.digest(&hashed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfkey_protocol::tpm::kdf::Hash;
    use halfkey_testkit::pe::image;
    use proptest::prelude::*;

    const MAGIC_252: &[u8] = b"#### LoaderInfo: systemd-stub 252.39-1~deb12u2 ####";
    const MAGIC_257: &[u8] = b"#### LoaderInfo: systemd-stub 257.7 ####";
    const MAGIC_258: &[u8] = b"#### LoaderInfo: systemd-stub 258~rc1 ####";
    const MAGIC_262: &[u8] = b"#### LoaderInfo: systemd-stub 262-1 ####";
    const MAGIC_263: &[u8] = b"#### LoaderInfo: systemd-stub 263~rc1 ####";

    fn about(secure_boot: bool) -> Circumstances<'static> {
        Circumstances { name: "6.1.0", bank: PcrBank::Sha256, secure_boot }
    }

    fn kernel() -> Vec<u8> {
        image(&[(".text", b"a kernel", 8)], b"")
    }

    /// A UKI; as in a real one, the sections stand in another order than they are measured in.
    fn uki(magic: &[u8], more: &[(&str, &[u8])]) -> Vec<u8> {
        let kernel = kernel();
        let mut sections: Vec<(&str, &[u8], usize)> =
            more.iter().map(|(name, content)| (*name, *content, content.len())).collect();
        sections.push((".sdmagic", magic, magic.len()));
        sections.push((".linux", &kernel, kernel.len()));
        image(&sections, b"")
    }

    fn sha256(bytes: &[u8]) -> Vec<u8> {
        Hash::Sha256.digest(&[bytes])
    }

    fn names(proposal: &Proposal) -> Vec<&str> {
        proposal.sections.iter().map(|section| section.name.as_str()).collect()
    }

    #[test]
    fn stub_252_measures_what_the_log_of_a_real_boot_has() {
        let file = uki(
            MAGIC_252,
            &[
                (".sbat", b"sbat,1"),
                (".uname", b"6.1.0"),
                (".initrd", b"a cpio"),
                (".cmdline", b" root=/dev/x\tquiet \n\0"),
                (".osrel", b"ID=x"),
            ],
        );
        let proposal = from_uki(&file, "/efi/EFI/Linux/a.efi", &about(false)).unwrap();
        assert_eq!(names(&proposal), [".linux", ".osrel", ".cmdline", ".initrd"]);
        assert_eq!(*proposal.sections[0].digest, sha256(&kernel()));
        assert_eq!(*proposal.sections[2].digest, sha256(b" root=/dev/x\tquiet \n\0"));
        assert_eq!(proposal.command_line.as_deref(), Some("root=/dev/x quiet"));
        // Verbatim: a single part is not padded.
        assert_eq!(proposal.initrd.as_deref(), Some(&sha256(b"a cpio")[..]));
        let of = |file: &[u8]| Image::parse(file).unwrap().authenticode(Hash::Sha256);
        let images: Vec<_> =
            proposal.images.iter().map(|i| (i.role.as_str(), i.authenticode.0.clone())).collect();
        assert_eq!(images, [("uki", of(&file)), ("kernel", of(&kernel()))]);
        // With Secure Boot the stub lets the kernel pass without the firmware's verifier, which is what measures.
        assert_eq!(from_uki(&file, "a.efi", &about(true)).unwrap().images.len(), 1);
    }

    #[test]
    fn newer_stubs_measure_more() {
        let sections: &[(&str, &[u8])] = &[
            (".pcrsig", b"{}"),
            (".pcrpkey", b"key"),
            (".ucode", b"microcode"),
            (".sbat", b"sbat,1"),
            (".uname", b"6.12"),
            (".osrel", b"ID=x\n"),
            (".initrd", b"initrd"),
        ];
        let proposal = from_uki(&uki(MAGIC_257, sections), "a", &about(false)).unwrap();
        let expected = [".linux", ".osrel", ".initrd", ".ucode", ".uname", ".sbat", ".pcrpkey"];
        assert_eq!(names(&proposal), expected);
        assert_eq!(proposal.images.len(), 2);
        let archives = [
            (b"{}".as_slice(), "tpm2-pcr-signature.json"),
            (b"key", "tpm2-pcr-public-key.pem"),
            (b"ID=x\n", "os-release"),
        ];
        let mut initrd = b"microcode\0\0\0initrd\0\0".to_vec();
        for (content, name) in archives {
            let archive = Archive::around(name, content.len());
            initrd.extend(archive.before);
            initrd.extend(content);
            initrd.resize(initrd.len().next_multiple_of(4), 0);
            initrd.extend(archive.after);
        }
        assert_eq!(proposal.initrd.as_deref(), Some(&sha256(&initrd)[..]));
        // An older stub neither measures nor hands over all of these.
        let older = from_uki(&uki(MAGIC_252, sections), "a", &about(false)).unwrap();
        assert_eq!(names(&older), [".linux", ".osrel", ".initrd", ".pcrpkey"]);
        assert_ne!(older.initrd, proposal.initrd);
        // A newer one starts the kernel without asking the firmware.
        let newer = from_uki(&uki(MAGIC_258, sections), "a", &about(false)).unwrap();
        assert_eq!((newer.images.len(), names(&newer)), (1, names(&proposal)));
    }

    #[test]
    fn what_has_a_secret_in_it_is_not_foretold() {
        let sections: &[(&str, &[u8])] =
            &[(".osrel", b"ID=x\n"), (".initrd", b"initrd"), (".cmdline", b"quiet")];
        let proposal = from_uki(&uki(MAGIC_262, sections), "a", &about(false)).unwrap();
        assert_eq!((proposal.initrd.as_ref(), proposal.images.len()), (None, 1));
        assert_eq!(names(&proposal), [".linux", ".osrel", ".cmdline", ".initrd"]);
        let newer = from_uki(&uki(MAGIC_263, sections), "a", &about(false)).unwrap_err();
        assert_eq!(newer, ProposalError::Stub("that of 263".into()));
        assert_eq!(newer.to_string(), "expected the stub of systemd 252 to 262, found that of 263");
    }

    #[test]
    fn what_can_not_be_foretold_says_why() {
        let of = |file: &[u8]| from_uki(file, "a", &about(false)).unwrap_err();
        let stub = image(&[(".sdmagic", MAGIC_252, MAGIC_252.len())], b"");
        assert_eq!(of(&stub), ProposalError::NoSection(".linux"));
        assert!(!is_uki(&stub) && is_uki(&uki(MAGIC_252, &[])));
        assert_eq!(of(b"\x7fELF"), ProposalError::Image("the UKI", PeError::NotPe("MZ header")));
        assert_eq!(of(&uki(b"another stub", &[])), ProposalError::Stub("another one".into()));
        assert_eq!(of(&uki(b"systemd-stub 251.4", &[])), ProposalError::Stub("that of 251".into()));
        let twice: &[(&str, &[u8])] = &[(".cmdline", b"a"), (".cmdline", b"b")];
        let ambiguous = PeError::Ambiguous(".cmdline".into());
        assert_eq!(of(&uki(MAGIC_252, twice)), ProposalError::Image("the UKI", ambiguous));
        assert_eq!(of(&uki(MAGIC_257, &[(".dtbauto", b"dtb")])), ProposalError::ChosenAtBoot(".dtbauto"));
        assert_eq!(of(&uki(MAGIC_252, &[(".cmdline", b"\xff")])), ProposalError::CommandLine);
        let inner = image(&[(".sdmagic", MAGIC_252, 51), (".linux", b"no kernel", 9)], b"");
        assert!(matches!(of(&inner), ProposalError::Image("the kernel in the UKI", _)));
    }

    #[test]
    fn a_kernel_with_its_initrds() {
        let about = Circumstances { name: "6.1.0", bank: PcrBank::Sha384, secure_boot: true };
        let proposal =
            from_kernel(&kernel(), "/boot/vmlinuz", &[b"one", b"two"], Some("quiet"), &about).unwrap();
        assert_eq!(proposal.initrd.as_deref(), Some(&Hash::Sha384.digest(&[b"onetwo"])[..]));
        assert_eq!((proposal.images.len(), proposal.sections.len()), (1, 0));
        assert_eq!(proposal.command_line.as_deref(), Some("quiet"));
        assert_eq!(from_kernel(&kernel(), "k", &[], None, &about).unwrap().initrd, None);
        from_kernel(b"MZ", "k", &[], None, &about).unwrap_err();
    }

    proptest! {
        #[test]
        fn any_uki_is_measured_or_refused(at in 0usize..0x900, with in proptest::collection::vec(any::<u8>(), 1..64)) {
            let mut file = uki(MAGIC_257, &[(".cmdline", b"quiet"), (".osrel", b"ID=x"), (".initrd", b"i")]);
            for (i, byte) in with.iter().enumerate() {
                file[at + i] = *byte;
            }
            let _ = from_uki(&file, "a", &about(false));
        }
    }
}
