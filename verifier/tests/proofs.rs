//! That an enrollment was proved is an entry of the sequence: no row takes it back, or says it of another.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use common::node::{Halves, Node, enrolled, said, sign};
use common::{Server, get, path, post, refused};
use halfkey_evidence::signed_document::open;
use halfkey_protocol::Reason;
use halfkey_protocol::identity::fingerprint;
use halfkey_protocol::keys::half;
use halfkey_protocol::wire::operator::{Enroll, NodeList, NodeRecord, NodeState, SequencePart};
use halfkey_protocol::wire::{Document, Enrollment, Prove, Proved, SignedDocument};
use halfkey_testkit::software::{Software, lax, strict};
use halfkey_verifier::client::Client;
use std::sync::Arc;

/// A node whose enrollment waits for its proof, and that proof.
async fn half_enrolled(server: &Server) -> (Node, Halves) {
    let node = Node::new();
    node.register(&server.anybody()).await.unwrap();
    let (enroll, halves) = node.enrollment(&server.operator(), "first").await;
    let _: NodeRecord = post(&server.operator(), &path(node.id, "/enrollment"), &enroll).await.unwrap();
    // Another operator, who has signed one with a K of his own, could else take the node from its tenant without the machine.
    assert_eq!(refused(node.prove(&server.anybody(), &halves).await), Reason::Proof);
    let (_, verdict) = node.attest(&server.anybody(), "enroll").await.unwrap();
    assert_eq!(said(&verdict), "released");
    (node, halves)
}

/// Keeps the rows that say which enrollment is open and which is proved, as a copy of the database has them.
fn keep(server: &Server) {
    let sql = "CREATE TABLE kept_enrollments AS SELECT * FROM enrollments;
               CREATE TABLE kept_policies AS SELECT * FROM policies;
               CREATE TABLE kept_groups AS SELECT node_id, group_name, group_number FROM nodes;";
    server.database().execute_batch(sql).unwrap();
}

fn put_back(server: &Server) {
    let sql = "DELETE FROM enrollments;
               INSERT INTO enrollments SELECT * FROM kept_enrollments;";
    server.database().execute_batch(sql).unwrap();
}

async fn nothing_goes_out(server: &Server, node: &Node) {
    for purpose in ["enroll", "boot", "propose"] {
        let problem = node.begin(&server.anybody(), purpose).await.err().expect(purpose);
        assert_eq!(problem.code, "rolled_back", "{purpose}: {problem:?}");
        assert!(problem.message.contains("enrollment"), "{problem:?}");
    }
}

/// C_U would go out again: to whatever runs on the machine then, without any policy.
#[tokio::test]
async fn a_database_from_before_the_proof_is_not_served_although_its_audit_trail_is_right() {
    let mut server = Server::start();
    let (node, halves) = half_enrolled(&server).await;
    assert_eq!(server.stop(), Some(0));
    let (live, middle, newest) = (
        server.state().join("halfkey.db"),
        server.dir.path().join("middle.db"),
        server.dir.path().join("newest.db"),
    );
    std::fs::copy(&live, &middle).unwrap();
    server.serve();
    node.prove(&server.anybody(), &halves).await.unwrap();
    node.allow(&server.operator()).await;
    assert_eq!(said(&node.boot(&server.anybody()).await), "released");
    assert_eq!(server.stop(), Some(0));
    std::fs::copy(&live, &newest).unwrap();
    std::fs::copy(&middle, &live).unwrap();
    // Every entry that this server has written, and each document that a tenant signed.
    let database = server.database();
    database.execute("ATTACH ?1 AS newest", [newest.to_str().unwrap()]).unwrap();
    database
        .execute_batch(
            "DELETE FROM audit;
             INSERT INTO audit SELECT * FROM newest.audit;
             INSERT INTO documents SELECT * FROM newest.documents d
                 WHERE d.number > (SELECT max(number) FROM documents) AND d.signatures != x'';",
        )
        .unwrap();
    drop(database);
    server.serve();
    for purpose in ["enroll", "boot"] {
        assert_eq!(refused(node.begin(&server.anybody(), purpose).await), Reason::RolledBack, "{purpose}");
    }
}

/// The same with one row: the rest of the database is the newest.
#[tokio::test]
async fn an_enrollment_that_was_proved_is_not_open_again_by_a_row() {
    let mut server = Server::start();
    let (node, halves) = half_enrolled(&server).await;
    keep(&server);
    node.prove(&server.anybody(), &halves).await.unwrap();
    node.allow(&server.operator()).await;
    assert_eq!(said(&node.boot(&server.anybody()).await), "released");
    put_back(&server);
    for _ in 0..2 {
        nothing_goes_out(&server, &node).await;
        let list: NodeList = get(&server.operator(), "/v1/operator/nodes").await.unwrap();
        assert_eq!(list.nodes[0].state, NodeState::Enrolled);
        server.stop();
        server.serve();
    }
    // The tenant's word mends it.
    node.enroll(&server.anybody(), &server.operator(), "second").await;
    assert_eq!(said(&node.boot(&server.anybody()).await), "released");
}

/// The newest enrollment is the open one: that alone says nothing of the other.
#[tokio::test]
async fn the_enrollment_of_the_tenant_before_is_not_current_again_beside_an_open_one() {
    let mut server = Server::start();
    let mut node = enrolled(&server).await;
    let scope = format!("node:{}", node.id);
    node.apply(&server.operator(), &scope, &lax()).await.unwrap();
    assert_eq!(said(&node.boot(&server.anybody()).await), "released");
    keep(&server);
    node.tenant = Arc::new(Ed25519KeyPair::generate().unwrap());
    node.enroll(&server.anybody(), &server.operator(), "second").await;
    node.apply(&server.operator(), &scope, &strict()).await.unwrap();
    assert_eq!(said(&node.boot(&server.anybody()).await), "denied policy_mismatch");
    server
        .database()
        .execute_batch(
            "UPDATE enrollments SET state = 'open' WHERE enrollment_id = 'second';
             UPDATE enrollments SET state = 'current', c_v_id = k.c_v_id, c_v_secret = k.c_v_secret
                 FROM kept_enrollments k WHERE k.enrollment_id = enrollments.enrollment_id AND k.state = 'current';
             DELETE FROM policies;
             INSERT INTO policies SELECT * FROM kept_policies;",
        )
        .unwrap();
    for _ in 0..2 {
        nothing_goes_out(&server, &node).await;
        server.stop();
        server.serve();
    }
}

/// Its machine would go on as if it were enrolled, and take its old keyslots away.
#[tokio::test]
async fn an_enrollment_is_not_proved_by_a_row() {
    let mut server = Server::start();
    let node = enrolled(&server).await;
    node.allow(&server.operator()).await;
    let (enroll, halves) = node.enrollment(&server.operator(), "second").await;
    let _: NodeRecord = post(&server.operator(), &path(node.id, "/enrollment"), &enroll).await.unwrap();
    node.attest(&server.anybody(), "enroll").await.unwrap();
    keep(&server);
    server
        .database()
        .execute_batch(
            "UPDATE enrollments SET state = 'replaced' WHERE state = 'current';
             UPDATE enrollments SET state = 'current', c_u = NULL WHERE enrollment_id = 'second';",
        )
        .unwrap();
    for _ in 0..2 {
        nothing_goes_out(&server, &node).await;
        assert_eq!(refused(node.prove(&server.anybody(), &halves).await), Reason::Unavailable);
        server.stop();
        server.serve();
    }
    // As it was, it goes on where it stood.
    put_back(&server);
    assert_eq!(said(&node.boot(&server.anybody()).await), "released");
    node.prove(&server.anybody(), &halves).await.unwrap();
    node.prove(&server.anybody(), &halves).await.expect("the answer may have been lost");
    assert_eq!(said(&node.boot(&server.anybody()).await), "released");
    let record: NodeRecord = get(&server.operator(), &path(node.id, "")).await.unwrap();
    assert_eq!(record.enrollment, Some(enroll.signed));
}

/// In its place in the database, with a K of whoever wrote it there: the machine's own enrollment would end.
#[tokio::test]
async fn another_document_of_the_number_of_an_enrollment_is_not_proved() {
    let mut server = Server::start();
    let (node, halves) = half_enrolled(&server).await;
    let record: NodeRecord = get(&server.operator(), &path(node.id, "")).await.unwrap();
    let signed = record.enrollment.unwrap();
    let mut document: Document = serde_json::from_slice(&signed.document).unwrap();
    let mut enrollment: Enrollment = serde_json::from_str(&document.body).unwrap();
    let proof = [6; 32];
    enrollment.proof_sha256 = half::proof_digest(&proof).into();
    document.body = serde_json::to_string(&enrollment).unwrap();
    let stranger = Ed25519KeyPair::generate().unwrap();
    let forged = sign(&stranger, &document);
    let put = |signed: &SignedDocument| {
        let by = &signed.signatures[0];
        let packed = [&by.key[..], &by.signature[..]].concat();
        let sql = "UPDATE documents SET document = ?2, signatures = ?3 WHERE number = ?1";
        let row = rusqlite::params![i64::try_from(document.number).unwrap(), signed.document.0, packed];
        assert_eq!(server.database().execute(sql, row).unwrap(), 1);
    };
    put(&forged);
    let message = Prove {
        node_id: node.id.to_string(),
        enrollment_id: halves.enrollment_id.clone(),
        proof: proof.as_slice().into(),
    };
    let refused_as: Result<Proved, _> = post(&server.anybody(), "/v1/prove", &message).await;
    assert_eq!(refused(refused_as), Reason::Unavailable);
    put(&signed);
    node.prove(&server.anybody(), &halves).await.unwrap();
    // The entry says which one it was.
    let part: SequencePart = get(&server.operator(), "/v1/operator/sequence").await.unwrap();
    let opened: Vec<_> = part.documents.iter().map(|signed| open(signed).unwrap()).collect();
    assert_eq!(opened.last().unwrap().proves(), Some(opened[opened.len() - 2].place));
    server.stop();
    server.serve();
    node.allow(&server.operator()).await;
    assert_eq!(said(&node.boot(&server.anybody()).await), "released");
}

/// What the first tenant signed before the second one had the node counts no more, and is not in the way either.
#[tokio::test]
async fn a_tenant_that_comes_back_starts_without_a_policy() {
    let mut server = Server::start();
    let mut node = enrolled(&server).await;
    let (anybody, operator) = (server.anybody(), server.operator());
    let (scope, additions) = (format!("node:{}", node.id), format!("additions:{}", node.id));
    let more = format!("format = 1\nname = \"more\"\n\n{}", Software::version("6.1.0-56").boot());
    node.apply(&operator, "group:web", &lax()).await.unwrap();
    node.apply(&operator, &scope, &lax()).await.unwrap();
    node.group(&operator, Some("web")).await.unwrap();
    node.apply(&operator, &additions, &more).await.unwrap();
    assert_eq!(said(&node.boot(&anybody).await), "released");
    keep(&server);
    let first = node.tenant.clone();
    node.tenant = Arc::new(Ed25519KeyPair::generate().unwrap());
    node.enroll(&anybody, &operator, "second").await;
    assert_eq!(said(&node.boot(&anybody).await), "pending no_policy");
    node.apply(&operator, &scope, &strict()).await.unwrap();
    assert_eq!(said(&node.boot(&anybody).await), "denied policy_mismatch");
    node.tenant = first;
    node.enroll(&anybody, &operator, "third").await;

    let waits = async |server: &Server, node: &Node| {
        let verdict = node.boot(&server.anybody()).await;
        assert_eq!(said(&verdict), "pending no_policy", "{verdict:?}");
        assert!(!verdict.message.contains("not what was signed"), "{verdict:?}");
        node.approve(&server.operator()).await.unwrap();
        assert_eq!(said(&node.boot(&server.anybody()).await), "released");
        node.reboot();
    };
    for put_back in [
        "",
        "INSERT INTO policies SELECT * FROM kept_policies WHERE scope LIKE 'node:%'",
        "INSERT INTO policies SELECT * FROM kept_policies WHERE scope LIKE 'additions:%'",
        "UPDATE nodes SET group_name = k.group_name, group_number = k.group_number
             FROM kept_groups k WHERE k.node_id = nodes.node_id",
    ] {
        server.database().execute_batch(put_back).unwrap();
        waits(&server, &node).await;
        server.stop();
        server.serve();
        waits(&server, &node).await;
    }
    // What is signed now counts, beside those rows.
    let operator = server.operator();
    node.apply(&operator, &scope, &strict()).await.unwrap();
    assert_eq!(said(&node.boot(&server.anybody()).await), "denied policy_mismatch");
    node.apply(&operator, &scope, "").await.unwrap();
    waits(&server, &node).await;
    node.group(&operator, Some("web")).await.unwrap();
    assert_eq!(said(&node.boot(&server.anybody()).await), "released");
}

/// Signed with this label by the node's tenant, and handed in.
async fn enroll_as(node: &Node, operator: &Client, id: &str, label: &str) -> (NodeRecord, Halves) {
    let (Enroll { signed, c_u, c_v }, halves) = node.enrollment(operator, id).await;
    let mut document: Document = serde_json::from_slice(&signed.document).unwrap();
    document.body = document.body.replace("\"label\":\"web1\"", &format!("\"label\":\"{label}\""));
    let enroll = Enroll { signed: node.sign(&document), c_u, c_v };
    (post(operator, &path(node.id, "/enrollment"), &enroll).await.unwrap(), halves)
}

/// Another operator, or who writes the database, could else have a workstation revoke, learn from or approve another node than it names.
#[tokio::test]
async fn a_label_is_that_of_the_enrollment_that_was_proved() {
    let mut server = Server::start();
    let mut node = enrolled(&server).await;
    let (id, ours) = (node.id, node.tenant.clone());
    common::command(&["operator", "add", "bob", "--state", server.state().to_str().unwrap()]);
    let of_bob = server.state().join("operator-bob.bundle");
    let first: NodeRecord = get(&server.operator(), &path(node.id, "")).await.unwrap();
    let named = async |server: &Server, name: &str| -> usize {
        let list: NodeList =
            get(&server.operator(), &format!("/v1/operator/nodes?name={name}")).await.unwrap();
        list.nodes.len()
    };
    let is_called = async |server: &Server, label: &str| {
        for name in ["web1", "test-1", "db1"] {
            assert_eq!(named(server, name).await, usize::from(name == label), "{name}, and it is {label}");
        }
        let list: NodeList = get(&server.operator(), "/v1/operator/nodes").await.unwrap();
        let line = list.nodes.iter().find(|line| line.id == id.to_string());
        assert_eq!(line.unwrap().label, label);
        let record: NodeRecord = get(&server.operator(), &path(id, "")).await.unwrap();
        assert_eq!(record.summary.label, label);
    };
    is_called(&server, "web1").await;

    // What nobody proves.
    node.tenant = Arc::new(Ed25519KeyPair::generate().unwrap());
    let (record, _) = enroll_as(&node, &server.with_bundle(&of_bob), "bobs", "test-1").await;
    assert_eq!(record.summary.state, NodeState::Enrolling);
    node.tenant = ours;
    for _ in 0..2 {
        is_called(&server, "web1").await;
        server.stop();
        server.serve();
    }
    // A row.
    server.database().execute("UPDATE nodes SET label = 'test-1'", []).unwrap();
    assert_eq!(named(&server, "test-1").await, 0);
    // Nor is its name to be had: whoever calls itself so would be revoked in its place.
    is_called(&server, "web1").await;
    let record: NodeRecord = get(&server.operator(), &path(node.id, "")).await.unwrap();
    assert_eq!(record.summary.label, "web1");
    assert_eq!(record.enrollment, first.enrollment, "what the workstation goes by is what was proved");
    // Not even if rows that call themselves so fill the answer.
    let decoy = node.sibling();
    decoy.register(&server.anybody()).await.unwrap();
    let (_, halves) = enroll_as(&decoy, &server.operator(), "decoy", "db7").await;
    decoy.attest(&server.anybody(), "enroll").await.unwrap();
    decoy.prove(&server.anybody(), &halves).await.unwrap();
    let rows = "UPDATE nodes SET label = iif(node_id = ?1, 'x', 'web1')";
    server.database().execute(rows, [node.id.to_string()]).unwrap();
    let list: NodeList = get(&server.operator(), "/v1/operator/nodes?name=web1&limit=1").await.unwrap();
    assert_eq!(list.nodes[0].id, node.id.to_string());
    assert!(list.next.is_some(), "that there is no other is not known");
    // Nor if its row is gone.
    let gone = "PRAGMA foreign_keys = OFF; CREATE TABLE kept AS SELECT * FROM nodes; DELETE FROM nodes";
    server.database().execute_batch(gone).unwrap();
    assert_eq!(named(&server, "web1").await, 1);
    // The first digits of its id are another's as well.
    let digits = &node.id.to_string()[..8];
    assert_eq!(named(&server, digits).await, 1);
    let twin = "INSERT INTO nodes (node_id, label, last_seen) VALUES (?1 || substr('-0000-0000-0000-000000000000', 1), 'web1', 0)";
    server.database().execute(twin, [digits]).unwrap();
    assert_eq!(named(&server, digits).await, 2, "nobody is revoked in its place");
    server.database().execute("DELETE FROM nodes", []).unwrap();
    let put_back = "INSERT INTO nodes SELECT * FROM kept; UPDATE nodes SET label = 'web1'";
    server.database().execute_batch(put_back).unwrap();

    // The tenant's own new name counts with the proof.
    node.register(&server.anybody()).await.unwrap();
    let (record, halves) = enroll_as(&node, &server.operator(), "renamed", "db1").await;
    assert!(record.open.is_some() && record.open == record.newest().cloned());
    is_called(&server, "web1").await;
    let (_, verdict) = node.attest(&server.anybody(), "enroll").await.unwrap();
    assert_eq!(said(&verdict), "released");
    node.prove(&server.anybody(), &halves).await.unwrap();
    is_called(&server, "db1").await;
    // Of one that was never proved, the open one says it.
    let other = node.sibling();
    other.register(&server.anybody()).await.unwrap();
    let (record, _) = enroll_as(&other, &server.operator(), "other", "test-1").await;
    assert_eq!((record.summary.label.as_str(), record.open), ("test-1", None));
    assert!(record.enrollment.is_some());
    assert_eq!(named(&server, "test-1").await, 1);
}

/// Whoever has an operator's certificate can leave an enrollment with a K of his own: the machine's fetch would pass for its word that
/// it took it, and he would prove it without the machine. The node's own tenant would be replaced.
#[tokio::test]
async fn an_enrollment_that_the_machine_does_not_want_is_neither_fetched_nor_proved() {
    let mut server = Server::start();
    let mut node = enrolled(&server).await;
    node.allow(&server.operator()).await;
    let ada = node.tenant.clone();
    let bob = Arc::new(Ed25519KeyPair::generate().unwrap());
    let hand_in = async |server: &Server, node: &Node, id: &str| {
        let (enroll, halves) = node.enrollment(&server.operator(), id).await;
        let _: NodeRecord = post(&server.operator(), &path(node.id, "/enrollment"), &enroll).await.unwrap();
        halves
    };
    let refuses = async |server: &Server, node: &Node, what: &str| {
        let (_, verdict) = node.attest(&server.anybody(), "enroll").await.unwrap();
        assert_eq!(said(&verdict), "denied enrollment_signature", "{verdict:?}");
        assert!(verdict.sealed.is_none() && verdict.message.contains(what), "{verdict:?}");
        assert!(verdict.hint.unwrap().contains("halfkey enroll"));
    };

    // Ada's machine begins to enroll again, and Bob is first.
    node.register_with(&server.anybody(), [9; 32]).await.unwrap();
    node.tenant = bob.clone();
    let bobs = hand_in(&server, &node, "bobs").await;
    node.tenant = ada.clone();
    for _ in 0..2 {
        refuses(&server, &node, &fingerprint(bob.public_key().as_ref())).await;
        assert_eq!(refused(node.prove(&server.anybody(), &bobs).await), Reason::Proof);
        node.reboot();
        assert_eq!(said(&node.boot(&server.anybody()).await), "released");
        server.stop();
        server.serve();
    }
    // Her own, which the machine does not wait for any more: nobody knows who has its halves by now.
    let before = hand_in(&server, &node, "before").await;
    node.register_with(&server.anybody(), [10; 32]).await.unwrap();
    refuses(&server, &node, "another challenge").await;
    assert_eq!(refused(node.prove(&server.anybody(), &before).await), Reason::Proof);
    // And the one that it waits for.
    node.enroll(&server.anybody(), &server.operator(), "hers").await;
    assert_eq!(refused(node.prove(&server.anybody(), &bobs).await), Reason::EnrollmentUsed);
    node.reboot();
    assert_eq!(said(&node.boot(&server.anybody()).await), "released");
}
