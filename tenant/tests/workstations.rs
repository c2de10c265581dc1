//! Workstations with one tenant key: what one has signed, the others know as soon as they follow the sequence past it.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::Workstation;
use common::node::software;
use common::setup::{CMDLINE, KERNEL, Setup, grouped};
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
    own.ok(&["release", "web1", "--because", "repaired"]);
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
