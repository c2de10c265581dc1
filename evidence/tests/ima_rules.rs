//! Rules about IMA lists: what is accepted, and what is said of what is not.

#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

use halfkey_evidence::digest::Bank;
use halfkey_evidence::ima::{
    BootAggregate, BootPcrs, Budget, BufferContent, BufferRule, DigestList, Increment, ListAppraisal,
    NamedList, PathPattern, QuotedPcr, Refusal, Rules, SignatureFault, Signer, Signers, State, Verdict,
    Violations, advance, appraise, judge,
};
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_testkit::hex;
use halfkey_testkit::ima::{FileKey, HASH_SHA256, ImaList, Kernel, attribute, d_ng, n_ng, sha1, sha256};
use proptest::prelude::*;
use rcgen::{CertificateParams, IsCa, KeyPair};
use std::sync::Arc;

const SHA256: PcrBank = PcrBank::Sha256;
/// PCR 0 to 9.
const PCRS: [u8; 320] = [6; 320];

fn digests(lines: &[(&str, &[u8])]) -> Arc<DigestList> {
    let lines: Vec<_> =
        lines.iter().map(|(path, content)| format!("sha256:{} {path}\n", hex(&sha256(content)))).collect();
    Arc::new(DigestList::parse(lines.concat().as_bytes()).unwrap())
}

fn rules(lines: &[(&str, &[u8])]) -> Rules {
    let list = NamedList { name: "debian".to_owned(), list: digests(lines) };
    Rules { lists: vec![list], ..Rules::default() }
}

fn booted() -> ImaList {
    ImaList::booted(SHA256, &PCRS)
}

fn boot() -> [BootPcrs<'static>; 1] {
    [BootPcrs { bank: Bank::Sha256, values: &PCRS }]
}

fn appraised(rules: &Rules, list: &ImaList) -> ListAppraisal {
    let quoted = QuotedPcr::assumed(SHA256, list.value()).unwrap();
    let increment = Increment { first: 0, bytes: &list.bytes, complete: true };
    appraise(
        rules,
        &boot(),
        &advance(&State::new(SHA256), &increment, &quoted).unwrap(),
        &mut Budget::default(),
    )
}

/// What becomes of the entry behind the first.
fn second<'r>(rules: &'r Rules, list: &ImaList) -> Verdict<'r> {
    let bytes = list.from(1).to_vec();
    let entry = halfkey_evidence::ima::Reader::new(&bytes).next().unwrap().unwrap();
    judge(rules, &boot(), 1, &entry, &mut Budget::default())
}

/// The only finding, as one line.
fn finding(rules: &Rules, list: &ImaList) -> String {
    let result = appraised(rules, list);
    assert_eq!((result.findings.len(), result.accepted()), (1, false), "{result:?}");
    let finding = &result.findings[0];
    format!("{} | {} | {} | {}", finding.what, finding.rule, finding.expected, finding.found)
}

#[test]
fn listed_files_pass_at_their_paths() {
    let rules = rules(&[("/usr/bin/true", b"true"), ("/usr/bin/true", b"true 2"), ("*", b"anywhere")]);
    let mut list = booted();
    list.file("/usr/bin/true", &sha256(b"true"));
    list.file("/usr/bin/true", &sha256(b"true 2"));
    list.file("/opt/x", &sha256(b"anywhere"));
    let good = appraised(&rules, &list);
    assert_eq!((good.listed, good.other, good.accepted()), (3, 1, true), "{good:?}");

    let other = |name: &str, content: &[u8]| {
        let mut list = booted();
        list.file(name, &sha256(content));
        finding(&rules, &list)
    };
    let hash = |content: &[u8]| format!("sha256:{}", hex(&sha256(content)));
    let two = [hash(b"true"), hash(b"true 2")].map(|digest| format!("{digest} (list debian)"));
    let said = other("/usr/bin/true", b"evil");
    assert!(said.starts_with("ima entry 1, /usr/bin/true | list debian | "), "{said}");
    assert!(
        two.iter().all(|expected| said.contains(expected)) && said.ends_with(&format!("| {}", hash(b"evil")))
    );
    assert_eq!(
        other("/tmp/true", b"true"),
        format!(
            "ima entry 1, /tmp/true | no rule | a digest that is listed | {}, which list debian has for /usr/bin/true",
            hash(b"true")
        )
    );
    // The name of no file: `*` does not stand for it.
    assert!(other("kexec-cmdline", b"anywhere").contains("no rule"));
    let escaped = other("/tmp/\u{1b}[2J\n", b"evil");
    assert!(escaped.contains("/tmp/\\u{1b}[2J\\n"), "{escaped}");
}

#[test]
fn a_signature_by_a_key_of_the_keyring_is_enough() {
    for key in [FileKey::rsa(), FileKey::ecdsa()] {
        let signer = |name: &str, key: &FileKey| Signer::from_pem_or_der(name, &key.public_key()).unwrap();
        assert_eq!(signer("ours", &key).ids(), [u32::from_be_bytes(key.id())]);
        let rules = Rules { signers: Arc::new(Signers::new(vec![signer("ours", &key)])), ..Rules::default() };
        let verdict = |digest: &[u8], signature: &[u8]| {
            let mut list = booted();
            list.entry("ima-sigv2", &[digest, &n_ng("/usr/bin/x"), signature]);
            match second(&rules, &list) {
                Verdict::Signed(name) => Ok(name.to_owned()),
                Verdict::Refused(Refusal::Unlisted(fault)) => Err(fault),
                other => panic!("{other:?}"),
            }
        };
        let (file, verity) = (d_ng("ima:sha256", &sha256(b"x")), d_ng("verity:sha256", &sha256(b"x")));
        let ours = Ok("ours".to_owned());
        assert_eq!(verdict(&file, &key.sign(b"x")), ours);
        assert_eq!(verdict(&file, &key.sign_id(attribute::FILE, &sha256(b"x"))), ours);
        assert_eq!(verdict(&verity, &key.sign_id(attribute::VERITY, &sha256(b"x"))), ours);

        let id = u32::from_be_bytes(key.id());
        let fault = |fault| Err(Some(fault));
        assert_eq!(verdict(&file, b""), Err(None));
        assert_eq!(verdict(&file, &key.sign(b"y")), fault(SignatureFault::Wrong(id)));
        // A verity digest is not that of a file, and the other way round.
        assert_eq!(verdict(&verity, &key.sign(b"x")), fault(SignatureFault::OtherDigest));
        assert_eq!(
            verdict(&file, &key.sign_id(attribute::VERITY, &sha256(b"x"))),
            fault(SignatureFault::OtherDigest)
        );
        assert_eq!(
            verdict(&file, &key.sign_id(attribute::PORTABLE, &sha256(b"x"))),
            fault(SignatureFault::Portable)
        );
        // What was signed as one version is not good as another.
        let message = [&[attribute::FILE, HASH_SHA256], &sha256(b"x")[..]].concat();
        assert_eq!(
            verdict(&file, &key.attribute(attribute::FILE, 2, HASH_SHA256, &message)),
            fault(SignatureFault::Wrong(id))
        );
        assert_eq!(
            verdict(&file, &key.attribute(attribute::FILE, 3, HASH_SHA256, b"x")),
            fault(SignatureFault::Wrong(id))
        );
        assert_eq!(
            verdict(&file, &key.attribute(attribute::FILE, 2, 5, b"x")),
            fault(SignatureFault::OtherDigest)
        );
        assert_eq!(
            verdict(&file, &key.attribute(attribute::FILE, 2, 2, b"x")),
            fault(SignatureFault::Algorithm(2))
        );
        assert_eq!(
            verdict(&file, &key.attribute(attribute::FILE, 1, 4, b"x")),
            fault(SignatureFault::Malformed)
        );
        assert_eq!(
            verdict(&file, &key.attribute(attribute::VERITY, 2, 4, b"x")),
            fault(SignatureFault::Malformed)
        );
        let mut longer = key.sign(b"x");
        longer.push(0);
        assert_eq!(verdict(&file, &longer), fault(SignatureFault::Malformed));
        let stranger = FileKey::ecdsa();
        let unknown = SignatureFault::UnknownKey(u32::from_be_bytes(stranger.id()));
        assert_eq!(verdict(&file, &stranger.sign(b"x")), fault(unknown));

        let mut list = booted();
        list.signed("/usr/bin/x", &sha256(b"x"), &stranger.sign(b"x"));
        let said = finding(&rules, &list);
        assert!(
            said.contains("| a digest that is listed, or")
                || said.contains("| a signature by a key of the keyring |")
        );
        assert!(
            said.ends_with(&format!(
                "a signature by key {}, which is not on the keyring",
                hex(&stranger.id())
            ))
        );
    }
}

#[test]
fn a_list_has_a_budget_of_signatures() {
    let key = FileKey::ecdsa();
    let signer = Signer::from_pem_or_der("ours", &key.public_key()).unwrap();
    let rules = Rules { signers: Arc::new(Signers::new(vec![signer])), ..Rules::default() };
    let mut list = booted();
    for file in ["/a", "/b", "/c", "/d"] {
        list.signed(file, &sha256(file.as_bytes()), &key.sign(file.as_bytes()));
    }
    // By a key that nobody knows: nothing is tried.
    list.signed("/e", &sha256(b"/e"), &FileKey::ecdsa().sign(b"/e"));
    let quoted = QuotedPcr::assumed(SHA256, list.value()).unwrap();
    let increment = Increment { first: 0, bytes: &list.bytes, complete: true };
    let advance = advance(&State::new(SHA256), &increment, &quoted).unwrap();
    let mut budget = Budget::new(3);
    let result = appraise(&rules, &boot(), &advance, &mut budget);
    assert_eq!((result.signed, result.refused), (3, 2));
    let said = &result.findings[0];
    assert!(said.found.ends_with("a signature that was not tried: this list has too many"), "{said:?}");
    assert!(said.hint.as_deref().is_some_and(|hint| hint.contains("25000 signatures")), "{said:?}");
    assert!(result.findings[1].found.ends_with("which is not on the keyring"), "{:?}", result.findings[1]);
    // The next part of the same list has none left.
    assert_eq!(appraise(&rules, &boot(), &advance, &mut budget).signed, 0);
}

#[test]
fn certificates_are_named_by_their_key_identifier_and_their_key() {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::ExplicitNoCa;
    let certificate = params.self_signed(&key).unwrap();
    let pem = Signer::from_pem_or_der("ours", certificate.pem().as_bytes()).unwrap();
    let der = Signer::from_pem_or_der("ours", certificate.der()).unwrap();
    let bare = Signer::from_pem_or_der("ours", key.public_key_pem().as_bytes()).unwrap();
    assert_eq!((pem.ids(), pem.ids().len(), bare.ids().len()), (der.ids(), 2, 1));
    assert_eq!(pem.ids()[1], bare.ids()[0]);
    for file in [
        &b""[..],
        b"0",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        &key.serialize_der(),
    ] {
        assert!(Signer::from_pem_or_der("x", file).is_err());
    }
    let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let error = Signer::from_pem_or_der("x", ed25519.public_key_pem().as_bytes()).unwrap_err();
    assert!(error.starts_with("expected an rsa or ecdsa key"), "{error}");
}

#[test]
fn paths_that_are_not_judged_and_violations() {
    let mut rules = Rules { not_judged: vec![PathPattern::parse("/var/log/").unwrap()], ..Rules::default() };
    let mut list = booted();
    list.file("/var/log/x", &sha256(b"x"));
    let result = appraised(&rules, &list);
    assert_eq!((result.not_judged, result.accepted()), (1, true));

    list.violation("/var/log/syslog");
    let said = finding(&rules, &list);
    assert!(said.starts_with("ima entry 2, /var/log/syslog | violations | none | "), "{said}");
    rules.violations = Violations::NotJudgedOnly;
    assert!(appraised(&rules, &list).accepted());
    list.violation("/usr/bin/x");
    assert_eq!((appraised(&rules, &list).refused, appraised(&rules, &list).violations), (1, 2));
    rules.violations = Violations::Allow;
    assert!(appraised(&rules, &list).accepted());
}

#[test]
fn buffers_need_a_rule_of_their_own() {
    let certificate = b"\x30\x82 a certificate";
    let digest = halfkey_evidence::policy::rules::Digest::of(SHA256, certificate);
    let texts = BufferContent::Texts(vec!["root=/dev/mapper/root ro".to_owned()]);
    let rules = Rules {
        buffers: vec![
            BufferRule::new("kexec-cmdline", texts).unwrap(),
            BufferRule::new(".ima", BufferContent::Digests(vec![digest])).unwrap(),
            BufferRule::new("selinux-state-*", BufferContent::Any).unwrap(),
        ],
        ..rules(&[("*", b"root=/dev/mapper/root init=/bin/sh")])
    };
    let verdict = |name: &str, content: &[u8]| {
        let mut list = booted();
        list.buffer(name, content);
        second(&rules, &list)
    };
    assert_eq!(verdict("kexec-cmdline", b"root=/dev/mapper/root ro"), Verdict::Buffer("kexec-cmdline"));
    assert_eq!(verdict(".ima", certificate), Verdict::Buffer(".ima"));
    assert_eq!(verdict("selinux-state-1595389364:287", b"x"), Verdict::Buffer("selinux-state-*"));
    let refused = Refusal::BufferContent("kexec-cmdline");
    assert_eq!(verdict("kexec-cmdline", b"root=/dev/mapper/root init=/bin/sh"), Verdict::Refused(refused));
    assert_eq!(verdict(".evm", certificate), Verdict::Refused(Refusal::Buffer));
    // A list that shows another text than was measured.
    let mut list = booted();
    list.entry(
        "ima-buf",
        &[&d_ng("sha256", &sha256(b"evil")), &n_ng("kexec-cmdline"), b"root=/dev/mapper/root ro"],
    );
    assert_eq!(second(&rules, &list), Verdict::Refused(Refusal::BufferDigest));
    // The same bytes under another label: no `*` stands for the name of a buffer.
    let content = b"root=/dev/mapper/root init=/bin/sh";
    let mut list = booted();
    list.entry("ima-sig", &[&d_ng("sha256", &sha256(content)), &n_ng("kexec-cmdline"), content]);
    assert!(matches!(second(&rules, &list), Verdict::Refused(Refusal::Unlisted(_))));
    // A file that begins as a signature does, and has itself as its signature, is one entry of both templates.
    for kind in [attribute::FILE, attribute::PORTABLE, attribute::VERITY] {
        let script = [&[kind][..], b"\nexec sh"].concat();
        let mut list = booted();
        list.entry("ima-buf", &[&d_ng("sha256", &sha256(&script)), &n_ng("selinux-state-x"), &script]);
        assert_eq!(second(&rules, &list), Verdict::Refused(Refusal::BufferMayBeFile("selinux-state-*")));
        let said = finding(&rules, &list);
        assert!(
            said.contains("| buffer selinux-state-* | content that is no signature of a file | "),
            "{said}"
        );
    }
    for name in ["", "*", "/usr/bin/x", "a*b"] {
        assert!(BufferRule::new(name, BufferContent::Any).is_err(), "{name}");
    }
}

#[test]
fn boot_aggregates_are_of_this_boot() {
    let first = |digest: &[u8], number: u64| {
        let mut list = ImaList::new(SHA256, Kernel::OwnHash);
        list.entry("ima-ng", &[digest, &n_ng("boot_aggregate")]);
        let entry = halfkey_evidence::ima::Reader::new(&list.bytes).next().unwrap().unwrap();
        match judge(&Rules::default(), &boot(), number, &entry, &mut Budget::default()) {
            Verdict::Boot(found) => Ok(found),
            Verdict::Refused(Refusal::BootAggregate(found)) => Err(found),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(first(&d_ng("sha256", &sha256(&PCRS)), 0), Ok(BootAggregate::Matches));
    // Kernels before 5.8: PCR 0 to 7.
    assert_eq!(first(&d_ng("sha256", &sha256(&PCRS[..256])), 0), Ok(BootAggregate::Matches));
    assert_eq!(first(&d_ng("sha256", &sha256(&PCRS[..288])), 0), Err(BootAggregate::Differs));
    // Nothing to compare these with. A file that is called so comes later.
    assert_eq!(first(&d_ng("sha1", &sha1(b"x")), 0), Ok(BootAggregate::OfAnotherBank));
    assert_eq!(first(&d_ng("sha1", &sha1(b"x")), 7), Err(BootAggregate::OfAnotherBank));
    assert_eq!(first(&d_ng("sha256", &[0; 32]), 0), Ok(BootAggregate::Zero));
    assert_eq!(first(&d_ng("sha256", &[0; 32]), 1), Err(BootAggregate::Zero));
}

#[test]
fn kexec_is_a_second_kernel() {
    let mut list = booted();
    list.file("boot_aggregate_late", &sha256(&PCRS));
    assert!(appraised(&Rules::default(), &list).accepted());
    list.file("boot_aggregate", &sha256(&PCRS));
    assert!(
        finding(&Rules::default(), &list).ends_with("| kexec | one kernel | another one, started by kexec")
    );
    assert!(appraised(&Rules { kexec: true, ..Rules::default() }, &list).accepted());
}

#[test]
fn what_is_wrong_with_the_whole_list_is_a_finding() {
    let mut list = booted();
    for number in 0..200 {
        list.file(&format!("/opt/{number}"), &sha256(b"x"));
    }
    let result = appraised(&Rules::default(), &list);
    assert_eq!((result.refused, result.findings.len()), (200, 100));
    let increment = Increment { first: 0, bytes: list.from(1), complete: true };
    let quoted = QuotedPcr::assumed(SHA256, list.value()).unwrap();
    let trimmed = advance(&State::new(SHA256), &increment, &quoted).unwrap();
    let result = appraise(&Rules::default(), &boot(), &trimmed, &mut Budget::default());
    assert_eq!(result.findings[0].expected, "boot_aggregate as first entry");
    assert!(!result.accepted());
}

#[test]
fn digest_lists_are_read_written_and_named_by_what_they_say() {
    let hash = hex(&sha256(b"x"));
    let sha1 = hex(&sha1(b"x"));
    let text = format!(
        "# made by hand\n\nsha256:{hash} /b with blank\nverity:sha256:{hash} *\nsha1:{sha1} /a\nsha256:{hash} /a\nsha256:{hash} /a\n"
    );
    let list = DigestList::parse(text.as_bytes()).unwrap();
    let canonical =
        format!("sha1:{sha1} /a\nsha256:{hash} /a\nsha256:{hash} /b_with_blank\nverity:sha256:{hash} *\n");
    assert_eq!(String::from_utf8(list.to_text()).unwrap(), canonical);
    assert_eq!((list.len(), &list.id()[..]), (4, &sha256(canonical.as_bytes())[..]));
    assert_eq!(list.id(), DigestList::parse(canonical.as_bytes()).unwrap().id());
    assert_eq!(list.expected(b"/a", 9), [format!("sha1:{sha1}"), format!("sha256:{hash}")]);
    assert_eq!(list.expected(b"/a", 1).len(), 1);
    assert_eq!((list.expected(b"/c", 9), list.expected(b"", 9)), (vec![], vec![]));
    assert_eq!(DigestList::parse(b"").unwrap().to_text(), b"");
    for (line, error) in [
        ("sha256:00 /a", "line 1: expected 64 hex digits"),
        ("md5:00 /a", "line 1: expected `sha256:<hex digits> PATH`"),
        (&format!("sha256:{hash}"), "line 1: expected `sha256"),
        (&format!("sha256:{hash} "), "line 1: expected a path"),
        (&format!("sha256:{} /a", hash.to_uppercase()), "line 1: expected 64 hex"),
        (&format!("\nsha256:{hash} /\0"), "line 2: expected a path, found a nul"),
        (&format!("sha256:{hash} /{}", "a".repeat(4095)), "line 1: expected a path of at most"),
    ] {
        let found = DigestList::parse(line.as_bytes()).unwrap_err();
        assert!(found.starts_with(error), "{found}");
    }
}

proptest! {
    #[test]
    fn a_list_contains_its_lines_and_nothing_else(
        lines in proptest::collection::vec((0u8..20, proptest::option::of("/[a-c]{1,2}")), 0..40),
        asked in proptest::collection::vec((0u8..20, "/[a-c]{1,2}"), 10),
    ) {
        // Digests that share their first bits.
        let digest = |number: u8| [vec![number / 7; 31], vec![number]].concat();
        let text: String = lines
            .iter()
            .map(|(number, path)| format!("sha256:{} {}\n", hex(&digest(*number)), path.as_deref().unwrap_or("*")))
            .collect();
        let list = DigestList::parse(text.as_bytes()).unwrap();
        let again = DigestList::parse(&list.to_text()).unwrap();
        prop_assert_eq!(again.id(), list.id());
        for (number, path) in asked {
            let mut written = ImaList::new(SHA256, Kernel::OwnHash);
            written.file(&path, &digest(number));
            let entry = halfkey_evidence::ima::Reader::new(&written.bytes).next().unwrap().unwrap();
            let expected = lines.iter().any(|(listed, at)| *listed == number && at.as_ref().is_none_or(|at| *at == path));
            prop_assert_eq!(list.contains(&entry.digest().unwrap(), path.as_bytes()), expected);
        }
    }

    #[test]
    fn any_text_is_a_list_or_is_refused(text in "(sha256:[0-9a-f]{64} [/*a]{1,3}\n|[a-z0-9: \n]{0,20}){0,6}") {
        if let Ok(list) = DigestList::parse(text.as_bytes()) {
            prop_assert!(list.len() <= text.lines().count());
        }
    }
}

/// Lists that the fuzzer begins with. `HALFKEY_BLESS=1` writes them.
#[test]
fn seeds_of_the_fuzzer_are_lists() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/ima");
    let digest = sha256(b"x");
    let mut listed = ImaList::booted(SHA256, &[0; 320]);
    listed.file("/usr/bin/x", &digest);
    listed.signed("/usr/bin/y", &digest, &[&[3, 2, 4, 1, 2, 3, 4, 0, 2][..], b"xx"].concat());
    listed.buffer("kexec-cmdline", b"ro");
    listed.violation("/var/a/log/x");
    let mut templates = ImaList::new(SHA256, Kernel::OwnHash);
    templates.fixed("boot_aggregate", &[7; 20]);
    templates.entry("ima-ngv2", &[&d_ng("ima:sha256", &digest), &n_ng("/usr/bin/x")]);
    templates.entry("ima-sigv2", &[&d_ng("verity:sha256", &digest), &n_ng("/usr/bin/x"), b""]);
    templates.entry(
        "ima-modsig",
        &[&d_ng("sha256", &digest), &n_ng("/m.ko"), b"", &d_ng("sha256", &digest), b"PKCS"],
    );
    let evm: [&[u8]; 9] =
        [&d_ng("sha256", &digest), &n_ng("/e"), b"\x05", b"a|b", &[0; 8], b"", &[0; 4], &[0; 4], &[0; 2]];
    templates.entry("evm-sig", &evm);
    templates.entry("d|n|iuid", &[&[5; 20], &n_ng("/custom"), &[0; 4]]);
    templates.entry("unheard-of", &[b"?"]);
    let digests = format!("sha256:{} /usr/bin/x\nverity:sha256:{} *\n", hex(&digest), hex(&sha256(b"y")));
    for (name, seed) in
        [("listed", &listed.bytes), ("templates", &templates.bytes), ("digests", &digests.into_bytes())]
    {
        let file = folder.join(name);
        if std::env::var_os("HALFKEY_BLESS").is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&file, seed).unwrap();
        }
        assert_eq!(&std::fs::read(&file).unwrap(), seed, "HALFKEY_BLESS=1 writes {}", file.display());
    }
    let quoted = QuotedPcr::assumed(SHA256, templates.value()).unwrap();
    let increment = Increment { first: 0, bytes: &templates.bytes, complete: true };
    assert!(advance(&State::new(SHA256), &increment, &quoted).unwrap().is_healthy());
    let listed = appraised(&rules(&[("/usr/bin/x", b"x")]), &listed);
    // The boot aggregate is of other PCRs, nobody allows the buffer, the file that is signed by nobody known, and the violation.
    assert_eq!((listed.listed, listed.refused), (1, 4));
}
