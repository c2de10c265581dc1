//! Boots of another initramfs, or of none, that tell the story of the approved one: what ran extends what is missing, and writes
//! the log.

#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod common;

use common::boots::{Appraised as _, Boot, Record, boot, log_of};
use halfkey_evidence::eventlog::{kind, replay};
use halfkey_evidence::policy::{Assured, Claims, Finding, Policy, Problem, evaluate, learn, learn_boot};
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::tpm::kdf::Hash;
use halfkey_testkit::recorded::UNMEASURED_INITRD;

const RETURNING: &[u8] = b"Returning from EFI Application from Boot Option";
const ROOT: &str = "root=UUID=0b5f4c0e-6d1b-4f0a-9f2d-1d0c7a5e0002";
/// Tags of the kernel's EFI stub.
const INITRD: [u8; 4] = 0x8f3b_22ec_u32.to_le_bytes();
const LOAD_OPTIONS: [u8; 4] = 0x8f3b_22ed_u32.to_le_bytes();

/// The verdict over this log, as if the TPM had quoted what it replays to, and over systemd's log.
fn judge(policy: &Policy, records: &[Record], systemd: Option<&[u8]>, line: &str) -> Vec<Finding> {
    let bytes = log_of(records);
    let log = replay(&bytes, PcrBank::Sha256).unwrap().assume_with(systemd).unwrap();
    evaluate(policy, &log, &Claims { command_line: Some(line.as_bytes()) }).findings
}

fn findings(policy: &Policy, records: &[Record], line: &str) -> Vec<Finding> {
    judge(policy, records, None, line)
}

#[track_caller]
fn denied(findings: &[Finding], by: &str) {
    assert!(findings.iter().any(|finding| finding.to_string().contains(by)), "{by}: {findings:?}");
}

fn policy(text: &str) -> Policy {
    Policy::parse(text).unwrap_or_else(|problems| panic!("{problems:?}\n{text}"))
}

#[track_caller]
fn refused(text: &str, by: &str) {
    let problems = Policy::parse(text).map(|_| ()).expect_err(by);
    let floor = |problem: &&Problem| problem.floor && problem.message.contains(by);
    assert!(problems.iter().any(|problem| floor(&problem)), "{by}: {problems:?}");
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn is_tag(record: &Record, tag: [u8; 4]) -> bool {
    record.pcr == 9 && record.data.starts_with(&tag)
}

/// The boot with another line handed to its kernel.
fn with_line(boot: &Boot, line: &str) -> Vec<Record> {
    let mut records = boot.records();
    let options = utf16(&format!("{line}\0"));
    for record in &mut records {
        if record.pcr == 12 {
            *record = Record::of(12, kind::IPL, &options);
        } else if is_tag(record, LOAD_OPTIONS) {
            record.digest = Hash::Sha256.digest(&[&options]);
        }
    }
    records
}

/// What `[command_line]` accepts in place of the boot's own line.
fn with_tokens(text: &str, allowed: &str, required: &str) -> String {
    let own = text.lines().find(|line| line.starts_with("command_line = ")).unwrap();
    let shared = format!("[command_line]\nallowed = {allowed}\nrequired = {required}\n\n[[boot]]");
    text.replace(own, "").replacen("[[boot]]", &shared, 1)
}

/// The record of systemd's log that a PCR was extended with a digest.
fn systemd(pcr: u8, digest: &str, text: &str) -> Vec<u8> {
    format!(
        "\x1e{{\"pcr\":{pcr},\"digests\":[{{\"hashAlg\":\"sha256\",\"digest\":\"{digest}\"}}],\"content\":{{\"eventType\":\"phase\",\"string\":\"{text}\"}}}}\n"
    )
    .into_bytes()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn an_entry_is_learned_only_if_its_kernel_measures_every_initrd() {
    let boot = boot("systemd-boot-type1");
    let found = learn(&boot.log(), &boot.claims(), Assured::default(), "learned", &[]).unwrap_err();
    let text = found.iter().map(ToString::to_string).collect::<String>();
    assert!(text.contains("expected kernel_measures_initrd = true, a uki, or the events of grub"), "{text}");
    // Nor can it be written by hand.
    let text = boot.learned();
    let assured = text.lines().find(|line| line.starts_with("kernel_measures_initrd = true")).unwrap();
    refused(&text.replace(assured, ""), "expected kernel_measures_initrd = true");
    refused(
        &text.replace(assured, "kernel_measures_initrd = false"),
        "expected kernel_measures_initrd = true",
    );
    // What was said of a kernel once holds for its other command lines.
    let policy = policy(&text);
    let more = learn_boot(&policy, &boot.log(), &boot.claims(), Assured::default(), "more");
    assert!(more.unwrap().contains("kernel_measures_initrd = true"));
}

/// An entry whose `initrd` line is gone, and whose `options` begin with `initrd=\evil.img` or name the overwritten file: a kernel that
/// measures only what came by LoadFile2 measures neither, and evil's /init extends the digest of the good one. With a kernel that measures
/// every initrd there is no such log: evil's digest is in it.
#[test]
fn an_initrd_that_the_line_names_is_one_that_the_kernel_measures() {
    let boot = boot("systemd-boot-type1");
    let policy = policy(&boot.learned());
    let line = boot.line().split_once(' ').unwrap().1;
    let evil = format!("initrd=\\evil.img {line}");
    let mut records = with_line(boot, &evil);
    let good = records.iter().find(|record| is_tag(record, INITRD)).unwrap().clone();
    let at = records.iter().position(|record| is_tag(record, INITRD)).unwrap();
    records.insert(at, Record { digest: vec![0xee; 32], ..good });
    denied(&findings(&policy, &records, &evil), "expected no such event, found sha256:eeee");
    // Anywhere but at the front, where loaders write it, it is none of a loader's.
    for line in [
        format!("{line} initrd=\\evil.img"),
        format!("{line} foo=\"initrd=/evil.img\""),
        format!("{line} xinitrd=/a"),
    ] {
        denied(&findings(&policy, &with_line(boot, &line), &line), "expected no initrd=");
    }
    // What stands at the front is any file's name, but not one in which the stub finds another kind of file.
    let line = format!("initrd=\\good.imgdtb=\\evil.dtb {line}");
    denied(&findings(&policy, &with_line(boot, &line), &line), "the kernel would load that device tree");
}

/// What the attack looked like on Linux 6.1.0-56 of Debian 12, recorded when it still got the key: the entry's `options` began with
/// `initrd=\linux\evil.img`, and a generator in evil.img extended PCR 9 with the digest of the approved initrd and put an event for it
/// behind the log. Of evil.img there is no trace but its name.
#[test]
fn a_kernel_that_does_not_measure_what_it_loads_can_not_be_told_from_one_that_does() {
    let (log, claims) = (UNMEASURED_INITRD.log(), UNMEASURED_INITRD.claims());
    let initrds =
        log.events().iter().filter(|event| event.pcr == 9 && event.claimed_data().starts_with(&INITRD));
    assert_eq!(initrds.count(), 1, "the one that evil.img has added");
    let found = learn(&log, &claims, Assured::default(), "learned", &[]).unwrap_err();
    denied(&found, "kernel_measures_initrd = true");
    // To say so of this kernel is to believe whoever writes the entry.
    let falsely = Assured { kernel_measures_initrd: true, ..Assured::default() };
    let believed = learn(&log, &claims, falsely, "learned", &[]).unwrap();
    assert_eq!(evaluate(&policy(&believed), &log, &claims).findings, []);
}

#[test]
fn initrd_is_in_no_other_line() {
    let boot = boot("uki-no-secure-boot");
    let text = boot.learned();
    refused(&text.replace("\"root=", "\"initrd=\\\\evil.img root="), "expected no initrd=");
    let tokens = with_tokens(
        &text,
        "[\"root=UUID=*\", \"rd.luks.name=*\", \"rw\", \"console=ttyS0\", \"loglevel=4\", \"systemd.show_status=yes\", \"rd.shell=0\", \"rd.emergency=poweroff\"]",
        "[\"systemd.import_credentials=no\", \"efi=noruntime\"]",
    );
    let policy = policy(&tokens);
    let of_section = |line: &str| {
        let mut records = with_line(boot, line);
        let at = records.iter().position(|record| record.pcr == 4 && record.data.len() < 100).unwrap();
        records.insert(at, Record::of(12, kind::IPL, &utf16(&format!("{line}\0"))));
        findings(&policy, &records, line)
    };
    assert_eq!(of_section(boot.line()), []);
    for front in ["initrd=\\evil.img ", "BOOT_IMAGE=initrd=/evil.img "] {
        denied(&of_section(&format!("{front}{}", boot.line())), "expected no initrd=");
    }
    // The kernel's stub finds it inside of a word that a wildcard stands for.
    denied(&of_section(&boot.line().replace(ROOT, "root=UUID=0b5finitrd=/evil.img")), "expected no initrd=");
    refused(&tokens.replace("\"rw\"", "\"initrd=*\""), "expected no initrd=");
}

#[test]
fn wildcards_stand_behind_one_parameter() {
    let text = boot("uki-no-secure-boot").learned();
    let required = "[\"systemd.import_credentials=no\", \"efi=noruntime\"]";
    for wide in ["*", "foo*", "r*", "systemd.*", "=*"] {
        refused(
            &with_tokens(&text, &format!("[\"{wide}\"]"), required),
            "only behind the = of one parameter",
        );
        let more = format!("[\"{wide}\", \"systemd.import_credentials=no\", \"efi=noruntime\"]");
        refused(&with_tokens(&text, "[]", &more), "only behind the = of one parameter");
    }
    policy(&with_tokens(&text, "[\"root=UUID=*\", \"a.b=c*\"]", required));
}

/// No initrd, and a root file system that the kernel mounts itself: what is on it extends what is missing.
#[test]
fn a_root_that_the_kernel_can_mount_needs_a_uki() {
    let boot = boot("systemd-boot-type1");
    let text = boot.learned();
    let tokens = with_tokens(
        &text,
        "[\"root=*\", \"rd.luks.name=*\", \"rw\", \"console=ttyS0\", \"loglevel=4\", \"systemd.show_status=yes\", \"rd.shell=0\", \"rd.emergency=poweroff\"]",
        "[\"systemd.import_credentials=no\", \"efi=noruntime\"]",
    );
    for root in [
        "root=PARTUUID=1",
        "root=/dev/vda2",
        "root=PARTLABEL=x",
        "root=8:1",
        "root=/dev/nfs",
        "root=\\\"PARTUUID=1\\\"",
        "root=",
        "root=UUID=",
    ] {
        refused(&text.replace(ROOT, root), "the kernel itself could mount this one");
        let line = boot.line().replace(ROOT, &root.replace('\\', ""));
        denied(
            &findings(&policy(&tokens), &with_line(boot, &line), &line),
            "the kernel itself could mount this one",
        );
    }
    for root in ["root=LABEL=x", "root=/dev/mapper/root", ""] {
        policy(&text.replace(ROOT, root));
    }
    // A UKI has an initramfs of its own.
    policy(&common::boots::boot("uki-no-secure-boot").learned().replace(ROOT, "root=PARTUUID=1"));
}

/// A loader is quit at its menu, and firmware starts the next entry: a kernel by itself, with options of the attacker's.
#[test]
fn what_came_back_to_the_firmware_is_no_part_of_the_path() {
    for boot in [boot("systemd-boot-type1"), boot("grub-shim-ms-keys")] {
        let text = boot.learned();
        let policy = policy(&text);
        let records = boot.records();
        let images: Vec<_> = (0..records.len())
            .filter(|number| records[*number].kind == kind::EFI_BOOT_SERVICES_APPLICATION)
            .collect();
        for number in &images[1..] {
            for relabelled in [kind::EFI_ACTION, kind::IPL] {
                let mut quit = records.clone();
                quit.insert(
                    *number,
                    Record { kind: relabelled, ..Record::of(4, kind::EFI_ACTION, RETURNING) },
                );
                denied(&findings(&policy, &quit, boot.line()), "came back to the firmware");
            }
        }
        // Before the path it needs a rule of its own, and then it is not in the way.
        let mut before = records.clone();
        let other = Record { digest: vec![0x77; 32], ..records[images[0]].clone() };
        before.splice(images[0]..images[0], [other, Record::of(4, kind::EFI_ACTION, RETURNING)]);
        denied(&findings(&policy, &before, boot.line()), "came back to the firmware");
        let rule = format!(
            "{text}\n[[event]]\npcr = 4\ndigest = \"sha256:{}\"\nbecause = \"network boot\"\n",
            "77".repeat(32)
        );
        assert_eq!(findings(&Policy::parse(&rule).unwrap(), &before, boot.line()), []);
        // It is no part of the path, which must be whole by itself.
        let mut counted = before.clone();
        let first = images[0] + 2;
        counted.swap(images[0], first);
        denied(&findings(&Policy::parse(&rule).unwrap(), &counted, boot.line()), "came back to the firmware");
    }
}

/// A UEFI shell that was left with `exit`, in front of each boot. The next time it need not come back: it can measure that it did, and
/// all that follows, with the same PCRs and the same log. No policy tells that apart, so it is not learned by itself.
#[test]
fn what_came_back_is_learned_by_the_owners_word_only() {
    let because = "whatever this image can be made to do has the key";
    let digest = format!("\"sha256:{}\"", "77".repeat(32));
    for boot in common::boots::BOOTS {
        let known = policy(&boot.learned());
        let mut records = boot.records();
        let started = |record: &Record| record.kind == kind::EFI_BOOT_SERVICES_APPLICATION;
        let first = records.iter().position(started).unwrap();
        records.insert(first, Record::of(4, kind::EFI_ACTION, RETURNING));
        let learned = |records: &[Record], assured| {
            let bytes = log_of(records);
            let log = replay(&bytes, PcrBank::Sha256).unwrap().assume().unwrap();
            learn(&log, &boot.claims(), assured, "learned", &[])
        };
        let added = |policy: &Policy, records: &[Record], assured| {
            let bytes = log_of(records);
            let log = replay(&bytes, PcrBank::Sha256).unwrap().assume().unwrap();
            learn_boot(policy, &log, &boot.claims(), assured, "more")
        };
        // A network boot that found nothing has started nothing.
        assert!(!learned(&records, boot.assured()).unwrap().contains(because));
        assert!(added(&known, &records, boot.assured()).is_ok());

        let shell = Record { digest: vec![0x77; 32], ..records[first + 1].clone() };
        records.insert(first, shell.clone());
        for found in [learned(&records, boot.assured()), added(&known, &records, boot.assured())] {
            let found = found.expect_err(boot.name);
            assert!(found.len() == 1 && found[0].rule == "boot path", "{found:?}");
            denied(&found, "came back to the firmware");
            denied(&found, digest.trim_matches('"'));
        }
        // What is said of kernels says nothing of it, and both are found at once.
        let found = learned(&records, Assured { kernel_measures_initrd: true, ..Assured::default() });
        assert!(found.is_err());
        let found = learned(&records, Assured::default()).unwrap_err();
        assert_eq!(found.len(), 1 + usize::from(boot.assured().kernel_measures_initrd), "{found:?}");

        let trusting = Assured { trust_returned_images: true, ..boot.assured() };
        let event = |text: &str| {
            let at = text.find(&digest).unwrap_or_else(|| panic!("{text}"));
            text[at..].lines().nth(1).unwrap_or_default().to_owned()
        };
        let text = learned(&records, trusting).unwrap();
        assert!(event(&text).starts_with("because = ") && event(&text).contains(because), "{text}");
        assert_eq!(findings(&policy(&text), &records, boot.line()), []);
        assert!(event(&added(&known, &records, trusting).unwrap()).contains(because));
        // Said once, for one event: the same image once more needs it again.
        let more = added(&policy(&text), &records, boot.assured()).unwrap();
        assert!(!more.contains(&digest), "{more}");
        records.insert(first, shell);
        assert!(added(&policy(&text), &records, boot.assured()).is_err());
    }
}

#[test]
fn the_initrd_is_what_the_firmwares_log_says() {
    let boot = boot("uki-no-secure-boot");
    let policy = policy(&boot.learned());
    let records = boot.records();
    assert_eq!(judge(&policy, &records, None, boot.line()), []);
    let mut without = records.clone();
    let at = without.iter().position(|record| is_tag(record, INITRD)).unwrap();
    let good = without.remove(at);
    let by_systemd = systemd(9, &hex(&good.digest), "initrd");
    denied(&judge(&policy, &without, Some(&by_systemd), boot.line()), "initrd: expected sha256:");
    // Nor once more, nor as another kind of event.
    let mut twice = records.clone();
    twice.push(good.clone());
    denied(&findings(&policy, &twice, boot.line()), "no such event");
    without.push(Record { kind: kind::IPL, ..good });
    denied(&findings(&policy, &without, boot.line()), "initrd: expected sha256:");
}

#[test]
fn systemds_separators_need_no_rule_and_stand_for_nothing() {
    let boot = boot("uki-no-secure-boot");
    let policy = policy(&boot.learned());
    let digest = |text: &str| hex(&Hash::Sha256.digest(&[text.as_bytes()]));
    let nvpcr = "nvpcr-init:cryptsetup:0x1d10200:aa";
    let mut log = Vec::new();
    for pcr in [0u8, 1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 14] {
        log.extend(systemd(pcr, &digest("os-separator"), "os-separator"));
    }
    log.extend(systemd(9, &digest(nvpcr), nvpcr));
    log.extend(systemd(9, &digest("nvpcr-separator"), "nvpcr-separator"));
    assert!(boot.learned().contains("\"3\" = ["), "the value of a whole PCR is learned as well");
    assert_eq!(judge(&policy, &boot.records(), Some(&log), boot.line()), []);
    // What is learned of a boot that has them is the same.
    let bytes = log_of(&boot.records());
    let with = replay(&bytes, PcrBank::Sha256).unwrap().assume_with(Some(&log)).unwrap();
    assert_eq!(
        learn(&with, &boot.claims(), Assured::default(), "learned", &["from a test"]).unwrap(),
        boot.learned()
    );
    // A value is that before them: something else on top is not the separator, and another value is no other for it.
    let other = [&systemd(3, &digest("os-separator"), "os-separator")[..], &systemd(3, &digest("x"), "x")];
    let pcr_3 = |finding: &Finding| finding.rule == "pcr.3";
    for log in [&other[1].to_vec(), &other.concat()] {
        assert!(judge(&policy, &boot.records(), Some(log), boot.line()).iter().any(pcr_3));
    }
    let mut records = boot.records();
    let at = records.iter().position(|record| record.pcr == 3).unwrap();
    records.insert(at, Record { kind: kind::IPL, digest: vec![0x33; 32], ..records[at].clone() });
    assert!(judge(&policy, &records, Some(other[0]), boot.line()).iter().any(pcr_3));
    for (pcr, text, digest) in [
        (8, "os-separator", digest("os-separator")),
        (9, "nvpcr-init:x", digest("nvpcr-init:y")),
        (9, "nvpcr-init:x", digest("nvpcr-init:x")),
        (9, "nvpcr-init:x:0x1:aa ", digest("nvpcr-init:x:0x1:aa ")),
        (12, "nvpcr-separator", digest("nvpcr-separator")),
        (9, "nvpcr-inits", digest("nvpcr-inits")),
    ] {
        denied(
            &judge(&policy, &boot.records(), Some(&systemd(pcr, &digest, text)), boot.line()),
            "no such event",
        );
    }
}

/// The stub measures an archive of credentials that somebody, or systemd itself, put onto the ESP. Only its digest is proven.
#[test]
fn credentials_of_the_stub_count_by_their_content() {
    const NAMES: [&str; 2] = ["Credentials initrd", "Global credentials initrd"];
    let boot = boot("uki-secure-boot-own-keys");
    let measured = |name: &str, content: &[u8]| {
        let digest = Hash::Sha256.digest(&[content]);
        let of_pcr = Record { pcr: 12, kind: kind::IPL, digest, data: utf16(&format!("{name}\0")) };
        [boot.records(), vec![of_pcr]].concat()
    };
    let without = policy(&boot.learned());
    let line = utf16("rdinit=/bin/sh");
    for name in NAMES {
        // A name is accepted for nothing: the same could be said of a command line, or of a configuration extension.
        for content in [&b"an archive"[..], &line] {
            let found = findings(&without, &measured(name, content), boot.line());
            denied(&found, "no such event");
            assert!(found[0].hint.as_deref().unwrap().contains("nvpcr-anchor"), "{found:?}");
        }
        let bytes = log_of(&measured(name, b"an archive"));
        let log = replay(&bytes, PcrBank::Sha256).unwrap().assume().unwrap();
        denied(
            &learn(&log, &boot.claims(), Assured::default(), "x", &[]).unwrap_err(),
            "whatever it is called",
        );
        let word = Assured { trust_unknown_events: true, ..Assured::default() };
        let text = learn(&log, &boot.claims(), word, "x", &[]).unwrap();
        assert!(text.contains("by its content"), "{text}");
        let with = policy(&text);
        assert_eq!(findings(&with, &measured(name, b"an archive"), boot.line()), []);
        for content in [&b"another archive"[..], &line] {
            denied(&findings(&with, &measured(name, content), boot.line()), "pcr 12");
        }
        let twice =
            [measured(name, b"an archive"), measured(name, b"an archive").split_off(boot.records().len())]
                .concat();
        denied(&findings(&with, &twice, boot.line()), "no such event");
    }
    // Nothing else has the hint.
    let other = findings(&without, &measured("System extension initrd", b"x"), boot.line());
    assert!(other.iter().all(|finding| finding.hint.is_none()), "{other:?}");
}

/// GRUB reads another file in the place of the initrd. What runs then extends the PCR with the digests that are missing, and says that the
/// file, and these, were systemd's.
#[test]
fn what_grub_read_is_not_systemds() {
    let boot = boot("grub-shim-ms-keys");
    let text = boot.learned();
    let policy = policy(&text);
    let initrd = &text.lines().find_map(|line| line.strip_prefix("initrd = \"sha256:")).unwrap()[..64];
    let digest = |text: &str| hex(&Hash::Sha256.digest(&[text.as_bytes()]));
    let records = boot.records();
    let at = records.iter().position(|record| record.pcr == 9 && hex(&record.digest) == initrd).unwrap();
    let is_later = |(index, record): &(usize, Record)| *index >= at && record.pcr == 9;
    let (later, firmware): (Vec<_>, Vec<_>) = records.into_iter().enumerate().partition(is_later);
    let firmware: Vec<_> = firmware.into_iter().map(|(_, record)| record).collect();
    // The last has the form of a record; the initrd is still none of GRUB's.
    for file in ["nvpcr-init:a file of any content", "nvpcr-init:cryptsetup:0x1d10200:aa"] {
        let mut log = systemd(9, &digest(file), file);
        for (_, record) in &later {
            log.extend(systemd(9, &hex(&record.digest), "later"));
        }
        let found = judge(&policy, &firmware, Some(&log), boot.line());
        let missing = found.iter().any(|finding| finding.expected.contains(initrd));
        assert!(missing, "{file}: {found:?}");
    }
}

#[test]
fn without_secure_boot_firmware_and_drivers_are_explained() {
    let boot = boot("uki-no-secure-boot");
    let text = boot.learned();
    let policy = policy(&text);
    // The option ROM of a card that was put in: it runs before everything.
    let mut records = boot.records();
    let at = records.iter().position(|record| record.pcr == 2).unwrap();
    let image = records.iter().find(|record| record.kind == kind::EFI_BOOT_SERVICES_APPLICATION).unwrap();
    let rom =
        Record { pcr: 2, kind: kind::EFI_BOOT_SERVICES_DRIVER, digest: vec![0x22; 32], ..image.clone() };
    records.insert(at, rom);
    denied(&findings(&policy, &records, boot.line()), "pcr 2");
    for pcr in [0, 2] {
        let start = text.find(&format!("pcr{pcr} = [")).unwrap();
        let end = start + text[start..].find("]\n").unwrap() + 2;
        let ignored = format!("{}{}", &text[..start], &text[end..]);
        let ignored = ignored.replace("ignore = [1,", &format!("ignore = [{pcr}, 1,"));
        refused(&ignored, &format!("pcr {pcr} can be ignored only with secure_boot.required"));
    }
}

/// The policy of a signed boot with its signer in place of its hashes; what stands before the UKI; more of its image.
fn by_signer(boot: &Boot, initrd: &str, before: &str, more: &str) -> String {
    let text = boot.learned();
    let head = &text[..text.find("[[boot]]").unwrap()];
    let signer = head.rsplit("authorities = [\n").next().unwrap().split('"').nth(1).unwrap();
    let line = text.lines().find(|line| line.starts_with("command_line = ")).unwrap();
    format!(
        "{head}\n[[boot]]\nname = \"ours\"\n{line}\ninitrd = \"{initrd}\"\nsections = \"signed\"\n{before}[[boot.image]]\nrole = \"uki\"\nsigner = [\"{signer}\"]\n{more}"
    )
}

fn image(role: &str, digest: u8) -> String {
    format!(
        "[[boot.image]]\nrole = \"{role}\"\nauthenticode = [\"sha256:{}\"]\n",
        format!("{digest:02x}").repeat(32)
    )
}

/// A loader before a signed UKI can leave an initrd for its stub, which newer stubs pass on.
#[test]
fn before_a_signed_uki_nothing_may_add_an_initrd() {
    let boot = boot("uki-secure-boot-own-keys");
    let also = "signer_also_signs = [\"loader\"]\n";
    refused(
        &by_signer(boot, "signed", &image("loader", 0x11), also),
        "\"signed\" and role loader before the uki",
    );
    let records = boot.records();
    let good = records.iter().find(|record| is_tag(record, INITRD)).unwrap();
    let pinned = format!("sha256:{}", hex(&good.digest));
    let policy = policy(&by_signer(boot, &pinned, &image("loader", 0x11), also));
    let at = records.iter().position(|record| record.kind == kind::EFI_BOOT_SERVICES_APPLICATION).unwrap();
    let mut loaded = records.clone();
    loaded.insert(at, Record { digest: vec![0x11; 32], ..records[at].clone() });
    assert_eq!(findings(&policy, &loaded, boot.line()), []);
    loaded.iter_mut().find(|record| is_tag(record, INITRD)).unwrap().digest[0] ^= 1;
    denied(&findings(&policy, &loaded, boot.line()), "initrd: expected sha256:");
    // What comes before it is known by its hash.
    let signed = by_signer(boot, &pinned, "", "");
    let signer = signed.rsplit("signer = ").next().unwrap().lines().next().unwrap();
    let loader = format!("[[boot.image]]\nrole = \"loader\"\nsigner = {signer}\n");
    refused(&by_signer(boot, &pinned, &loader, also), "only a uki has its initramfs under its signature");
    refused(
        &by_signer(boot, &pinned, "", "").replace("role = \"uki\"", "role = \"kernel\""),
        "only a uki has its initramfs under its signature",
    );
}

#[test]
fn a_signer_of_more_than_ukis_is_named() {
    let boot = boot("uki-secure-boot-own-keys");
    let good = boot.records().iter().find(|record| is_tag(record, INITRD)).unwrap().digest.clone();
    let pinned = format!("sha256:{}", hex(&good));
    let also = |roles: &str| format!("signer_also_signs = [{roles}]\n");
    let with = |role: &str, roles: &str| by_signer(boot, &pinned, &image(role, 0x11), &also(roles));
    refused(
        &by_signer(boot, &pinned, &image("loader", 0x11), ""),
        "must have signed the loader of boot \"ours\" too",
    );
    refused(&with("loader", "\"kernel\""), "must have signed the loader");
    refused(&with("shim", ""), "must have signed the shim");
    policy(&with("loader", "\"loader\", \"kernel\""));
    policy(&with("other", ""));
    // Another boot of the same policy shows it as well.
    let other = format!(
        "\n[[boot]]\nname = \"grub\"\ncommand_line = \"systemd.import_credentials=no\"\ninitrd = \"sha256:{0}\"\n{1}{2}[[boot.event]]\npcr = 8\ntext = \"grub_cmd: initrd /i\"\n[[boot.event]]\npcr = 9\ndigest = \"sha256:{0}\"\n",
        "99".repeat(32),
        image("loader", 0x12),
        image("kernel", 0x13),
    );
    let signed = by_signer(boot, "signed", "", "");
    policy(&signed);
    refused(&format!("{signed}{other}"), "must have signed the loader of boot \"grub\" too");
    let accepted = by_signer(boot, "signed", "", &also("\"loader\", \"kernel\""));
    policy(&format!("{accepted}{other}"));
    // Another authority can have verified it where firmware has it in db, or shim comes before: then nobody knows.
    let another = |list: &str, text: &str| {
        let begins = format!("\n{list} = [\n");
        assert!(text.contains(&begins), "{text}");
        text.replacen(&begins, &format!("{begins}  \"sha256:{}\",\n", "77".repeat(32)), 1)
    };
    let two = another("authorities", &format!("{signed}{other}"));
    refused(&two, "must have signed the loader of boot \"grub\" too, as no other authority can have");
    policy(&another("db", &two));
    let loader = image("loader", 0x12);
    let behind = two.replace(&loader, &format!("{}{loader}", image("shim", 0x14)));
    refused(&behind, "must have signed the shim of boot \"grub\" too");
    let accepted = behind.replace("role = \"uki\"\n", &format!("role = \"uki\"\n{}", also("\"shim\"")));
    policy(&accepted);
    // Nor is a signer that firmware does not know asked of what firmware starts.
    policy(
        &accepted
            .replace(&also("\"shim\""), "")
            .replace("signer = [", &format!("signer = [\"sha256:{}\"] # ", "78".repeat(32))),
    );
    // It is said of a signer.
    let text =
        boot.learned().replacen("authenticode = ", &format!("{}authenticode = ", also("\"loader\"")), 1);
    let problems = Policy::parse(&text).map(|_| ()).unwrap_err();
    assert!(problems[0].message.contains("expected signer beside it"), "{problems:?}");
    assert!(Policy::parse(&with("loader", "\"uki\"")).is_err());
}

/// What is in PCR 12 can be added by whatever runs.
#[test]
fn a_line_in_pcr_12_is_none_of_a_signed_uki() {
    let boot = boot("uki-secure-boot-own-keys");
    let mut records = boot.records();
    records.retain(|record| record.pcr != 11 && !is_tag(record, LOAD_OPTIONS));
    records.push(Record::of(12, kind::IPL, &utf16(&format!("{}\0", boot.line()))));
    denied(
        &findings(&policy(&by_signer(boot, "signed", "", "")), &records, boot.line()),
        "no proven command line",
    );
    // Known by its hash, its section is what it hands on.
    let mut by_hash = boot.records();
    by_hash.retain(|record| !is_tag(record, LOAD_OPTIONS));
    by_hash.push(Record::of(12, kind::IPL, &utf16(&format!("{}\0", boot.line()))));
    assert_eq!(findings(&policy(&boot.learned()), &by_hash, boot.line()), []);
}

/// Nobody measures that a UKI without a section for it was handed no line: what runs then can add the event of the approved one.
#[test]
fn a_line_that_came_after_the_initrd_is_not_the_kernels() {
    let boot = boot("uki-no-secure-boot");
    let mut records = boot.records();
    let name = Hash::Sha256.digest(&[b".cmdline\0"]);
    let at = records.iter().position(|record| record.pcr == 11 && record.digest == name).unwrap();
    records.drain(at..at + 2);
    let bytes = log_of(&records);
    let log = replay(&bytes, PcrBank::Sha256).unwrap().assume().unwrap();
    let policy = policy(&learn(&log, &boot.claims(), boot.assured(), "learned", &[]).unwrap());
    assert_eq!(findings(&policy, &records, boot.line()), []);

    let line = utf16(&format!("{}\0", boot.line()));
    let options = records.iter().position(|record| is_tag(record, LOAD_OPTIONS)).unwrap();
    let measured = records.remove(options);
    let initrd = records.iter().position(|record| is_tag(record, INITRD)).unwrap();
    for forged in [Record::of(12, kind::IPL, &line), measured.clone()] {
        let mut records = records.clone();
        records.insert(initrd + 1, forged);
        denied(&findings(&policy, &records, boot.line()), "no proven command line");
    }
    records.insert(initrd, measured);
    assert_eq!(findings(&policy, &records, boot.line()), []);
}

#[test]
fn a_section_that_came_after_the_initrds_is_not_the_stubs() {
    let boot = boot("uki-secure-boot-own-keys");
    let policy = policy(&by_signer(boot, "signed", "", ""));
    let mut records = boot.records();
    records.retain(|record| !is_tag(record, LOAD_OPTIONS));
    assert_eq!(findings(&policy, &records, boot.line()), []);
    let name = Hash::Sha256.digest(&[b".cmdline\0"]);
    let at = records.iter().position(|record| record.pcr == 11 && record.digest == name).unwrap();
    let pair: Vec<_> = records.drain(at..at + 2).collect();
    let last = records.iter().rposition(|record| record.pcr == 11).unwrap();
    records.splice(last + 1..last + 1, pair);
    denied(&findings(&policy, &records, boot.line()), "no proven command line");
}

#[test]
fn a_uki_by_its_hash_may_have_an_initrd_that_only_this_machine_knows() {
    let boot = boot("uki-secure-boot-own-keys");
    let text = boot.learned();
    let own = text.lines().find(|line| line.starts_with("initrd = ")).unwrap();
    let text = text.replace(own, "initrd = \"in-uki\"");
    let in_uki = policy(&text);
    let mut records = boot.records();
    assert_eq!(findings(&in_uki, &records, boot.line()), []);
    // systemd's stub appends a secret from 261 on.
    records.iter_mut().find(|record| is_tag(record, INITRD)).unwrap().digest[0] ^= 1;
    assert_eq!(findings(&in_uki, &records, boot.line()), []);
    // A credential or an extension beside it is to be seen; so is a second initrd, and none.
    for pcr in [12, 13] {
        let mut more = records.clone();
        more.push(Record::of(pcr, kind::IPL, b"\xff\xfe beside the image"));
        denied(&findings(&in_uki, &more, boot.line()), &format!("pcr {pcr}"));
    }
    let mut twice = records.clone();
    twice.push(records.iter().find(|record| is_tag(record, INITRD)).unwrap().clone());
    denied(&findings(&in_uki, &twice, boot.line()), "no such event");
    let mut none = records.clone();
    none.retain(|record| !is_tag(record, INITRD));
    denied(&findings(&in_uki, &none, boot.line()), "one that the kernel measured");
    let mut section = records.clone();
    section.iter_mut().rfind(|record| record.pcr == 11).unwrap().digest[0] ^= 1;
    denied(&findings(&in_uki, &section, boot.line()), "section .initrd");

    refused(&text.replace("name = \".initrd\"", "name = \".other\""), "expected .initrd among them");
    // What a file is called says little of what the program hands over: iPXE, for one, has no file.
    let behind =
        |role: &str| text.replacen("[[boot.image]]", &format!("{}[[boot.image]]", image(role, 0x11)), 1);
    for role in ["loader", "other", "kernel"] {
        refused(&behind(role), &format!("\"in-uki\" and role {role} before the uki"));
    }
    policy(&behind("shim"));
    let two = [image("shim", 0x11), image("shim", 0x12)].concat();
    refused(
        &text.replacen("[[boot.image]]", &format!("{two}[[boot.image]]"), 1),
        "\"in-uki\" and role shim before the uki",
    );
    refused(
        &by_signer(boot, "in-uki", "", ""),
        "expected a uki with authenticode and its sections as digests",
    );
    refused(&text.replace("role = \"uki\"", "role = \"kernel\""), "\"in-uki\" and no uki");
}

#[test]
fn what_grub_reads_is_judged_in_its_order() {
    let boot = boot("grub-shim-ms-keys");
    let text = boot.learned();
    let policy = policy(&text);
    let records = boot.records();
    assert_eq!(findings(&policy, &records, boot.line()), []);
    for pcr in [8, 9] {
        let of: Vec<_> = (0..records.len()).filter(|number| records[*number].pcr == pcr).collect();
        for pair in of.windows(2) {
            let mut swapped = records.clone();
            swapped.swap(pair[0], pair[1]);
            let same = records[pair[0]].digest == records[pair[1]].digest;
            assert!(same || !findings(&policy, &swapped, boot.line()).is_empty(), "{pair:?}");
        }
    }
    let initrd = text.lines().find(|line| line.starts_with("initrd = ")).unwrap();
    let other = format!("initrd = \"sha256:{}\"", "99".repeat(32));
    refused(&text.replace(initrd, &other), "expected a [[boot.event]] of pcr 9 with this digest");
    // Without the command it is a kernel that somebody gives an initrd to.
    refused(
        &text.replace("text = \"grub_cmd: initrd ", "text = \"grub_cmd: echo "),
        "expected kernel_measures_initrd = true",
    );
}

#[test]
fn every_word_of_the_floor_is_refused_on_every_path() {
    let words = [
        "rdinit=/bin/sh",
        "init=/bin/sh",
        "rd.cmdline=ask",
        "systemd.confirm_spawn",
        "rd.break",
        "rd.break=pre-mount",
        "rd.systemd.break=pre-udev",
        "systemd.break",
        "systemd.mount-extra=/dev/vda2:/etc",
        "rd.systemd.mount_extra=x",
        "systemd.swap-extra=/dev/vda3",
        "systemd.run=/bin/sh",
        "systemd.run_success_action=none",
        "systemd.debug_shell",
        "rd.systemd.debug-shell=ttyS0",
        "systemd.set_credential=a:b",
        "systemd.set-credential-binary=a:b",
        "systemd.setenv=A=b",
        "systemd.crash-shell=1",
        "single",
        "s",
        "S",
        "1",
        "emergency",
        "rd.emergency",
        "rescue",
        "rd.rescue",
        "systemd.unit=emergency.target",
        "rd.systemd.unit=rescue.target",
        "systemd.unit=debug-shell.service",
        "rd.systemd.wants=dracut-emergency.service",
        "kgdboc=ttyS0",
        "kgdbwait",
        "sysrq_always_enabled",
        "sysrq_always_enabled=1",
        "bootconfig",
        "initrd=/evil.img",
        "bootconfig=1",
        "initrdmem=0x1000,1",
        "dm-mod.create=x",
        "noinitrd",
        "efivar_ssdt=Ssdt",
        "efivar-ssdt=Ssdt",
        "systemd.pull=tar,sysext,verify=no::https://a.example/b.tar.gz",
        "rd.systemd.pull=raw,machine,verify=no,blockdev:image:https://a.example/b.raw",
        "systemd.pull.success_action=exit",
        "dtb=/evil.dtb",
        // The kernel's stub finds it inside of a word as well.
        "xdtb=/evil.dtb",
        "rdbreak",
        "rdbreak=initqueue",
        "rd.single",
        "-b",
        "SYSTEMD_PROC_CMDLINE=x",
        "ekgdboc=kbd",
        "systemd.unit=runlevel1.target",
        "rd.systemd.wants=breakpoint-pre-mount.service",
    ];
    for boot in common::boots::BOOTS {
        let text = boot.learned();
        let own = text.lines().find(|line| line.starts_with("command_line = ")).unwrap();
        for word in words {
            let more = own
                .replace("systemd.import_credentials=no", &format!("{word} systemd.import_credentials=no"));
            refused(&text.replace(own, &more), word.split('=').next().unwrap());
        }
    }
    let text = boot("uki-secure-boot-own-keys").learned();
    for word in words {
        refused(
            &with_tokens(&text, &format!("[\"{word}\"]"), "[\"systemd.import_credentials=no\"]"),
            word.split('=').next().unwrap(),
        );
    }
    for fine in [
        "rd.shell=0",
        "rd.emergency=poweroff",
        "systemd.unit=multi-user.target",
        "sysinit",
        "5",
        "initcall_debug",
    ] {
        policy(&with_tokens(&text, &format!("[\"{fine}\"]"), "[\"systemd.import_credentials=no\"]"));
    }
}

/// Another UKI of the signer, whose kernel measures neither line nor initrd, and whose own line the floor forbids: what runs adds the
/// events of the good line.
#[test]
fn the_line_of_a_signed_uki_is_its_own() {
    let boot = boot("uki-secure-boot-own-keys");
    let is_line =
        |record: &Record| record.pcr == 9 && record.data.starts_with(&0x8f3b_22ed_u32.to_le_bytes());
    let text = boot.learned();
    let head = &text[..text.find("[[boot]]").unwrap()];
    let signer = head.rsplit("authorities = [\n").next().unwrap().split('"').nth(1).unwrap();
    let line = text.lines().find(|line| line.starts_with("command_line = ")).unwrap();
    let own = format!(
        "{head}\n[[boot]]\nname = \"ours\"\n{line}\ninitrd = \"signed\"\nsections = \"signed\"\n[[boot.image]]\nrole = \"uki\"\nsigner = [\"{signer}\"]\n"
    );
    let shared = own.replace(&format!("{line}\n"), "").replace(
        "[[boot]]",
        &format!("[command_line]\nexact = [{}]\n\n[[boot]]", line.strip_prefix("command_line = ").unwrap()),
    );
    let evil = "rdinit=/bin/sh console=ttyS0";
    let name = Hash::Sha256.digest(&[b".cmdline\0"]);
    let mut records = boot.records();
    let measured = records.iter().find(|record| is_line(record)).unwrap().clone();
    records.retain(|record| !is_line(record));
    let at = records.iter().position(|record| record.pcr == 11 && record.digest == name).unwrap();
    records[at + 1].digest = Hash::Sha256.digest(&[evil.as_bytes()]);
    let by_grub = format!("/x {}", boot.line());
    let by_grub = Record {
        data: format!("kernel_cmdline: {by_grub}\0").into_bytes(),
        ..Record::of(8, kind::IPL, by_grub.as_bytes())
    };
    for text in [own, shared] {
        let policy = policy(&text);
        assert_eq!(findings(&policy, &boot.records(), boot.line()), []);
        for forged in [&measured, &by_grub] {
            let mut records = records.clone();
            records.push(forged.clone());
            denied(&findings(&policy, &records, evil), "rdinit");
            denied(&findings(&policy, &records, boot.line()), "none that fits");
        }
    }
}

/// systemd-boot starts any shell that it finds and shows its menu again: nothing says that it came back.
#[test]
fn more_than_one_loader_is_learned_by_the_owners_word_only() {
    let boot = boot("systemd-boot-type1");
    let records = boot.records();
    let started = |record: &Record| record.kind == kind::EFI_BOOT_SERVICES_APPLICATION;
    let kernel = records.iter().rposition(started).unwrap();
    let shell = Record { digest: vec![0x5e; 32], ..records[kernel - 1].clone() };
    // By name a shim, or without one.
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
    let (name, shim) = (utf16("boot"), utf16("shim"));
    let lower: Vec<u8> = shell.data.iter().map(u8::to_ascii_lowercase).collect();
    let at = lower.windows(name.len()).rposition(|part| part == name).unwrap();
    let called = [&shell.data[..at], &shim, &shell.data[at + name.len()..]].concat();
    // EFI_IMAGE_LOAD_EVENT without a device path.
    let nameless = [&shell.data[..24], &[0; 8]].concat();
    for data in [shell.data.clone(), called, nameless] {
        let mut records = records.clone();
        records.insert(kernel, Record { data, ..shell.clone() });
        let bytes = log_of(&records);
        let log = replay(&bytes, PcrBank::Sha256).unwrap().assume().unwrap();
        let learned = |assured| learn(&log, &boot.claims(), assured, "learned", &[]);
        denied(&learned(boot.assured()).unwrap_err(), "one boot loader");
        learned(Assured { trust_returned_images: true, ..boot.assured() }).unwrap();
    }
}

/// A path is the log's word. What may hand an initrd to a UKI is no shim because of a name.
#[test]
fn what_measured_no_keys_is_learned_as_no_shim() {
    let boot = boot("uki-secure-boot-own-keys");
    let records = boot.records();
    let first = records.iter().position(|record| record.kind == kind::EFI_BOOT_SERVICES_APPLICATION).unwrap();
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
    let (name, shim) = (utf16("linux-"), utf16("shim--"));
    let at = records[first].data.windows(name.len()).rposition(|part| part == name).unwrap();
    let data = [&records[first].data[..at], &shim, &records[first].data[at + name.len()..]].concat();
    let called_shim = Record { digest: vec![0x5e; 32], data, ..records[first].clone() };
    let keys = Record::of(14, kind::IPL, b"MokList\0");
    // What shim starts, in a folder or with a name of shim's.
    let second = Record { digest: vec![0x5f; 32], ..called_shim.clone() };
    for (more, role) in [
        (vec![called_shim.clone(), keys.clone()], "shim"),
        (vec![called_shim.clone()], "loader"),
        (vec![called_shim, keys, second], "loader"),
    ] {
        let mut records = records.clone();
        records.splice(first..first, more);
        let bytes = log_of(&records);
        let log = replay(&bytes, PcrBank::Sha256).unwrap().assume().unwrap();
        let assured = Assured { trust_returned_images: true, ..boot.assured() };
        let text = learn(&log, &boot.claims(), assured, "learned", &[]).unwrap();
        assert!(text.contains(&format!("role = \"{role}\"")), "{role}: {text}");
        let own = text.lines().find(|line| line.starts_with("initrd = ")).unwrap();
        let in_uki = text.replace(own, "initrd = \"in-uki\"");
        if role == "shim" {
            policy(&in_uki);
        } else {
            refused(&in_uki, "\"in-uki\" and role loader before the uki");
        }
    }
}

/// The type of an event is in no digest: whoever holds the log (the database, a program before the boot) can write another.
#[test]
fn a_program_that_the_log_calls_something_else_is_learned_by_the_owners_word_only() {
    for boot in common::boots::BOOTS {
        let records = boot.records();
        let started = |record: &Record| record.kind == kind::EFI_BOOT_SERVICES_APPLICATION;
        let first = records.iter().position(started).unwrap();
        let shell = Record { digest: vec![0x5e; 32], ..records[first].clone() };
        let text = b"harmless".to_vec();
        let called = |(kind, data): (u32, &Vec<u8>)| Record { kind, data: data.clone(), ..shell.clone() };
        let others = [
            (kind::EFI_BOOT_SERVICES_DRIVER, &shell.data),
            (kind::EFI_RUNTIME_SERVICES_DRIVER, &shell.data),
            (kind::EFI_BOOT_SERVICES_APPLICATION, &text),
            (kind::IPL, &text),
            (kind::EFI_ACTION, &text),
            (kind::EVENT_TAG, &text),
        ];
        // What Authenticode hashes, as data: the digest is that of it.
        let hashed =
            [b"MZ\0\0".as_slice(), &[b'a'; 200], b"This program cannot be run in DOS mode."].concat();
        let long = [b'M'; 257];
        let whole = |kind| [Record::of(4, kind, &hashed), Record::of(4, kind, &long)];
        let whole = [kind::EFI_ACTION, kind::EVENT_TAG, kind::S_CRTM_VERSION, kind::IPL].map(whole);
        for record in others.map(called).into_iter().chain(whole.into_iter().flatten()) {
            let (kind, digest) = (record.kind, hex(&record.digest));
            let mut records = records.clone();
            let loader = Record { digest: vec![0x10; 32], ..records[first].clone() };
            records.splice(first..first, [loader, record]);
            let bytes = log_of(&records);
            let log = replay(&bytes, PcrBank::Sha256).unwrap().assume().unwrap();
            let learned = |assured| learn(&log, &boot.claims(), assured, "learned", &[]);
            let found = learned(boot.assured()).expect_err(boot.name);
            assert!(
                found.iter().any(|finding| finding.rule == "boot path"),
                "{}: {kind:#x}: {found:?}",
                boot.name
            );
            let text = learned(Assured { trust_returned_images: true, ..boot.assured() }).unwrap();
            assert!(text.contains(&digest), "{text}");
        }
        // What its digest proves to be a text is no program.
        let mut records = records.clone();
        records.insert(first, Record::of(4, kind::EFI_ACTION, b"an announcement of this firmware's vendor"));
        let bytes = log_of(&records);
        let log = replay(&bytes, PcrBank::Sha256).unwrap().assume().unwrap();
        learn(&log, &boot.claims(), boot.assured(), "learned", &[]).expect(boot.name);
    }
}

/// Where shim verifies, a UKI is measured without a file name, and its kernel not at all: nothing before it is the UKI.
#[test]
fn what_stands_before_a_uki_without_a_name_is_a_loader() {
    let boot = boot("uki-secure-boot-own-keys");
    let mut records = boot.records();
    let started = |record: &Record| record.kind == kind::EFI_BOOT_SERVICES_APPLICATION;
    let first = records.iter().position(started).unwrap();
    let uki = records[first].clone();
    let mut kept = 0;
    records.retain(|record| {
        kept += usize::from(started(record));
        !started(record) || kept == 1
    });
    let program = |digest: u8| Record { digest: vec![digest; 32], ..uki.clone() };
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
    let (name, shim) = (utf16("linux-"), utf16("shim--"));
    let at = uki.data.windows(name.len()).rposition(|part| part == name).unwrap();
    let shim = Record { data: [&uki.data[..at], &shim, &uki.data[at + name.len()..]].concat(), ..program(1) };
    let mok = Record { data: b"MokList\0".to_vec(), ..Record::of(14, kind::IPL, b"keys") };
    records[first].data = [&uki.data[..24], &[0; 8]].concat();
    records.splice(first..first, [shim, mok, program(2)]);
    let learned = |records: &[Record], assured| {
        let bytes = log_of(records);
        let log = replay(&bytes, PcrBank::Sha256).unwrap().assume().unwrap();
        learn(&log, &boot.claims(), assured, "learned", &[])
    };
    learned(&records, boot.assured()).unwrap();
    // A tool that was chosen in the menu and left.
    let mut left = records.clone();
    left.insert(first + 3, program(3));
    denied(&learned(&left, boot.assured()).unwrap_err(), &"03".repeat(32));
    learned(&left, Assured { trust_returned_images: true, ..boot.assured() }).unwrap();
    // Called shim, and no shim by what it measures.
    left.remove(first + 1);
    denied(&learned(&left, boot.assured()).unwrap_err(), &"02".repeat(32));
}
