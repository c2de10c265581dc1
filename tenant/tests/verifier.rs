//! The workstation and the real verifier, with a real TPM as the node.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::Workstation;
use common::verifier::Verifier;
use halfkey_protocol::wire::operator::{AuditEntry, Held, NodeList, NodeRecord, NodeState};
use halfkey_testkit::node::SimulatedNode;
use halfkey_testkit::tpm::{RSA_2048, Tpm};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

fn record(json: &str) -> NodeRecord {
    serde_json::from_str(json).unwrap()
}

#[test]
fn a_node_is_found_enrolled_revoked_and_restored() {
    let (verifier, machine) = (Verifier::start(), SimulatedNode::powered_on(Tpm::new(RSA_2048)));
    let tpm = &machine.tpm;
    let workstation = Workstation::logged_in(&verifier.file("operator-alice.bundle"));
    assert_eq!(workstation.ok(&["nodes"]).stdout, "no nodes\n");
    verifier.register(&machine);
    let list: NodeList = serde_json::from_str(&workstation.ok(&["nodes", "--json"]).stdout).unwrap();
    assert_eq!((list.nodes.len(), list.nodes[0].state), (1, NodeState::Registered));

    let mut watch = workstation.command(&["watch", "--json"]);
    let mut watch = watch.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut ready = String::new();
    BufReader::new(watch.stderr.as_mut().unwrap()).read_line(&mut ready).unwrap();
    let mut seen = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<AuditEntry>(&seen.next().unwrap().unwrap()).unwrap();

    let roots = tpm.ca();
    let args =
        ["enroll", "web1", "--ek-roots", roots.to_str().unwrap(), "--yes", "--label", "Web 1", "--json"];
    let enrolled = record(&workstation.ok(&args).stdout);
    assert_eq!((enrolled.summary.state, enrolled.summary.label.as_str()), (NodeState::Enrolling, "Web 1"));
    let entry = next();
    assert_eq!((entry.action.as_str(), entry.actor.as_str()), ("enroll", "alice"));
    // Nobody finishes the machine's side.
    let ran = workstation.run(&["enroll", "Web 1", "--trust-ek", &tpm.fingerprint(), "--yes", "--wait", "1"]);
    assert!(ran.code == 1 && ran.stderr.contains("halfkey-agent enroll"), "{ran:?}");
    assert_eq!(next().action, "enroll");

    let id = tpm.node_id().to_string();
    assert_eq!(workstation.run(&["approve", &id, "--yes"]).code, 5);
    assert_eq!(workstation.ok(&["evidence", &id]).stdout, "no evidence\n");
    assert_eq!(workstation.run(&["evidence", "--id", "1"]).code, 3);
    assert_eq!(workstation.run(&["node", "show", "00000000-0000-8000-8000-000000000000"]).code, 3);
    let shown = workstation.ok(&["node", "show", "Web 1"]).stdout;
    assert!(shown.contains(&tpm.fingerprint()) && shown.contains("this workstation's tenant key"), "{shown}");

    let revoked = record(&workstation.ok(&["revoke", &id[..8], "--because", "stolen", "--json"]).stdout);
    assert_eq!(
        (revoked.summary.state, revoked.revoked_because.as_deref()),
        (NodeState::Revoked, Some("stolen"))
    );
    assert_eq!(next().action, "revoke");
    workstation.ok(&["restore", &id, "--because", "found"]);
    assert_eq!(next().action, "restore");
    let held = record(&workstation.ok(&["hold", &id, "--because", "broken root", "--json"]).stdout);
    assert_eq!(held.held, Some(Held { by: "alice".into(), because: "broken root".into() }));
    assert_eq!(next().action, "hold");
    assert!(workstation.ok(&["nodes"]).stdout.contains("enrolling, held"));
    workstation.ok(&["release", &id]);
    assert_eq!(next().action, "release");
    let (code, said) = workstation.error(&["release", &id], 0);
    assert!(code == 1 && said.contains("is not held"), "{said}");
    let trail = workstation.ok(&["audit", "--node", "Web 1"]).stdout;
    assert!(trail.contains("alice: ") && trail.lines().count() >= 5, "{trail}");
    watch.kill().unwrap();
    watch.wait().unwrap();
}

#[test]
fn a_removed_operator_is_told_so() {
    let server = Verifier::start();
    let workstation = Workstation::logged_in(&server.file("operator-alice.bundle"));
    workstation.ok(&["nodes"]);
    server.command(&["operator", "remove", "alice"]);
    let ran = workstation.run(&["nodes"]);
    assert!(
        ran.code == 1 && ran.stderr.contains("(unauthorized)") && ran.stderr.contains("hint:"),
        "{ran:?}"
    );
}
