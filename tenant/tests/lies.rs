//! What a server shows of policies is not believed.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::golden;
use common::lying::*;
use halfkey::home::key::TenantKey;
use halfkey_protocol::document::{Kind, Place, Scope, next};
use halfkey_protocol::wire::operator::*;
use halfkey_protocol::wire::policies::*;
use halfkey_protocol::wire::{Document, SignedDocument};

#[test]
fn only_what_this_workstation_signed_is_extended() {
    let setup = Setup::new();
    let (mine, other) = (setup.key(), TenantKey::generate().unwrap());
    let mut altered = mine.sign(&document("group:web", 1));
    altered.document.0[60] ^= 1;
    let mut said = String::new();
    for (what, policy) in [
        ("another key", other.sign(&document("group:web", 1))),
        ("altered", altered),
        ("for another scope", mine.sign(&document("group:db", 1))),
        ("another format", mine.sign(&Document { format: 2, ..document("group:web", 1) })),
    ] {
        setup.show(Some(policy));
        let (code, stderr) = setup.add();
        let stderr = stderr.replace(&mine.fingerprint(), "MINE").replace(&other.fingerprint(), "OTHER");
        said.push_str(&format!("# {what}: exit {code}\n{stderr}\n"));
        let ran = setup.workstation.run(&["policy", "diff", "group:web", "group:web"]);
        assert_eq!(ran.code, 6, "{ran:?}");
        // Looking is allowed, and says what it is worth.
        let ran = setup.workstation.run(&["policy", "show", "group:web"]);
        assert!(ran.code == 6 && ran.stderr.contains("NOT TRUSTED"), "{ran:?}");
    }
    golden::check("lies.txt", &said);
    assert!(setup.posts().is_empty(), "nothing was signed");
    let first = mine.sign(&document("group:web", 1));
    setup.rewrite(std::slice::from_ref(&first));
    setup.show(Some(first));
    let ran =
        setup.workstation.run(&["policy", "predict", "--uki", KERNEL, "--add", "--group", "web", "--yes"]);
    assert!(
        ran.code == 2 && ran.stderr.contains("--secure-boot on or off"),
        "no machine, so no guess: {ran:?}"
    );
    assert_eq!(setup.add(), (0, String::new()));
    assert_eq!(setup.versions(), [2]);
    assert!(setup.posts()[0].body.starts_with(POLICY.trim_end()), "its comments and its order are kept");
}

#[test]
fn an_older_version_is_noticed() {
    let setup = Setup::new();
    let file = setup.file(POLICY);
    let apply = ["policy", "apply", &file, "--group", "web", "--yes"];
    setup.workstation.ok(&apply);
    let first = setup.held.lock().unwrap().policy.clone();
    setup.workstation.ok(&apply);
    let second = setup.held.lock().unwrap().policy.clone();
    assert_eq!(setup.versions(), [1, 2]);

    for older in [first.clone(), None] {
        setup.show(older);
        let (code, said) = setup.add();
        assert!(code == 6 && said.contains("expected version 2 of group:web"), "{said}");
    }
    // Nor is it shown or compared as if it were the newest. By its number it may be looked at.
    setup.show(first.clone());
    for command in [&["policy", "show", "group:web"][..], &["policy", "diff", "group:web", &file]] {
        let ran = setup.workstation.run(command);
        assert!(ran.code == 6 && ran.stderr.contains("expected version 2 of group:web"), "{ran:?}");
        assert!(!ran.stderr.contains("signed by this workstation"), "{ran:?}");
    }
    let ran = setup.workstation.ok(&["policy", "show", "group:web", "--version", "1"]);
    assert!(ran.stderr.contains("signed by this workstation"), "{ran:?}");
    setup.workstation.ok(&["policy", "diff", "group:web@1", &file]);
    // Another one than that, and none.
    setup.show(second.clone());
    for command in
        [&["policy", "show", "group:web", "--version", "1"][..], &["policy", "diff", "group:web@1", &file]]
    {
        let ran = setup.workstation.run(command);
        assert!(ran.code == 6 && ran.stderr.contains("version 2 in place of version 1"), "{ran:?}");
    }
    setup.show(None);
    for command in [&["policy", "show", "group:web"][..], &["policy", "diff", "group:web", &file]] {
        let ran = setup.workstation.run(command);
        assert!(ran.code == 6 && ran.stderr.contains("expected version 2 of group:web"), "{ran:?}");
    }
    // The same version again with another text, by another workstation with the same key.
    let twin = Document { created: 5, ..after(&place(first.as_ref().unwrap()), "group:web") };
    setup.show(Some(setup.key().sign(&twin)));
    let (code, said) = setup.add();
    assert!(code == 6 && said.contains("another version 2 of group:web"), "{said}");
    assert_eq!(setup.versions().len(), 2, "nothing more was signed");

    // A whole document is the remedy; what was found is said.
    setup.show(first);
    let ran = setup.workstation.ok(&apply);
    assert!(ran.stderr.contains("warning: expected version 2"), "{ran:?}");
    assert_eq!(setup.versions(), [1, 2, 3]);

    // Another one came first: nothing is lost by trying again.
    setup.held.lock().unwrap().refuse = true;
    let ran = setup.workstation.run(&apply);
    assert!(ran.code == 1 && ran.stderr.contains("sequence"), "{ran:?}");
    setup.held.lock().unwrap().refuse = false;
    setup.workstation.ok(&apply);
    assert_eq!(setup.versions(), [1, 2, 3, 4, 4]);

    setup.held.lock().unwrap().swap = second;
    let ran = setup.workstation.run(&apply);
    assert!(ran.code == 6 && ran.stderr.contains("shows another one"), "{ran:?}");
    // Of all this nothing is lost when the file is damaged.
    std::fs::write(setup.workstation.home().join("documents.json"), "{").unwrap();
    let ran = setup.workstation.run(&apply);
    assert!(ran.code == 1 && ran.stderr.contains("documents.json is damaged"), "{ran:?}");
}

#[test]
fn a_policy_that_is_kept_back_is_missed() {
    const ID: &str = "0693542a-1082-8a03-94a9-3b7dd6971fe8";
    let setup = Setup::new();
    let sign = |scope: &str, version: u64, withdrawn: bool| {
        let mut document = document(scope, version);
        if withdrawn {
            (document.kind, document.body) = ("withdrawal".into(), String::new());
        }
        let signed = setup.key().sign(&document);
        let mut record = record(&signed);
        record.summary.scope = scope.into();
        record
    };
    let (own, additions) = (format!("node:{ID}"), format!("additions:{ID}"));
    let node = serde_json::json!({
        "id": ID, "label": "web1", "state": "enrolled", "pending": false, "last_seen": null,
        "last_outcome": null, "last_code": null
    });
    let tell = |path: String, what: serde_json::Value| {
        setup.held.lock().unwrap().others.insert(path, what);
    };
    let governed_by = |policy: Option<&PolicyRecord>, additions: Option<&PolicyRecord>| {
        let group = Some("web".to_owned());
        let member = Scope::parse(&format!("membership:{ID}")).unwrap();
        let membership = next(Kind::Membership, &member, HERE, &Place::default(), 1, "web".into());
        let membership = Some(setup.key().sign(&membership));
        let whole = NodePolicy {
            group,
            membership,
            policy: policy.cloned(),
            additions: additions.cloned(),
            trusted: vec![],
        };
        tell(format!("nodes/{ID}/policy"), serde_json::to_value(whole).unwrap());
    };
    let governed = |policy: &PolicyRecord| governed_by(Some(policy), None);
    let holds = |record: &PolicyRecord| {
        tell(format!("policies/{}", record.summary.scope), serde_json::to_value(record).unwrap());
    };
    tell("nodes".to_owned(), serde_json::json!({ "nodes": [node] }));
    holds(&sign(&additions, 1, false));
    holds(&sign("group:web", 1, false));
    let says = |what: &str| {
        let ran = setup.workstation.run(&["policy", "withdraw", ID, "--additions", "--yes"]);
        assert!(ran.code != 0 && ran.stderr.contains(what), "{what}: {ran:?}");
        ran.code
    };

    // The group's: a policy of the node's own, signed in its place, would outrank it for good.
    governed_by(None, Some(&sign(&additions, 1, false)));
    assert_eq!(
        says("version 1 of group:web, and says that the node, which is in that group, has no policy"),
        6
    );

    // The group's in place of the node's own, or without what it may boot besides.
    governed(&sign("group:web", 1, false));
    holds(&sign(&own, 1, false));
    assert_eq!(
        says("version 1 of node:0693542a-1082-8a03-94a9-3b7dd6971fe8, and says that it does not govern"),
        6
    );
    holds(&sign(&own, 2, true));
    assert_eq!(
        says("version 1 of additions:0693542a-1082-8a03-94a9-3b7dd6971fe8, and says that it does not"),
        6
    );
    // One that was withdrawn.
    governed(&sign(&own, 2, true));
    assert_eq!(says("version 2 governs the node, which was withdrawn"), 6);
    // An older one of the group than this workstation has signed.
    setup.held.lock().unwrap().others.remove("policies/group:web");
    let file = setup.file(POLICY);
    setup.workstation.ok(&["policy", "apply", &file, "--group", "web", "--yes"]);
    setup.workstation.ok(&["policy", "apply", &file, "--group", "web", "--yes"]);
    governed(&sign("group:web", 1, false));
    assert_eq!(says("expected version 2 of group:web"), 6);
    assert_eq!(setup.versions(), [1, 2], "nothing else was signed");
}

/// A name that the server made up is part of what the parser says.
#[test]
fn an_error_says_nothing_to_the_terminal() {
    let setup = Setup::new();
    let file = setup.file(POLICY);
    let mut evil = serde_json::to_value(document("group:db", 1)).unwrap();
    evil["\u{1b}[2J\u{9b}31mx\u{202e}\nhint: all is well"] = 1.into();
    let evil = serde_json::to_vec(&evil).unwrap().into();
    setup.rewrite(&[setup.key().sign(&document("group:db", 1))]);
    let documents = vec![SignedDocument { document: evil, signatures: vec![] }];
    let part = serde_json::to_value(SequencePart { documents }).unwrap();
    setup.held.lock().unwrap().others.insert("sequence?after=0".to_owned(), part);
    let ran = setup.workstation.run(&["policy", "apply", &file, "--group", "web", "--yes"]);
    assert!(ran.code == 6 && ran.stderr.contains("not one sequence"), "{ran:?}");
    let raw = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
    assert!(!ran.stderr.contains(raw) && !ran.stderr.contains("\nhint: all"), "{ran:?}");

    // As JSON it is the same text.
    let label = "web\u{9b}2J\u{202e}\u{7f}\u{e0041}1";
    let list = NodeList { nodes: vec![common::record::node("3f2a0000", label).summary], next: None };
    setup.held.lock().unwrap().others.insert("nodes".to_owned(), serde_json::to_value(&list).unwrap());
    let ran = setup.workstation.ok(&["nodes", "--json"]);
    assert!(!ran.stdout.contains(|c| raw(c) || c == '\u{e0041}'), "{ran:?}");
    assert_eq!(serde_json::from_str::<NodeList>(&ran.stdout).unwrap(), list);
}

#[test]
fn what_can_not_be_applied_is_said() {
    let setup = Setup::new();
    let file = setup.file(POLICY);
    let damaged = setup.workstation.path("damaged.toml").to_str().unwrap().to_owned();
    std::fs::write(&damaged, POLICY.replace("name = \"web servers\"", "name = \"web servers")).unwrap();
    let unknown = setup.workstation.path("unknown.toml").to_str().unwrap().to_owned();
    std::fs::write(&unknown, POLICY.replace("required = false", "requird = false")).unwrap();
    let binary = setup.workstation.path("binary.toml").to_str().unwrap().to_owned();
    std::fs::write(&binary, b"format = 1\xff").unwrap();
    let large = setup.workstation.path("large.toml").to_str().unwrap().to_owned();
    std::fs::write(&large, "#".repeat(MAX_POLICY + 1)).unwrap();
    let mut said = String::new();
    for args in [
        &["policy", "apply", &damaged, "--group", "web", "--yes"][..],
        &["policy", "apply", &unknown, "--group", "web", "--yes"],
        &["policy", "apply", &binary, "--group", "web", "--yes"],
        &["policy", "apply", &large, "--group", "web", "--yes"],
        &["policy", "apply", "/nonexistent/web.toml", "--group", "web", "--yes"],
        &["policy", "apply", &file, "--group", "Web servers", "--yes"],
        &["policy", "apply", &file, "--node", "nowhere", "--yes"],
        &["policy", "apply", &file, "--group", "web"],
        &["policy", "show", "web"],
        &["policy", "show", "group:web"],
        &["policy", "diff", "group:web", &file],
        &["policy", "diff", "nowhere.toml", &file],
        &["policy", "learn", "nowhere"],
        &["policy", "explain", "nowhere"],
        &["policy", "test", &file, "--against", "nowhere"],
        &["policy", "test", &file, "--against", "/nonexistent/log.bin"],
        &["policy", "predict", "--kernel", KERNEL, "--initrd", "/nonexistent/initrd", "--cmdline", "quiet"],
        &["policy", "predict", "--uki", &file],
        &["policy", "predict", "--package", &file],
        &["proposal", "show", "1"],
        &["proposal", "deny", "1", "--because", "two\nlines"],
    ] {
        let (code, stderr) = setup.workstation.error(args, setup.server.port);
        let args = args
            .join(" ")
            .replace(setup.workstation.dir.path().to_str().unwrap(), "DIR")
            .replace('\n', "\\n");
        said.push_str(&format!("# {args}: exit {code}\n{stderr}\n"));
    }
    golden::check("policy-errors.txt", &said);
    assert!(setup.posts().is_empty());
}
