//! UKIs that are known by their signer, or by their hash alone: what stands before them, and what may come with them.

#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod common;

use common::boots::{Appraised as _, Boot, Record, boot, log_of};
use common::pins::*;
use halfkey_evidence::eventlog::{kind, replay};
use halfkey_evidence::policy::{Policy, learn};
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::tpm::kdf::Hash;

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
