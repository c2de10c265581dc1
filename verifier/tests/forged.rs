//! Rows written by somebody who can write the database and has no file beside it.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use common::node::{Node, answered, enrolled, said};
use common::{Server, command, get, output, path, post, refused};
use halfkey_protocol::Reason;
use halfkey_protocol::wire::operator::{AuditList, NodeList, NodeRecord};
use halfkey_protocol::wire::policies::NodePolicy;
use halfkey_testkit::software::{Software, policy_head, trust};
use halfkey_verifier::client::Client;

async fn damages(operator: &Client) -> usize {
    let trail: AuditList = get(operator, "/v1/operator/audit?after=0&limit=1000").await.unwrap();
    trail.entries.iter().filter(|entry| entry.action == "damage").count()
}

#[tokio::test]
async fn an_approval_in_a_row_alone_is_none() {
    let server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let node = enrolled(&server).await;
    node.allow(&operator).await;
    node.reboot_into(&Software::version("6.6.6-evil"));
    assert_eq!(said(&node.boot(&anybody).await), "denied policy_mismatch");
    let change = |sql: &str| assert_eq!(server.database().execute(sql, []).unwrap(), 1, "{sql}");
    let forge = "UPDATE boots SET decision = 'approved', decided_by = 'ada', approved_until = 99999999999,
                     used_at = NULL";
    change(forge);
    // Looking at it does not make it one.
    let shown: NodeRecord = get(&operator, &path(node.id, "")).await.unwrap();
    assert!(shown.pending.is_none(), "the row says that it is decided");
    assert_eq!(said(&node.boot(&anybody).await), "denied policy_mismatch");
    assert_eq!(damages(&operator).await, 1);
    assert!(server.log().contains("an approval that no operator gave"), "{}", server.log());

    // An operator's own, for as long as that was, and once.
    node.approve(&operator).await.unwrap();
    change("UPDATE boots SET approved_until = approved_until + 1");
    assert_eq!(said(&node.boot(&anybody).await), "denied policy_mismatch");
    node.approve(&operator).await.unwrap();
    change("UPDATE boots SET decided_by = 'bob'");
    assert_eq!(said(&node.boot(&anybody).await), "denied policy_mismatch");
    node.approve(&operator).await.unwrap();
    assert_eq!(said(&node.boot(&anybody).await), "released");
    change("UPDATE boots SET used_at = NULL");
    assert_eq!(said(&node.boot(&anybody).await), "denied policy_mismatch", "it was used");
    change(forge);
    assert_eq!(said(&node.boot(&anybody).await), "denied policy_mismatch");
    node.approve(&operator).await.unwrap();
    assert_eq!(said(&node.boot(&anybody).await), "released", "what was forged locks nobody out");

    // The tag of one boot is not another's.
    node.reboot_into(&Software::version("6.6.7-evil"));
    assert_eq!(said(&node.boot(&anybody).await), "denied policy_mismatch");
    node.approve(&operator).await.unwrap();
    let tag: Vec<u8> = server
        .database()
        .query_row("SELECT approval_tag FROM boots WHERE approval_tag IS NOT NULL", [], |row| row.get(0))
        .unwrap();
    node.reboot_into(&Software::version("6.6.8-evil"));
    assert_eq!(said(&node.boot(&anybody).await), "denied policy_mismatch");
    let copy = "UPDATE boots SET decision = 'approved', decided_by = 'ada', approval_tag = ?1,
                    approved_until = (SELECT max(approved_until) FROM boots) WHERE decision IS NULL";
    assert_eq!(server.database().execute(copy, [tag]).unwrap(), 1);
    assert_eq!(said(&node.boot(&anybody).await), "denied policy_mismatch");
}

#[tokio::test]
async fn a_certificate_is_listed_by_the_command_and_not_by_a_row() {
    let server = Server::start();
    let state = server.state().to_str().unwrap();
    command(&["operator", "add", "bob", "--state", state]);
    command(&["operator", "add", "eve", "--state", state]);
    let bob = server.with_bundle(&server.state().join("operator-bob.bundle"));
    let eve = server.with_bundle(&server.state().join("operator-eve.bundle"));
    let nodes = async |client: &Client| get::<NodeList>(client, "/v1/operator/nodes").await;
    nodes(&bob).await.unwrap();
    let fingerprint: String = server
        .database()
        .query_row("SELECT fingerprint FROM clients WHERE name = 'bob'", [], |row| row.get(0))
        .unwrap();
    command(&["operator", "remove", "bob", "--state", state]);
    assert_eq!(refused(nodes(&bob).await), Reason::Unauthorized);
    // His certificate is still the CA's. Without a tag, and with that of another row.
    let again = "INSERT INTO clients (fingerprint, name, kind, added_at, tag)
                 SELECT ?1, 'bob', 'operator', 1, iif(?2, tag, NULL) FROM clients WHERE name = 'ada'";
    for with_tag in [false, true] {
        server.database().execute(again, rusqlite::params![fingerprint, with_tag]).unwrap();
        assert_eq!(refused(nodes(&bob).await), Reason::Unavailable);
        assert!(server.log().contains("kind operator, which no halfkey-verifier listed"), "{}", server.log());
        let listed = output(&["operator", "list", "--state", state]);
        assert!(!listed.status.success() && String::from_utf8_lossy(&listed.stderr).contains("\"bob\""));
        command(&["operator", "remove", "bob", "--state", state]);
    }
    // Another's name: what the audit trail would say.
    server.database().execute("UPDATE clients SET name = 'boss' WHERE name = 'eve'", []).unwrap();
    assert_eq!(refused(nodes(&eve).await), Reason::Unavailable);
    nodes(&server.operator()).await.unwrap();
    assert!(!command(&["operator", "remove", "boss", "--state", state]).contains("boss"));
    assert!(command(&["operator", "list", "--state", state]).contains("ada"));
}

#[tokio::test]
async fn trust_is_given_by_a_policy_and_not_by_a_row() {
    let server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let (good, evil) = (Software::version("6.1.0-56"), Software::version("6.6.6-evil"));
    let node = enrolled(&server).await;
    let scope = format!("node:{}", node.id);
    let policy = policy_head("web") + &trust("2999-01-01T00:00:00Z", 1) + &Software::default().boot();
    node.apply(&operator, &scope, &policy).await.unwrap();
    let opened = async |software: &Software| {
        node.reboot_into(software);
        let verdict = node.boot(&anybody).await;
        assert_eq!(said(&verdict), "released", "{verdict:?}");
        node.open_fence();
    };
    opened(&Software::default()).await;
    assert_eq!(answered(&node.propose(&anybody, &good).await), "accepted");
    assert_eq!(answered(&node.propose(&anybody, &evil).await), "waiting proposal_waits", "one is enough");
    let trusted = async || {
        let governed: NodePolicy = get(&operator, &path(node.id, "/policy")).await.unwrap();
        governed.trusted.len()
    };
    assert_eq!(trusted().await, 1);
    let change = |sql: &str| assert_eq!(server.database().execute(sql, []).unwrap(), 1, "{sql}");

    // Its own row; with the tag of the other; what the other's row proposes.
    change(
        "UPDATE proposals SET state = 'trusted', by_trust = 1, trusted_scope = (SELECT trusted_scope FROM
                proposals WHERE tag IS NOT NULL) WHERE state = 'waiting'",
    );
    assert_eq!(trusted().await, 1);
    node.reboot_into(&evil);
    assert_eq!(said(&node.boot(&anybody).await), "denied policy_mismatch");
    assert!(server.log().contains("trust that no policy gave"), "{}", server.log());
    change("UPDATE proposals SET tag = (SELECT tag FROM proposals WHERE tag IS NOT NULL) WHERE tag IS NULL");
    assert_eq!(said(&node.boot(&anybody).await), "denied policy_mismatch");
    change("DELETE FROM proposals WHERE id = 2");
    node.reboot_into(&good);
    assert_eq!(said(&node.boot(&anybody).await), "released", "the other is as good as before");
    node.reboot_into(&evil);
    let text = serde_json::to_string(&evil.proposal()).unwrap();
    assert_eq!(server.database().execute("UPDATE proposals SET proposal = ?1", [text]).unwrap(), 1);
    assert_eq!(said(&node.boot(&anybody).await), "denied policy_mismatch");
    assert_eq!(trusted().await, 0);
}

/// With C_U, C_V and the TPM nobody needs the server: C_U is never readable in the database.
#[tokio::test]
async fn a_copy_of_the_database_from_the_middle_of_an_enrollment_has_no_c_u() {
    let mut server = Server::start();
    let nodes = [Node::new(), Node::new()];
    let mut sealed = Vec::new();
    for node in &nodes {
        node.register(&server.anybody()).await.unwrap();
        let (enroll, halves) = node.enrollment(&server.operator(), &node.id.to_string()).await;
        let _: NodeRecord = post(&server.operator(), &path(node.id, "/enrollment"), &enroll).await.unwrap();
        sealed.push((enroll, halves));
    }
    server.stop();
    let copy = std::fs::read(server.state().join("halfkey.db")).unwrap();
    let has = |bytes: &[u8]| {
        let base64 = serde_json::to_string(&halfkey_protocol::Bytes::from(bytes)).unwrap();
        let parts = [bytes[..32].to_vec(), base64.as_bytes()[1..40].to_vec()];
        parts.iter().any(|part| copy.windows(part.len()).any(|at| at == &part[..]))
    };
    for (enroll, _) in &sealed {
        assert!(has(&enroll.c_v.secret) && has(&enroll.c_v.id_object), "C_V is worth nothing alone");
        assert!(!has(&enroll.c_u.secret) && !has(&enroll.c_u.id_object));
    }
    // The server still has it, for the enrollment that it is of.
    server.serve();
    let swap =
        "UPDATE enrollments SET c_u = (SELECT c_u FROM enrollments e WHERE e.node_id <> enrollments.node_id)
                WHERE node_id = ?1";
    let before: Vec<u8> = server
        .database()
        .query_row("SELECT c_u FROM enrollments WHERE node_id = ?1", [nodes[0].id.to_string()], |row| {
            row.get(0)
        })
        .unwrap();
    server.database().execute(swap, [nodes[0].id.to_string()]).unwrap();
    assert_eq!(refused(nodes[0].begin(&server.anybody(), "enroll").await), Reason::RolledBack);
    server
        .database()
        .execute(
            "UPDATE enrollments SET c_u = ?2 WHERE node_id = ?1",
            rusqlite::params![nodes[0].id.to_string(), before],
        )
        .unwrap();
    for (node, (_, halves)) in nodes.iter().zip(&sealed) {
        let (session, verdict) = node.attest(&server.anybody(), "enroll").await.unwrap();
        assert!(node.open("enroll", &session, &verdict).c_u.is_some());
        node.prove(&server.anybody(), halves).await.unwrap();
    }
}
