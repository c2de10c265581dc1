use super::*;

const GOOD: &str = r#"
format = 1
name = "web servers"
ignore = [1, 3, 5, 6]

[secure_boot]
required = true
pk = ["sha256:1111111111111111111111111111111111111111111111111111111111111111"]
db = ["sha256:2222222222222222222222222222222222222222222222222222222222222222"]
dbx_at_least = []
authorities = ["sha256:2222222222222222222222222222222222222222222222222222222222222222"]

[firmware]
pcr0 = []
pcr2 = []

[command_line]
allowed = ["root=UUID=*", "quiet"]
required = ["systemd.import_credentials=no"]
forbidden = ["init=*"]

[[boot]]
name = "6.1.0-55"
initrd = "sha256:3333333333333333333333333333333333333333333333333333333333333333"
sections = [{ name = ".linux", digest = "sha256:4444444444444444444444444444444444444444444444444444444444444444" }, { name = ".initrd", digest = "sha256:3333333333333333333333333333333333333333333333333333333333333333" }]
[[boot.image]]
role = "uki"
authenticode = ["sha256:5555555555555555555555555555555555555555555555555555555555555555"]
[[boot.event]]
pcr = 12
text = "a line"

[[event]]
pcr = 7
digest = "sha256:6666666666666666666666666666666666666666666666666666666666666666"
because = "SbatLevel of shim"

[trust_root_with_next_boot]
until = 2026-12-31T00:00:00Z
count = 3
"#;

const FOUR: &str = "sha256:4444444444444444444444444444444444444444444444444444444444444444";

/// The problems of the document with one text in place of another.
fn policy(text: &str) -> Result<Document, Vec<Problem>> {
    super::policy(text).map(|(document, _)| document)
}

fn with(from: &str, to: &str) -> Vec<Problem> {
    assert_eq!(GOOD.matches(from).count(), 1, "{from} stands once");
    policy(&GOOD.replace(from, to)).map(|_| ()).expect_err(to)
}

#[track_caller]
fn first(from: &str, to: &str, place: (usize, usize), message: &str) {
    let problems = with(from, to);
    let problem = problems.iter().find(|problem| problem.message.contains(message));
    let problem = problem.unwrap_or_else(|| panic!("{message}: {problems:?}"));
    assert_eq!((problem.line, problem.column), place, "{}", problem.message);
    assert!(!problem.floor, "{}", problem.message);
    assert!(!problem.message.contains('\n'), "{}", problem.message);
}

#[track_caller]
fn floor(from: &str, to: &str, message: &str) {
    let problems = with(from, to);
    let found: Vec<_> = problems.iter().filter(|problem| problem.floor).collect();
    assert!(found.iter().any(|problem| problem.message.contains(message)), "{problems:?}");
}

#[test]
fn a_whole_document_is_read() {
    let document = policy(GOOD).expect("a good policy");
    assert_eq!((document.name.as_str(), document.ignore), ("web servers", 0b110_1010));
    assert_eq!(document.boots.len(), 1);
    assert_eq!(document.trust.map(|trust| (trust.until, trust.count)), Some((1_798_675_200, 3)));
    assert_eq!(document.firmware, [Some(Vec::new()), Some(Vec::new())]);
}

#[test]
fn the_firmware_of_the_tpm_may_be_pinned() {
    let pinned =
        |list: &str| policy(&GOOD.replace("[firmware]", &format!("[tpm]\nfirmware = {list}\n[firmware]")));
    let document = pinned("[\"0x0007005500000010\", \"0x20191023\"]").expect("a good policy");
    assert_eq!(document.tpm_firmware, Some(vec![0x0007_0055_0000_0010, 0x2019_1023]));
    assert_eq!(policy(GOOD).expect("a good policy").tpm_firmware, None);
    for (list, message) in [
        ("[]", "tpm.firmware: expected at least one version"),
        ("[\"7.85\"]", "versions of a TPM's firmware"),
        ("[\"0x+7\"]", "versions of a TPM's firmware"),
        ("[\"0x\"]", "versions of a TPM's firmware"),
        ("[\"0x00000000000000001\"]", "versions of a TPM's firmware"),
        ("[7]", "versions of a TPM's firmware"),
        ("[\"0x7\"]\nvendor = \"x\"", "tpm.vendor"),
    ] {
        let problems = pinned(list).map(|_| ()).expect_err(list);
        assert!(problems.iter().any(|problem| problem.message.contains(message)), "{list}: {problems:?}");
    }
    let problems = policy(&GOOD.replace("[firmware]", "[tpm]\n[firmware]")).map(|_| ()).expect_err("empty");
    assert!(problems.iter().any(|problem| problem.message.contains("firmware")), "{problems:?}");
}

#[test]
fn what_is_not_the_schema_is_found_where_it_stands() {
    first("name = \"web servers\"", "name = web", (3, 8), "not toml");
    first("format = 1", "format = 2", (2, 10), "expected 1, found 2");
    first("format = 1\n", "", (1, 1), "expected format = 1, found none");
    first("pk = [", "pks = [", (8, 1), "unknown key secure_boot.pks");
    first("count = 3", "count = \"3\"", (40, 9), "expected a number, found \"3\"");
    first("count = 3", "count = 0", (40, 9), "expected 1 to 1000");
    first("until = 2026-12-31T00:00:00Z", "until = 2026-12-31", (39, 9), "expected a time with its zone");
    first("required = true", "required = \"yes\"", (7, 12), "expected true or false, found \"yes\"");
    first(
        "role = \"uki\"",
        "role = \"UKI\"",
        (27, 8),
        "expected shim, loader, uki, kernel or other, found \"UKI\"",
    );
    first(
        "pk = [\"sha256:1111",
        "pk = [\"sha256:111g",
        (8, 7),
        "expected fingerprints (sha256: and 64 lower-case hex digits), found \"sha256:111g1",
    );
    first(
        "initrd = \"sha256:33",
        "initrd = \"sha256:3",
        (24, 10),
        "boot.initrd: expected \"signed\", \"in-uki\" or a digest",
    );
    first(
        "name = \".linux\"",
        "name = \"linux\"",
        (25, 22),
        "expected the name of a section (.linux), found \"linux\"",
    );
    first("[[boot]]\n", "[boot]\n", (22, 1), "expected [[boot]] with two brackets, found a table");
    first("ignore = [1,", "ignore = [1, \"2\",", (4, 14), "expected numbers of pcrs, found \"2\"");
    first("\"quiet\"]", "\"a b\"]", (18, 27), "expected a token without blanks, found \"a b\"");
    first("\"quiet\"]", "\"a*b\"]", (18, 27), "expected `*` only at the end of a token, found \"a*b\"");
    first(
        "\"quiet\"]",
        "\"quiet**\"]",
        (18, 27),
        "expected `*` only at the end of a token, found \"quiet**\"",
    );
    first(
        "\"quiet\"]",
        "\"*\u{fffd}\"]",
        (18, 27),
        "expected `*` only at the end of a token, found \"*\u{fffd}\"",
    );
    first("text = \"a line\"", "", (29, 1), "expected digest or text, found neither");
    first("name = \"6.1.0-55\"", "name = \"\\u0007\"", (23, 8), "expected 1 to 128 bytes of one line");
}

const IMA: &str = r#"
[ima]
violations = "not-judged"
not_judged = ["/var/log/", "/home/*/.cache/"]
[[ima.list]]
name = "debian"
digest = "sha256:5555555555555555555555555555555555555555555555555555555555555555"
[[ima.buffer]]
name = "kexec-cmdline"
texts = ["root=/dev/mapper/root ro"]
"#;

/// [`GOOD`] with the words, and [`IMA`] at its end with something else in it.
fn with_ima(from: &str, to: &str) -> Vec<(usize, usize, String)> {
    assert!(IMA.contains(from), "{from}");
    let text = GOOD.replace("import_credentials=no\"]", "import_credentials=no\", \"ima_policy=tcb\"]");
    let before = GOOD.lines().count();
    let problems = policy(&format!("{text}{}", IMA.replacen(from, to, 1))).map(|_| ()).expect_err(to);
    problems.into_iter().map(|problem| (problem.line - before, problem.column, problem.message)).collect()
}

#[test]
fn rules_for_ima_are_found_where_they_stand() {
    let list = &IMA[IMA.find("[[ima.list]]").expect("there")..IMA.find("[[ima.buffer]]").expect("there")];
    for (from, to, place, message) in [
        (
            "\"not-judged\"",
            "\"maybe\"",
            (3, 14),
            "ima.violations: expected refuse, not-judged or allow, found \"maybe\"",
        ),
        (
            "\"/var/log/\"",
            "\"var/log/\"",
            (4, 15),
            "ima.not_judged: expected a path that begins with /, found \"var/log/\"",
        ),
        ("\"/var/log/\"", "\"/*\"", (4, 15), "expected the name of a folder or file"),
        (
            "sha256:5555",
            "sha256:555g",
            (7, 10),
            "ima.list.digest: expected sha256: and 64 lower-case hex digits",
        ),
        ("name = \"debian\"\n", "", (5, 1), "expected ima.list.name, found none"),
        ("name = \"debian\"", "name = \"\"", (6, 8), "ima.list.name: expected 1 to 128 bytes"),
        ("name = \"debian\"", "nam = \"debian\"", (6, 1), "unknown key ima.list.nam"),
        ("name = \"kexec-cmdline\"", "name = \"/x\"", (9, 8), "ima.buffer.name: expected a buffer's name"),
        (
            "texts = [",
            "any = true\ntexts = [",
            (8, 1),
            "expected one of texts, digests and any = true, found none or several",
        ),
        ("texts = [\"root=/dev/mapper/root ro\"]", "any = false", (8, 1), "expected one of texts"),
        (
            "kexec-cmdline\"\n",
            "kexec-cmdline\"\n[[ima.signer]]\nname = \"x\"\npem = \"y\"\n",
            (12, 7),
            "ima.signer.pem: expected a certificate or a public key",
        ),
        (list, "", (2, 1), "expected at least one [[ima.list]] or [[ima.signer]], found none"),
    ] {
        let problems = with_ima(from, to);
        let found = problems.iter().find(|(.., found)| found.contains(message));
        let found = found.unwrap_or_else(|| panic!("{message}: {problems:?}"));
        assert_eq!((found.0, found.1), place, "{found:?}");
    }
    let twice = with_ima(list, &list.repeat(2));
    assert!(
        twice[0].2.contains("ima.list.name: expected each name once, found \"debian\" twice"),
        "{twice:?}"
    );
    let problems = additions(&format!("format = 1\nname = \"x\"\n{IMA}")).expect_err("of a group");
    assert!(problems[0].message.contains("unknown key ima"), "{problems:?}");
}

/// A list that nobody measures would be as good as any.
#[test]
fn rules_for_ima_ask_for_its_words() {
    let required = "required = [\"systemd.import_credentials=no\"]";
    let no = "[\"systemd.import_credentials=no\"";
    let floor = |line: &str| {
        let text = format!("{}{IMA}", GOOD.replace(required, line));
        let problems = policy(&text).map(|_| ()).err().unwrap_or_default();
        problems
            .into_iter()
            .map(|problem| {
                assert!(problem.floor);
                problem.message
            })
            .collect::<Vec<_>>()
            .join("; ")
    };
    for words in ["ima_policy=tcb", "ima_policy=appraise_tcb|tcb"] {
        assert_eq!(floor(&format!("required = {no}, \"{words}\"]")), "");
    }
    for words in ["ima_policy=appraise_tcb", "ima_policy=tcb*", "ima_policy=xtcb"] {
        assert!(
            floor(&format!("required = {no}, \"{words}\"]")).contains("expected ima_policy=tcb, found none"),
            "{words}"
        );
    }
    for words in ["ima_tcb", "ima=off", "ima-template-fmt=*"] {
        let said = floor(&format!("required = {no}, \"ima_policy=tcb\", \"{words}\"]"));
        assert!(said.contains(&format!("command_line.required: expected no {words}: ")), "{said}");
    }
    let own = |line: &str| {
        let line = format!("name = \"6.1.0-55\"\ncommand_line = \"systemd.import_credentials=no {line}\"");
        let text = GOOD.replace(required, &format!("required = {no}, \"ima_policy=tcb\"]"));
        let text = format!("{}{IMA}", text.replace("name = \"6.1.0-55\"", &line));
        policy(&text)
            .map(|_| ())
            .err()
            .unwrap_or_default()
            .into_iter()
            .map(|problem| problem.message)
            .collect::<String>()
    };
    assert_eq!(own("ima_policy=tcb"), "");
    assert!(own("quiet").contains(
        "boot.command_line: expected token ima_policy=tcb, as the policy has [ima], found none such"
    ));
    // To the kernel it is a part of another word.
    assert!(own("x='a ima_policy=tcb b'").contains("expected token ima_policy=tcb"));
    assert!(own("ima_policy=tcb ima_tcb").contains("no token ima_tcb: the kernel takes an older policy"));
}

#[test]
fn contradictions_are_found() {
    first("ignore = [1,", "ignore = [1, 1,", (4, 14), "expected each pcr once, found 1 twice");
    first("ignore = [1,", "ignore = [0, 1,", (13, 1), "firmware.pcr0: pcr 0 is ignored as well");
    first("ignore = [1,", "ignore = [10, 1,", (4, 11), "pcr 10 is ima's");
    first(
        "ignore = [1, 3,",
        "ignore = [1,",
        (1, 1),
        "pcr 3 (their configuration) is neither covered nor ignored",
    );
    first(
        "pcr2 = []",
        &format!("pcr2 = []\n[pcr]\n\"3\" = [\"{FOUR}\"]"),
        (17, 7),
        "pcr.3: pcr 3 is ignored as well",
    );
    first("dbx_at_least = []", "dbx = []\ndbx_at_least = []", (10, 7), "found both");
    first("dbx_at_least = []\n", "", (6, 1), "found neither: a boot loader that was revoked would pass");
    first("\"quiet\"]", "\"init=/bin/sh\"]", (18, 27), "init=/bin/sh is forbidden as well, by init=*");
    first(
        "forbidden = [\"init=*\"]",
        "forbidden = [\"systemd.*\"]",
        (19, 13),
        "is forbidden as well, by systemd.*",
    );
    first("forbidden = [", "exact = [\"x\"]\nforbidden = [", (20, 9), "found both");
    first("pcr = 12", "pcr = 4", (30, 7), "boot.event.pcr: expected 8, 9 or 11 to 14, found 4");
    first("pcr = 7", "pcr = 5", (34, 7), "pcr 5 is ignored as well");
    first("pcr = 7", "pcr = 15", (34, 7), "expected 0 to 9 or 11 to 14, found 15");
    first("sections = [{ name", "sections = [{ nam", (25, 15), "unknown key boot.sections.nam");
    first(
        "sections = [{ name = \".linux\"",
        "sections = [{ name = 5",
        (25, 22),
        "expected a string, found 5",
    );
    first(
        "sections = [{ name = \".linux\",",
        "sections = [{",
        (25, 13),
        "expected boot.sections.name, found none",
    );
    first("sections = [{", "sections = { linux = 1 } # [{", (25, 12), "or a list of { name =");
    first("authorities = [", "kek = [", (6, 1), "secure_boot.authorities: expected the certificates");
    let again =
        GOOD[GOOD.find("[[boot]]").expect("there")..GOOD.find("[[boot.event]]").expect("there")].to_owned();
    let problems = policy(&format!("{GOOD}{again}")).map(|_| ()).expect_err("two boots of one name");
    assert!(
        problems[0].message.contains("expected each name once, found \"6.1.0-55\" twice"),
        "{problems:?}"
    );
}

#[test]
fn the_floor_says_why() {
    floor(
        "ignore = [1,",
        "ignore = [4, 1,",
        "pcr 4 can't be ignored: it says which boot loader and kernel were started",
    );
    floor(
        "initrd = \"sha256:3333333333333333333333333333333333333333333333333333333333333333\"\n",
        "",
        "whoever changes it has the key",
    );
    floor(
        "role = \"uki\"",
        "role = \"loader\"",
        "a boot path that ends at a boot loader lets it start any kernel",
    );
    floor(
        "required = [\"systemd.import_credentials=no\"]",
        "required = []",
        "systemd takes credentials from firmware",
    );
    floor("required = true", "required = false", "expected efi=noruntime, found none");
    floor(
        "sections = [{",
        "sections = \"signed\" # [{",
        "sections: expected digests, found \"signed\": the uki has no signer that could vouch for them",
    );
    floor(
        "role = \"uki\"",
        "role = \"kernel\"",
        "expected kernel_measures_initrd = true, a uki, or the events of grub",
    );
    floor("name = \"6.1.0-55\"", "name = \"x\"\nkernel_measures_initrd = true", "found it beside a uki");
    floor("\"quiet\"]", "\"rdinit=/bin/sh\"]", "rdinit=/bin/sh is always forbidden");
    let start = GOOD.find("[[boot]]").expect("there");
    let end = GOOD.find("[[event]]").expect("there");
    let no_boot = format!("{}{}", &GOOD[..start], &GOOD[end..]);
    let problems = policy(&no_boot).map(|_| ()).expect_err("no boot");
    assert!(
        problems.iter().any(|problem| problem.floor && problem.message.contains("every generic initramfs")),
        "{problems:?}"
    );
    let lines = &GOOD[GOOD.find("[command_line]").expect("there")..start];
    let problems = policy(&GOOD.replace(lines, "")).map(|_| ()).expect_err("no command line");
    assert!(
        problems
            .iter()
            .any(|problem| problem.floor && problem.message.contains("found neither: a command line like"))
    );
}

#[test]
fn problems_come_together_and_in_order() {
    let text = GOOD
        .replace("format = 1", "format = 9")
        .replace("role = \"uki\"", "role = \"x\"")
        .replace("count = 3", "count = 0\nmore = 1");
    let problems = policy(&text).map(|_| ()).expect_err("four problems");
    let lines: Vec<_> = problems.iter().map(|problem| problem.line).collect();
    assert!(problems.len() >= 4 && lines.is_sorted(), "{problems:?}");
    let many: String = (0..1000).map(|number| format!("key{number} = 1\n")).collect();
    assert_eq!(policy(&many).map(|_| ()).expect_err("a thousand problems").len(), 64);
    assert_eq!(policy("a = [1, b, c, d").map(|_| ()).expect_err("one that others follow from").len(), 1);
    assert!(policy(&"#".repeat(MAX_POLICY + 1)).is_err());
}

#[test]
fn additions_are_a_part_of_the_schema() {
    let boot = &GOOD[GOOD.find("[[boot]]").expect("there")..GOOD.find("[trust_root").expect("there")];
    let good = format!("format = 1\nname = \"spare disk\"\n[command_line]\nallowed = [\"debug\"]\n{boot}");
    let read = additions(&good).expect("good additions");
    assert_eq!((read.boots().len(), read.name()), (1, "spare disk"));
    for (from, to, message) in [
        ("allowed", "required", "unknown key command_line.required"),
        ("format = 1", "format = 1\nignore = [1]", "unknown key ignore"),
        ("debug", "rdinit=/x", "always forbidden"),
    ] {
        let problems = additions(&good.replace(from, to)).map(|_| ()).expect_err(message);
        assert!(problems.iter().any(|problem| problem.message.contains(message)), "{problems:?}");
    }
}

proptest::proptest! {
    #[test]
    fn damaged_documents_do_not_panic(at in 0usize..GOOD.len(), cut in 0usize..60, put in ".{0,12}") {
        let (from, to) = (GOOD.floor_char_boundary(at), GOOD.floor_char_boundary((at + cut).min(GOOD.len())));
        let text = format!("{}{put}{}", &GOOD[..from], &GOOD[to..]);
        if let Err(problems) = policy(&text) {
            let lines = text.lines().count() + 1;
            proptest::prop_assert!(!problems.is_empty() && problems.iter().all(|problem| (1..=lines).contains(&problem.line)));
        }
    }
}
