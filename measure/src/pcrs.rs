//! What PCR 4, 9 and 11 become when a [`Proposal`] is booted: from what comes before it on a machine that boots the same way.
//!
//! What comes before is read from a log by whoever asks; that it is the log of such a machine is theirs to check.

use crate::efi_stub::load_options;
use crate::stub::section_name;
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::wire::{Proposal, ProposedImage, ProposedSection};
use std::fmt;

/// An event that a boot of a proposal will have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<'p> {
    /// Which PCR it extends.
    pub pcr: u8,
    /// What is measured.
    pub what: Measured<'p>,
    /// What the PCR is extended with, of the bank that was asked for.
    pub digest: Vec<u8>,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measured<'p> {
    /// An image, by firmware.
    Image(&'p ProposedImage),
    /// The command line, by the kernel's EFI stub.
    CommandLine,
    /// The initrd, by the kernel's EFI stub.
    Initrd,
    /// The name of a section, by systemd's stub.
    SectionName(&'p str),
    /// The content of that section.
    Section(&'p str),
}

/// Why there is no telling what a PCR becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unforeseen {
    /// The machine measures into PCR 4 after its kernel, and that may be another thing then.
    AfterKernel,
    /// The machine's last boot has fewer images than come before its kernel.
    NoImage,
    /// The proposal has no initrd.
    Initrd,
    /// The proposal has no command line.
    CommandLine,
    /// Something else than the kernel's EFI stub measures into PCR 9.
    LoaderFiles,
}

impl fmt::Display for Unforeseen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AfterKernel => "the machine measures more after its kernel",
            Self::NoImage => "the machine's last boot has no image where this one would be",
            Self::Initrd => "the initrd is not known",
            Self::CommandLine => "the command line is not known",
            Self::LoaderFiles => "the boot loader measures the files that it reads there",
        })
    }
}

impl std::error::Error for Unforeseen {}

/// The events that a boot of these files will have, in the order of each PCR.
pub fn events(proposal: &Proposal, bank: PcrBank) -> Vec<Event<'_>> {
    let event = |pcr, what, digest: &[u8]| Event { pcr, what, digest: digest.to_vec() };
    let images = proposal.images.iter().map(|image| event(4, Measured::Image(image), &image.authenticode));
    let options = proposal
        .command_line
        .iter()
        .map(|text| event(9, Measured::CommandLine, &bank.digest(&[&load_options(text)])));
    let initrd = proposal.initrd.iter().map(|digest| event(9, Measured::Initrd, digest));
    let sections = proposal.sections.iter().flat_map(|ProposedSection { name, digest }| {
        [
            event(11, Measured::SectionName(name), &bank.digest(&[&section_name(name)])),
            event(11, Measured::Section(name), digest),
        ]
    });
    images.chain(options).chain(initrd).chain(sections).collect()
}

/// PCR 4: what comes before the kernel stays, the images are the proposal's. `last` has what extended PCR 4 in the machine's last
/// boot: whether it was an image, and the digest; `before` says how many of these images come before its kernel or UKI.
///
/// # Errors
/// `AfterKernel`, `NoImage`.
pub fn boot_path<'e>(
    proposal: &Proposal,
    bank: PcrBank,
    last: impl Iterator<Item = (bool, &'e [u8])>,
    before: usize,
) -> Result<Vec<u8>, Unforeseen> {
    let (mut value, mut seen, mut replaced) = (zero(bank), 0, false);
    for (is_image, digest) in last {
        if is_image && seen >= before {
            replaced = true;
            continue;
        }
        if replaced {
            return Err(Unforeseen::AfterKernel);
        }
        seen += usize::from(is_image);
        value = bank.digest(&[&value, digest]);
    }
    if !replaced {
        return Err(Unforeseen::NoImage);
    }
    Ok(proposal.images.iter().fold(value, |value, image| bank.digest(&[&value, &image.authenticode])))
}

/// What extended PCR 9 in the machine's last boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pcr9<'e> {
    /// The firmware's separator, by its digest.
    Separator(&'e [u8]),
    /// The initrd that the kernel's EFI stub got.
    Initrd,
    /// The options that it was started with.
    LoadOptions,
    /// Anything else.
    Other,
}

/// PCR 9: the events of the kernel's EFI stub, in the order in which the machine's kernel makes them.
///
/// # Errors
/// `Initrd`, `CommandLine`, `LoaderFiles`.
pub fn efi_stub<'e>(
    proposal: &Proposal,
    bank: PcrBank,
    last: impl Iterator<Item = Pcr9<'e>>,
) -> Result<Vec<u8>, Unforeseen> {
    let mut value = zero(bank);
    for event in last {
        let digest = match event {
            Pcr9::Separator(digest) => digest.to_vec(),
            Pcr9::Initrd => proposal.initrd.as_ref().ok_or(Unforeseen::Initrd)?.to_vec(),
            Pcr9::LoadOptions => {
                let text = proposal.command_line.as_ref().ok_or(Unforeseen::CommandLine)?;
                bank.digest(&[&load_options(text)])
            }
            Pcr9::Other => return Err(Unforeseen::LoaderFiles),
        };
        value = bank.digest(&[&value, &digest]);
    }
    Ok(value)
}

/// PCR 11: it begins with zeros; names and contents of the UKI's sections, then what systemd says, by its digests.
pub fn sections<'e>(proposal: &Proposal, bank: PcrBank, then: impl Iterator<Item = &'e [u8]>) -> Vec<u8> {
    let mut value = zero(bank);
    for section in &proposal.sections {
        value = bank.digest(&[&value, &bank.digest(&[&section_name(&section.name)])]);
        value = bank.digest(&[&value, &section.digest]);
    }
    then.fold(value, |value, digest| bank.digest(&[&value, digest]))
}

fn zero(bank: PcrBank) -> Vec<u8> {
    vec![0; bank.digest_len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const BANK: PcrBank = PcrBank::Sha256;

    fn proposal() -> Proposal {
        let digest = |byte| halfkey_protocol::Bytes(vec![byte; 32]);
        let image = |byte| ProposedImage {
            release: None,
            role: "uki".into(),
            path: "a".into(),
            authenticode: digest(byte),
        };
        Proposal {
            version: 1,
            name: "6.1".into(),
            bank: "sha256".into(),
            images: vec![image(0x11), image(0x12)],
            sections: vec![ProposedSection { name: ".linux".into(), digest: digest(0x21) }],
            initrd: Some(digest(0x31)),
            command_line: Some("quiet".into()),
            loader: None,
            written_by_update: false,
        }
    }

    /// What TPM2_PCR_Extend makes of zeros.
    fn extended(digests: &[&[u8]]) -> Vec<u8> {
        digests.iter().fold(vec![0; 32], |value, digest| BANK.digest(&[&value, digest]))
    }

    #[test]
    fn pcr_4_keeps_what_comes_before_the_kernel() {
        let (firmware, shim, old) = ([1; 32], [2; 32], [3; 32]);
        let last = [(false, &firmware[..]), (true, &shim), (true, &old), (true, &old)];
        let value = boot_path(&proposal(), BANK, last.into_iter(), 1).unwrap();
        assert_eq!(value, extended(&[&firmware, &shim, &[0x11; 32], &[0x12; 32]]));
        let none = boot_path(&proposal(), BANK, last[..2].iter().copied(), 1);
        assert_eq!(none, Err(Unforeseen::NoImage));
        let more = [(true, &old[..]), (false, &firmware)];
        assert_eq!(boot_path(&proposal(), BANK, more.into_iter(), 0), Err(Unforeseen::AfterKernel));
    }

    #[test]
    fn pcr_9_is_in_the_order_of_the_machines_kernel() {
        let separator = [4; 32];
        let options = BANK.digest(&[&load_options("quiet")]);
        let last = [Pcr9::Separator(&separator), Pcr9::LoadOptions, Pcr9::Initrd];
        let value = efi_stub(&proposal(), BANK, last.into_iter()).unwrap();
        assert_eq!(value, extended(&[&separator, &options, &[0x31; 32]]));
        let last = [Pcr9::Initrd, Pcr9::LoadOptions];
        let value = efi_stub(&proposal(), BANK, last.into_iter()).unwrap();
        assert_eq!(value, extended(&[&[0x31; 32], &options]));
        let unknown = Proposal { initrd: None, command_line: None, ..proposal() };
        for (event, why) in [
            (Pcr9::Initrd, Unforeseen::Initrd),
            (Pcr9::LoadOptions, Unforeseen::CommandLine),
            (Pcr9::Other, Unforeseen::LoaderFiles),
        ] {
            assert_eq!(efi_stub(&unknown, BANK, [event].into_iter()), Err(why));
        }
    }

    #[test]
    fn pcr_11_is_what_its_events_extend() {
        let proposal = proposal();
        let events = events(&proposal, BANK);
        let of = |pcr| events.iter().filter(move |event| event.pcr == pcr).map(|event| &event.digest[..]);
        let phase = BANK.digest(&[b"enter-initrd"]);
        let digests: Vec<_> = of(11).chain([&phase[..]]).collect();
        assert_eq!(sections(&proposal, BANK, [&phase[..]].into_iter()), extended(&digests));
        assert_eq!(of(4).collect::<Vec<_>>(), [[0x11; 32], [0x12; 32]]);
        assert_eq!(of(9).count(), 2);
    }
}
