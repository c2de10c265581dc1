//! What KEK and db gain: learned from the boot that waits, or predicted from the files that will bring it.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::Workstation;
use common::node::{Node, software};
use common::setup::{CMDLINE, enrolled, grouped, json, said};
use halfkey_protocol::tpm::kdf::Hash;
use halfkey_testkit::secure_boot::{certificate, certificate_list, image_list, list, update};
use halfkey_testkit::software::Software;
use serde_json::Value;
use std::fs;

const NAME: &str = "Example UEFI CA 2023";

fn fingerprint(der: &[u8]) -> String {
    format!("sha256:{}", halfkey_testkit::hex(&Hash::Sha256.digest(&[der])))
}

/// A boot whose variables PK, KEK and db have these.
fn with(boot: &Software, keys: [&[u8]; 3]) -> Software {
    Software { keys: keys.map(<[u8]>::to_vec), ..boot.clone() }
}

fn boots(text: &str) -> usize {
    text.lines().filter(|line| *line == "[[boot]]").count()
}

#[test]
fn a_certificate_in_db_is_learned_for_a_node_and_then_for_its_group() {
    let (setup, usual, _) = grouped();
    let (workstation, id) = (&setup.workstation, setup.id.as_str());
    let machine = enrolled(&setup.verifier, workstation, "web2");
    let two = Node { machine: &machine, verifier: &setup.verifier };
    workstation.ok(&["group", "set", "web2", "--group", "web"]);
    let new = certificate(NAME);
    let is = fingerprint(new.der());
    let grown = with(&usual, [&[], &[], &certificate_list(new.der())]);

    assert_eq!(setup.boot(&grown), "denied policy_mismatch");
    let ran = workstation.run(&["policy", "explain", "web1"]);
    assert!(ran.stdout.contains(NAME) && ran.stdout.contains(&is), "{ran:?}");
    let ran = workstation.ok(&["approve", "web1", "--learn", "--yes"]);
    for said in [
        &format!("learned for additions:{id}")[..],
        &format!("\"{is}\", # certificate \"{NAME}\""),
        "warning: db: firmware starts whatever its owner has signed",
        "warning: a certificate's name is its own word",
    ] {
        assert!(ran.stderr.contains(said), "{said}: {ran:?}");
    }
    assert!(!ran.stderr.contains("[[boot]]"), "the boot is allowed as it is: {ran:?}");
    assert_eq!((said(&setup.node().ask_again()), setup.boot(&usual)), ("released".into(), "released".into()));
    // For that node alone.
    assert_eq!(said(&two.boot(&grown)), "denied policy_mismatch");

    let ran = workstation.ok(&["approve", "web2", "--learn", "--for-group", "--yes"]);
    for said in
        ["1 other members", "1 are allowed what they booted last, and the new", "learned for group:web", NAME]
    {
        assert!(ran.stderr.contains(said), "{said}: {ran:?}");
    }
    assert_eq!((said(&two.ask_again()), setup.boot(&grown)), ("released".into(), "released".into()));
    let shown = workstation.ok(&["policy", "show", "group:web"]).stdout;
    assert!(boots(&shown) == 1 && shown.contains(&is), "{shown}");

    // With the update of a kernel in the same boot, both.
    let kek = certificate("Example KEK CA 2023");
    let next = with(&software("6.2", CMDLINE), [&[], &certificate_list(kek.der()), &grown.keys[2]]);
    assert_eq!(said(&two.boot(&next)), "denied policy_mismatch");
    let ran =
        workstation.ok(&["approve", "web2", "--learn", "--for-group", "--yes", "--kernel-measures-initrd"]);
    for said in
        ["kek = [", "Example KEK CA 2023", "warning: kek: whoever has its key", "[[boot]]", "the same update"]
    {
        assert!(ran.stderr.contains(said), "{said}: {ran:?}");
    }
    assert_eq!((said(&two.ask_again()), setup.boot(&next)), ("released".into(), "released".into()));
    assert_eq!(setup.boot(&usual), "released", "what has fewer is denied nothing");
    let shown = workstation.ok(&["policy", "show", "group:web"]).stdout;
    assert_eq!(boots(&shown), 2, "{shown}");
}

#[test]
fn another_platform_key_is_refused_with_the_reason() {
    let (setup, usual, _) = grouped();
    let new = certificate("Another platform key");
    let lists = certificate_list(new.der());
    let changed = with(&usual, [&lists, &[], &lists]);
    assert_eq!(setup.boot(&changed), "denied policy_mismatch");
    let before = setup.policies();
    for flags in [&["--learn"][..], &["--learn", "--for-group"]] {
        let ran = setup.workstation.run(&[&["approve", "web1", "--yes"], flags].concat());
        assert!(ran.code == 1 && ran.stderr.contains("secure_boot.pk"), "{ran:?}");
        assert!(ran.stderr.contains("hint: whoever has the platform key decides"), "{ran:?}");
    }
    assert_eq!(setup.policies(), before, "nothing was signed");
}

#[test]
fn the_hash_of_an_image_is_no_certificate() {
    let (setup, usual, _) = grouped();
    let evil = certificate("Evil CA");
    let hash: [u8; 32] = Hash::Sha256.digest(&[evil.der()]).try_into().unwrap();
    assert_eq!(setup.boot(&with(&usual, [&[], &[], &image_list(&hash)])), "denied policy_mismatch");
    let ran = setup.workstation.ok(&["approve", "web1", "--learn", "--yes"]);
    assert!(ran.stderr.contains(&format!("\"image:{}\", # image hash", fingerprint(evil.der()))), "{ran:?}");
    assert_eq!(said(&setup.node().ask_again()), "released");
    let evil = with(&usual, [&[], &[], &certificate_list(evil.der())]);
    assert_eq!(setup.boot(&evil), "denied policy_mismatch");
}

#[test]
fn what_a_roll_out_brings_is_in_the_policy_before() {
    let (setup, usual, _) = grouped();
    let workstation = &setup.workstation;
    let [kek, db] = ["Example KEK CA 2023", NAME].map(certificate);
    let lists = [&kek, &db].map(|new| certificate_list(new.der()));
    let file = |name: &str, content: &[u8]| {
        let path = setup.path(name);
        fs::write(&path, content).unwrap();
        path
    };
    let kek_file = file("KEKUpdate.bin", &update(&lists[0]));
    let db_file = file("db.pem", db.pem().as_bytes());
    let files = ["policy", "predict", "--kek", &kek_file, "--db", &db_file];
    let add = [&files[..], &["--group", "web", "--add"]].concat();
    let ran = workstation.run(&add);
    assert!(ran.code == 2 && ran.stderr.contains("secure_boot.kek"), "it asks: {ran:?}");
    let ran = workstation.ok(&[&add[..], &["--yes"]].concat());
    assert!(ran.stderr.contains(NAME) && ran.stderr.contains("warning: kek"), "{ran:?}");
    assert!(!ran.stderr.contains("would deny"), "{ran:?}");
    let grown = with(&usual, [&[], &lists[0], &lists[1]]);
    assert_eq!((setup.boot(&grown), setup.boot(&usual)), ("released".into(), "released".into()));
    let again = workstation.ok(&[&add[..], &["--yes"]].concat());
    assert!(again.stdout.contains("nothing to add: the policy lists all of it already"), "{again:?}");
    // By its node; and what verifies images is said on its own.
    let args =
        ["policy", "predict", "--db", &db_file, "--authority", "--node", "web1", "--add", "--yes", "--json"];
    let added: Value = json(&workstation.ok(&args).stdout);
    assert_eq!(added["entries"].as_array().unwrap().len(), 1, "{added}");
    assert_eq!(
        (&added["entries"][0]["list"], &added["applied"]["summary"]["scope"]),
        (&"authorities".into(), &"group:web".into())
    );
}

#[test]
fn files_are_read_without_a_server() {
    let workstation = Workstation::new();
    let new = certificate(NAME);
    let (is, lists) = (fingerprint(new.der()), certificate_list(new.der()));
    let file = |name: &str, content: &[u8]| {
        let path = workstation.path(name).to_str().unwrap().to_owned();
        fs::write(&path, content).unwrap();
        path
    };
    let expected = format!("[secure_boot]\ndb = [\n  \"{is}\", # certificate \"{NAME}\"\n]\n");
    for (name, content) in [
        ("ca.der", new.der().to_vec()),
        ("ca.pem", new.pem().into_bytes()),
        ("db.esl", lists.clone()),
        ("db.auth", update(&lists)),
        ("db-variable", [&[0x27, 0, 0, 0], &lists[..]].concat()),
    ] {
        let path = file(name, &content);
        let ran = workstation.ok(&["policy", "predict", "--db", &path]);
        assert!(
            ran.stdout.ends_with(&expected) && ran.stdout.starts_with("# warning: db:"),
            "{name}: {ran:?}"
        );
        let read: Value =
            json(&workstation.ok(&["policy", "predict", "--kek", &path, "--db", &path, "--json"]).stdout);
        assert_eq!(
            (&read["entries"][0]["list"], &read["entries"][1]["entry"]),
            (&"kek".into(), &is.as_str().into())
        );
        assert_eq!(read["applied"], Value::Null);
    }
    let good = file("good", new.der());
    for (content, said) in [
        (&b"nothing of that"[..], "expected an X.509 certificate (DER or PEM), EFI signature lists"),
        (b"MSCF\0\0\0\0", "hint: it is a cabinet"),
        (&list([0; 16], &[1; 20]), "expected what a policy can list in db, found entry of type"),
        (&vec![0x30; (1 << 20) + 1], "expected at most 1048576 bytes"),
    ] {
        let path = file("bad", content);
        let ran = workstation.run(&["policy", "predict", "--db", &good, "--db", &path]);
        assert!(ran.code == 2 && ran.stderr.contains(said) && ran.stdout.is_empty(), "{said}: {ran:?}");
    }
    for args in [
        &["--db", &good, "--uki", &good][..],
        &["--kek", &good, "--name", "a"],
        &["--db", &good, "--base", "web1"],
        &["--db", &good, "--cmdline", "a"],
        &["--kek", &good, "--authority"],
        &["--db", &good, "--add"],
        &["--db", &good, "--group", "web"],
    ] {
        let ran = workstation.run(&[&["policy", "predict"], args].concat());
        assert_eq!(ran.code, 2, "{args:?}: {ran:?}");
    }
}
