//! What a machine will measure when it boots given files: [`Proposal`]s, before the boot happens.
//!
//! | PCR | UKI | kernel and initrd |
//! | --- | --- | --- |
//! | 4 | the UKI; then the kernel in it, if the stub has the firmware load it | the kernel |
//! | 9 | the initrd as the stub hands it over: `.initrd` and small archives that the stub makes of other sections | the initrds, one after the other |
//! | 11 | name and content of each section that the stub knows | |
//!
//! What the stub does depends on its version (systemd 252 to 258 were read) and on Secure Boot. What comes from beside
//! the image (credentials, extensions, addons, options of the boot entry) can't be foretold from it.

use crate::kdf::Hash;
use crate::pe::{Extent, Image, PeError};
use crate::wire::{Proposal, ProposedImage, ProposedSection};
use std::fmt;

/// Version of [`Proposal`].
pub const VERSION: u32 = 1;
/// Longest command line, in bytes; the kernel takes 2048 on x86.
pub const MAX_COMMAND_LINE: usize = 16 << 10;

/// The systemd whose stub first measured into PCR 11.
const FIRST_STUB: u32 = 252;
/// From here on the stub starts the kernel itself: the firmware does not see, hence not measure, it.
const STUB_LOADS_KERNEL: u32 = 258;
/// From here on `.osrel` and `.profile` are also handed over in the initrd.
const STUB_HANDS_OVER_OSREL: u32 = 257;

/// The sections that a stub measures, in this order, and the version that began to.
const MEASURED: &[(&str, u32)] = &[
    (".linux", 252),
    (".osrel", 252),
    (".cmdline", 252),
    (".initrd", 252),
    (".ucode", 256),
    (".splash", 252),
    (".dtb", 252),
    (".uname", 253),
    (".sbat", 254),
    (".pcrpkey", 252),
    (".profile", 257),
    (".hwids", 257),
];

/// Sections of which the stub chooses one that fits the hardware.
const CHOSEN_AT_BOOT: &[&str] = &[".dtbauto", ".efifw"];

/// Why there is no telling what will be measured.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProposalError {
    /// A file (the first field says which) is no image.
    Image(&'static str, PeError),
    /// A UKI without this section.
    NoSection(&'static str),
    /// The image has no stub of systemd, or one that measures nothing.
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
                write!(f, "expected the stub of systemd {FIRST_STUB} or newer, found {found}")
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
    /// The bank.
    pub bank: Hash,
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
        authenticode: image.authenticode(bank).into(),
    }];
    if stub < STUB_LOADS_KERNEL && !about.secure_boot {
        let kernel = Image::within(linux).map_err(|e| ProposalError::Image("the kernel in the UKI", e))?;
        let path = format!("{path} .linux");
        images.push(ProposedImage {
            role: "kernel".into(),
            path,
            authenticode: kernel.authenticode(bank).into(),
        });
    }
    let mut sections = Vec::new();
    for (name, since) in MEASURED {
        if stub >= *since
            && let Some(content) = uki.section(name)?
        {
            sections.push(ProposedSection { name: (*name).into(), digest: content.digest(bank).into() });
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
            authenticode: image.authenticode(bank).into(),
        }],
        sections: Vec::new(),
        initrd: (!initrds.is_empty()).then(|| bank.digest(initrds).into()),
        command_line: command_line.map(str::to_owned),
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
            Some(version) if version >= FIRST_STUB => Ok(version),
            Some(version) => Err(ProposalError::Stub(format!("that of {version}"))),
            None => Err(ProposalError::Stub("another one".into())),
        }
    }

    /// Digest of the initrd that the stub hands to the kernel: what there is of these, in this order.
    fn initrd(&self, stub: u32, bank: Hash) -> Result<Option<Vec<u8>>, ProposalError> {
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

/// What the stub writes around the content of a section that it hands over as file `/.extra/NAME` (cpio, `newc`).
struct Archive {
    before: Vec<u8>,
    after: Vec<u8>,
}

impl Archive {
    fn around(name: &str, size: usize) -> Self {
        let mut before = cpio_header(1, 0o040_555, 0, ".extra");
        before.extend(cpio_header(2, 0o100_444, size, &format!(".extra/{name}")));
        // The stub's trailer has upper case digits, and no mode.
        let after = [
            &b"07070100000000000000000000000000000000000000010000000000000000000000000000000000000000000000000000000B00000000"[..],
            b"TRAILER!!!\0\0\0\0",
        ]
        .concat();
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
