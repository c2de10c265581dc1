//! A boot that is announced, or of which the owner has said something: what of it is taken without another word, and what only looks like it.

#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod common;

use common::boots::{Appraised as _, Boot, Record, boot, log_of};
use common::pins::*;
use halfkey_evidence::eventlog::{kind, replay};
use halfkey_evidence::policy::{
    Assured, Claims, Finding, Policy, learn, learn_announced, learn_boot, unknown,
};
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::wire::{Proposal, ProposedImage, ProposedSection};

/// EVENT_TAG of the kernel's stub for an initrd, `INITRD_EVENT_TAG_ID`.
const INITRD: u32 = 0x8F3B_22EC;
const EVIL: [u8; 32] = [0x77; 32];

fn is_initrd(record: &Record) -> bool {
    record.pcr == 9 && record.kind == kind::EVENT_TAG && record.data.starts_with(&INITRD.to_le_bytes())
}

fn started(record: &Record) -> bool {
    record.kind == kind::EFI_BOOT_SERVICES_APPLICATION
}

fn proposal(role: &str, initrd: Option<&[u8]>) -> Proposal {
    Proposal {
        version: 1,
        name: "next".into(),
        bank: "sha256".into(),
        images: vec![ProposedImage {
            role: role.into(),
            path: "/boot/it".into(),
            authenticode: vec![0x66; 32].into(),
            release: None,
        }],
        sections: Vec::new(),
        initrd: initrd.map(Into::into),
        command_line: None,
        loader: None,
        written_by_update: true,
    }
}

/// What would be learned, by whose word, of a boot with these proposals.
fn learned(
    boot: &Boot,
    policy: &Policy,
    records: &[Record],
    assured: Assured,
    proposals: &[Proposal],
) -> Result<String, Vec<Finding>> {
    let bytes = log_of(records);
    let log = replay(&bytes, PcrBank::Sha256).unwrap().assume().unwrap();
    learn_announced(policy, &log, &boot.claims(), assured, "more", proposals)
}

fn names(found: &[Finding], digest: &[u8]) -> bool {
    found.iter().any(|finding| finding.rule == "unknown event" && finding.found.contains(&hex(digest)))
}

/// Another initramfs in the place of the announced one: it has measured that one as well, behind itself.
#[test]
fn the_initramfs_of_an_announced_boot_is_the_announced_one() {
    let mut tried = 0;
    for boot in common::boots::BOOTS.iter().filter(|boot| boot.records().iter().any(is_initrd)) {
        tried += 1;
        let known = policy(&boot.learned());
        let honest = boot.records();
        let at = honest.iter().position(is_initrd).unwrap();
        let genuine = honest[at].digest.clone();
        let mut evil = honest.clone();
        evil.insert(at, Record { digest: EVIL.to_vec(), ..honest[at].clone() });
        // It is known by the policy, by the proposal, or by both.
        let of_another = honest.iter().map(|record| match is_initrd(record) {
            true => Record { digest: vec![0x44; 32], ..record.clone() },
            false => record.clone(),
        });
        let bytes = log_of(&of_another.collect::<Vec<_>>());
        let log = replay(&bytes, PcrBank::Sha256).unwrap().assume().unwrap();
        let before = policy(&learn(&log, &boot.claims(), boot.assured(), "before", &[]).unwrap());
        for (policy, initrd) in [(&known, None), (&known, Some(&genuine[..])), (&before, Some(&genuine[..]))]
        {
            let announced = [proposal("kernel", initrd)];
            let found = learned(boot, policy, &evil, boot.assured(), &announced).expect_err(boot.name);
            assert!(names(&found, &EVIL), "{}: {found:?}", boot.name);
            let word = Assured { trust_unknown_events: true, ..boot.assured() };
            learned(boot, policy, &evil, word, &announced).expect(boot.name);
            learned(boot, policy, &honest, boot.assured(), &announced).expect(boot.name);
        }
        let found = learned(boot, &before, &honest, boot.assured(), &[proposal("kernel", None)]);
        assert!(names(&found.expect_err(boot.name), &genuine), "{}", boot.name);
    }
    assert!(tried > 1);
}

/// A stub that adds a secret of the machine to the initrd: nobody foretells that digest. It is the image's own where nothing else could have
/// handed one on, whatever the log calls what did, or says that it is from memory.
#[test]
fn an_initrd_of_a_uki_is_its_own_only_if_nothing_came_before() {
    let boot = boot("uki-secure-boot-own-keys");
    let alone = boot.records();
    let first = alone.iter().position(started).unwrap();
    let mut behind = alone.clone();
    behind.insert(first, Record { digest: vec![0x5e; 32], ..alone[first].clone() });
    let uki = alone[first].digest.clone();
    let section = ProposedSection { name: ".initrd".into(), digest: vec![0x55; 32].into() };
    let image = ProposedImage { authenticode: uki.into(), ..proposal("uki", None).images.remove(0) };
    let announced = Proposal { sections: vec![section], images: vec![image], ..proposal("uki", None) };
    let keys = Record::of(14, kind::IPL, b"MokList\0");
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
    // EFI_IMAGE_LOAD_EVENT without a device path.
    let from_memory = |record: &Record| [&record.data[..24], &[0; 8]].concat();
    let called_shim = |record: &Record| {
        let (name, shim) = (utf16("linux-"), utf16("shim--"));
        let at = record.data.windows(name.len()).rposition(|part| part == name).unwrap();
        [&record.data[..at], &shim, &record.data[at + name.len()..]].concat()
    };
    let mut relabelled = behind.clone();
    relabelled[first + 1].data = from_memory(&behind[first + 1]);
    let mut as_shim = behind.clone();
    as_shim[first].data = called_shim(&behind[first]);
    as_shim.insert(first, keys.clone());
    // What is known is what the honest boots were.
    for (honest, records, is_named) in [
        (&alone, &alone, false),
        (&behind, &behind, true),
        (&behind, &relabelled, true),
        (&behind, &as_shim, true),
        (&as_shim, &as_shim, false),
    ] {
        let bytes = log_of(honest);
        let log = replay(&bytes, PcrBank::Sha256).unwrap().assume().unwrap();
        let believed = Assured { trust_returned_images: true, ..boot.assured() };
        let known = policy(&learn(&log, &boot.claims(), believed, "before", &[]).unwrap());
        let mut other = records.clone();
        other.iter_mut().filter(|record| is_initrd(record)).for_each(|record| record.digest = EVIL.to_vec());
        let bytes = log_of(&other);
        let log = replay(&bytes, PcrBank::Sha256).unwrap().assume().unwrap();
        let shown = unknown(Some(&known), &announced, &log, &boot.claims());
        assert_eq!(names(&shown, &EVIL), is_named, "{shown:?}");
        let found = learned(boot, &known, &other, believed, std::slice::from_ref(&announced))
            .err()
            .unwrap_or_default();
        assert_eq!(names(&found, &EVIL), is_named, "{found:?}");
    }
}

/// Whoever runs can measure sections, and names in their place.
#[test]
fn a_kernel_with_sections_is_no_uki() {
    let boot = boot("systemd-boot-type1");
    let known = policy(&boot.learned());
    let mut records = boot.records();
    let kernel = records[records.iter().rposition(started).unwrap()].digest.clone();
    let sections: Vec<_> = common::boots::boot("uki-no-secure-boot")
        .records()
        .into_iter()
        .filter(|record| record.pcr == 11)
        .collect();
    records.push(sections[0].clone());
    records.push(Record { digest: EVIL.to_vec(), ..sections[1].clone() });
    let found = learned(boot, &known, &records, boot.assured(), &[]).unwrap_err();
    assert!(names(&found, &kernel), "{found:?}");
    // The name of a section is not what it has.
    records.pop();
    let name = &sections[2];
    records.push(name.clone());
    let found = learned(boot, &known, &records, boot.assured(), &[proposal("kernel", None)]).unwrap_err();
    assert!(names(&found, &name.digest), "{found:?}");
}

/// What is said of a kernel holds for a boot of just the programs that it was said of.
#[test]
fn the_word_for_a_kernel_is_for_no_other_program() {
    let boot = boot("systemd-boot-type1");
    let text = boot.learned();
    let known = policy(&text);
    let honest = boot.records();
    let kernel = honest.iter().rposition(started).unwrap();
    let wants_the_word = |policy: &Policy, records: &[Record]| {
        let bytes = log_of(records);
        let log = replay(&bytes, PcrBank::Sha256).unwrap().assume().unwrap();
        let found =
            learn_boot(policy, &log, &boot.claims(), Assured::default(), "more").err().unwrap_or_default();
        found.iter().any(|finding| finding.expected.contains("kernel_measures_initrd"))
    };
    assert!(!wants_the_word(&known, &honest), "it was said");
    // Another kernel ran, and has measured the known one behind itself; or before, and firmware went on.
    let other = Record { digest: EVIL.to_vec(), ..honest[kernel].clone() };
    let mut behind = honest.clone();
    behind.insert(kernel, other.clone());
    let mut before = honest.clone();
    before.insert(kernel + 1, other.clone());
    let mut instead = honest.clone();
    let genuine = std::mem::replace(&mut instead[kernel], other);
    instead.push(genuine);
    // Known by a boot of GRUB's from before, it is still another one.
    let first = honest.iter().position(started).unwrap();
    let of_grub = text[text.find("[[boot]]").unwrap()..]
        .replace(&hex(&honest[kernel].digest), &hex(&EVIL))
        .replace("name = \"", "name = \"other ");
    let both = policy(&format!("{text}\n{of_grub}"));
    assert_ne!(first, kernel);
    for records in [&behind, &before, &instead] {
        for policy in [&known, &both] {
            assert!(wants_the_word(policy, records));
        }
    }
}

/// What runs, and measures what was started before it once more, has not made itself the last.
#[test]
fn a_program_that_was_started_twice_is_two() {
    let boot = boot("grub-shim-ms-keys");
    let known = policy(&boot.learned());
    let mut records = boot.records();
    let programs: Vec<usize> = (0..records.len()).filter(|at| started(&records[*at])).collect();
    let kernel = records[*programs.last().unwrap()].clone();
    let announced = [proposal("kernel", None)];
    learned(boot, &known, &records, boot.assured(), &announced).unwrap();
    records.insert(programs[1], kernel);
    denied(&learned(boot, &known, &records, boot.assured(), &announced).unwrap_err(), "one boot loader");
}

/// A kernel that the policy or the proposal knows is no boot loader because it stands where one does: what it was given nobody has measured.
#[test]
fn a_known_kernel_is_in_the_place_of_no_loader() {
    const OLD: [u8; 32] = [0x44; 32];
    for (name, role) in [("grub-shim-ms-keys", "kernel"), ("uki-no-secure-boot", "uki")] {
        let boot = boot(name);
        let honest = boot.records();
        let programs: Vec<usize> = (0..honest.len()).filter(|at| started(&honest[*at])).collect();
        let last = honest[*programs.last().unwrap()].digest.clone();
        let kernel_of = |records: &[Record], digest: &[u8]| -> Vec<Record> {
            let other = |record: &Record| match record.pcr == 4 && record.digest == last {
                true => Record { digest: digest.to_vec(), ..record.clone() },
                false => record.clone(),
            };
            records.iter().map(other).collect()
        };
        // The policy knows an old kernel as well.
        let bytes = log_of(&kernel_of(&honest, &OLD));
        let log = replay(&bytes, PcrBank::Sha256).unwrap().assume().unwrap();
        let text = learn(&log, &boot.claims(), boot.assured(), "old", &[]).unwrap();
        let more = boot.learned();
        let known = policy(&format!(
            "{text}\n{}",
            &more[more.find("[[boot]]").unwrap()..].replacen("name = \"", "name = \"new ", 1)
        ));
        let images = [honest[programs[0]].digest.clone(), last.clone()];
        let first = if role == "uki" { &images[..] } else { &images[1..] };
        let announced = Proposal {
            images: first
                .iter()
                .map(|digest| ProposedImage {
                    authenticode: digest.clone().into(),
                    ..proposal(role, None).images.remove(0)
                })
                .collect(),
            ..proposal(role, None)
        };
        let announced = [announced];
        learned(boot, &known, &honest, boot.assured(), &announced).expect(name);
        for place in [OLD.to_vec(), last.clone()] {
            let mut evil = honest.clone();
            let called = Record { digest: place.clone(), ..honest[programs[0]].clone() };
            if role == "uki" {
                evil.insert(programs[0], called);
            } else {
                evil[programs[0]] = called;
            }
            let found = learned(boot, &known, &evil, boot.assured(), &announced).expect_err(name);
            assert!(names(&found, &place), "{name}: {found:?}");
            let bytes = log_of(&evil);
            let log = replay(&bytes, PcrBank::Sha256).unwrap().assume().unwrap();
            assert!(names(&unknown(Some(&known), &announced[0], &log, &boot.claims()), &place), "{name}");
            // As the first of a boot that nobody announced.
            if role == "kernel" {
                let found = learned(boot, &known, &evil, boot.assured(), &[]).err().unwrap_or_default();
                assert!(names(&found, &place), "{name}: {found:?}");
            }
        }
    }
}

/// A policy of two paths: what one begins with, nothing, is no place for what the other ends with.
#[test]
fn a_boot_is_of_one_path() {
    let (boot, other) = (boot("grub-shim-ms-keys"), common::boots::boot("uki-secure-boot-own-keys"));
    let (text, more) = (boot.learned(), other.learned());
    let known = policy(&format!("{text}\n{}", &more[more.find("[[boot]]").unwrap()..]));
    let honest = boot.records();
    let programs: Vec<usize> = (0..honest.len()).filter(|at| started(&honest[*at])).collect();
    let kernel = honest[*programs.last().unwrap()].clone();
    let proposed = ProposedImage {
        authenticode: kernel.digest.clone().into(),
        ..proposal("kernel", None).images.remove(0)
    };
    let loader =
        halfkey_protocol::wire::ProposedLoader { name: "grub".into(), changes: String::new(), files: None };
    let announced = [Proposal { images: vec![proposed], loader: Some(loader), ..proposal("kernel", None) }];
    learned(boot, &known, &honest, boot.assured(), &announced).unwrap();
    // Firmware started the kernel, before all that GRUB did.
    let mut evil = honest.clone();
    evil[programs[0]] = kernel;
    let mut at = 0;
    evil.retain(|record| {
        at += usize::from(started(record));
        !started(record) || at == 1
    });
    for proposals in [&announced[..], &[]] {
        let found = learned(boot, &known, &evil, boot.assured(), proposals).expect_err("a kernel first");
        assert!(names(&found, &honest[*programs.last().unwrap()].digest), "{found:?}");
    }
}

/// What a boot entry, or a menu, adds to the line of a boot that is expected: nobody but the root has to obey it.
#[test]
fn the_line_of_an_announced_boot_is_the_announced_one() {
    let option = "fsck.mode=force";
    for boot in common::boots::BOOTS {
        let (name, text) = (boot.name, boot.learned());
        let known = policy(&text);
        let line = format!("{} {option}", boot.line());
        let bytes = log_of(&with_line(boot, &line));
        let log = replay(&bytes, PcrBank::Sha256).unwrap().assume().unwrap();
        let claims = Claims { command_line: Some(line.as_bytes()) };
        let learned = |policy: &Policy, assured, proposals: &[Proposal]| {
            learn_announced(policy, &log, &claims, assured, "more", proposals)
        };
        let with =
            |line: Option<&str>| Proposal { command_line: line.map(Into::into), ..proposal("uki", None) };
        for announced in [with(None), with(Some(boot.line())), with(Some(&format!("{line} more")))] {
            let shown = unknown(Some(&known), &announced, &log, &claims);
            assert!(shown.iter().any(|finding| finding.what == "command line"), "{name}: {shown:?}");
            let found = learned(&known, boot.assured(), &[announced]).expect_err(name);
            assert!(found.len() == 1 && found[0].what == "command line", "{name}: {found:?}");
            assert_eq!(found[0].rule, "announced line");
            let word = Assured { trust_unknown_events: true, ..boot.assured() };
            assert!(learned(&known, word, &[with(None)]).is_err(), "another word");
            let word = Assured { trust_command_line: true, ..boot.assured() };
            let more = learned(&known, word, &[with(None)]).expect(name);
            assert!(more.contains(option), "{name}: {more}");
        }
        // It was announced, with blanks as a configuration has them; or the policy allows it, or has it.
        let blanks = format!("{}  {option} ", boot.line());
        learned(&known, boot.assured(), &[with(Some(&blanks))]).expect(name);
        // But for what a boot loader puts in front.
        let words = boot.line().split(' ').skip_while(|word| !word.starts_with("root="));
        let words: Vec<String> = words.map(|word| format!("{word:?}")).collect();
        let allowed = format!("[\"fsck.mode=*\", {}]", words.join(", "));
        let floor = ["systemd.import_credentials=no", "efi=noruntime"];
        let required: Vec<&str> = floor.into_iter().filter(|word| boot.line().contains(word)).collect();
        let allowed = policy(&with_tokens(&text, &allowed, &format!("{required:?}")));
        let more = learned(&allowed, boot.assured(), &[with(None)]);
        assert!(more.as_ref().is_ok_and(|more| more.contains(option)), "{name}: {more:?}");
        let own = text.lines().find(|line| line.starts_with("command_line = ")).unwrap();
        let longer = text.replace(own, &format!("{} {option}\"", own.trim_end_matches('"')));
        if name == "grub-shim-ms-keys" {
            refused(&longer, "the command_line that grub passes on");
        } else {
            learned(&policy(&longer), boot.assured(), &[with(None)]).expect(name);
        }
        // Nobody announced it: then it is the operator's word.
        learned(&known, boot.assured(), &[]).expect(name);
    }
}
