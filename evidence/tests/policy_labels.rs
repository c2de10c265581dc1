//! Boots of another line or initramfs whose log calls everything by the names of the honest one. What ran could extend the honest boot's
//! digests afterwards, and sends the log: types, data and the order across PCRs are its word.

#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod common;

use common::boots::{Appraised as _, Boot, Record, boot, log_of};
use halfkey_evidence::eventlog::{kind, replay};
use halfkey_evidence::policy::{
    Assured, Claims, Finding, Policy, is_booted, learn, learn_announced, learn_boot, loaded_by_grub,
    not_as_proposed, unknown,
};
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::tpm::kdf::Hash;
use halfkey_protocol::wire::{Proposal, ProposedImage, ProposedLoader};

const WORD: Assured = Assured {
    kernel_measures_initrd: false,
    trust_returned_images: false,
    trust_unknown_events: true,
    trust_command_line: true,
};

type Learned = Result<String, Vec<Finding>>;

/// As a machine's first policy.
fn first(boot: &Boot, records: &[Record], line: &str, assured: Assured) -> Learned {
    let bytes = log_of(records);
    let log = replay(&bytes, PcrBank::Sha256).unwrap().assume().unwrap();
    let claims = Claims { command_line: Some(line.as_bytes()) };
    let assured = Assured { kernel_measures_initrd: boot.assured().kernel_measures_initrd, ..assured };
    learn(&log, &claims, assured, "learned", &[])
}

/// Beside the policy of the recorded boot.
fn added(boot: &Boot, records: &[Record], assured: Assured, proposals: &[Proposal]) -> Learned {
    let bytes = log_of(records);
    let log = replay(&bytes, PcrBank::Sha256).unwrap().assume().unwrap();
    let policy = Policy::parse(&boot.learned()).unwrap();
    learn_announced(&policy, &log, &boot.claims(), assured, "more", proposals)
}

#[track_caller]
fn refused(learned: Learned, by: &str) {
    let found = learned.expect_err(by);
    assert!(found.iter().any(|finding| finding.to_string().contains(by)), "{by}: {found:?}");
}

/// As GRUB measures a text.
fn text(word: &str, text: &str) -> Record {
    Record { data: format!("{word}: {text}\0").into_bytes(), ..Record::of(8, kind::IPL, text.as_bytes()) }
}

fn file(name: &str, content: &[u8]) -> Record {
    Record { data: format!("{name}\0").into_bytes(), ..Record::of(9, kind::IPL, content) }
}

fn grub() -> &'static Boot {
    boot("grub-shim-ms-keys")
}

fn begins(record: &Record, data: &str) -> bool {
    record.data.starts_with(data.as_bytes())
}

fn at(records: &[Record], data: &str) -> usize {
    records.iter().position(|record| begins(record, data)).unwrap()
}

fn measured(record: &Record) -> String {
    let text = String::from_utf8(record.data.clone()).unwrap();
    text.split_once(": ").unwrap().1.trim_end_matches('\0').to_owned()
}

/// Its digest stays, and it is called something else.
fn relabel(record: &mut Record, kind: u32, data: &str) {
    (record.kind, record.data) = (kind, format!("{data}\0").into_bytes());
}

/// GRUB gave another option to the kernel.
fn with_option(option: &str) -> Vec<Record> {
    let mut records = grub().records();
    for (word, begin) in [("grub_cmd", "grub_cmd: linux "), ("kernel_cmdline", "kernel_cmdline: ")] {
        let at = at(&records, begin);
        records[at] = text(word, &format!("{} {option}", measured(&records[at])));
    }
    records
}

/// The texts of the honest boot, behind all else.
fn decoys() -> Vec<Record> {
    let records = grub().records();
    let of = |begin: &str| records[at(&records, begin)].clone();
    ["grub_cmd: linux ", "kernel_cmdline: ", "grub_cmd: initrd "].map(of).to_vec()
}

#[test]
fn a_line_that_grub_measured_is_found_whatever_it_is_called() {
    for assured in [Assured::default(), WORD] {
        for label in [
            (kind::IPL, "grub_cmd: set timeout=5"),
            (kind::IPL, "/grub/fonts/unicode.pf2"),
            (kind::EVENT_TAG, "grub_cmd: set timeout=5"),
            (0xa000_0001, "grub_cmd: set timeout=5"),
        ] {
            let mut records = with_option("rdinit=/bin/sh");
            for begin in ["grub_cmd: linux ", "kernel_cmdline: ", "grub_cmd: initrd "] {
                let at = at(&records, begin);
                relabel(&mut records[at], label.0, label.1);
            }
            records.extend(decoys());
            refused(first(grub(), &records, grub().line(), assured), "texts of GRUB alone");
            refused(added(grub(), &records, assured, &[]), "texts of GRUB alone");
        }
        // Named as it is, or as another text of GRUB's.
        for label in ["grub_cmd: ", "kernel_cmdline: ", "module_cmdline: ", "grub_kernel_cmdline "] {
            let mut records = with_option("rdinit=/bin/sh");
            for begin in ["grub_cmd: linux ", "kernel_cmdline: "] {
                let at = at(&records, begin);
                let said = measured(&records[at]);
                relabel(&mut records[at], kind::IPL, &format!("{label}{said}"));
            }
            for more in [Vec::new(), decoys()] {
                let records = [records.clone(), more].concat();
                refused(first(grub(), &records, grub().line(), assured), "no token rdinit=/bin/sh");
                refused(added(grub(), &records, assured, &[]), "no token rdinit=/bin/sh");
            }
        }
        // Turned round, and with a file that GRUB puts into quotes, of blocks, or from a network: called a command.
        for file in ["\"/v mlinuz\"", "2048+9", "vmlinuz"] {
            for (option, by) in
                [("rdinit=/bin/sh", "no token rdinit=/bin/sh"), ("panic=1", "one line of a kernel")]
            {
                let mut records = grub().records();
                for (begin, turned) in [
                    ("grub_cmd: linux ", "! linux"),
                    ("kernel_cmdline: ", ""),
                    ("grub_cmd: initrd ", "! initrd"),
                ] {
                    let at = at(&records, begin);
                    let said = measured(&records[at]);
                    let rest = said.split_once(' ').unwrap().1;
                    let said = match turned {
                        "" => format!("{file} {rest} {option}"),
                        "! linux" => format!("! linux {file} {} {option}", rest.split_once(' ').unwrap().1),
                        initrd => format!("{initrd} {rest}"),
                    };
                    records[at] = text("grub_cmd", &said);
                }
                records.extend(decoys());
                refused(added(grub(), &records, assured, &[]), by);
                refused(added(grub(), &records, assured, &[]), "one command that loads a kernel");
                refused(added(grub(), &records, assured, &[]), "one command that reads an initrd");
            }
        }
        // Nothing that is forbidden, but more than one of each.
        let records = [with_option("panic=1"), decoys()].concat();
        let learned = || added(grub(), &records, assured, &[]);
        refused(learned(), "one command that loads a kernel");
        refused(learned(), "one line of a kernel");
        refused(learned(), "one command that reads an initrd");
        let mut records = grub().records();
        records.insert(at(&records, "grub_cmd: linux "), text("grub_cmd", "chainloader /evil.efi"));
        refused(added(grub(), &records, assured, &[]), "no command that starts something else");
    }
}

/// What the machine says of the recorded boot with this initramfs.
fn announced(initrd: &[u8], files: &[&[u8]]) -> Proposal {
    let digest = |content: &[u8]| Hash::Sha256.digest(&[content]).into();
    let records = grub().records();
    let kernel = records.iter().rfind(|record| record.kind == kind::EFI_BOOT_SERVICES_APPLICATION).unwrap();
    let line = measured(&records[at(&records, "kernel_cmdline: ")]);
    let files = files.iter().map(|file| digest(file)).collect();
    Proposal {
        version: 1,
        name: "next".into(),
        bank: "sha256".into(),
        images: vec![ProposedImage {
            release: None,
            role: "kernel".into(),
            path: "/vmlinuz".into(),
            authenticode: kernel.digest.clone().into(),
        }],
        sections: Vec::new(),
        initrd: Some(digest(initrd)),
        command_line: Some(format!("BOOT_IMAGE={line}")),
        loader: Some(ProposedLoader { name: "grub".into(), changes: String::new(), files: Some(files) }),
        written_by_update: false,
    }
}

fn initrd_file(records: &[Record]) -> usize {
    records.iter().rposition(|record| record.pcr == 9).unwrap()
}

fn unknown_in(records: &[Record], proposal: &Proposal) -> Vec<Finding> {
    let bytes = log_of(records);
    let log = replay(&bytes, PcrBank::Sha256).unwrap().assume().unwrap();
    let policy = Policy::parse(&grub().learned()).unwrap();
    unknown(Some(&policy), proposal, &log, &grub().claims())
}

#[test]
fn an_initramfs_that_grub_read_is_told_whatever_it_is_called() {
    let proposal = announced(b"next", &[b"grub.cfg"]);
    let mut honest = grub().records();
    let last = initrd_file(&honest);
    honest[last] = Record { data: honest[last].data.clone(), ..file("", b"next") };
    let config = honest.iter().position(|record| record.pcr == 9).unwrap();
    honest[config] = Record { data: honest[config].data.clone(), ..file("", b"grub.cfg") };
    let policy = Policy::parse(&grub().learned()).unwrap();
    // All that it reads is known: no word is needed.
    added(grub(), &honest, Assured::default(), std::slice::from_ref(&proposal)).unwrap();
    assert_eq!(unknown_in(&honest, &proposal), []);
    // Without the proposal neither is.
    let found = added(grub(), &honest, Assured::default(), &[]).unwrap_err();
    assert_eq!(found.iter().filter(|finding| finding.rule == "unknown event").count(), 2, "{found:?}");
    added(grub(), &honest, WORD, &[]).unwrap();
    // A first policy is the operator's word for the whole boot.
    first(grub(), &honest, grub().line(), Assured::default()).unwrap();

    for label in ["/grub/fonts/unicode.pf2", "/linux/initrd.img-6.1.0-56-cloud-amd64", "anything"] {
        let mut evil = honest.clone();
        evil[last] = file(label, b"evil");
        // The proposed one, extended by what ran.
        evil.push(honest[last].clone());
        let digest = hex(&Hash::Sha256.digest(&[b"evil"]));
        refused(added(grub(), &evil, Assured::default(), std::slice::from_ref(&proposal)), &digest);
        let found = unknown_in(&evil, &proposal);
        assert!(found.len() == 1 && found[0].found.contains(&digest), "{found:?}");
        assert!(found[0].what.contains(label), "{found:?}");
        added(grub(), &evil, WORD, std::slice::from_ref(&proposal)).unwrap();
        let bytes = log_of(&evil);
        let log = replay(&bytes, PcrBank::Sha256).unwrap().assume().unwrap();
        assert!(is_booted(&proposal, &log), "the digests are there, which is why they say nothing");
        refused(
            learn_boot(&policy, &log, &grub().claims(), Assured::default(), "more"),
            "whatever it is called",
        );
    }
}

/// In the place of the command that loads the kernel, before it.
fn with_command(command: &str) -> Vec<Record> {
    let mut records = grub().records();
    records.insert(at(&records, "grub_cmd: linux "), text("grub_cmd", command));
    records
}

/// Of a machine that Debian's installer has made: beside GRUB on the ESP, and in its configuration.
#[test]
fn the_commands_of_a_generated_configuration_are_learned() {
    let mut records = grub().records();
    let first_command = at(&records, "grub_cmd: ");
    let commands = [
        "search.fs_uuid 0b5f4c0e-6d1b-4f0a-9f2d-1d0c7a5e0002 root hd0,gpt2 ",
        "configfile (hd0,gpt2)/grub/grub.cfg",
        "fwsetup --is-supported",
        "insmod bli",
    ];
    records.splice(first_command..first_command, commands.map(|command| text("grub_cmd", command)));
    first(grub(), &records, grub().line(), Assured::default()).unwrap();
}

/// After `rmmod tpm` GRUB measures nothing: what stands behind it was extended by what ran.
#[test]
fn a_command_that_ends_the_measuring_is_never_learned() {
    for command in
        ["rmmod tpm", "! rmmod tpm", "rmmod tpm root=x", "normal_exit", "write_dword 0x1000 0", "setpci 0"]
    {
        for label in ["grub_cmd", "kernel_cmdline"] {
            let mut records = with_command(command);
            let evil = records.iter().position(|record| record.digest == text("", command).digest).unwrap();
            records[evil] = text(label, command);
            for assured in [Assured::default(), WORD] {
                refused(added(grub(), &records, assured, &[]), "ends GRUB's measuring");
                refused(first(grub(), &records, grub().line(), assured), "ends GRUB's measuring");
            }
        }
        let bytes = log_of(&with_command(command));
        let log = replay(&bytes, PcrBank::Sha256).unwrap().assume().unwrap();
        assert!(loaded_by_grub(&log).contains(&command), "{command}");
    }
}

#[test]
fn a_command_that_no_generated_configuration_has_needs_a_word() {
    for command in ["boot", "eval x", "my_function", "normal /x"] {
        let records = with_command(command);
        refused(added(grub(), &records, Assured::default(), &[]), "who typed this could have GRUB do more");
        refused(
            first(grub(), &records, grub().line(), Assured::default()),
            "who typed this could have GRUB do more",
        );
        assert_eq!(
            unknown_in(&records, &announced(b"x", &[])).iter().filter(|found| found.pcr == Some(8)).count(),
            1
        );
        // Once it was learned it is known.
        let learned = first(grub(), &records, grub().line(), WORD).unwrap();
        let policy = Policy::parse(&learned).unwrap();
        let bytes = log_of(&records);
        let log = replay(&bytes, PcrBank::Sha256).unwrap().assume().unwrap();
        learn_boot(&policy, &log, &grub().claims(), Assured::default(), "more").unwrap();
    }
}

/// The digest is that of the file alone, and any text that the machine has announced as a configuration could be a program of the initramfs.
#[test]
fn a_file_that_grub_packs_into_the_initramfs_is_never_learned() {
    let script = b"#!/bin/sh\n";
    let proposal = announced(b"next", &[b"grub.cfg", script]);
    let mut records = grub().records();
    let command = at(&records, "grub_cmd: initrd ");
    let said = measured(&records[command]);
    records.push(file("(hd0,gpt1)/EFI/zz/grub.cfg", script));
    // Behind a name with many spaces, too.
    for between in [String::new(), format!(" /{}", "x ".repeat(200))] {
        let packed = format!("{said}{between} newc:usr/lib/x.sh:(hd0,gpt1)/EFI/zz/grub.cfg");
        records[command] = text("grub_cmd", &packed);
        for assured in [Assured::default(), WORD] {
            refused(added(grub(), &records, assured, std::slice::from_ref(&proposal)), "newc:");
            refused(first(grub(), &records, grub().line(), assured), "newc:");
        }
    }
}

/// GRUB ran before it, and could have started a kernel with an initramfs of its own, which then extended the rest.
#[test]
fn a_uki_behind_grub_is_learned_only_if_grub_has_started_nothing_else() {
    let boot = boot("uki-no-secure-boot");
    let records = |commands: &[&str]| {
        let mut records = boot.records();
        let first = records.iter().position(|record| record.pcr == 11).unwrap();
        let texts = commands.iter().map(|command| text("grub_cmd", command)).collect::<Vec<_>>();
        records.splice(first..first, texts);
        records
    };
    let honest = records(&["set root=hd0", "chainloader /EFI/Linux/x.efi"]);
    first(boot, &honest, boot.line(), Assured::default()).unwrap();
    for (commands, by) in [
        (&["set root=hd0", "linux /evil quiet"][..], "no kernel but what started it all"),
        (&["linux /evil quiet", "initrd /evil"], "no initrd of GRUB's"),
        (&["multiboot2 /evil"], "starts something else"),
        (&["rmmod tpm", "chainloader /EFI/Linux/x.efi"], "ends GRUB's measuring"),
        (&["chainloader /a", "chainloader /b"], "one command that starts the boot"),
    ] {
        for assured in [Assured::default(), WORD] {
            refused(first(boot, &records(commands), boot.line(), assured), by);
            refused(added(boot, &records(commands), assured, &[]), by);
        }
    }
    // GRUB's file, called the initrd that the kernel measured.
    let mut evil = honest;
    let initrd = evil.iter().rposition(|record| record.pcr == 9).unwrap();
    let genuine = evil[initrd].clone();
    evil[initrd].digest = Hash::Sha256.digest(&[b"evil"]);
    evil.push(genuine);
    refused(added(boot, &evil, Assured::default(), &[]), &hex(&Hash::Sha256.digest(&[b"evil"])));
}

#[test]
fn each_command_that_loads_is_shown_whatever_it_is_called() {
    let proposal = announced(b"an initrd", &[]);
    let mut records = with_option("rdinit=/bin/sh");
    let line = at(&records, "kernel_cmdline: ");
    let said = measured(&records[line]);
    relabel(&mut records[line], kind::IPL, &format!("grub_cmd: {said}"));
    records.extend(decoys());
    let bytes = log_of(&records);
    let log = replay(&bytes, PcrBank::Sha256).unwrap().assume().unwrap();
    let ran = loaded_by_grub(&log);
    assert!(ran.iter().any(|text| text.starts_with("linux ") && text.contains("rdinit=/bin/sh")), "{ran:?}");
    assert_eq!(ran.iter().filter(|text| text.starts_with("linux ")).count(), 2, "{ran:?}");
    let what: Vec<_> = not_as_proposed(&proposal, &log).into_iter().map(|finding| finding.what).collect();
    for part in ["command line", "kernel", "initrd"] {
        assert!(what.iter().any(|what| what == part), "{part}: {what:?}");
    }
    // What is no text at all is not known, and may be a line.
    let at = at(&records, "grub_cmd: linux ");
    relabel(&mut records[at], kind::IPL, "grub_cmd: set timeout=5");
    let found = unknown_in(&records, &proposal);
    assert!(found.iter().any(|finding| finding.pcr == Some(8)), "{found:?}");
}

/// What became of the recorded boot's texts behind the configuration, by GRUB's own source: `said` what it ran, `line` what it passed on.
fn loaded(commands: &[(&str, &str)]) -> Vec<Record> {
    let mut records = grub().records();
    let is_text = |record: &Record| {
        ["grub_cmd: linux ", "kernel_cmdline: ", "grub_cmd: initrd "]
            .iter()
            .any(|begin| begins(record, begin))
    };
    let first = records.iter().position(is_text).unwrap();
    records.retain(|record| !is_text(record));
    records.splice(first..first, commands.iter().map(|(word, said)| text(word, said)));
    records
}

/// The commands and the line of the recorded boot.
fn said() -> [String; 3] {
    let records = grub().records();
    ["grub_cmd: linux ", "kernel_cmdline: ", "grub_cmd: initrd "]
        .map(|begin| measured(&records[at(&records, begin)]))
}

const IN_ORDER: &str = "next the line that it passes on";

/// A server of the attacker's has the honest kernel under the name of a command, so that its line looks like one: without what the floor wants.
#[test]
fn a_line_that_looks_like_a_command_is_found_behind_the_command_that_passes_it_on() {
    let proposal = announced(b"next", &[b"grub.cfg"]);
    let [linux, line, initrd] = said();
    for file in ["set", "echo", "menuentry", "linux", "a=b"] {
        for options in ["root=UUID=5 ro quiet", "quiet"] {
            let evil = format!("{file} {options}");
            let (command, evil) = (format!("linux {evil}"), &*evil);
            for label in ["grub_cmd", "kernel_cmdline"] {
                let texts = [("grub_cmd", &*command), (label, evil), ("grub_cmd", &initrd)];
                // The honest line, or all of it, extended by what ran.
                for more in [
                    &[("kernel_cmdline", &*line)][..],
                    &[("grub_cmd", &linux), ("kernel_cmdline", &line), ("grub_cmd", &initrd)],
                    &[("grub_cmd", &line)],
                    &[],
                ] {
                    let records = loaded(&[&texts[..], more].concat());
                    let learned = added(grub(), &records, WORD, std::slice::from_ref(&proposal));
                    let by = if more.is_empty() { "command line" } else { IN_ORDER };
                    refused(learned, by);
                    refused(first(grub(), &records, grub().line(), WORD), by);
                    let bytes = log_of(&records);
                    let log = replay(&bytes, PcrBank::Sha256).unwrap().assume().unwrap();
                    assert!(loaded_by_grub(&log).contains(&&*command), "{command}");
                    let what = not_as_proposed(&proposal, &log).into_iter();
                    assert_eq!(what.filter(|finding| finding.what == "command line").count(), 1, "{command}");
                }
            }
        }
    }
}

/// Not every kernel that GRUB starts measures its line: who ran in its place may have done so, with that of an honest boot.
#[test]
fn what_is_learned_is_the_line_that_grub_passed_on() {
    let [_, line, initrd] = said();
    let (kernel, honest) = line.split_once(' ').unwrap();
    let options: Vec<u8> = format!("{}\0", grub().line()).encode_utf16().flat_map(u16::to_le_bytes).collect();
    let name = b"LOADED_IMAGE::LoadOptions\0";
    let head = [0x8f3b_22ed_u32.to_le_bytes(), (name.len() as u32).to_le_bytes()].concat();
    let of_kernel = Record { data: [&head, &name[..]].concat(), ..Record::of(9, kind::EVENT_TAG, &options) };
    let without = honest.replace(" systemd.import_credentials=no", "");
    let root = honest.replace("root=UUID=", "root=PARTUUID=");
    for evil in [root, without, format!("initrd=\\x {honest}"), format!("a\u{a0}rdinit=/bin/sh {honest}")] {
        let (command, evil) = (format!("linux {kernel} {evil}"), format!("{kernel} {evil}"));
        for label in ["grub_cmd", "kernel_cmdline"] {
            let mut records = loaded(&[("grub_cmd", &command), (label, &evil), ("grub_cmd", &initrd)]);
            for is_one in [true, false] {
                for assured in [Assured::default(), WORD] {
                    let by = if is_one { "floor" } else { "2 different ones" };
                    refused(first(grub(), &records, grub().line(), assured), by);
                    refused(added(grub(), &records, assured, &[]), by);
                    let announced = [announced(b"next", &[b"grub.cfg"])];
                    refused(added(grub(), &records, WORD, &announced), by);
                }
                records.push(of_kernel.clone());
            }
        }
    }
    // The same line is one line.
    let mut records = grub().records();
    records.push(of_kernel);
    first(grub(), &records, grub().line(), WORD).unwrap();
}

/// GRUB's rescue console, which comes where `normal` is not to be had, measures the line and the files, and no command.
#[test]
fn a_kernel_of_the_rescue_console_is_found_by_its_line() {
    let [linux, line, initrd] = said();
    let honest = [("grub_cmd", &*linux), ("kernel_cmdline", &*line), ("grub_cmd", &*initrd)];
    for label in ["grub_cmd", "kernel_cmdline"] {
        for evil in [&*line, "set root=UUID=5 ro quiet"] {
            let before = [(label, evil), ("grub_cmd", "set root=hd0,gpt1")];
            let mut records = loaded(&[&before[..], &honest].concat());
            refused(added(grub(), &records, WORD, &[]), IN_ORDER);
            refused(first(grub(), &records, grub().line(), WORD), IN_ORDER);
            // Without the command that it did not run.
            records = loaded(&[&before[..], &honest[2..]].concat());
            refused(added(grub(), &records, WORD, &[]), IN_ORDER);
            refused(first(grub(), &records, grub().line(), WORD), IN_ORDER);
        }
    }
}

#[test]
fn what_grub_reads_in_quotes_is_learned() {
    for (quoted, line_option) in [
        ("dyndbg=file a +p", "\"dyndbg=file a +p\""),
        ("a=\"b\"", "a=\\\"b\\\""),
        ("a=\\x20b", "a=\\x20b"),
        ("a=\\b", "a=\\\\b"),
    ] {
        let [linux, line, initrd] = said();
        let (linux, line) = (format!("{linux} {quoted}"), format!("{line} {line_option}"));
        let records = loaded(&[("grub_cmd", &linux), ("kernel_cmdline", &line), ("grub_cmd", &initrd)]);
        let passed = format!("BOOT_IMAGE={line}");
        first(grub(), &records, &passed, Assured::default()).unwrap();
        // Several files are one command.
        let initrd = initrd.replacen(' ', " /early.img ", 1);
        let records = loaded(&[("grub_cmd", &linux), ("kernel_cmdline", &line), ("grub_cmd", &initrd)]);
        first(grub(), &records, &passed, Assured::default()).unwrap();
    }
}

/// An entry whose kernel is not there, and the one that the owner then chose (`fallback`): nothing tells which of them was started.
#[test]
fn a_boot_after_an_entry_that_failed_is_not_learned() {
    let [linux, line, initrd] = said();
    let rest = [("grub_cmd", &*linux), ("kernel_cmdline", &*line), ("grub_cmd", &*initrd)];
    for failed in [
        &[("grub_cmd", "linux /gone ro")][..],
        &[("grub_cmd", "linux /gone ro"), ("grub_cmd", "initrd /gone.img")],
        &[("grub_cmd", "initrd /gone.img")],
    ] {
        let records = loaded(&[failed, &rest].concat());
        refused(added(grub(), &records, WORD, &[]), IN_ORDER);
        refused(first(grub(), &records, grub().line(), WORD), IN_ORDER);
        let bytes = log_of(&records);
        let log = replay(&bytes, PcrBank::Sha256).unwrap().assume().unwrap();
        assert!(loaded_by_grub(&log).contains(&failed[0].1));
    }
    // With their names turned round, and what the policy would learn.
    let records = loaded(&[rest[2], rest[0], rest[1]]);
    refused(added(grub(), &records, WORD, &[]), IN_ORDER);
    let records = loaded(&[rest[0], ("grub_cmd", "set a=b"), rest[1], rest[2]]);
    refused(added(grub(), &records, WORD, &[]), IN_ORDER);
    // The only one, below a submenu.
    let submenu = ("grub_cmd", "submenu Advanced options {\nmenuentry x {\nlinux /x root=a\n}\n}");
    let records = loaded(&[&[submenu, ("grub_cmd", "setparams x")][..], &rest].concat());
    first(grub(), &records, grub().line(), WORD).unwrap();
}

fn utf16(text: &str) -> Vec<u8> {
    format!("{text}\0").encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// Secure Boot is off: the stub takes the options that it was started with, and measures them.
#[test]
fn load_options_beside_a_uki_are_found_whatever_they_are_called() {
    let boot = boot("uki-no-secure-boot");
    let line = format!("{} rdinit=/bin/sh", boot.line());
    let options = boot.records().iter().position(|record| record.pcr == 9).unwrap();
    let evil = |label: &[u8], kind| {
        let mut records = boot.records();
        records[options].digest = Hash::Sha256.digest(&[&utf16(&line)]);
        (records[options].kind, records[options].data) = (kind, label.to_vec());
        let measured = Record { data: label.to_vec(), ..Record::of(12, kind, &utf16(&line)) };
        records.insert(options, measured);
        records
    };
    for (label, kind) in [
        (utf16("Global credentials initrd"), kind::IPL),
        (utf16("Credentials initrd"), kind::IPL),
        (b"x\0".to_vec(), kind::IPL),
        (utf16(&line), kind::EVENT_TAG),
        (b"x".to_vec(), kind::EVENT_TAG),
    ] {
        let records = evil(&label, kind);
        for more in [Vec::new(), boot.records()[options..=options].to_vec()] {
            let records = [records.clone(), more].concat();
            refused(first(boot, &records, boot.line(), Assured::default()), "pcr 12");
            refused(added(boot, &records, Assured::default(), &[]), "pcr 9");
        }
    }
    // By its own name it is what it is.
    let mut records = evil(&utf16(&line), kind::IPL);
    records[options + 1].data = boot.records()[options].data.clone();
    records[options + 1].kind = kind::EVENT_TAG;
    refused(first(boot, &records, &line, Assured::default()), "rdinit");
}

#[test]
fn secure_boot_is_learned_as_on_only_if_pcr_7_says_nothing_else() {
    let off = boot("uki-no-secure-boot");
    let on: Vec<_> =
        boot("uki-secure-boot-own-keys").records().into_iter().filter(|record| record.pcr == 7).collect();
    let separator = |record: &Record| record.pcr == 7 && record.kind == kind::SEPARATOR;
    for (kind, keeps) in [
        (kind::IPL, false),
        (kind::EFI_ACTION, true),
        (kind::EFI_ACTION, false),
        (kind::EVENT_TAG, true),
        (0x8000_000c, true),
        (kind::EFI_VARIABLE_DRIVER_CONFIG, false),
        (kind::EFI_VARIABLE_AUTHORITY, true),
    ] {
        let mut records = off.records();
        let end = records.iter().position(separator).unwrap();
        for record in records[..=end].iter_mut().filter(|record| record.pcr == 7) {
            record.kind = kind;
            if !keeps {
                record.data = b"harmless".to_vec();
            }
        }
        records.extend(on.clone());
        refused(first(off, &records, off.line(), Assured::default()), "pcr 7");
        // The word is for what the events are, and not for Secure Boot.
        let learned = first(off, &records, off.line(), WORD);
        assert!(!learned.is_ok_and(|text| text.contains("required = true")), "{kind:#x}");
    }
    // Two of it, or a second end of firmware's part.
    let own = boot("uki-secure-boot-own-keys");
    let more = |index: usize| {
        let mut records = own.records();
        let of_pcr = |record: &&Record| record.pcr == 7;
        let again = off.records().iter().filter(of_pcr).nth(index).unwrap().clone();
        records.insert(records.iter().position(separator).unwrap() + index / 5, again);
        records
    };
    for index in [0, 5] {
        refused(first(own, &more(index), own.line(), Assured::default()), "pcr 7");
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
