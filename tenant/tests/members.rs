//! What rows, or another operator, say of one node keeps no policy from its group.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::Workstation;
use common::node::{Node, software};
use common::setup::{CMDLINE, KERNEL, Setup, enrolled, grouped, said};
use halfkey_testkit::node::SimulatedNode;
use halfkey_testkit::tpm::{RSA_2048, Tpm};

const GHOST: &str = "0693542a-1082-8a03-94a9-3b7dd6971fe8";

/// A policy that the group has not got yet is applied, and which member it could not be tried on is said. Each other command that
/// looks at all members works as well.
fn applies(setup: &Setup, strict: &str, id: &str, why: &str) {
    let said = format!("  {id} ");
    let ran = setup.workstation.run(&["policy", "test", strict, "--against", "group:web"]);
    assert!(ran.code == 1 && ran.stdout.contains(&id[..8]), "{ran:?}");
    assert!(ran.stderr.contains("1 of 2 boots would be denied"), "{ran:?}");
    let ran = setup.workstation.ok(&["policy", "apply", strict, "--group", "web", "--yes"]);
    assert!(ran.stderr.contains(&said) && ran.stderr.contains(why), "{ran:?}");
    assert!(ran.stderr.contains("would deny the last released boot of 1 of 2 nodes"), "{ran:?}");
}

#[test]
fn a_row_of_a_node_that_nobody_registered() {
    let (setup, usual, strict) = grouped();
    let sql = "INSERT INTO nodes (node_id, label, last_seen, group_name) VALUES (?1, '', 0, 'web')";
    setup.verifier.database().execute(sql, [GHOST]).unwrap();
    let ran = setup.workstation.ok(&["policy", "apply", &strict, "--group", "web", "--yes"]);
    assert!(ran.stderr.contains("would deny the last released boot of 1 of 1 nodes"), "{ran:?}");
    assert!(!ran.stderr.contains(GHOST), "it is no member: {ran:?}");
    assert_eq!(setup.boot(&usual), "denied policy_mismatch");
}

/// With a document for the membership, that this tenant signed: only what the server has of the node is missing.
#[test]
fn a_member_whose_registration_is_gone() {
    let (setup, usual, strict) = grouped();
    let id = registered(&setup);
    setup.workstation.ok(&["group", "set", &id, "--group", "web"]);
    forget_strangers(&setup);
    let ran = setup.workstation.ok(&["policy", "apply", &strict, "--group", "web", "--yes"]);
    assert!(ran.stderr.contains("1 of 2 nodes have no stored boot"), "{ran:?}");
    assert_eq!(setup.boot(&usual), "denied policy_mismatch");
    is_taken_out(&setup, &id);
}

/// Another operator puts software TPMs into the group, with any key, without the database.
#[test]
fn a_member_that_another_operator_named() {
    let (setup, usual, strict) = grouped();
    setup.verifier.command(&["operator", "add", "bob"]);
    let bob = Workstation::logged_in(&setup.verifier.file("operator-bob.bundle"));
    let id = registered(&setup);
    bob.ok(&["group", "set", &id, "--group", "web"]);
    forget_strangers(&setup);
    applies(&setup, &strict, &id, "says that it is in group web");
    assert_eq!(setup.boot(&usual), "denied policy_mismatch");
    is_taken_out(&setup, &id);
}

/// A machine that only registered.
fn registered(setup: &Setup) -> String {
    let machine = SimulatedNode::booted(Tpm::new(RSA_2048), &software("6.0", CMDLINE));
    setup.verifier.register(&machine);
    machine.id.to_string()
}

/// What time, or a full registrar, does.
fn forget_strangers(setup: &Setup) {
    setup.verifier.database().execute_batch("DELETE FROM registrations WHERE kept = 0").unwrap();
}

fn is_taken_out(setup: &Setup, id: &str) {
    let workstation = &setup.workstation;
    assert!(workstation.ok(&["node", "show", id]).stdout.contains("the registrar has forgotten it"), "shown");
    workstation.ok(&["revoke", id, "--because", "unknown"]);
    workstation.ok(&["group", "set", id, "--none"]);
    let listed = workstation.ok(&["group", "list", "--json"]).stdout;
    assert!(listed.contains(&setup.id) && !listed.contains(id), "{listed}");
}

#[test]
fn more_bytes_than_an_answer_may_have() {
    let (setup, usual, strict) = grouped();
    setup.verifier.database().execute("UPDATE nodes SET last_code = hex(zeroblob(8500000))", []).unwrap();
    let ran = setup.workstation.ok(&["policy", "apply", &strict, "--group", "web", "--yes"]);
    assert!(ran.stderr.contains("1 of 1 nodes") && ran.stderr.contains(&setup.id), "{ran:?}");
    assert!(ran.stderr.contains("is larger than"), "{ran:?}");
    assert_eq!(setup.boot(&usual), "denied policy_mismatch");
}

/// Names that no group can have: bytes that are no text, and more than an answer may have.
#[test]
fn groups_that_are_none() {
    let (setup, usual, strict) = grouped();
    let sql = format!(
        "PRAGMA foreign_keys = OFF;
         INSERT INTO policies (scope, version, name, tenant_key, sha256, applied_at, applied_by) VALUES
             (CAST(x'67726f75703aff' AS TEXT), 1, 'x', x'00', zeroblob(32), 0, 'x'),
             ('group:' || hex(zeroblob(10000000)), 2, 'x', x'00', zeroblob(32), 0, 'x');
         INSERT INTO nodes (node_id, label, last_seen, group_name)
             VALUES ('{GHOST}', '', 0, hex(zeroblob(10000000)))"
    );
    setup.verifier.database().execute_batch(&sql).unwrap();
    setup.workstation.ok(&["policy", "apply", &strict, "--group", "web", "--yes"]);
    let listed = setup.workstation.ok(&["group", "list"]).stdout;
    assert_eq!(listed.lines().count(), 2, "{listed}");
    assert_eq!(setup.boot(&usual), "denied policy_mismatch");
}

/// What comes before the kernel is taken from a machine of this tenant that it has put into the group, whatever a row says of others.
#[test]
fn no_base_that_only_a_row_put_into_the_group() {
    let (setup, usual, _) = grouped();
    setup.verifier.command(&["operator", "add", "bob"]);
    let bob = Workstation::logged_in(&setup.verifier.file("operator-bob.bundle"));
    // One of another operator; one of our own, in no group. Both boot another firmware and loader.
    let foreign = enrolled(&setup.verifier, &bob, "bob1");
    let lax = enrolled(&setup.verifier, &setup.workstation, "lax1");
    for (machine, workstation, label) in [(&foreign, &bob, "bob1"), (&lax, &setup.workstation, "lax1")] {
        let node = Node { machine, verifier: &setup.verifier };
        assert_eq!(said(&node.boot(&software("6.0", CMDLINE))), "pending no_policy");
        workstation.ok(&["approve", label, "--once", "--yes"]);
        assert_eq!(said(&node.ask_again()), "released");
    }
    let ids = [&foreign, &lax].map(|machine| machine.id.to_string());
    let initrd = setup.path("initrd");
    std::fs::write(&initrd, b"an initrd").unwrap();
    let predict = ["policy", "predict", "--kernel", KERNEL, "--kernel-measures-initrd", "--initrd", &initrd];
    let add = ["--cmdline", CMDLINE, "--secure-boot", "off", "--add", "--yes"];
    // Rows name no members, and leave none out.
    let sql = "UPDATE nodes SET group_name = CASE node_id WHEN ?1 THEN NULL ELSE 'web' END";
    setup.verifier.database().execute(sql, [&setup.id]).unwrap();
    // In no group, and named by its id: any operator, or the server, says what it boots.
    let ran = setup.workstation.run(&[&predict[..], &add, &["--group", "web", "--base", &ids[0]]].concat());
    assert!(ran.code == 6 && ran.stderr.contains("is enrolled by another tenant key"), "{ran:?}");
    let ran = setup.workstation.ok(&[&predict[..], &add, &["--group", "web"]].concat());
    assert!(ran.stderr.contains("# base: web1"), "{ran:?}");
    assert_eq!(setup.boot(&usual), "released");
}
