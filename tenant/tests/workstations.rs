//! Workstations with one tenant key: what one has signed, the others know as soon as they follow the sequence past it.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::Workstation;
use common::node::software;
use common::setup::{CMDLINE, KERNEL, Setup, grouped, said};
use common::shown::{Shown, lying, ungoverned};
use halfkey::client::Client;
use halfkey::home::bundle::Bundle;
use halfkey_protocol::wire::policies::NodePolicy;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Another workstation of the same tenant.
fn beside(setup: &Setup) -> Workstation {
    let workstation = Workstation::logged_in(&setup.verifier.file("operator-alice.bundle"));
    std::fs::copy(setup.workstation.home().join("tenant.key"), workstation.home().join("tenant.key"))
        .unwrap();
    workstation
}

fn newest(setup: &Setup) -> i64 {
    let sql = "SELECT max(version) FROM policies";
    setup.verifier.database().query_row(sql, [], |row| row.get(0)).unwrap()
}

fn add<'a>(initrd: &'a str, target: &[&'a str; 2]) -> Vec<&'a str> {
    let files = ["policy", "predict", "--kernel", KERNEL, "--initrd", initrd, "--cmdline", CMDLINE];
    let how = ["--secure-boot", "off", "--kernel-measures-initrd", "--add", "--yes"];
    [&files[..], &how, target].concat()
}

/// The documents stay; who writes the database deletes the row by which the newest counts.
#[test]
fn what_another_signed_is_not_forgotten() {
    let (setup, usual, strict) = grouped();
    // The one was there before, and looked; the other is new.
    let (second, third) = (beside(&setup), beside(&setup));
    second.ok(&["policy", "apply", &strict, "--group", "web", "--yes"]);
    let version = newest(&setup);
    assert_eq!(setup.boot(&usual), "denied policy_mismatch");
    setup.verifier.database().execute("DELETE FROM policies WHERE version = ?1", [version]).unwrap();

    let initrd = setup.path("initrd");
    std::fs::write(&initrd, b"an initrd").unwrap();
    let missed = format!("expected version {version} of group:web or a later one");
    for workstation in [&setup.workstation, &third] {
        let ran = workstation.run(&add(&initrd, &["--node", "web1"]));
        assert!(ran.code == 6 && ran.stderr.contains(&missed), "{ran:?}");
        // The server knows that its row is not the newest, and does not show it.
        let ran = workstation.run(&add(&initrd, &["--group", "web"]));
        let refused = ran.stderr.contains(&format!("{version} is newer (rolled_back)"));
        assert!(ran.code == 1 && ran.stderr.contains(&missed) && refused, "{ran:?}");
    }
    assert_ne!(setup.boot(&usual), "released");
}

/// A verifier says that the node is in no group, or that its group has no policy, to a workstation that signed neither: what the
/// workstation would sign for the node alone would outrank the group's for good.
#[test]
fn what_another_signed_for_the_group_is_missed() {
    let (setup, _, _) = grouped();
    let (own, seen_so_far) =
        (Workstation::logged_in(&setup.verifier.file("operator-alice.bundle")), "documents.json");
    own.ok(&["hold", "web1", "--because", "repair"]);
    setup.workstation.ok(&["release", "web1", "--because", "repaired"]);
    let other = software("6.6.6-evil", CMDLINE);
    assert_eq!(setup.boot(&other), "denied policy_mismatch");
    let bundle = Bundle::parse(setup.verifier.file("operator-alice.bundle").as_bytes()).unwrap();
    let client = Client::new(&bundle, Duration::from_secs(30)).unwrap();
    let id = setup.machine.id;
    let mut record = client.node(id).unwrap();
    let number = record.pending.as_ref().unwrap().evidence_id;
    let governed = client.node_policy(id).unwrap();
    record.policy = None;
    let shown = Shown {
        record,
        evidence: client.evidence(number).unwrap(),
        deployment: client.info().unwrap().deployment,
        governed: ungoverned(),
        sequence: client.sequence(0).unwrap().documents,
    };
    for (governed, missed) in [
        (ungoverned(), format!("of membership:{id} or a later one, the server shows none")),
        (
            NodePolicy { policy: None, ..governed },
            "of group:web or a later one, the server shows none".into(),
        ),
    ] {
        let shown = Arc::new(Mutex::new(Shown { governed, ..shown.clone() }));
        let (server, workstation) = lying(&setup.workstation, &shown);
        for how in [
            &["--learn", "--kernel-measures-initrd"][..],
            &["--replace", "--kernel-measures-initrd"],
            &["--once"],
        ] {
            let ran = workstation.run(&[&["approve", "web1", "--yes"], how].concat());
            assert!(ran.code == 6 && ran.stderr.contains(&missed), "{how:?}: {ran:?}");
        }
        let seen = server.seen.lock().unwrap();
        assert!(seen.iter().all(|request| request.method == "GET"), "nothing was handed in");

        // It has followed the sequence with a key of its own, and is given the tenant's then.
        let (server, workstation) = lying(&setup.workstation, &shown);
        std::fs::copy(own.home().join(seen_so_far), workstation.home().join(seen_so_far)).unwrap();
        let approve = ["approve", "web1", "--yes", "--learn", "--kernel-measures-initrd"];
        let ran = workstation.run(&approve);
        assert!(ran.code == 6 && ran.stderr.contains(&missed), "{ran:?}");
        let seen = server.seen.lock().unwrap();
        assert!(seen.iter().all(|request| request.method == "GET"), "nothing was handed in");
    }
}

/// The group's first policy comes while the question is on the screen.
#[test]
fn a_policy_of_the_group_that_comes_first_is_not_outranked() {
    let setup = Setup::new();
    let boot = software("6.1", CMDLINE);
    assert_eq!(setup.boot(&boot), "pending no_policy");
    let file = setup.path("web.toml");
    setup.workstation.ok(&["policy", "learn", "web1", "--kernel-measures-initrd", "-o", &file]);
    let strict = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, strict.replace(&halfkey::render::text::hex(&boot.kernel), &"ab".repeat(32)))
        .unwrap();
    setup.workstation.ok(&["group", "set", "web1", "--group", "web"]);
    let second = beside(&setup);
    for how in ["--learn", "--replace"] {
        let approve = ["approve", "web1", "--kernel-measures-initrd", how];
        let apply = ["policy", "apply", &file, "--group", "web", "--yes"];
        let ran = setup.workstation.answered_after(&approve, || drop(second.ok(&apply)));
        assert!(ran.code == 1 && ran.stderr.contains("another document for group:web came first"), "{ran:?}");
        assert_eq!(setup.policies().len(), 1, "only the group's");
    }
}

/// A workstation lost its tenant key, or has a new one, and enrolls its machines anew: what the old key signed is not missed. When the
/// old key is back, it counts no more where the new one had the machine.
#[test]
fn what_a_replaced_key_signed_is_not_missed() {
    let setup = Setup::new();
    let (workstation, id) = (&setup.workstation, setup.id.as_str());
    let boot = software("6.1", CMDLINE);
    let approve = ["approve", "web1", "--kernel-measures-initrd", "--yes"];
    let enroll = || {
        let fingerprint = setup.machine.tpm.fingerprint();
        workstation.ok(&["enroll", id, "--trust-ek", &fingerprint, "--yes", "--label", "web1"]);
        setup.node().finish_enrollment(workstation);
    };
    // All that can be signed for a node alone.
    let signs_all = || {
        assert_eq!(setup.boot(&boot), "pending no_policy");
        workstation.ok(&approve);
        assert_eq!(said(&setup.node().ask_again()), "released");
        workstation.ok(&["group", "set", "web1", "--group", "web"]);
        workstation.ok(&["policy", "explain", "web1"]);
        let initrd = setup.path("initrd");
        std::fs::write(&initrd, b"an initrd").unwrap();
        workstation.ok(&add(&initrd, &["--node", "web1"]));
    };
    signs_all();
    let (key, old) = (workstation.home().join("tenant.key"), workstation.home().join("old.key"));
    std::fs::rename(&key, &old).unwrap();
    workstation.login(&setup.verifier.file("operator-alice.bundle"), &[]);
    enroll();
    signs_all();
    // The first key again, as a backup has it.
    std::fs::copy(&old, &key).unwrap();
    let ran = workstation.run(&["policy", "withdraw", id, "--yes"]);
    assert!(ran.code == 6 && ran.stderr.contains("tenant key"), "the node is the other key's: {ran:?}");
    enroll();
    let ran = workstation.run(&["policy", "withdraw", "web1", "--yes"]);
    assert!(ran.code == 1 && ran.stderr.contains("has no policy that could be withdrawn"), "{ran:?}");
    signs_all();
}

/// It may have the label for another tenant, or stand somewhere else by now.
#[test]
fn a_label_of_a_node_that_went_to_another_tenant_names_it_no_more() {
    let setup = Setup::new();
    let (first, id) = (&setup.workstation, setup.id.as_str());
    assert_eq!(setup.boot(&software("6.1", CMDLINE)), "pending no_policy");
    let bundle = Bundle::parse(setup.verifier.file("operator-alice.bundle").as_bytes()).unwrap();
    let client = Client::new(&bundle, Duration::from_secs(30)).unwrap();
    let shown = || {
        let record = client.node(setup.machine.id).unwrap();
        let number = client.evidence_of(setup.machine.id, 1).unwrap().evidence[0].id;
        Shown {
            record,
            evidence: client.evidence(number).unwrap(),
            deployment: client.info().unwrap().deployment,
            governed: ungoverned(),
            sequence: client.sequence(0).unwrap().documents,
        }
    };
    let before = shown().record;
    let second = Workstation::logged_in(&setup.verifier.file("operator-alice.bundle"));
    let enroll = |workstation: &Workstation| {
        let fingerprint = setup.machine.tpm.fingerprint();
        workstation.ok(&["enroll", id, "--trust-ek", &fingerprint, "--yes", "--label", "web1"]);
        setup.node().finish_enrollment(workstation);
    };
    enroll(&second);
    // The server shows the old enrollment as the current one.
    let set = ["group", "set", "web1", "--group", "web"];
    let there = Arc::new(Mutex::new(Shown { record: before.clone(), ..shown() }));
    let (server, workstation) = lying(first, &there);
    for _ in 0..2 {
        let ran = workstation.run(&set);
        assert!(ran.code == 6 && ran.stderr.contains("name it by its id"), "{ran:?}");
        assert!(
            ran.stderr.contains("which ended when the node was enrolled with another tenant key"),
            "{ran:?}"
        );
    }
    let seen = server.seen.lock().unwrap().clone();
    assert!(seen.iter().all(|request| request.method == "GET"), "nothing was handed in");
    // It is the first tenant's again; the enrollment of before is none all the same.
    enroll(first);
    *there.lock().unwrap() = Shown { record: before, ..shown() };
    let ran = workstation.run(&set);
    assert!(ran.code == 6 && ran.stderr.contains("name it by its id"), "{ran:?}");
    *there.lock().unwrap() = shown();
    let ran = workstation.run(&set);
    assert!(ran.code != 6 && !ran.stderr.contains("name it by its id"), "{ran:?}");
    assert_eq!(first.ok(&set).code, 0);
}

/// An operator with a tenant key of his own stops a machine that is not his, and does not start it again.
#[test]
fn another_tenant_holds_a_node_and_does_not_release_it() {
    let setup = Setup::new();
    let other = Workstation::logged_in(&setup.verifier.file("operator-alice.bundle"));
    let id = setup.id.clone();
    for (takes, gives, kind) in [("hold", "release", "a release"), ("revoke", "restore", "a restoration")] {
        other.ok(&[takes, &id, "--because", "not mine"]);
        let ran = other.run(&[gives, &id, "--because", "so"]);
        let expected = format!("expected {kind} by the tenant key that enrolled node {id}");
        assert!(ran.code == 1 && ran.stderr.contains(&expected), "{ran:?}");
        setup.workstation.ok(&[gives, "web1", "--because", "mine"]);
    }
}
