//! What a boot will measure, in words: its own events, and the PCRs that they make on a machine whose last boot was checked here.
//! How they come about is in [`halfkey_measure::pcrs`].

use crate::render::text::{clean, hex};
use crate::trust::boot::Boot;
use halfkey_evidence::eventlog::content::Tag;
use halfkey_evidence::eventlog::variable::Known;
use halfkey_evidence::eventlog::{Claim, Content, Event, ExplainedLog, kind};
use halfkey_measure::pcrs::{self, Event as Foreseen, Measured, Pcr9, Unforeseen};
use halfkey_measure::systemd::ENTER_INITRD;
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::wire::Proposal;
use serde::Serialize;

/// An event of the next boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Expected {
    /// Number of the PCR, 0 to 23.
    pub pcr: u8,
    /// What is measured, for people.
    pub what: String,
    /// What extends the PCR: `sha256:<hex>`, by the name of the bank.
    pub digest: String,
}

/// A PCR after the next boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Value {
    /// Number of the PCR, 0 to 23.
    pub pcr: u8,
    /// Hex; none if it can't be known.
    pub value: Option<String>,
    /// What it is made of, or why it can't be known.
    pub why: String,
}

/// The last boot of a machine that boots the same way.
pub struct Base<'a> {
    /// Its evidence.
    pub boot: &'a Boot,
    /// Its logs.
    pub log: &'a ExplainedLog<'a>,
    /// How many images it starts before its kernel or UKI (shim, boot loader), if its policy says so.
    pub before: Option<usize>,
}

/// The events that a boot of these files will have, in the order of each PCR.
pub fn events(proposal: &Proposal, bank: PcrBank) -> Vec<Expected> {
    let expected = |event: Foreseen<'_>| Expected {
        pcr: event.pcr,
        what: match event.what {
            Measured::Image(image) => format!("{} {}", clean(&image.role), clean(&image.path)),
            Measured::CommandLine => "command line, as the kernel's EFI stub measures it".to_owned(),
            Measured::Initrd => "initrd".to_owned(),
            Measured::SectionName(name) => format!("name of section {}", clean(name)),
            Measured::Section(name) => format!("section {}", clean(name)),
        },
        digest: format!("{}:{}", bank.name(), hex(&event.digest)),
    };
    pcrs::events(proposal, bank).into_iter().map(expected).collect()
}

/// PCRs after such a boot. Without a base only what does not depend on the machine.
pub fn values(proposal: &Proposal, bank: PcrBank, base: Option<&Base<'_>>) -> Vec<Value> {
    let Some(base) = base else {
        let phases = [bank.digest(&[ENTER_INITRD.as_bytes()])];
        let value = pcrs::sections(proposal, bank, phases.iter().map(Vec::as_slice));
        return vec![known(11, &value, "sections, and systemd's phase enter-initrd")];
    };
    let number = base.boot.number();
    (0..15u8)
        .filter(|pcr| *pcr != 10)
        .map(|pcr| match pcr {
            4 => images(proposal, bank, base),
            9 => initrd(proposal, bank, base),
            11 => {
                let phases = base.log.systemd().iter().filter(|event| event.pcr == pcr);
                let value = pcrs::sections(proposal, bank, phases.map(|event| event.digest.as_ref()));
                known(pcr, &value, &format!("sections, and what systemd measured in evidence {number}"))
            }
            8 | 12 if base.boot.quote().pcr(pcr).iter().any(|byte| *byte != 0) => {
                unknown(pcr, "the boot loader measures command lines there, and what it runs to get them")
            }
            _ => known(pcr, base.boot.quote().pcr(pcr), &format!("as in evidence {number}")),
        })
        .collect()
}

/// Whether firmware measured the variable SecureBoot as 1.
pub fn secure_boot(log: &ExplainedLog<'_>) -> bool {
    let is_on = |event: &Event<'_>| match event.content() {
        Content::Variable(variable) => variable.known() == Known::SecureBoot && variable.data == [1],
        _ => false,
    };
    log.log().events().iter().any(|event| event.pcr == 7 && is_on(event))
}

/// PCR 4.
fn images(proposal: &Proposal, bank: PcrBank, base: &Base<'_>) -> Value {
    let Some(before) = base.before else {
        return unknown(4, "no policy says which of the machine's images come before its kernel");
    };
    // What a policy counts as images.
    let is_image = |event: &Event<'_>| {
        matches!(
            event.kind,
            kind::EFI_BOOT_SERVICES_APPLICATION
                | kind::EFI_BOOT_SERVICES_DRIVER
                | kind::EFI_RUNTIME_SERVICES_DRIVER
        )
    };
    let last = extends(base, 4).map(|event| (is_image(event), event.digest));
    let why = format!("what evidence {} has before its kernel, then these images", base.boot.number());
    foreseen(4, pcrs::boot_path(proposal, bank, last, before), &why)
}

/// PCR 9.
fn initrd(proposal: &Proposal, bank: PcrBank, base: &Base<'_>) -> Value {
    let last = extends(base, 9).map(|event| match (event.claimed_content(), event.content()) {
        (_, Content::Separator(_)) => Pcr9::Separator(event.digest),
        (Claim::Tag(Tag { id: Tag::INITRD, .. }), _) => Pcr9::Initrd,
        (Claim::Tag(Tag { id: Tag::LOAD_OPTIONS, .. }), _) => Pcr9::LoadOptions,
        _ => Pcr9::Other,
    });
    let number = base.boot.number();
    let why = format!("command line and initrd, as the kernel of evidence {number} measures them");
    foreseen(9, pcrs::efi_stub(proposal, bank, last), &why)
}

fn extends<'a>(base: &'a Base<'_>, pcr: u32) -> impl Iterator<Item = &'a Event<'a>> {
    base.log.log().events().iter().filter(move |event| event.pcr == pcr && !event.digest.is_empty())
}

fn foreseen(pcr: u8, value: Result<Vec<u8>, Unforeseen>, why: &str) -> Value {
    match value {
        Ok(value) => known(pcr, &value, why),
        Err(unforeseen) => unknown(pcr, &unforeseen.to_string()),
    }
}

fn known(pcr: u8, value: &[u8], why: &str) -> Value {
    Value { pcr, value: Some(hex(value)), why: why.to_owned() }
}

fn unknown(pcr: u8, why: &str) -> Value {
    Value { pcr, value: None, why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfkey_evidence::eventlog;
    use halfkey_protocol::Bytes;
    use halfkey_protocol::wire::{ProposedImage, ProposedSection};

    /// What a recorded boot of OVMF and systemd's stub measured, told as if it were proposed.
    fn recorded(log: &eventlog::ReplayedLog<'_>, cmdline: &str) -> Proposal {
        let of = |pcr: u32, kind: u32| -> Vec<Bytes> {
            let events = log.events().iter().filter(|event| event.pcr == pcr && event.kind == kind);
            events.map(|event| event.digest.into()).collect()
        };
        let names = [".linux", ".osrel", ".cmdline", ".initrd"];
        let contents = of(11, kind::IPL).into_iter().skip(1).step_by(2);
        let images = of(4, kind::EFI_BOOT_SERVICES_APPLICATION);
        Proposal {
            version: 1,
            name: "6.1".into(),
            bank: "sha256".into(),
            images: images
                .into_iter()
                .map(|authenticode| ProposedImage {
                    release: None,
                    role: "uki".into(),
                    path: "a".into(),
                    authenticode,
                })
                .collect(),
            sections: names
                .into_iter()
                .zip(contents)
                .map(|(name, digest)| ProposedSection { name: name.into(), digest })
                .collect(),
            initrd: of(9, kind::EVENT_TAG).pop(),
            command_line: Some(cmdline.trim_end().into()),
            loader: None,
            written_by_update: false,
        }
    }

    #[test]
    fn events_are_those_that_a_recorded_boot_had() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../testkit/boots");
        for name in ["uki-no-secure-boot", "uki-secure-boot-own-keys"] {
            let bytes = std::fs::read(format!("{folder}/{name}.bin")).unwrap();
            let cmdline = std::fs::read_to_string(format!("{folder}/{name}.cmdline")).unwrap();
            let log = eventlog::replay(&bytes, PcrBank::Sha256).unwrap();
            let proposal = recorded(&log, &cmdline);
            let expected = events(&proposal, PcrBank::Sha256);
            for pcr in [4, 9, 11] {
                // The firmware's own events in PCR 4 come first.
                let found = log.events().iter().filter(|event| event.pcr == u32::from(pcr));
                let found: Vec<_> = found.map(|event| format!("sha256:{}", hex(event.digest))).collect();
                let expected: Vec<_> = expected
                    .iter()
                    .filter(|event| event.pcr == pcr)
                    .map(|event| event.digest.clone())
                    .collect();
                assert!(!expected.is_empty() && found.ends_with(&expected), "{name}, PCR {pcr}: {found:?}");
            }
            let phase = PcrBank::Sha256.digest(&[ENTER_INITRD.as_bytes()]);
            let value = PcrBank::Sha256.digest(&[log.pcr(11).unwrap(), &phase]);
            assert_eq!(values(&proposal, PcrBank::Sha256, None)[0].value, Some(hex(&value)));
        }
    }
}
