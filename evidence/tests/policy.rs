//! Policies against real boots: what is learned from a boot accepts it, and nothing that differs from it.

#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod common;

use common::boots::{Appraised as _, BOOTS, Boot, Record};
use halfkey_evidence::eventlog::{EXPLAINED, ExplainedLog, kind, replay};
use halfkey_evidence::policy::rules::Digest;
use halfkey_evidence::policy::{
    Additions, Assured, Cover, Finding, Policy, boot_of, boot_toml, covers, diff, evaluate, explain,
    learn_boot,
};
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::tpm::kdf::Hash;
use halfkey_protocol::wire::{Proposal, ProposedImage, ProposedSection};
use proptest::prelude::*;

fn learned(boot: &Boot) -> Policy {
    let text = boot.learned();
    Policy::parse(&text).unwrap_or_else(|problems| panic!("{}: {problems:?}\n{text}", boot.name))
}

#[test]
fn what_is_learned_from_a_boot_accepts_it_and_no_other() {
    let policies: Vec<_> = BOOTS.iter().map(|boot| (boot, learned(boot))).collect();
    for (of, policy) in &policies {
        for boot in BOOTS {
            let found = boot.judge(policy);
            if of.name == boot.name {
                assert_eq!(found.findings, [], "{}", boot.name);
                assert_eq!(found.boot.unwrap().name, policy.boots()[0].name);
            } else {
                assert!(!found.findings.is_empty(), "{} by the policy of {}", boot.name, of.name);
            }
        }
    }
}

#[test]
fn a_log_without_a_quote_says_nothing_of_the_tpm() {
    for boot in BOOTS {
        let text = boot.learned();
        assert!(!text.contains("[tpm]"), "{text}");
        let pinned = text.replacen("\n[", "\n[tpm]\nfirmware = [\"0x7\"]\n\n[", 1);
        let pinned = Policy::parse(&pinned).unwrap_or_else(|problems| panic!("{problems:?}\n{pinned}"));
        let found = boot.judge(&pinned).findings;
        let [only] = &found[..] else { panic!("{found:?}") };
        let said = (only.what.as_str(), only.expected.as_str(), only.found.as_str());
        assert_eq!(said, ("firmware of the TPM", "0x0000000000000007", "no quote"));
        let changes = diff(&learned(boot), &pinned);
        assert!(changes.len() == 1 && changes[0].path == "tpm.firmware", "{changes:?}");
    }
}

#[test]
fn every_event_has_its_rule() {
    for boot in BOOTS {
        let policy = learned(boot);
        let explanation = explain(&policy, &boot.log(), &boot.claims());
        assert!(explanation.accepted);
        for event in explanation.events {
            assert!(event.rule.is_some() && event.finding.is_none(), "{}: {event:?}", boot.name);
        }
    }
}

/// Whether a policy of these tests looks at an event: PCR 1 and 5 are ignored, and the rest is not policy's.
fn is_covered(record: &Record) -> bool {
    EXPLAINED.iter().any(|pcr| u32::from(*pcr) == record.pcr)
        && !matches!(record.pcr, 1 | 5)
        && record.kind != kind::NO_ACTION
}

/// Whether a finding is about an event, by its PCR and its place in the log after the Spec ID event; or says that it is missing.
fn names(findings: &[Finding], record: &Record, number: usize) -> bool {
    findings.iter().any(|finding| {
        finding.what == "command line"
            || finding.pcr.map(u32::from) == Some(record.pcr)
                && finding.event.is_none_or(|event| event as usize == number + 1)
    })
}

/// The command line, as the kernel and as stub or loader measured it: either proves it. A kernel or loader that does not
/// measure it is another one.
fn is_proven_twice(records: &[Record], record: &Record) -> bool {
    let by_kernel =
        |record: &Record| record.pcr == 9 && record.data.starts_with(&0x8f3b_22ed_u32.to_le_bytes());
    let by_loader = |record: &Record| matches!(record.pcr, 11 | 12);
    (by_kernel(record) && records.iter().any(by_loader))
        || (record.pcr == 12 && records.iter().any(by_kernel))
}

fn is_line(record: &Record) -> bool {
    record.data.starts_with(b"kernel_cmdline: ")
}

/// What the policy says only may be there: of several authorities, and what else is in PCR 7 after them, each; and a second
/// proof.
fn may_be_left_out(records: &[Record], record: &Record) -> bool {
    let authority = |record: &&Record| record.kind == kind::EFI_VARIABLE_AUTHORITY;
    (authority(&record) && records.iter().filter(authority).count() > 1) || is_proven_twice(records, record)
}

#[test]
fn no_event_can_be_changed_removed_or_repeated() {
    for boot in BOOTS {
        let policy = learned(boot);
        let records = boot.records();
        for (number, record) in records.iter().enumerate().filter(|(_, record)| is_covered(record)) {
            let mut changed = records.clone();
            changed[number].digest[0] ^= 1;
            // A separator that is none does not even replay.
            if let Some(findings) = boot.findings_of(&policy, &changed) {
                assert!(names(&findings, record, number), "{} changed {number}: {findings:?}", boot.name);
            }
            // Strings of the specification may come or not.
            let built_in = record.kind == kind::EFI_ACTION || may_be_left_out(&records, record);
            let mut removed = records.clone();
            removed.remove(number);
            let findings = boot.findings_of(&policy, &removed).unwrap();
            assert!(
                built_in || names(&findings, record, number),
                "{} without {number}: {findings:?}",
                boot.name
            );
            let mut twice = records.clone();
            twice.insert(number, record.clone());
            let findings = boot.findings_of(&policy, &twice).unwrap();
            // Firmware and shim may each say of the same certificate that it has verified something.
            let authority = record.kind == kind::EFI_VARIABLE_AUTHORITY;
            let said_twice = is_proven_twice(&records, record);
            assert!(
                built_in || authority || said_twice || !findings.is_empty(),
                "{} twice {number}",
                boot.name
            );
        }
    }
}

#[test]
fn no_event_can_be_moved_or_relabelled() {
    for boot in BOOTS {
        let policy = learned(boot);
        let records = boot.records();
        let explained = explain(&policy, &boot.log(), &boot.claims()).events;
        for (number, record) in records.iter().enumerate().filter(|(_, record)| is_covered(record)) {
            let built_in = matches!(record.kind, kind::EFI_ACTION | kind::SEPARATOR);
            for pcr in EXPLAINED.map(u32::from).into_iter().filter(|pcr| *pcr != record.pcr && !built_in) {
                let mut moved = records.clone();
                moved[number].pcr = pcr;
                let findings = boot.findings_of(&policy, &moved).unwrap();
                let removed = matches!(pcr, 1 | 5) && may_be_left_out(&records, record);
                assert!(removed || !findings.is_empty(), "{} {number} to pcr {pcr}", boot.name);
            }
            // Another type with the same digest: accepted at most if it means the same.
            for other in [kind::SEPARATOR, kind::EFI_ACTION, kind::IPL, kind::EFI_VARIABLE_AUTHORITY] {
                let mut relabelled = records.clone();
                relabelled[number].kind = other;
                let by_digest = matches!(record.pcr, 0 | 2 | 3 | 4 | 6 | 8 | 9 | 11..=14)
                    || explained[number].rule.as_deref() == Some("event");
                if let Some(findings) = boot.findings_of(&policy, &relabelled) {
                    assert!(
                        by_digest || other == record.kind || !findings.is_empty(),
                        "{} {number} as {other}",
                        boot.name
                    );
                }
            }
            let mut last = records.clone();
            let moved = last.remove(number);
            last.push(moved);
            let matters = |other: &Record| {
                other.pcr == record.pcr
                    && other.digest != record.digest
                    && !matches!(other.kind, kind::SEPARATOR | kind::EFI_ACTION)
                    && !is_line(other)
            };
            // Command line, initrd and authorities are told apart by what they are, not by their order.
            if !built_in
                && !is_line(record)
                && record.pcr != 9
                && record.kind != kind::EFI_VARIABLE_AUTHORITY
                && records[number + 1..].iter().any(matters)
            {
                assert!(!boot.findings_of(&policy, &last).unwrap().is_empty(), "{} {number} last", boot.name);
            }
        }
    }
}

#[test]
fn an_event_more_is_a_denial_that_names_it() {
    for boot in BOOTS {
        let policy = learned(boot);
        for pcr in EXPLAINED.into_iter().filter(|pcr| !matches!(pcr, 1 | 5)) {
            for kind in [
                kind::IPL,
                kind::EFI_BOOT_SERVICES_APPLICATION,
                kind::EVENT_TAG,
                kind::EFI_VARIABLE_DRIVER_CONFIG,
            ] {
                let mut more = boot.records();
                more.push(Record::of(pcr.into(), kind, b"one more"));
                let findings = boot.findings_of(&policy, &more).unwrap();
                assert!(
                    names(&findings, more.last().unwrap(), more.len() - 1),
                    "{} {pcr}: {findings:?}",
                    boot.name
                );
            }
        }
    }
}

/// Events of PCR 7 are judged before the boot path and with it; a rule for one event must not count in each anew.
#[test]
fn a_rule_for_one_event_accepts_one() {
    let boot = common::boots::boot("uki-secure-boot-own-keys");
    let text = boot.learned();
    let (head, tail) = text.split_once("\nauthorities = [\n").unwrap();
    let (_, tail) = tail.split_once("\n]\n").unwrap();
    let records = boot.records();
    let authority = records.iter().find(|record| record.kind == kind::EFI_VARIABLE_AUTHORITY).unwrap();
    let policy = Policy::parse(&format!(
        "{head}\nauthorities = [\"sha256:{}\"]\n{tail}\n[[event]]\npcr = 7\ndigest = \"{}\"\n",
        "11".repeat(32),
        Digest::new(&authority.digest).unwrap()
    ))
    .unwrap();
    assert_eq!(boot.judge(&policy).findings, []);
    for kind in [kind::EFI_VARIABLE_AUTHORITY, kind::EFI_VARIABLE_DRIVER_CONFIG, kind::IPL] {
        let mut twice = records.clone();
        twice.push(Record { kind, ..authority.clone() });
        assert!(!boot.findings_of(&policy, &twice).unwrap().is_empty(), "as {kind}");
    }
}

#[test]
fn without_proof_a_command_line_is_none() {
    for boot in BOOTS {
        let required = ["systemd.import_credentials=no", "efi=noruntime"];
        let by_loader = |token: &&str| token.starts_with("BOOT_IMAGE=") || token.starts_with("initrd=");
        let allowed: Vec<_> = boot.line().split_ascii_whitespace().collect();
        let allowed: Vec<_> =
            allowed.into_iter().filter(|token| !required.contains(token) && !by_loader(token)).collect();
        let by_tokens = |text: &str| {
            let line = text.lines().find(|line| line.starts_with("command_line = ")).unwrap();
            let shared =
                format!("\n[command_line]\nallowed = {allowed:?}\nrequired = {required:?}\n\n[[boot]]");
            text.replace(line, "").replace("\n[[boot]]", &shared)
        };
        let text = boot.learned();
        let policy = Policy::parse(&by_tokens(&text)).unwrap();
        if boot.line().contains("efi=noruntime") {
            assert_eq!(boot.judge(&policy).findings, [], "{}", boot.name);
        }
        for lie in [None, Some("systemd.import_credentials=no efi=noruntime")] {
            let findings = boot.judge_with(&policy, lie);
            assert!(
                findings.iter().any(|finding| finding.to_string().contains("command line")),
                "{} {lie:?}: {findings:?}",
                boot.name
            );
        }
    }
}

#[test]
fn secure_boot_must_be_on_with_the_listed_keys() {
    let boot = common::boots::boot("uki-secure-boot-own-keys");
    let text = boot.learned();
    let list = |key: &str| {
        let start = text.find(&format!("\n{key} = [\n")).unwrap();
        let end = start + text[start..].find("\n]\n").unwrap() + 3;
        text[start..end].to_owned()
    };
    let other = "\"sha256:1111111111111111111111111111111111111111111111111111111111111111\"";
    for (key, rule) in [
        ("pk", "secure_boot.pk: expected sha256:1111"),
        ("kek", "secure_boot.kek: expected sha256:1111"),
        ("db", "secure_boot.db: expected sha256:1111"),
        ("authorities", "secure_boot.authorities: expected sha256:1111"),
        ("dbx_at_least", "secure_boot.dbx: expected sha256:1111"),
    ] {
        let policy = Policy::parse(&text.replace(&list(key), &format!("\n{key} = [{other}]\n"))).unwrap();
        let findings = boot.judge(&policy).findings;
        assert!(findings.iter().any(|finding| finding.to_string().contains(rule)), "{key}: {findings:?}");
    }
    // At least: less is enough. Exactly: less is not.
    let at_least = text.replace(&list("dbx_at_least"), "\ndbx_at_least = []\n");
    assert_eq!(boot.judge(&Policy::parse(&at_least).unwrap()).findings, []);
    let exactly = text.replace(&list("dbx_at_least"), "\ndbx = []\n");
    let findings = boot.judge(&Policy::parse(&exactly).unwrap()).findings;
    assert!(findings[0].to_string().contains("variable dbx: "), "{findings:?}");
    assert!(
        findings[0].to_string().contains("secure_boot.dbx: expected no entry, found image hash sha256:"),
        "{findings:?}"
    );

    // Off: the event says so, and another SecureBoot after it changes nothing.
    let off = common::boots::boot("uki-no-secure-boot");
    let findings = off.judge(&Policy::parse(&text).unwrap()).findings;
    let first = findings.iter().find(|finding| finding.rule == "secure_boot.required").unwrap().to_string();
    assert!(
        first.ends_with("variable SecureBoot: off: secure_boot.required: expected SecureBoot on, found off"),
        "{first}"
    );
    let mut twice = off.records();
    let on = boot.records().into_iter().find(|record| record.pcr == 7).unwrap();
    let at = twice.iter().position(|record| record.pcr == 7).unwrap();
    twice.insert(at + 1, on);
    let findings = off.findings_of(&Policy::parse(&text).unwrap(), &twice).unwrap();
    assert!(findings.iter().any(|finding| finding.expected == "SecureBoot once"), "{findings:?}");
}

/// The policy of a signed boot with its signer in place of its hashes.
fn by_signer(boot: &Boot) -> String {
    let text = boot.learned();
    let head = &text[..text.find("[[boot]]").unwrap()];
    let signer = head.rsplit("authorities = [\n").next().unwrap().split('"').nth(1).unwrap();
    let line = text.lines().find(|line| line.starts_with("command_line = ")).unwrap();
    format!(
        "{}\n[[boot]]\nname = \"ours\"\n{line}\ninitrd = \"signed\"\nsections = \"signed\"\n[[boot.image]]\nrole = \"uki\"\nsigner = [\"{signer}\"]\n",
        head
    )
}

#[test]
fn a_signer_vouches_for_image_initrd_and_sections() {
    let boot = common::boots::boot("uki-secure-boot-own-keys");
    let policy = Policy::parse(&by_signer(boot)).unwrap();
    assert_eq!(boot.judge(&policy).findings, []);
    assert_eq!(boot.judge(&policy).boot.unwrap().name, "ours");
    let records = boot.records();
    let find =
        |pcr, kind| records.iter().position(|record| record.pcr == pcr && record.kind == kind).unwrap();
    let (image, authority) =
        (find(4, kind::EFI_BOOT_SERVICES_APPLICATION), find(7, kind::EFI_VARIABLE_AUTHORITY));

    // Another image, initrd and section of the same signer.
    let mut updated = records.clone();
    for record in updated.iter_mut().filter(|record| {
        record.kind == kind::EFI_BOOT_SERVICES_APPLICATION
            || record.pcr == 9 && record.data.starts_with(&[0xec])
    }) {
        record.digest[5] ^= 1;
    }
    assert_eq!(boot.findings_of(&policy, &updated).unwrap(), []);

    // Nobody has verified it, somebody else has, or only after it was started.
    let mut unverified = records.clone();
    unverified.remove(authority);
    let findings = boot.findings_of(&policy, &unverified).unwrap();
    assert!(findings[0].to_string().contains("expected an image verified by sha256:"), "{findings:?}");
    assert!(findings[0].what.starts_with("boot application \\EFI\\Linux\\"), "{findings:?}");
    let mut late = records.clone();
    let verified = late.remove(authority);
    late.insert(image, verified);
    assert!(!boot.findings_of(&policy, &late).unwrap().is_empty());
    // An initrd beside the image, one section twice, another initrd.
    for (pcr, from) in [(9, "initrd"), (11, "section")] {
        let mut more = records.clone();
        let last = more.iter().rfind(|record| record.pcr == pcr).unwrap().clone();
        more.push(last);
        assert!(!boot.findings_of(&policy, &more).unwrap().is_empty(), "another {from}");
    }
    let off = common::boots::boot("uki-no-secure-boot");
    assert!(!off.judge(&policy).findings.is_empty());
}

#[test]
fn a_boot_can_be_added_to_a_policy() {
    let (first, second) =
        (common::boots::boot("uki-no-secure-boot"), common::boots::boot("systemd-boot-type1"));
    let text = first.learned();
    let before = Policy::parse(&text).unwrap();
    let more =
        learn_boot(&before, &second.log(), &second.claims(), second.assured(), "by systemd-boot").unwrap();
    let after = Policy::parse(&format!("{text}\n{more}")).unwrap();
    assert_eq!(first.judge(&after).findings, []);
    // The rest of the boot is the same machine's, but for the firmware, whose variables are in PCR 0 there.
    assert_eq!(after.boots().len(), 2);
    assert!(second.judge(&after).findings.iter().all(|finding| finding.pcr == Some(0)));
    let changes = diff(&before, &after);
    assert!(!changes.is_empty());
    assert!(
        changes
            .iter()
            .all(|change| change.path.starts_with("boot \"by systemd-boot\"") && change.before.is_none())
    );
    assert_eq!(diff(&after, &after), []);

    let additions = Additions::parse(&format!("format = 1\nname = \"here\"\n{more}")).unwrap();
    assert_eq!(diff(&after, &before.with(&additions)), []);
    assert_eq!(diff(&after, &before.with_boots(&after.boots()[1..])), []);
    // What is written can be read.
    let written = boot_toml(&after.boots()[1]);
    assert_eq!(Policy::parse(&format!("{text}\n{written}")).unwrap().boots(), after.boots());
}

#[test]
fn an_event_that_a_policy_has_is_not_learned_again() {
    let boot = common::boots::boot("grub-shim-ms-keys");
    let text = boot.learned();
    let shared = |text: &str| text.matches("\n[[event]]\n").count();
    assert!(shared(&text) > 0, "shim measures SbatLevel into PCR 7:\n{text}");
    let policy = Policy::parse(&text).unwrap();
    let more = learn_boot(&policy, &boot.log(), &boot.claims(), boot.assured(), "once more").unwrap();
    assert_eq!(shared(&more), 0, "{more}");
    let without = format!("{}\n", text.split("\n[[event]]\n").next().unwrap());
    let more =
        learn_boot(&Policy::parse(&without).unwrap(), &boot.log(), &boot.claims(), boot.assured(), "more")
            .unwrap();
    assert_eq!(shared(&more), shared(&text));
}

/// What a node would propose that boots a boot again.
fn proposal(boot: &Boot, policy: &Policy) -> Proposal {
    let records = boot.records();
    let digests =
        |pcr: u32| records.iter().filter(move |record| record.pcr == pcr).map(|record| record.digest.clone());
    let images: Vec<_> =
        records.iter().filter(|record| record.kind == kind::EFI_BOOT_SERVICES_APPLICATION).collect();
    let roles: &[&str] = match (digests(11).count(), images.len()) {
        // shim measures the kernel, too.
        (0, 4) => &["loader", "loader", "kernel", "kernel"],
        (0, _) => &["loader", "kernel"],
        _ => &["uki", "kernel"],
    };
    let sections: Vec<_> = digests(11).collect();
    Proposal {
        version: 1,
        name: policy.boots()[0].name.clone(),
        bank: "sha256".to_owned(),
        images: images
            .iter()
            .zip(roles)
            .filter(|(_, role)| **role != "loader")
            .map(|(record, role)| ProposedImage {
                release: None,
                role: (*role).to_owned(),
                path: "/efi/linux.efi".to_owned(),
                authenticode: record.digest.clone().into(),
            })
            .collect(),
        sections: [".linux", ".osrel", ".cmdline", ".initrd"]
            .iter()
            .zip(sections.chunks(2))
            .map(|(name, pair)| ProposedSection { name: (*name).to_owned(), digest: pair[1].clone().into() })
            .collect(),
        initrd: digests(9).next_back().map(Into::into),
        command_line: Some(boot.line().to_owned()),
        loader: None,
        written_by_update: false,
    }
}

#[test]
fn what_was_booted_is_covered_when_it_is_proposed() {
    for name in ["uki-no-secure-boot", "uki-secure-boot-own-keys", "systemd-boot-type1"] {
        let boot = common::boots::boot(name);
        let policy = learned(boot);
        let booted = policy.boots()[0].name.clone();
        let proposed = proposal(boot, &policy);
        assert_eq!(covers(&policy, &proposed), Cover::Hash(booted.clone()), "{name}");
        // The boot that is made of it accepts what was booted.
        let made = boot_of(&proposed, &policy, Some(&booted), Assured::default()).unwrap();
        let text = boot.learned();
        let others = text[..text.find("[[boot]]").unwrap()].to_owned();
        let policy = Policy::parse(&format!("{others}{}", boot_toml(&made))).unwrap();
        assert_eq!(boot.judge(&policy).findings, [], "{name}");

        let mut other = proposed.clone();
        other.images[0].authenticode.0[0] ^= 1;
        let Cover::No(findings) = covers(&policy, &other) else { panic!("{name}") };
        assert_eq!(findings.len(), 1);
        assert!(findings[0].what.contains("/efi/linux.efi"), "{findings:?}");
        let mut other = proposed.clone();
        other.initrd.as_mut().unwrap().0[0] ^= 1;
        assert!(matches!(covers(&policy, &other), Cover::No(_)));
        let mut other = proposed;
        other.command_line = Some(format!("{} debug", boot.line()));
        assert!(matches!(covers(&policy, &other), Cover::No(_)));
        let findings = boot_of(&other, &policy, None, Assured::default()).unwrap_err();
        assert_eq!(findings[0].what, "command line");
        other.command_line = None;
        // An image with its initrd inside is known by that; nothing says that there is one.
        (other.initrd, other.sections) = (None, Vec::new());
        let findings = boot_of(&other, &policy, None, Assured::default()).unwrap_err();
        assert!(findings.iter().any(|finding| finding.what == "initrd"));
    }
}

/// What GRUB measures of itself is in no proposal.
#[test]
fn what_grub_boots_is_covered_as_far_as_a_proposal_goes() {
    let boot = common::boots::boot("grub-shim-ms-keys");
    let policy = learned(boot);
    let booted = policy.boots()[0].name.clone();
    let proposed = proposal(boot, &policy);
    assert_eq!(covers(&policy, &proposed), Cover::Grub(vec![booted]));
    let mut other = proposed;
    other.initrd.as_mut().unwrap().0[0] ^= 1;
    assert!(matches!(covers(&policy, &other), Cover::No(_)));
}

#[test]
fn a_signer_covers_what_only_the_boot_can_prove() {
    let boot = common::boots::boot("uki-secure-boot-own-keys");
    let policy = Policy::parse(&by_signer(boot)).unwrap();
    let mut proposed = proposal(boot, &policy);
    proposed.images[0].authenticode.0[0] ^= 1;
    assert_eq!(covers(&policy, &proposed), Cover::Signer("ours".to_owned()));
    let more = proposed.images[0].clone();
    proposed.images.push(more);
    assert!(matches!(covers(&policy, &proposed), Cover::No(_)));
}

#[test]
fn additions_do_not_go_below_the_floor() {
    let boot = common::boots::boot("uki-no-secure-boot");
    let text = boot.learned();
    // Without Secure Boot a signer is nobody, also in additions that can't know it.
    let signed = "format = 1\nname = \"more\"\n[[boot]]\nname = \"signed\"\ninitrd = \"signed\"\nsections = \"signed\"\ncommand_line = \"systemd.import_credentials=no\"\n[[boot.image]]\nrole = \"uki\"\nsigner = [\"sha256:1111111111111111111111111111111111111111111111111111111111111111\"]\n";
    let policy = Policy::parse(&text).unwrap().with(&Additions::parse(signed).unwrap());
    assert_eq!(boot.judge(&policy).findings, []);
    let mut records = boot.records();
    records.iter_mut().filter(|record| record.pcr == 4).for_each(|record| record.digest[9] ^= 1);
    records.iter_mut().filter(|record| record.kind == kind::SEPARATOR).for_each(|record| {
        record.digest = Hash::Sha256.digest(&[&record.data]);
    });
    let findings = boot.findings_of(&policy, &records).unwrap();
    assert!(findings.iter().any(|finding| finding.what.starts_with("boot application")), "{findings:?}");
}

fn digests_of<'l>(log: &'l ExplainedLog<'l>, pcr: u32) -> impl Iterator<Item = &'l [u8]> {
    log.events().iter().filter(move |event| event.pcr == pcr).map(|event| event.digest)
}

proptest! {
    #[test]
    fn whatever_is_changed_in_a_log_is_seen(at: prop::sample::Index, to: u8, of: prop::sample::Index) {
        let boot = &BOOTS[of.index(BOOTS.len())];
        let original = boot.log();
        let policy = learned(boot);
        prop_assert!(evaluate(&policy, &original, &boot.claims()).accepted());
        let mut bytes = common::boots::log_of(&boot.records());
        let at = at.index(bytes.len());
        bytes[at] = to;
        if let Ok(log) = replay(&bytes, PcrBank::Sha256).and_then(|log| log.assume())
            && evaluate(&policy, &log, &boot.claims()).accepted()
        {
            // Accepted: then it has nothing in the covered PCRs but what was learned, in its order. What an event would be that
            // only may be there (an authority, an action of firmware) can be missing.
            for pcr in [0, 2, 3, 4, 6, 7, 8, 9, 11, 12, 13, 14] {
                let mut learned = digests_of(&original, pcr);
                prop_assert!(
                    digests_of(&log, pcr).all(|digest| learned.any(|known| known == digest)),
                    "byte {} to {}: pcr {}", at, to, pcr
                );
            }
        }
    }
}
