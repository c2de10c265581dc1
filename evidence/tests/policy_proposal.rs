//! Proposals as nodes send them: what is refused, and why.

#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

use halfkey_evidence::policy::{
    Assured, Cover, Effective, Matched, Origin, Policy, boot_of, boot_toml, check_proposal, covers, is_in_uki,
};
use halfkey_protocol::Reason;
use halfkey_protocol::wire::Proposal;
use proptest::prelude::*;
use serde_json::{Value, json};

/// Base64url of 32 bytes of one value.
fn digest(byte: u8) -> Value {
    serde_json::to_value(halfkey_protocol::Bytes::from(&[byte; 32][..])).unwrap()
}

fn uki() -> Value {
    json!({
        "version": 1,
        "name": "6.1.0-56",
        "bank": "sha256",
        "images": [{"role": "uki", "path": "/efi/EFI/Linux/linux.efi", "authenticode": digest(0x55)}],
        "sections": [{"name": ".linux", "digest": digest(0x44)}, {"name": ".initrd", "digest": digest(0x33)}],
        "initrd": digest(0x33),
        "command_line": "root=UUID=5 quiet systemd.import_credentials=no",
        "written_by_update": false,
    })
}

fn policy() -> Policy {
    Policy::parse(include_str!("../../fuzz/corpus/policy/policy.toml")).unwrap()
}

fn refused(change: impl FnOnce(&mut Value)) -> String {
    let mut proposal = uki();
    change(&mut proposal);
    let rejection = check_proposal(proposal.to_string().as_bytes()).unwrap_err();
    assert_eq!(rejection.reason, Reason::ProposalMalformed);
    rejection.detail
}

#[test]
fn each_part_of_a_proposal_is_checked() {
    assert!(check_proposal(uki().to_string().as_bytes()).is_ok());
    let detail = |message: &str, change: &dyn Fn(&mut Value)| {
        let found = refused(change);
        assert!(found.contains(message), "{message}: {found}");
    };
    detail("version 1, found 2", &|p| p["version"] = json!(2));
    detail("bank sha256 or sha384, found \"sha1\"", &|p| p["bank"] = json!("sha1"));
    detail("expected 48 bytes of sha384 as authenticode, found 32", &|p| p["bank"] = json!("sha384"));
    detail("1 to 128 bytes of one line as name", &|p| p["name"] = json!("a\nb"));
    detail("1 to 128 bytes of one line as name", &|p| p["name"] = json!("x".repeat(129)));
    detail("1 to 8 images, found 0", &|p| p["images"] = json!([]));
    detail("1 to 8 images, found 9", &|p| p["images"] = json!(vec![p["images"][0].clone(); 9]));
    detail("role uki or kernel, found \"shim\"", &|p| p["images"][0]["role"] = json!("shim"));
    detail("as path, found \"\"", &|p| p["images"][0]["path"] = json!(""));
    detail("the name of a section, found \"linux\"", &|p| p["sections"][0]["name"] = json!("linux"));
    detail("each section once", &|p| p["sections"] = json!(vec![p["sections"][0].clone(); 2]));
    detail("as initrd, found 31", &|p| {
        p["initrd"] = serde_json::to_value(halfkey_protocol::Bytes::from(&[1; 31][..])).unwrap()
    });
    detail("one line", &|p| p["command_line"] = json!("a\nb"));
    for (name, changes) in
        [("", ""), ("grub\n", ""), ("grub", "a\tb"), ("grub", "\u{1b}[2J"), ("grub", "\u{202e}")]
    {
        detail("boot loader", &|p| p["loader"] = json!({ "name": name, "changes": changes }));
    }
    detail("16384 bytes of printable", &|p| {
        p["loader"] = json!({ "name": "grub", "changes": "x".repeat(16385) })
    });
    detail("bytes of one line as release", &|p| p["images"][0]["release"] = json!("a\nb"));
    detail("32 bytes of sha256 as file", &|p| {
        p["loader"] = json!({ "name": "grub", "changes": "", "files": [digest(1), "AA"] })
    });
    detail("0 to 256 files, found 257", &|p| {
        p["loader"] = json!({ "name": "grub", "changes": "", "files": vec![digest(1); 257] })
    });
    let mut announced = uki();
    announced["loader"] = json!({ "name": "grub", "changes": "-a\n+b\n" });
    assert!(check_proposal(announced.to_string().as_bytes()).is_ok());
    detail("as json", &|p| p["images"] = json!(7));
    detail("at most 65536 bytes", &|p| p["more"] = json!("x".repeat(70_000)));
}

#[test]
fn what_a_policy_allows_is_covered() {
    let policy = policy();
    let read = |value: Value| check_proposal(value.to_string().as_bytes()).unwrap();
    assert_eq!(covers(&policy, &read(uki())), Cover::Hash("6.1.0-55".to_owned()));
    let mut other = uki();
    other["images"][0]["authenticode"] = digest(0x56);
    let Cover::No(findings) = covers(&policy, &read(other.clone())) else { panic!("another image") };
    let text = findings[0].to_string();
    assert!(
        text.starts_with("pcr 4, uki /efi/EFI/Linux/linux.efi: boot \"6.1.0-55\" image 1 (uki): expected authenticode sha256:5555"),
        "{text}"
    );
    let mut token = uki();
    token["command_line"] = json!("root=UUID=5 init=/bin/sh systemd.import_credentials=no");
    let Cover::No(findings) = covers(&policy, &read(token.clone())) else { panic!("a forbidden token") };
    assert_eq!(
        (findings[0].rule.as_str(), findings[0].found.as_str()),
        ("command_line.floor", "init=/bin/sh")
    );
    assert_eq!(
        boot_of(&read(token), &policy, None, Assured::default()).unwrap_err()[0].found,
        "init=/bin/sh"
    );
    // The boot that a proposal makes accepts it.
    let boot = boot_of(&read(other.clone()), &policy, Some("6.1.0-55"), Assured::default()).unwrap();
    assert_eq!(covers(&policy.with_boots(&[boot]), &read(other)), Cover::Hash("6.1.0-56".to_owned()));
}

/// A machine that says nothing of its initrd gets no rule that takes any: the image says what it is, or there is none.
#[test]
fn an_initrd_that_nobody_can_foretell_is_that_of_the_image() {
    let read = |value: &Value| check_proposal(value.to_string().as_bytes()).unwrap();
    let mut next = uki();
    (next["images"][0]["authenticode"], next["initrd"]) = (digest(0x56), Value::Null);
    assert!(is_in_uki(&read(&next)) && !is_in_uki(&read(&uki())));
    let base = Some("6.1.0-55");
    let made = |value: &Value, policy: &Policy| boot_of(&read(value), policy, base, Assured::default());
    let boot = made(&next, &policy()).unwrap();
    let text = boot_toml(&boot);
    assert!(text.contains("initrd = \"in-uki\""), "{text}");
    assert_eq!(covers(&policy().with_boots(&[boot]), &read(&next)), Cover::Hash("6.1.0-56".to_owned()));

    let refused = |change: &dyn Fn(&mut Value), expected: &str| {
        let mut other = next.clone();
        change(&mut other);
        let found = made(&other, &policy()).unwrap_err();
        assert!(found.iter().any(|finding| finding.expected.contains(expected)), "{expected}: {found:?}");
    };
    // An image that has none starts whatever is found; a kernel is given one by whoever writes the boot entry.
    refused(&|p| p["sections"] = json!([p["sections"][0]]), "an initrd");
    refused(&|p| p["sections"] = json!([]), "an initrd");
    refused(&|p| p["images"][0]["role"] = json!("kernel"), "an initrd");
    // A loader before the image could hand over another, which only the digest would show.
    let loader =
        format!("[[boot.image]]\nrole = \"loader\"\nauthenticode = [\"sha256:{}\"]\n", "11".repeat(32));
    let text = include_str!("../../fuzz/corpus/policy/policy.toml");
    let text = text.replacen("[[boot.image]]", &format!("{loader}[[boot.image]]"), 1);
    for role in ["loader", "other"] {
        let text = text.replacen("role = \"loader\"", &format!("role = \"{role}\""), 1);
        let found = made(&next, &Policy::parse(&text).unwrap()).unwrap_err();
        assert!(found[0].expected.contains("nothing but shim comes before"), "{role}: {found:?}");
    }
    let shim = text.replacen("role = \"loader\"", "role = \"shim\"", 1);
    made(&next, &Policy::parse(&shim).unwrap()).unwrap();
}

/// systemd measures into PCR 9 as well as GRUB: beside a UKI such an event stays, and is no boot loader's.
#[test]
fn events_of_systemd_are_not_taken_for_those_of_grub() {
    let text = include_str!("../../fuzz/corpus/policy/policy.toml");
    let event = format!("[[boot.event]]\npcr = 9\ndigest = \"sha256:{}\"\n", "99".repeat(32));
    let with = |event: &str| text.replacen("[[boot.event]]", &format!("{event}[[boot.event]]"), 1);
    let next = check_proposal(uki().to_string().as_bytes()).unwrap();
    let made = |text: &str| {
        let policy = Policy::parse(text).unwrap_or_else(|problems| panic!("{problems:?}: {text}"));
        boot_of(&next, &policy, Some("6.1.0-55"), Assured::default())
    };
    assert_eq!(made(&with(&event)).unwrap().events.iter().filter(|event| event.pcr == 9).count(), 1);
    let found = made(&with(&event.replace("pcr = 9", "pcr = 8"))).unwrap_err();
    assert!(found[0].expected.contains("grub"), "{found:?}");
}

/// Where it is not known which boot the machine runs, what is said of one kernel does not hold for the new one.
#[test]
fn what_is_said_of_one_kernel_is_not_said_of_all() {
    let kernel = |name: &str, byte: &str, measures: &str| {
        let (image, initrd) = (byte.repeat(32), "33".repeat(32));
        format!(
            "[[boot]]\nname = \"{name}\"\ninitrd = \"sha256:{initrd}\"\n{measures}\n[[boot.image]]\nrole = \"kernel\"\nauthenticode = [\"sha256:{image}\"]\n"
        )
    };
    let text = include_str!("../../fuzz/corpus/policy/policy.toml");
    let (rules, boots) = text.split_at(text.find("[[boot]]").unwrap());
    let boots = boots.replace("[[boot.event]]\npcr = 12\ntext = \"a line\"\n", "");
    let known = kernel("6.13", "77", "kernel_measures_initrd = true");
    let mut next = uki();
    (next["images"][0]["role"], next["sections"]) = (json!("kernel"), json!([]));
    let of = |release: Value, byte| {
        let mut next = next.clone();
        (next["images"][0]["release"], next["images"][0]["authenticode"]) = (release, digest(byte));
        check_proposal(next.to_string().as_bytes()).unwrap()
    };
    let next = of(json!("6.13.2-amd64"), 0x55);
    let made_of = |next: &Proposal, text: &str, base| {
        boot_of(next, &Policy::parse(text).unwrap(), base, Assured::default())
    };
    let made = |text: &str, base| made_of(&next, text, base);
    for text in [
        format!("{rules}{known}{boots}"),
        rules.to_owned() + &boots.replace("[[event]]", &format!("{known}[[event]]")),
    ] {
        assert!(made(&text, Some("6.13")).unwrap().kernel_measures_initrd);
        // An older kernel loads what `initrd=` names unmeasured, and what does not say its release may be older.
        for release in [json!("6.12.63"), json!("6.1.0-56-amd64"), Value::Null] {
            let found = made_of(&of(release.clone(), 0x55), &text, Some("6.13")).unwrap_err();
            assert!(found[0].expected.contains("kernel_measures_initrd = true"), "{release}: {found:?}");
            // Of the same image it is said already, and of this one it can be said.
            assert!(made_of(&of(release.clone(), 0x77), &text, Some("6.13")).unwrap().kernel_measures_initrd);
            let assured = Assured { kernel_measures_initrd: true, ..Assured::default() };
            let policy = Policy::parse(&text).unwrap();
            boot_of(&of(release, 0x55), &policy, Some("6.13"), assured).unwrap();
        }
        for base in [Some("6.1.0-55"), None] {
            let found = made(&text, base).unwrap_err();
            assert!(found[0].expected.contains("kernel_measures_initrd = true"), "{base:?}: {found:?}");
        }
    }
    let (_, after) = boots.split_once("[[event]]").unwrap();
    let (one, other) = (known.clone(), kernel("6.14", "88", "kernel_measures_initrd = true"));
    let text = format!("{rules}{one}{other}[[event]]{after}");
    assert!(made(&text, None).unwrap().kernel_measures_initrd, "where it is said of all");
}

#[test]
fn what_is_in_effect_says_where_each_boot_comes_from() {
    let read = |value: Value| check_proposal(value.to_string().as_bytes()).unwrap();
    let mut next = uki();
    next["images"][0]["authenticode"] = digest(0x56);
    let mut forbidden = uki();
    forbidden["command_line"] = json!("init=/bin/sh systemd.import_credentials=no");
    // A tenant may name a boot as a trusted proposal's is shown.
    let text = include_str!("../../fuzz/corpus/policy/policy.toml")
        .replace("\"6.1.0-55\"", "\"6.1.0-56 (proposal 7)\"");
    let mut effective = Effective::new(&Policy::parse(&text).unwrap(), None);
    let base = Some("6.1.0-56 (proposal 7)");
    let (next, forbidden) = (read(next), read(forbidden));
    effective.trust_all([(7, &next, base), (8, &forbidden, base)]);

    let origins: Vec<_> =
        effective.policy().boots().iter().map(|boot| (boot.name.as_str(), boot.origin)).collect();
    let shown = "6.1.0-56 (proposal 7)";
    assert_eq!(origins, [(shown, Origin::Document), (shown, Origin::Proposal(7))]);
    assert_eq!(effective.signed().boots().len(), 1);
    assert_eq!(effective.trusted().collect::<Vec<_>>(), [7]);
    let [left_out] = effective.left_out() else { panic!("the forbidden one") };
    assert_eq!((left_out.id, left_out.findings[0].found.as_str()), (8, "init=/bin/sh"));
    // What stands behind a boot is what was signed, whatever it is called.
    let running = |origin| Matched { name: shown.to_owned(), origin };
    for origin in [Origin::Document, Origin::Proposal(7)] {
        assert_eq!(effective.base_of(&running(origin)), base);
    }
    assert_eq!(effective.base_of(&running(Origin::Proposal(8))), None);
    assert_eq!(effective.base_of(&Matched { name: "6.1.0-55".to_owned(), origin: Origin::Document }), None);

    // Without the table nothing is trusted, whoever says so.
    let (without, _) = text.split_once("[trust_root_with_next_boot]").unwrap();
    let mut effective = Effective::new(&Policy::parse(without).unwrap(), None);
    effective.trust(7, &next, base);
    assert!(effective.policy().boots().len() == 1 && effective.trusted().next().is_none());
}

proptest! {
    #[test]
    fn damaged_proposals_are_refused_or_can_be_judged(at: prop::sample::Index, cut in 0usize..30, put in "[a-zA-Z0-9\"{},:. \\\\]{0,12}") {
        let text = uki().to_string();
        let at = at.index(text.len());
        let text = format!("{}{put}{}", &text[..at], &text[(at + cut).min(text.len())..]);
        if let Ok(proposal) = check_proposal(text.as_bytes()) {
            let policy = policy();
            let _ = covers(&policy, &proposal);
            if let Ok(boot) = boot_of(&proposal, &policy, None, Assured::default()) {
                prop_assert!(!boot_toml(&boot).is_empty());
                prop_assert!(!matches!(covers(&policy.with_boots(&[boot]), &proposal), Cover::No(_)));
            }
        }
    }
}
