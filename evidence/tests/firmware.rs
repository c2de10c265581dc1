//! Logs as real firmware writes them: Debian's OVMF with swtpm, Linux 6.1, booted in the ways that are common. Beside each log:
//! the PCRs as quoted, `/proc/cmdline`, and what each event is, one a line.

#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

use halfkey_evidence::digest::Digest;
use halfkey_evidence::eventlog::content::{Claim, Content, GrubText, Image, Tag};
use halfkey_evidence::eventlog::variable::{Known, Value};
use halfkey_evidence::eventlog::{EXPLAINED, Event, Format, ReplayedLog, Standing, kind, parse, replay};
use halfkey_protocol::Reason;
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::tpm::kdf::Hash;
use halfkey_testkit::recorded::SYSTEMD_262;
use std::path::Path;

/// A boot that was recorded.
struct Boot {
    log: Vec<u8>,
    pcrs: Vec<Vec<u8>>,
    command_line: String,
    events: String,
}

impl Boot {
    fn read(name: &str) -> Self {
        let file = |kind: &str| {
            let path =
                Path::new(env!("CARGO_MANIFEST_DIR")).join("../testkit/boots").join(format!("{name}.{kind}"));
            std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        let text = |kind| String::from_utf8(file(kind)).unwrap();
        let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
        let pcrs = text("pcrs");
        let lines = pcrs.lines().filter(|line| !line.starts_with('#'));
        // "0 3e69.." or "3e69..": a line for each PCR.
        let pcr = |line: &str| line.split(' ').next_back().unwrap().as_bytes().chunks(2).map(byte).collect();
        Self {
            log: file("bin"),
            pcrs: lines.map(pcr).collect(),
            command_line: text("cmdline").trim_end().to_owned(),
            events: text("events"),
        }
    }

    /// Replays it, and compares with the quote and with what each event should be.
    fn replay(&self) -> ReplayedLog<'_> {
        assert_eq!(parse(&self.log).unwrap().format(), Format::CryptoAgile);
        let log = replay(&self.log, PcrBank::Sha256).unwrap();
        // 11 goes on with what systemd measures in the initramfs, without a log; 10 is IMA's.
        for (pcr, value) in (0u8..).zip(&self.pcrs).filter(|(pcr, _)| !matches!(pcr, 10 | 11 | 15)) {
            assert_eq!(log.pcr(pcr).unwrap(), value, "pcr {pcr}");
        }
        let found: String = log.events().iter().map(line).collect();
        assert_eq!(found, self.events, "what the events are has changed");
        log
    }

    /// What the kernel's EFI stub measures for the command line.
    fn load_options(&self) -> Vec<u8> {
        self.command_line.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
    }
}

fn line(event: &Event<'_>) -> String {
    let Event { number, pcr, kind, .. } = event;
    let kind = kind::name(*kind).unwrap();
    format!("{number} pcr {pcr} {kind} {:?}: {}\n", event.standing(), event.what())
}

fn of_pcr<'l, 'a>(log: &'l ReplayedLog<'a>, pcr: u32) -> impl Iterator<Item = &'l Event<'a>> {
    log.events().iter().filter(move |event| event.pcr == pcr && !event.digest.is_empty())
}

fn images<'a>(log: &ReplayedLog<'a>) -> Vec<Image<'a>> {
    let image = |event: &Event<'a>| match event.claimed_content() {
        Claim::Image(image) => Some(image),
        _ => None,
    };
    of_pcr(log, 4).filter_map(image).collect()
}

fn files(log: &ReplayedLog<'_>) -> Vec<Option<String>> {
    images(log).iter().map(|image| image.path.file()).collect()
}

/// The fingerprints in a signature database; `None` unless it was measured once.
fn database(log: &ReplayedLog<'_>, wanted: Known) -> Option<Vec<Digest>> {
    let mut found = log.events().iter().filter_map(|event| match event.content() {
        Content::Variable(variable) if variable.known() == wanted => match variable.value() {
            Value::Signatures(lists) => lists.entries().map(|entry| entry.signature.fingerprint()).collect(),
            _ => None,
        },
        _ => None,
    });
    found.next().filter(|_| found.next().is_none())
}

fn secure_boot(log: &ReplayedLog<'_>) -> Option<bool> {
    of_pcr(log, 7).find_map(|event| match event.content() {
        Content::Variable(variable) if variable.known() == Known::SecureBoot => {
            Some(variable.value() == Value::Flag(true))
        }
        _ => None,
    })
}

fn authorities(log: &ReplayedLog<'_>) -> Vec<Digest> {
    let signer = |event: &Event<'_>| match event.content() {
        Content::Authority(authority) => authority.signer.fingerprint(),
        _ => None,
    };
    of_pcr(log, 7).filter_map(signer).collect()
}

fn tag(log: &ReplayedLog<'_>, wanted: u32) -> Vec<u8> {
    let is = |event: &&Event<'_>| matches!(event.claimed_content(), Claim::Tag(tag) if tag.id == wanted);
    of_pcr(log, 9).find(is).unwrap().digest.to_vec()
}

/// What systemd 262 has measured in the initramfs comes on top, and its log says all of it.
#[test]
fn both_logs_explain_what_was_quoted() {
    let Boot { log, pcrs, events, .. } = Boot::read("uki-systemd-262");
    let replayed = replay(&log, PcrBank::Sha256).unwrap();
    assert_eq!(replayed.events().iter().map(line).collect::<String>(), events);
    let firmware: Vec<_> =
        EXPLAINED.iter().filter(|pcr| replayed.pcr(**pcr).unwrap() == pcrs[usize::from(**pcr)]).collect();
    assert_eq!(firmware, [&8], "each other one ends with a boundary");
    let explained = replayed.assume_with(Some(SYSTEMD_262.systemd)).unwrap();
    for pcr in EXPLAINED {
        assert_eq!(explained.pcr(pcr), pcrs[usize::from(pcr)], "pcr {pcr}");
    }
    assert!(explained.systemd().iter().all(|event| event.measured_text().is_some()));
}

#[test]
fn a_unified_image_without_secure_boot() {
    let boot = Boot::read("uki-no-secure-boot");
    let log = boot.replay();
    assert_eq!((secure_boot(&log), authorities(&log)), (Some(false), Vec::new()));
    assert_eq!((database(&log, Known::Pk), database(&log, Known::Dbx)), (Some(Vec::new()), Some(Vec::new())));
    // The image, and the kernel inside it that its stub starts.
    assert!(matches!(&files(&log)[..], [Some(uki), None] if uki.ends_with(".efi")));
    assert!(images(&log)[1].is_payload_of_stub());
    unified(&boot, &log);
}

#[test]
fn a_unified_image_signed_by_the_owner() {
    let boot = Boot::read("uki-secure-boot-own-keys");
    let log = boot.replay();
    let [db] = database(&log, Known::Db).unwrap()[..] else { panic!("one key") };
    assert_eq!((secure_boot(&log), authorities(&log)), (Some(true), vec![db]));
    for known in [Known::Pk, Known::Kek] {
        assert!(matches!(database(&log, known).unwrap()[..], [key] if key != db));
    }
    assert!(!database(&log, Known::Dbx).unwrap().is_empty());
    // With Secure Boot on, the stub starts the kernel itself: firmware sees one image.
    assert!(matches!(&files(&log)[..], [Some(uki)] if uki.ends_with(".efi")));
    unified(&boot, &log);
}

/// What a unified image measures, Secure Boot or not.
fn unified(boot: &Boot, log: &ReplayedLog<'_>) {
    let events: Vec<_> = of_pcr(log, 11).collect();
    let name = |event: &Event<'_>| match event.content() {
        Content::SectionName(name) => name.to_string(),
        other => panic!("{other:?}"),
    };
    let sections: Vec<_> = events.chunks(2).map(|pair| (name(pair[0]), pair[1].digest)).collect();
    let names: Vec<_> = sections.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, [".linux", ".osrel", ".cmdline", ".initrd"]);
    assert_eq!(tag(log, Tag::LOAD_OPTIONS), Hash::Sha256.digest(&[&boot.load_options()]));
    assert_eq!(tag(log, Tag::INITRD), sections[3].1);
    assert_eq!([8, 12, 13, 14].map(|pcr| of_pcr(log, pcr).count()), [0; 4]);
}

#[test]
fn systemd_boot_with_a_type_1_entry() {
    let boot = Boot::read("systemd-boot-type1");
    let log = boot.replay();
    let [Some(loader), Some(kernel)] = &files(&log)[..] else { panic!("{:?}", files(&log)) };
    assert!(loader.ends_with("systemd-bootx64.efi") && kernel.starts_with(r"\linux\vmlinuz-"), "{kernel}");
    // The loader measures the command line as text, the kernel measures the same again.
    let [line] = of_pcr(&log, 12).collect::<Vec<_>>()[..] else { panic!("one command line") };
    let Content::Text(text) = line.content() else { panic!("{:?}", line.content()) };
    assert_eq!(text.to_string(), boot.command_line);
    assert_eq!(tag(&log, Tag::LOAD_OPTIONS), line.digest);
    assert_eq!([8, 11, 13, 14].map(|pcr| of_pcr(&log, pcr).count()), [0; 4]);
}

#[test]
fn grub_behind_shim_with_microsofts_keys() {
    let boot = Boot::read("grub-shim-ms-keys");
    let log = boot.replay();
    let db = database(&log, Known::Db).unwrap();
    let authorities = authorities(&log);
    // Microsoft's key verified shim, shim's own key verified GRUB and kernel.
    assert_eq!(secure_boot(&log), Some(true));
    assert!(matches!(authorities[..], [shim, own] if db.contains(&shim) && !db.contains(&own)));
    let files = files(&log);
    // GRUB hands the kernel over in memory; shim measures it when it is verified, and again when it is started.
    let [Some(shim), Some(grub), None, None] = &files[..] else { panic!("{files:?}") };
    assert!(shim.ends_with("shimx64.efi") && grub.ends_with("grubx64.efi"), "{files:?}");
    assert!(images(&log)[2..].iter().all(|image| image.path.is_empty()));
    // GRUB measures what it runs as text, and what it reads as files.
    let texts: Vec<_> = of_pcr(&log, 8)
        .map(|event| match event.content() {
            Content::Grub { claimed, text } => (claimed, str::from_utf8(text).unwrap()),
            other => panic!("{other:?}"),
        })
        .collect();
    let line = |(claimed, _): &&(GrubText, &str)| *claimed == GrubText::KernelCommandLine;
    let [(_, line)] = texts.iter().filter(line).collect::<Vec<_>>()[..] else { panic!("one command line") };
    let (kernel, arguments) = line.split_once(' ').unwrap();
    assert_eq!(boot.command_line.split_once(' ').unwrap().1, arguments);
    let read: Vec<_> = of_pcr(&log, 9)
        .filter_map(|event| match event.claimed_content() {
            Claim::Name(name) => Some(str::from_utf8(name).unwrap()),
            _ => None,
        })
        .collect();
    assert!(read.iter().any(|file| file.ends_with(kernel)), "{read:?}");
    assert!(read.iter().any(|file| file.contains("initrd")), "{read:?}");
    // shim's lists: by digest, under their names.
    assert!(of_pcr(&log, 14).all(|event| event.standing() == Standing::Opaque));
    assert!(of_pcr(&log, 14).any(|event| event.what() == "MokList"));
}

#[test]
fn cut_anywhere_a_log_is_refused_or_says_less() {
    let boot = Boot::read("uki-no-secure-boot");
    let whole = boot.replay().events().len();
    for end in 0..boot.log.len() {
        match replay(&boot.log[..end], PcrBank::Sha256) {
            Ok(log) => assert!(log.events().len() < whole, "{end} bytes"),
            Err(rejection) => {
                assert!(matches!(rejection.reason, Reason::LogMalformed | Reason::LogReplay), "{rejection}");
            }
        }
    }
}

/// What the digest covers of a content: not what is called `claimed` in it.
fn proven<'a>(event: &Event<'a>) -> Content<'a> {
    match event.content() {
        Content::VariableValue { data, .. } => Content::Bytes(data),
        Content::Grub { text, .. } => Content::Bytes(text),
        other => other,
    }
}

/// Whoever changes a byte changes a PCR, is refused, or changes nothing that counts as proven.
#[test]
fn no_changed_byte_gives_other_verified_content() {
    let boot = Boot::read("uki-secure-boot-own-keys");
    let honest = boot.replay();
    for at in 0..boot.log.len() {
        let mut changed = boot.log.clone();
        changed[at] ^= 0x20;
        let Ok(log) = replay(&changed, PcrBank::Sha256) else { continue };
        if (0..16).any(|pcr| log.pcr(pcr) != honest.pcr(pcr)) || log.events().len() != honest.events().len() {
            continue;
        }
        for (event, before) in log.events().iter().zip(honest.events()) {
            let same_words = proven(event) == proven(before);
            // Other types of the same bytes are told apart by whoever asks for them; the bytes are what was measured.
            let same_bytes = event.kind != before.kind && event.claimed_data() == before.claimed_data();
            let opaque = event.standing() != Standing::Verified;
            assert!(same_words || same_bytes || opaque, "byte {at}: {} -> {}", before.what(), event.what());
        }
    }
}
