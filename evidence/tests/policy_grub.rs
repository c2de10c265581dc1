//! GRUB and shim: a log as they write it, on the firmware's part of a recorded boot.

#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod common;

use common::boots::{Record, boot, log_of};
use halfkey_evidence::eventlog::{kind, replay};
use halfkey_evidence::policy::{
    Assured, Claims, Finding, Policy, evaluate, is_booted, learn, learn_announced, learn_boot,
    loaded_by_grub, not_as_proposed,
};
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::tpm::kdf::Hash;
use halfkey_protocol::wire::{Proposal, ProposedImage, ProposedLoader};

const LINE: &str = "root=/dev/mapper/root ro quiet systemd.import_credentials=no";

/// Digest of one thing, data of another: a file, and its name.
fn named(pcr: u32, name: &str, content: &str) -> Record {
    Record { data: format!("{name}\0").into_bytes(), ..Record::of(pcr, kind::IPL, content.as_bytes()) }
}

fn grub(word: &str, text: &str) -> Record {
    named(8, &format!("{word}: {text}"), text)
}

/// `UEFI_VARIABLE_DATA` of shim's SbatLevel.
fn sbat_level() -> Record {
    let mut data =
        vec![0x50, 0xab, 0x5d, 0x60, 0x46, 0xe0, 0x00, 0x43, 0xab, 0xb6, 0x3d, 0xd8, 0x10, 0xdd, 0x8b, 0x23];
    let text = b"sbat,1,2021030218\n";
    data.extend(9u64.to_le_bytes());
    data.extend((text.len() as u64).to_le_bytes());
    data.extend("SbatLevel".encode_utf16().flat_map(u16::to_le_bytes));
    data.extend(text);
    Record::of(7, kind::EFI_VARIABLE_AUTHORITY, &data)
}

/// With a file name that says what it is; it is as long as before.
fn called_shim(image: Record) -> Record {
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
    let (name, shim) = (utf16("linux-"), utf16("shim--"));
    let at = image.data.windows(name.len()).rposition(|part| part == name).unwrap();
    let data = [&image.data[..at], &shim, &image.data[at + name.len()..]].concat();
    Record { data, ..image }
}

fn records(kernel: &str, line: &str) -> Vec<Record> {
    let recorded = boot("uki-secure-boot-own-keys").records();
    let image =
        recorded.iter().find(|record| record.kind == kind::EFI_BOOT_SERVICES_APPLICATION).unwrap().clone();
    let image =
        |content: &str| Record { digest: Hash::Sha256.digest(&[content.as_bytes()]), ..image.clone() };
    let mut records: Vec<_> = recorded
        .into_iter()
        .filter(|record| !matches!(record.pcr, 9 | 11) && record.kind != kind::EFI_BOOT_SERVICES_APPLICATION)
        .collect();
    records.extend([called_shim(image("shim")), named(14, "MokList", "keys"), sbat_level(), image("grub")]);
    records.extend([
        grub("grub_cmd", "set prefix=(hd0,gpt2)/grub"),
        named(9, "(hd0,gpt2)/grub/grub.cfg", "menuentry ..."),
        grub("grub_cmd", &format!("linux /{kernel} {line}")),
        named(9, &format!("/{kernel}"), kernel),
        image(kernel),
        grub("kernel_cmdline", &format!("/{kernel} {line}")),
        grub("grub_cmd", "initrd /initrd.img"),
        named(9, "/initrd.img", "an initrd"),
    ]);
    records
}

fn findings(policy: &Policy, records: &[Record]) -> Vec<Finding> {
    let bytes = log_of(records);
    let log = replay(&bytes, PcrBank::Sha256).unwrap().assume().unwrap();
    let line = format!("BOOT_IMAGE=/vmlinuz-6.1 {LINE}\n");
    evaluate(policy, &log, &Claims { command_line: Some(line.as_bytes()) }).findings
}

fn learned(records: &[Record]) -> String {
    let bytes = log_of(records);
    let log = replay(&bytes, PcrBank::Sha256).unwrap().assume().unwrap();
    learn(&log, &Claims::default(), Assured::default(), "grub", &[])
        .unwrap_or_else(|findings| panic!("{findings:?}"))
}

/// What a node says of the boot of [`records`] before it.
fn announced(kernel: &str, line: &str) -> Proposal {
    let digest = |content: &str| Hash::Sha256.digest(&[content.as_bytes()]).into();
    Proposal {
        version: 1,
        name: "6.1".into(),
        bank: "sha256".into(),
        images: vec![ProposedImage {
            release: None,
            role: "kernel".into(),
            path: kernel.into(),
            authenticode: digest(kernel),
        }],
        sections: Vec::new(),
        initrd: Some(digest("an initrd")),
        command_line: Some(format!("BOOT_IMAGE=/{kernel} {line}")),
        loader: Some(ProposedLoader { name: "grub".into(), changes: "+linux\n".into(), files: None }),
        written_by_update: false,
    }
}

#[test]
fn the_boot_that_was_announced_is_known_by_its_files() {
    let (shim, proposal) = (records("vmlinuz-6.1", LINE), announced("vmlinuz-6.1", LINE));
    // Without shim nobody measures the image of the kernel that GRUB starts.
    let mut alone = shim.clone();
    let kernel = alone.iter().rposition(|record| record.kind == kind::EFI_BOOT_SERVICES_APPLICATION).unwrap();
    alone.remove(kernel);
    let held = |proposal: &Proposal, records: &[Record]| {
        let bytes = log_of(records);
        let log = replay(&bytes, PcrBank::Sha256).unwrap().assume().unwrap();
        let what: Vec<_> = not_as_proposed(proposal, &log).into_iter().map(|finding| finding.what).collect();
        (is_booted(proposal, &log), what.join(", "))
    };
    let is = |what: &str| (true, what.to_owned());
    let is_not = |what: &str| (false, what.to_owned());
    for (records, also) in [(&shim, ""), (&alone, "kernel")] {
        assert_eq!(held(&proposal, records), is(also));
        // It may have been edited in the menu: it has the files, and that is said.
        let what = ["command line", also].join(", ");
        let edited = held(&announced("vmlinuz-6.1", "root=/dev/x"), records);
        assert_eq!(edited, is(what.trim_end_matches(", ")));
        // A second archive is unpacked over the first. Or the first is only read, and another used: the commands show it.
        let mut more = records.clone();
        more.pop();
        more.pop();
        more.extend([
            grub("grub_cmd", "initrd /initrd.img /evil.cpio"),
            named(9, "/initrd.img", "an initrd"),
        ]);
        assert!(held(&proposal, &more).1.contains("initrd"), "{:?}", held(&proposal, &more));
        let bytes = log_of(&more);
        let log = replay(&bytes, PcrBank::Sha256).unwrap().assume().unwrap();
        let ran = [format!("linux /vmlinuz-6.1 {LINE}"), "initrd /initrd.img /evil.cpio".to_owned()];
        assert_eq!(loaded_by_grub(&log), ran);
        let other = Proposal { initrd: Some(vec![7; 32].into()), ..proposal.clone() };
        assert!(held(&other, records).1.starts_with("initrd") && !held(&other, records).0);
        assert_eq!(held(&Proposal { bank: "sha384".into(), ..proposal.clone() }, records), is_not("bank"));
    }
    let other = announced("vmlinuz-6.2", LINE);
    assert_eq!(held(&other, &shim), is_not("kernel vmlinuz-6.2, command line"));
    // Where neither image nor initrd can tell, nothing does; nor is it GRUB's word that it was GRUB.
    for unknown in
        [Proposal { initrd: None, ..proposal.clone() }, Proposal { loader: None, ..proposal.clone() }]
    {
        assert_eq!(held(&unknown, &alone), is_not("kernel vmlinuz-6.1"));
        assert_eq!(held(&unknown, &shim), is(""));
    }
}

#[test]
fn a_boot_by_grub_is_learned_command_by_command() {
    let records = records("vmlinuz-6.1", LINE);
    let text = learned(&records);
    for part in [
        "name = \"vmlinuz-6.1\"",
        "role = \"loader\"",
        "role = \"kernel\"",
        "text = \"grub_cmd: set prefix=(hd0,gpt2)/grub\"",
        "# /initrd.img",
        "# (hd0,gpt2)/grub/grub.cfg",
        "# MokList",
        "# variable SbatLevel: sbat,1,2021030218",
        &format!("command_line = \"{LINE}\""),
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let policy = Policy::parse(&text).unwrap();
    assert_eq!(findings(&policy, &records), []);
    let first = records.iter().position(|record| record.pcr == 14).unwrap();
    for number in first..records.len() {
        let mut changed = records.clone();
        changed[number].digest[3] ^= 1;
        let found = findings(&policy, &changed);
        assert!(found.iter().any(|finding| finding.event == Some(number as u32 + 1)), "{number}: {found:?}");
        let mut removed = records.clone();
        removed.remove(number);
        // What an `[[event]]` accepts may be there.
        let may = records[number].kind == kind::EFI_VARIABLE_AUTHORITY;
        assert!(may || !findings(&policy, &removed).is_empty(), "without {number}");
        let mut swapped = records.clone();
        let next = (number + 1..records.len()).find(|next| records[*next].pcr == records[number].pcr);
        let lines = |number: usize| records[number].data.starts_with(b"kernel_cmdline");
        if let Some(next) = next.filter(|next| !lines(*next) && !lines(number) && records[number].pcr == 8) {
            swapped.swap(number, next);
            assert!(!findings(&policy, &swapped).is_empty(), "{number} and {next}");
        }
    }
}

#[test]
fn another_command_line_is_named_token_by_token() {
    let text = learned(&records("vmlinuz-6.1", LINE));
    let own = format!("command_line = \"{LINE}\"\n");
    let shared = "[command_line]\nallowed = [\"root=/dev/mapper/*\", \"ro\", \"quiet\"]\nrequired = [\"systemd.import_credentials=no\"]\nforbidden = [\"panic=*\"]\n\n[[boot]]";
    let policy = Policy::parse(&text.replace(&own, "").replace("[[boot]]", shared)).unwrap();
    assert_eq!(findings(&policy, &records("vmlinuz-6.1", LINE)), []);
    for (more, rule, found) in [
        ("panic=1", "command_line.forbidden", "panic=1"),
        ("debug", "command_line.allowed", "debug"),
        ("rdinit=/bin/sh", "command_line.floor", "rdinit=/bin/sh"),
    ] {
        let findings = findings(&policy, &records("vmlinuz-6.1", &format!("{LINE} {more}")));
        let finding = findings.iter().find(|finding| finding.rule == rule).unwrap();
        assert_eq!((finding.pcr, finding.found.as_str()), (Some(8), found));
        assert!(finding.what.starts_with("grub kernel command line: /vmlinuz-6.1 root="), "{finding}");
    }
}

#[test]
fn a_command_is_no_command_line_and_the_reverse() {
    let records = records("vmlinuz-6.1", LINE);
    let policy = Policy::parse(&learned(&records)).unwrap();
    for (number, record) in records.iter().enumerate().filter(|(_, record)| record.pcr == 8) {
        for (from, to) in [("grub_cmd: ", "kernel_cmdline: "), ("kernel_cmdline: ", "grub_cmd: ")] {
            if let Some(rest) = record.data.strip_prefix(from.as_bytes()) {
                let mut relabelled = records.clone();
                relabelled[number].data = [to.as_bytes(), rest].concat();
                assert!(!findings(&policy, &relabelled).is_empty(), "{number} as {to}");
            }
        }
    }
}

#[test]
fn another_kernel_is_named_and_can_be_added() {
    let text = learned(&records("vmlinuz-6.1", LINE));
    let update = records("vmlinuz-6.2", LINE);
    let found = findings(&Policy::parse(&text).unwrap(), &update);
    assert!(found.iter().any(|finding| finding.what == "/vmlinuz-6.2"), "{found:?}");
    assert!(found.iter().any(|finding| finding.what
        == "grub command: linux /vmlinuz-6.2 root=/dev/mapper/root ro quiet systemd.import_credentials=no"));
    let bytes = log_of(&update);
    let log = replay(&bytes, PcrBank::Sha256).unwrap().assume().unwrap();
    let policy = Policy::parse(&text).unwrap();
    // Of the kernel's file only the machine says beforehand that GRUB will read it.
    let unsaid = learn_boot(&policy, &log, &Claims::default(), Assured::default(), "6.2").unwrap_err();
    let kernel = |finding: &Finding| finding.pcr == Some(4) || finding.what == "called \"/vmlinuz-6.2\"";
    assert!(unsaid.iter().all(kernel), "{unsaid:?}");
    let mut announced = announced("vmlinuz-6.2", LINE);
    let files = vec![Hash::Sha256.digest(&[b"vmlinuz-6.2"]).into()];
    announced.loader.as_mut().unwrap().files = Some(files);
    let more =
        learn_announced(&policy, &log, &Claims::default(), Assured::default(), "6.2", &[announced]).unwrap();
    let both = Policy::parse(&format!("{text}\n{more}")).unwrap();
    assert_eq!(findings(&both, &update), []);
    assert_eq!(findings(&both, &records("vmlinuz-6.1", LINE)), []);
}

/// As GRUB 2.02 of Red Hat Enterprise Linux 7 and 8 has it: the digest is over the text and its NUL, and a file has no name.
fn as_of_linuxefi(mut records: Vec<Record>) -> Vec<Record> {
    for record in records.iter_mut().filter(|record| matches!(record.pcr, 8 | 9)) {
        let text = String::from_utf8(record.data.clone()).unwrap();
        let (word, text) = match text.trim_end_matches('\0').split_once(": ") {
            Some(("grub_cmd", text)) => {
                ("grub_cmd", text.replace("linux ", "linuxefi ").replace("initrd ", "initrdefi "))
            }
            Some((_, text)) => ("grub_kernel_cmdline", text.to_owned()),
            None if text.starts_with("/initrd") => {
                record.data = b"grub_linuxefi Initrd\0".to_vec();
                continue;
            }
            None => continue,
        };
        let text = format!("{text}\0");
        let data = format!("{word} {text}").into_bytes();
        *record = Record { data, ..Record::of(8, kind::IPL, text.as_bytes()) };
    }
    records
}

#[test]
fn the_forms_of_older_distributions_are_learned_and_pinned() {
    let records = as_of_linuxefi(records("vmlinuz-4.18", LINE));
    let text = learned(&records);
    for part in [
        "name = \"vmlinuz-4.18\"",
        "text = \"grub_cmd initrdefi /initrd.img\"",
        "# grub_linuxefi Initrd",
        &format!("text = \"grub_kernel_cmdline /vmlinuz-4.18 {LINE}\""),
        &format!("command_line = \"{LINE}\""),
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let policy = Policy::parse(&text).unwrap();
    assert_eq!(findings(&policy, &records), []);
    let first = records.iter().position(|record| matches!(record.pcr, 8 | 9)).unwrap();
    for number in first..records.len() {
        let mut changed = records.clone();
        changed[number].digest[3] ^= 1;
        assert!(!findings(&policy, &changed).is_empty(), "{number}");
        changed.remove(number);
        assert!(!findings(&policy, &changed).is_empty(), "without {number}");
    }
    // Another command line is not proven by the form that says that it is the old one.
    let other = as_of_linuxefi(self::records("vmlinuz-4.18", &format!("{LINE} rdinit=/bin/sh")));
    assert!(findings(&policy, &other).iter().any(|finding| finding.found.contains("rdinit")));
}

/// Without Secure Boot GRUB may start its kernel by itself: then only PCR 9 has it, in the list of what GRUB has read.
#[test]
fn a_kernel_that_only_grub_has_measured_is_pinned_by_its_file() {
    let mut records = records("vmlinuz-6.1", LINE);
    let kernel =
        records.iter().rposition(|record| record.kind == kind::EFI_BOOT_SERVICES_APPLICATION).unwrap();
    records.remove(kernel);
    let text = learned(&records);
    assert!(text.contains("role = \"loader\"") && !text.contains("role = \"kernel\""), "{text}");
    let policy = Policy::parse(&text).unwrap();
    assert_eq!(findings(&policy, &records), []);
    let other = records.iter().position(|record| record.data == b"/vmlinuz-6.1\0").unwrap();
    let mut changed = records.clone();
    changed[other].digest[0] ^= 1;
    let found = findings(&policy, &changed);
    assert!(found.iter().any(|finding| finding.what == "/vmlinuz-6.1"), "{found:?}");
    // A kernel of which nothing is listed: no rule would say which one.
    let at = text.find("\n[[boot.event]]\npcr = 9\n").unwrap();
    let without = format!(
        "{}\n{}",
        &text[..at],
        &text[at..]
            .split("\n[[boot.event]]\n")
            .filter(|event| !event.contains("/vmlinuz-6.1\n") && !event.contains("grub.cfg"))
            .collect::<Vec<_>>()
            .join("\n[[boot.event]]\n")
    );
    let problems = Policy::parse(&without).unwrap_err();
    assert!(
        problems
            .iter()
            .any(|problem| problem.message.contains("expected a [[boot.image]] with role uki or kernel")),
        "{problems:?}\n{without}"
    );
}

/// One more loader before GRUB, which starts the kernel by itself, is not taken for the one that boots.
#[test]
fn a_loader_before_grub_alone_is_not_learned_unsaid() {
    let mut records = records("vmlinuz-6.1", LINE);
    let kernel =
        records.iter().rposition(|record| record.kind == kind::EFI_BOOT_SERVICES_APPLICATION).unwrap();
    let image = records.remove(kernel);
    let shim = records.iter().position(|record| record.kind == kind::EFI_BOOT_SERVICES_APPLICATION).unwrap();
    records.insert(shim, Record { digest: Hash::Sha256.digest(&[b"a shell"]), ..image });
    let bytes = log_of(&records);
    let log = replay(&bytes, PcrBank::Sha256).unwrap().assume().unwrap();
    let found = learn(&log, &Claims::default(), Assured::default(), "grub", &[]).unwrap_err();
    assert!(found.iter().any(|finding| finding.expected.starts_with("one boot loader")), "{found:?}");
}

/// As Fedora and Red Hat write it (10_reset_boot_success, 12_menu_auto_hide, 14_menu_show_once): what the boot before left in grubenv decides
/// which way the script goes.
fn after(successful: bool) -> Vec<Record> {
    let (success, indeterminate) = if successful { ("1", "0") } else { ("0", "0") };
    let mut records = records("vmlinuz-6.11", LINE);
    let at = records.iter().position(|record| record.data.starts_with(b"(hd0,gpt2)/grub/grub.cfg")).unwrap();
    let mut more = vec![
        grub("grub_cmd", "load_env -f (hd0,gpt2)/grub/grubenv"),
        named(9, "(hd0,gpt2)/grub/grubenv", &format!("boot_success={success}")),
        grub("grub_cmd", &format!("[ {success} = 1 -o {indeterminate} = 1 ]")),
        grub("grub_cmd", &format!("set menu_hide_ok={success}")),
        grub("grub_cmd", &format!("[ {success} = 1 ]")),
    ];
    more.extend(successful.then(|| grub("grub_cmd", "set boot_indeterminate=0")));
    more.push(grub("grub_cmd", "set boot_success=0"));
    more.push(grub("grub_cmd", "save_env boot_success boot_indeterminate"));
    records.splice(at + 1..at + 1, more);
    records
}

#[test]
fn both_states_of_grubs_environment_are_listed_by_name_and_pinned_exactly() {
    let first = learned(&after(true));
    for part in [
        "name = \"vmlinuz-6.11, after a boot that was marked as successful\"",
        "# GRUB wrote its environment in this boot, after it had measured it (save_env boot_success boot_indeterminate).",
        "# The next boot after a boot that was not marked as successful reads another grubenv",
    ] {
        assert!(first.contains(part), "{part}\n{first}");
    }
    let policy = Policy::parse(&first).unwrap();
    let found = findings(&policy, &after(false));
    assert!(found.iter().any(|finding| finding.what == "(hd0,gpt2)/grub/grubenv"), "{found:?}");
    assert!(found.iter().any(|finding| finding.what.contains("[ 0 = 1 -o 0 = 1 ]")), "{found:?}");
    let other = after(false);
    let bytes = log_of(&other);
    let log = replay(&bytes, PcrBank::Sha256).unwrap().assume().unwrap();
    let unsaid = learn_boot(&policy, &log, &Claims::default(), Assured::default(), "evidence 2").unwrap_err();
    assert!(unsaid.len() == 1 && unsaid[0].what.contains("grubenv"), "{unsaid:?}");
    let word = Assured { trust_unknown_events: true, ..Assured::default() };
    let more = learn_boot(&policy, &log, &Claims::default(), word, "evidence 2").unwrap();
    assert!(more.contains("name = \"evidence 2, after a boot that was not marked as successful\""), "{more}");
    let both = Policy::parse(&format!("{first}\n{more}")).unwrap();
    assert_eq!((findings(&both, &after(true)), findings(&both, &other)), (vec![], vec![]));
    // Nothing in between: the file of one state with the commands of the other.
    for mixed in [after(true), after(false)] {
        let mut mixed = mixed;
        let at =
            mixed.iter().position(|record| record.data.ends_with(b"grubenv\0") && record.pcr == 9).unwrap();
        for content in ["boot_success=1", "boot_success=0", "boot_success=2"] {
            let file = named(9, "(hd0,gpt2)/grub/grubenv", content);
            let same = file.digest == mixed[at].digest;
            let before = std::mem::replace(&mut mixed[at], file);
            assert_eq!(findings(&both, &mixed).is_empty(), same, "{content}");
            mixed[at] = before;
        }
    }
}
