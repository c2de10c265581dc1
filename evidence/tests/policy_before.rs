//! What ran before the boot that is learned: what came back to the firmware, more than one loader, and what calls itself something else.

#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod common;

use common::boots::{Appraised as _, Boot, Record, boot, log_of};
use common::pins::*;
use halfkey_evidence::eventlog::{kind, replay};
use halfkey_evidence::policy::rules::Role;
use halfkey_evidence::policy::{Assured, Finding, Policy, learn, learn_announced, learn_boot};
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::wire::{Proposal, ProposedImage};

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

/// Another program in the place of one that the policy names, which then measures all that an announced boot does, itself once more at the
/// end: by a proposal that has it, or by the owner's word only. So are sections. Where nothing was announced, this is so for the first one,
/// unless the policy begins with a kernel or UKI.
#[test]
fn what_takes_the_place_of_a_known_program_is_not_learned_by_itself() {
    let word = |boot: &Boot| Assured { trust_unknown_events: true, ..boot.assured() };
    for boot in common::boots::BOOTS {
        let name = boot.name;
        let known = policy(&boot.learned());
        let records = boot.records();
        let begins_with_loader = !matches!(known.boots()[0].images[0].role, Role::Uki | Role::Kernel);
        let programs: Vec<_> = (0..records.len())
            .filter(|number| records[*number].kind == kind::EFI_BOOT_SERVICES_APPLICATION)
            .collect();
        let of = |number: usize| records[number].digest.clone();
        let mut ends: Vec<_> = known.boots()[0].images.iter().collect();
        ends.retain(|image| matches!(image.role, Role::Uki | Role::Kernel));
        ends.dedup_by(|one, other| one.allowed == other.allowed);
        let payloads = ends.len();
        // Names of sections stay: texts.
        let sections: Vec<_> = (0..records.len()).filter(|number| records[*number].pcr == 11).collect();
        let sections = sections.chunks_exact(2).map(|pair| pair[1]);
        for number in programs.iter().copied().chain(sections) {
            let mut other = records.clone();
            for record in other.iter_mut().filter(|record| record.digest == of(number)) {
                record.digest = vec![0x77; 32];
            }
            if records[number].pcr == 4 && name != "grub-shim-ms-keys" {
                other.push(other[number].clone());
            }
            let bytes = log_of(&other);
            let log = replay(&bytes, PcrBank::Sha256).unwrap().assume().unwrap();
            let learned = |assured, proposals: &[_]| {
                learn_announced(&known, &log, &boot.claims(), assured, "more", proposals)
            };
            let is_named = |found: &[Finding]| {
                found.iter().any(|finding| {
                    finding.rule == "unknown event" && finding.found.contains(&"77".repeat(32))
                })
            };
            let found = learned(boot.assured(), &[proposal(&[0x66; 32])]).expect_err(name);
            assert!(is_named(&found), "{name} {number}: {found:?}");
            let found = learned(word(boot), &[proposal(&[0x66; 32])]).err().unwrap_or_default();
            assert!(!is_named(&found), "{name} {number}: {found:?}");
            if records[number].pcr == 4 {
                // Announced, it stands behind the boot loaders.
                let mut announced = proposal(&[0x77; 32]);
                announced.images[0].role = ends.first().map_or("kernel", |image| image.role.name()).into();
                let found = learned(boot.assured(), &[announced]).err().unwrap_or_default();
                let in_place = payloads == 1 && of(number) == of(*programs.last().unwrap());
                assert_eq!(is_named(&found), !in_place, "{name} {number}: {found:?}");
            }
            let unannounced = learned(boot.assured(), &[]).err().unwrap_or_default();
            let first = of(number) == of(programs[0]) && begins_with_loader;
            assert!(is_named(&unannounced) || !first, "{name} {number}: {unannounced:?}");
        }
        // And the honest one needs none.
        let bytes = log_of(&records);
        let log = replay(&bytes, PcrBank::Sha256).unwrap().assume().unwrap();
        for proposals in [&[][..], &[proposal(&[0x66; 32])]] {
            learn_announced(&known, &log, &boot.claims(), boot.assured(), "more", proposals).expect(name);
        }
    }
}

/// What shim has read of the owner's keys is not learned by itself.
#[test]
fn other_keys_of_shims_are_learned_by_the_owners_word_only() {
    let boot = boot("grub-shim-ms-keys");
    let mut records = boot.records();
    let keys = records.iter_mut().find(|record| record.pcr == 14).unwrap();
    keys.digest = vec![0x77; 32];
    let bytes = log_of(&records);
    let log = replay(&bytes, PcrBank::Sha256).unwrap().assume().unwrap();
    let known = policy(&boot.learned());
    let learned = |assured| learn_boot(&known, &log, &boot.claims(), assured, "more");
    denied(&learned(boot.assured()).unwrap_err(), &"77".repeat(32));
    learned(Assured { trust_unknown_events: true, ..boot.assured() }).unwrap();
}

/// Of a program with this digest.
fn proposal(authenticode: &[u8]) -> Proposal {
    Proposal {
        version: 1,
        name: "next".into(),
        bank: "sha256".into(),
        images: vec![ProposedImage {
            role: "loader".into(),
            path: "/vmlinuz".into(),
            authenticode: authenticode.to_vec().into(),
            release: None,
        }],
        sections: Vec::new(),
        initrd: None,
        command_line: None,
        loader: None,
        written_by_update: true,
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
    let text = learned(&records, boot.assured()).unwrap();
    let known = policy(&text);
    let roles: Vec<Role> = known.boots()[0].images.iter().map(|image| image.role).collect();
    assert_eq!(roles, [Role::Shim, Role::Loader, Role::Uki], "{text}");
    // So the next one, if it was proposed, needs no word but that for its initrd.
    let next: Vec<Record> = records
        .iter()
        .map(|record| match record.digest == uki.digest {
            true => Record { digest: vec![9; 32], ..record.clone() },
            false => record.clone(),
        })
        .collect();
    let bytes = log_of(&next);
    let log = replay(&bytes, PcrBank::Sha256).unwrap().assume().unwrap();
    let mut announced = proposal(&[9; 32]);
    announced.images[0].role = "uki".into();
    learn_announced(&known, &log, &boot.claims(), boot.assured(), "more", &[announced]).unwrap();
    // A tool that was chosen in the menu and left.
    let mut left = records.clone();
    left.insert(first + 3, program(3));
    denied(&learned(&left, boot.assured()).unwrap_err(), &"03".repeat(32));
    learned(&left, Assured { trust_returned_images: true, ..boot.assured() }).unwrap();
    // Called shim, and no shim by what it measures.
    left.remove(first + 1);
    denied(&learned(&left, boot.assured()).unwrap_err(), &"02".repeat(32));
}
