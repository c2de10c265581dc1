//! `[ima]` of a policy: the rules that it gives, and what it asks of a boot.

#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod common;

use common::boots::{Appraised as _, boot};
use halfkey_evidence::ima::{Budget, DigestList, Increment, QuotedPcr, State, advance, appraise};
use halfkey_evidence::policy::rules::Digest;
use halfkey_evidence::policy::{Additions, Policy, diff};
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_testkit::hex;
use halfkey_testkit::ima::{ImaList, sha256};
use rcgen::KeyPair;
use std::sync::Arc;

const RECORDED: &str = "uki-secure-boot-own-keys";

/// The policy of a recorded boot with the words in its line, and `[ima]` behind it.
fn policy(ima: &str) -> Policy {
    let learned = boot(RECORDED).learned();
    let line = learned.lines().find(|line| line.starts_with("command_line = ")).unwrap();
    let with_words = format!("{} ima_policy=tcb\"", line.strip_suffix('"').unwrap());
    Policy::parse(&format!("{}\n{ima}", learned.replace(line, &with_words))).unwrap()
}

fn list() -> Arc<DigestList> {
    let text = format!("sha256:{} /usr/bin/true\n", hex(&sha256(b"true")));
    Arc::new(DigestList::parse(text.as_bytes()).unwrap())
}

fn named(list: &DigestList) -> String {
    format!(
        "[ima]\nnot_judged = [\"/var/log/\"]\n[[ima.list]]\nname = \"debian\"\ndigest = \"sha256:{}\"\n",
        hex(list.id())
    )
}

#[test]
fn lists_are_found_by_what_they_say() {
    let list = list();
    let pem = KeyPair::generate().unwrap().public_key_pem();
    let text = format!(
        "{}[[ima.signer]]\nname = \"ours\"\npem = \"\"\"\n{pem}\"\"\"\n[[ima.buffer]]\nname = \".ima\"\nany = true\n",
        named(&list)
    );
    let policy = policy(&text);
    let ima = policy.ima().unwrap();
    let missing = ima.rules(|_| None).unwrap_err();
    assert_eq!((missing.name.as_str(), missing.digest.as_bytes()), ("debian", &list.id()[..]));
    // Another one in its place is none.
    let empty = Arc::new(DigestList::parse(b"").unwrap());
    assert!(ima.rules(|_| Some(empty.clone())).is_err());
    let rules = ima.rules(|digest| (digest.as_bytes() == list.id()).then(|| list.clone())).unwrap();
    assert_eq!((rules.lists.len(), rules.signers.len(), rules.buffers.len()), (1, 1, 1));

    let mut measured = ImaList::booted(PcrBank::Sha256, &[6; 320]);
    measured.file("/usr/bin/true", &sha256(b"true"));
    measured.file("/var/log/x", &sha256(b"x"));
    measured.buffer(".ima", b"0 a key");
    let increment = Increment { first: 0, bytes: &measured.bytes, complete: true };
    let quoted = QuotedPcr::assumed(PcrBank::Sha256, measured.value()).unwrap();
    let advance = advance(&State::new(PcrBank::Sha256), &increment, &quoted).unwrap();
    let result = appraise(&rules, &[], &advance, &mut Budget::default());
    assert_eq!((result.listed, result.not_judged, result.other, result.accepted()), (1, 1, 2, true));
}

#[test]
fn a_change_of_its_rules_is_named() {
    let (list, other) = (list(), "5".repeat(64));
    let before = policy(&named(&list));
    let after =
        policy(&named(&list).replace(&hex(list.id()), &other).replace("[ima]", "[ima]\nkexec = true"));
    let changes: Vec<_> =
        diff(&before, &after).into_iter().map(|change| (change.path, change.before, change.after)).collect();
    let some = |text: &str| Some(text.to_owned());
    let digest = |digest: &str| Some(format!("\"debian\" sha256:{digest}"));
    assert_eq!(
        changes,
        [
            ("ima.kexec".to_owned(), some("false"), None),
            ("ima.kexec".to_owned(), None, some("true")),
            ("ima.list".to_owned(), digest(&hex(list.id())), None),
            ("ima.list".to_owned(), None, digest(&other)),
        ]
    );
    let without = diff(&before, &policy(""));
    assert!(without.len() == 4 && without.iter().all(|change| change.after.is_none()), "{without:?}");
}

/// Additions and trusted proposals bring lines of their own, which no check of the document has seen.
#[test]
fn each_boot_is_asked_for_the_words() {
    let recorded = boot(RECORDED);
    let learned = recorded.learned();
    let own = &learned[learned.find("[[boot]]").unwrap()..];
    let additions = Additions::parse(&format!("format = 1\nname = \"of its own\"\n{own}")).unwrap();
    assert!(recorded.judge(&policy("").with(&additions)).findings.is_empty());
    let findings = recorded.judge(&policy(&named(&list())).with(&additions)).findings;
    assert!(!findings.is_empty());
    for finding in &findings {
        assert!(finding.rule.ends_with("command_line"), "{finding}");
        assert_eq!(finding.expected, "token ima_policy=tcb, as the policy has [ima]");
    }
    // What it asks stays with what a node may have besides.
    assert!(policy(&named(&list())).with(&additions).with_boots(&[]).ima().is_some());
}

#[test]
fn the_seed_of_the_fuzzer_is_a_policy() {
    let policy = Policy::parse(include_str!("../../fuzz/corpus/policy/ima")).unwrap();
    let ima = policy.ima().unwrap();
    assert_eq!(ima.lists().len(), 1);
    assert!(diff(&policy, &policy).is_empty());
}

#[test]
fn a_digest_is_that_of_the_lines_in_order() {
    let text = list().to_text();
    assert_eq!(Digest::of(PcrBank::Sha256, &text).as_bytes(), list().id());
}
