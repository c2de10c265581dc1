//! `approve --once`: what is approved is what was shown, and what is shown is what the TPM quoted.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::Workstation;
use common::server::{Server, json, problem};
use common::shown::{Shown, answer, lying, waiting};
use halfkey_protocol::wire::operator::*;
use halfkey_protocol::wire::policies::Finding;
use halfkey_protocol::wire::{Document, SignedDocument};
use halfkey_testkit::pki::Pki;
use std::sync::{Arc, Mutex};

const ONCE: [&str; 4] = ["approve", "web1", "--once", "--yes"];

/// What the server alters, how; then the boots that it says and shows.
type Case<'a> = (&'a str, &'a dyn Fn(&mut Shown), &'a str, &'a str);

/// Tickets that were approved.
fn approved(server: &Server) -> Vec<String> {
    let seen = server.seen.lock().unwrap();
    let posts = seen.iter().filter(|request| request.method == "POST");
    posts
        .map(|request| {
            assert!(request.path.ends_with("/approve"), "{}", request.path);
            let signed: SignedDocument = serde_json::from_slice(&request.body).unwrap();
            serde_json::from_slice::<Document>(&signed.document).unwrap().body
        })
        .collect()
}

/// The server says that an honest update waits, and means an image of somebody else's.
#[test]
fn what_is_shown_of_one_boot_approves_no_other() {
    let (honest, boots) = waiting(&["6.1", "6.6.6-evil"]);
    let [update, evil] = &boots[..] else { panic!("two boots") };
    let ticket = |shown: &Shown| shown.record.pending.clone().unwrap().ticket;
    let (ours, theirs) = (ticket(update), ticket(evil));
    assert_ne!(ours, theirs);
    let shown = Arc::new(Mutex::new(update.clone()));
    let (server, workstation) = lying(&honest, &shown);

    let other_ticket = |shown: &mut Shown| shown.record.pending.as_mut().unwrap().ticket = theirs.clone();
    let other_evidence = |shown: &mut Shown| {
        let number = shown.evidence.summary.id;
        shown.evidence = evil.evidence.clone();
        shown.evidence.summary.id = number;
    };
    let cases: [Case<'_>; 2] =
        [("ticket", &other_ticket, &theirs, &ours), ("evidence", &other_evidence, &ours, &theirs)];
    for (what, lie, waits, evidence) in cases {
        let mut altered = update.clone();
        lie(&mut altered);
        *shown.lock().unwrap() = altered;
        for how in [&ONCE[2..], &["--kernel-measures-initrd", "--learn", "--yes"]] {
            let ran = workstation.run(&[&ONCE[..2], how].concat());
            assert_eq!(ran.code, 6, "{what}: {ran:?}");
            for said in [format!("waits     boot {waits}"), format!("evidence  boot {evidence}")] {
                assert!(ran.stderr.contains(&said), "{what}: {ran:?}");
            }
        }
    }
    assert_eq!(approved(&server), [""; 0]);

    // Its words are not what is shown, whatever they are.
    let mut altered = update.clone();
    let pending = altered.record.pending.as_mut().unwrap();
    (pending.code, pending.message) = ("policy_mismatch".into(), "a harmless word".into());
    pending.findings = vec![Finding {
        pcr: None,
        event: None,
        what: "a harmless finding".into(),
        rule: String::new(),
        expected: String::new(),
        found: String::new(),
        hint: None,
    }];
    *shown.lock().unwrap() = altered;
    let ran = workstation.ok(&ONCE);
    assert!(!ran.stderr.contains("harmless") && ran.stderr.contains("(no_policy)"), "{ran:?}");
    assert!(ran.stderr.contains("a boot of web1 ("), "{ran:?}");

    // Nor is a label that it was not enrolled with.
    shown.lock().unwrap().record.summary.label = "lab".into();
    let ran = workstation.run(&["approve", "lab", "--once", "--yes"]);
    assert!(ran.code == 6 && ran.stderr.contains("name it by its id"), "{ran:?}");
    assert_eq!(approved(&server), [ours]);
}

#[test]
fn it_is_asked_on_a_terminal_and_only_yes_is_yes() {
    let (honest, boots) = waiting(&["6.1"]);
    let shown = Arc::new(Mutex::new(boots[0].clone()));
    let (server, workstation) = lying(&honest, &shown);
    for args in [&ONCE[..2], &ONCE[..3]] {
        let ran = workstation.run(args);
        assert!(ran.code == 2 && ran.stderr.contains("hint:") && ran.stderr.contains("--yes"), "{ran:?}");
    }
    assert_eq!(approved(&server).len(), 0);
    for (typed, code) in [("\n", 1), ("n\n", 1), ("yess\n", 1), ("\u{4}", 1), ("y\n", 0), ("YES\n", 0)] {
        let ran = workstation.typing(&ONCE[..3], typed);
        assert_eq!(ran.code, code, "{typed:?}: {ran:?}");
        assert!(ran.stderr.contains("[y/N]"), "{ran:?}");
    }
    assert_eq!(approved(&server).len(), 2);
    for (typed, code) in [("\n", 1), ("y\n", 1), ("learn it\n", 1), ("o\n", 0), ("Once\n", 0)] {
        let ran = workstation.typing(&ONCE[..2], typed);
        assert_eq!(ran.code, code, "{typed:?}: {ran:?}");
        assert!(ran.stderr.contains("[o]nce, [l]earn, [r]eplace, [N]o"), "{ran:?}");
    }
    assert_eq!(approved(&server).len(), 4, "y chooses nothing");
}

#[test]
fn the_boot_can_be_waited_for() {
    let (honest, boots) = waiting(&["6.1"]);
    let boot = boots[0].clone();
    let (id, ticket) = (boot.record.summary.id.clone(), boot.record.pending.clone().unwrap().ticket);
    // It becomes pending when the trail is waited for.
    let arrived = Mutex::new(false);
    let pki = Pki::new();
    let server = Server::start(&pki, move |request| {
        let mut arrived = arrived.lock().unwrap();
        match request.path.trim_start_matches("/v1/operator/") {
            path if path.starts_with("audit?after=") => {
                *arrived = true;
                let entry = AuditEntry {
                    seq: 42,
                    at: 1,
                    actor: "verifier".into(),
                    action: "verdict".into(),
                    node_id: Some(boot.record.summary.id.clone()),
                    detail: "pending".into(),
                };
                json(&AuditList { entries: vec![entry] })
            }
            path if path.starts_with("audit") => json(&AuditList { entries: vec![] }),
            _ => {
                let mut shown = boot.clone();
                shown.record.pending = shown.record.pending.filter(|_| *arrived);
                answer(request, &mut shown)
            }
        }
    });
    let workstation = Workstation::logged_in(&pki.bundle(&[server.url()]));
    std::fs::copy(honest.home().join("tenant.key"), workstation.home().join("tenant.key")).unwrap();
    assert_eq!(workstation.run(&["approve", &id, "--yes"]).code, 5);
    workstation.ok(&["approve", &id, "--once", "--yes", "--wait", "20"]);
    let asked = server.asked();
    let node = format!("GET /v1/operator/nodes/{id}");
    assert_eq!(asked[1..3], ["GET /v1/operator/audit?limit=1".to_owned(), node.clone()]);
    assert!(asked[3].starts_with("GET /v1/operator/audit?after=0&wait=1"), "{asked:?}");
    assert_eq!(asked[4], node);
    assert_eq!(approved(&server), [ticket]);
}

/// Whose a label is says the enrollment, not the server: neither is learned of another node, nor under another's name.
#[test]
fn what_is_learned_is_of_the_node_and_by_the_label_that_were_enrolled() {
    let (honest, boots) = waiting(&["6.1"]);
    let mut boot = boots[0].clone();
    boot.record.summary.label = "strict1".into();
    let id = boot.record.summary.id.clone();
    let (_server, workstation) = lying(&honest, &Arc::new(Mutex::new(boot)));
    let assured = "--kernel-measures-initrd";
    for command in [&["policy", "learn", "strict1", assured][..], &["approve", "strict1", assured, "--yes"]] {
        let ran = workstation.run(command);
        assert!(ran.code == 6 && ran.stderr.contains("name it by its id"), "{command:?}: {ran:?}");
    }
    let learned = workstation.ok(&["policy", "learn", &id, assured]).stdout;
    assert!(learned.contains("name = \"web1\"") && !learned.contains("strict1"), "{learned}");
    // The server here takes none: it is shown, and signed.
    let ran = workstation.run(&["approve", &id, assured, "--learn", "--yes"]);
    assert!(ran.code == 3 && ran.stderr.contains("name = \"web1\""), "{ran:?}");
    assert!(!ran.stderr.contains("strict1"), "{ran:?}");
}

/// What was proposed says of which boots more has to be known: who is not told learns nothing.
#[test]
fn nothing_is_learned_while_nobody_says_what_was_proposed() {
    let (honest, boots) = waiting(&["6.1"]);
    let shown = Mutex::new(boots[0].clone());
    let pki = Pki::new();
    let server = Server::start(&pki, move |request| match request.path.contains("/proposals?") {
        true => problem(503, "unavailable", "the database is gone", None),
        false => answer(request, &mut shown.lock().unwrap()),
    });
    let workstation = Workstation::logged_in(&pki.bundle(&[server.url()]));
    std::fs::copy(honest.home().join("tenant.key"), workstation.home().join("tenant.key")).unwrap();
    let ran = workstation.run(&["approve", "web1", "--learn", "--kernel-measures-initrd", "--yes"]);
    assert!(ran.code != 0 && ran.stderr.contains("what the node proposed could not be asked"), "{ran:?}");
    let posts = || server.seen.lock().unwrap().iter().filter(|request| request.method == "POST").count();
    assert_eq!(posts(), 0);
    workstation.ok(&ONCE);
    assert_eq!(posts(), 1);
}
