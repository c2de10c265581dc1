//! Rows that say which documents govern a node, and who has fetched an enrollment: the documents, and the boot that fetched, count.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use common::node::{Node, enrolled, said};
use common::{Server, get, path, post, refused};
use halfkey_protocol::Reason;
use halfkey_protocol::wire::operator::NodeRecord;
use halfkey_protocol::wire::policies::PolicyList;
use halfkey_testkit::software::Software;

fn next() -> Software {
    Software::version("6.1.0-56")
}

fn evil() -> Software {
    Software::version("6.6.6-evil")
}

/// With a policy of its own, and another boot added to it.
async fn with_additions(server: &Server) -> (Node, String) {
    let (node, operator) = (enrolled(server).await, server.operator());
    node.apply(&operator, &format!("node:{}", node.id), &Software::default().policy("web")).await.unwrap();
    let scope = format!("additions:{}", node.id);
    let additions = format!("format = 1\nname = \"more\"\n\n{}", next().boot());
    node.apply(&operator, &scope, &additions).await.unwrap();
    node.reboot_into(&next());
    assert_eq!(said(&node.boot(&server.anybody()).await), "released");
    (node, scope)
}

/// What was worked out for one member of a group is not taken for another, whom a row gives the same documents.
#[tokio::test]
async fn no_row_gives_a_node_the_additions_of_another() {
    let server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let one = enrolled(&server).await;
    let other = one.sibling();
    other.register(&anybody).await.unwrap();
    other.enroll(&anybody, &operator, &other.id.to_string()).await;
    for node in [&one, &other] {
        node.group(&operator, Some("web")).await.unwrap();
    }
    one.apply(&operator, "group:web", &Software::default().policy("web")).await.unwrap();
    let additions = format!("format = 1\nname = \"more\"\n\n{}", next().boot());
    one.apply(&operator, &format!("additions:{}", one.id), &additions).await.unwrap();
    one.reboot_into(&next());
    assert_eq!(said(&one.boot(&anybody).await), "released");
    let lie = format!(
        "INSERT INTO policies SELECT 'additions:{}', version, name, tenant_key, sha256, applied_at, applied_by
         FROM policies WHERE scope = 'additions:{}'",
        other.id, one.id
    );
    assert_eq!(server.database().execute(&lie, []).unwrap(), 1);
    other.reboot_into(&next());
    let verdict = other.boot(&anybody).await;
    assert_ne!(said(&verdict), "released", "{verdict:?}");
    assert_eq!(said(&one.boot(&anybody).await), "released");
}

#[tokio::test]
async fn no_row_keeps_an_owner_from_withdrawing() {
    for (lie, back) in [
        (
            "UPDATE policies SET name = '' WHERE scope LIKE 'additions:%'",
            "UPDATE policies SET name = 'more' WHERE scope LIKE 'additions:%' AND name = ''",
        ),
        (
            "CREATE TABLE kept AS SELECT * FROM policies; DELETE FROM policies WHERE scope LIKE 'additions:%'",
            "INSERT OR IGNORE INTO policies SELECT * FROM kept",
        ),
    ] {
        let server = Server::start();
        let (node, scope) = with_additions(&server).await;
        server.database().execute_batch(lie).unwrap();
        node.apply(&server.operator(), &scope, "").await.unwrap();
        server.database().execute_batch(back).unwrap();
        node.reboot_into(&next());
        assert_ne!(said(&node.boot(&server.anybody()).await), "released", "{lie}");
        // It is withdrawn already.
        let again = node.apply(&server.operator(), &scope, "").await;
        assert_eq!(refused(again), Reason::Conflict);
    }
}

#[tokio::test]
async fn what_is_in_force_is_not_shown_as_withdrawn() {
    let server = Server::start();
    let (node, operator) = (enrolled(&server).await, server.operator());
    node.group(&operator, Some("web")).await.unwrap();
    node.apply(&operator, "group:web", &Software::default().policy("web")).await.unwrap();
    server.database().execute("UPDATE policies SET name = ''", []).unwrap();
    let list: PolicyList = get(&operator, "/v1/operator/policies").await.unwrap();
    assert_eq!(list.policies.iter().map(|policy| policy.name.as_str()).collect::<Vec<_>>(), ["?"]);
    node.reboot_into(&Software::default());
    assert_eq!(said(&node.boot(&server.anybody()).await), "released");
}

/// Else a boot that the group's policy denies would wait for an operator, without a finding.
#[tokio::test]
async fn no_row_takes_a_node_from_the_policy_of_its_group() {
    for lie in ["group_name = NULL", "group_name = 'other'", "group_name = ''"] {
        let server = Server::start();
        let (node, operator) = (enrolled(&server).await, server.operator());
        node.group(&operator, Some("web")).await.unwrap();
        node.apply(&operator, "group:web", &Software::default().policy("web")).await.unwrap();
        server.database().execute(&format!("UPDATE nodes SET {lie}"), []).unwrap();
        node.reboot_into(&evil());
        assert_eq!(said(&node.boot(&server.anybody()).await), "denied policy_mismatch", "{lie}");
        node.reboot_into(&Software::default());
        assert_eq!(said(&node.boot(&server.anybody()).await), "released", "{lie}");
    }
}

#[tokio::test]
async fn a_document_that_was_damaged_for_a_moment_is_read_again() {
    let mut server = Server::start();
    let (node, _) = with_additions(&server).await;
    server.stop();
    server.serve();
    node.reboot_into(&next());
    let damage = "CREATE TABLE kept AS SELECT number, document FROM documents WHERE scope LIKE 'additions:%';
        UPDATE documents SET document = x'00' WHERE scope LIKE 'additions:%'";
    server.database().execute_batch(damage).unwrap();
    assert_ne!(said(&node.boot(&server.anybody()).await), "released");
    let back =
        "UPDATE documents SET document = (SELECT document FROM kept WHERE kept.number = documents.number)
        WHERE scope LIKE 'additions:%'";
    server.database().execute_batch(back).unwrap();
    node.reboot_into(&next());
    assert_eq!(said(&node.boot(&server.anybody()).await), "released");
}

/// C_U goes out to the boot that fetched it first, whatever a row says of that.
#[tokio::test]
async fn what_was_fetched_is_not_fetched_by_another_boot() {
    let server = Server::start();
    let (anybody, operator, node) = (server.anybody(), server.operator(), Node::new());
    node.register(&anybody).await.unwrap();
    let (enroll, halves) = node.enrollment(&operator, "one").await;
    let _: NodeRecord = post(&operator, &path(node.id, "/enrollment"), &enroll).await.unwrap();
    assert_eq!(said(&node.attest(&anybody, "enroll").await.unwrap().1), "released");
    assert_eq!(said(&node.attest(&anybody, "enroll").await.unwrap().1), "released", "once more");
    let ticket: String = {
        let fetched = "SELECT fetched_by FROM enrollments";
        server.database().query_row(fetched, [], |row| row.get(0)).unwrap()
    };
    node.reboot_into(&evil());
    assert_eq!(said(&node.attest(&anybody, "enroll").await.unwrap().1), "denied enrollment_used");
    for lie in ["NULL", "'x'", "''"] {
        server.database().execute(&format!("UPDATE enrollments SET fetched_by = {lie}"), []).unwrap();
        assert_eq!(refused(node.attest(&anybody, "enroll").await), Reason::RolledBack, "{lie}");
    }
    server.database().execute("UPDATE enrollments SET fetched_by = ?1", [ticket]).unwrap();
    node.prove(&anybody, &halves).await.unwrap();
}

/// Who signed an enrollment knows K: the machine's word is a proof only once it was given the halves.
#[tokio::test]
async fn a_row_that_says_fetched_proves_nothing() {
    let server = Server::start();
    let (anybody, operator, node) = (server.anybody(), server.operator(), enrolled(&server).await);
    node.allow(&operator).await;
    node.reboot_into(&Software::default());
    assert_eq!(said(&node.boot(&anybody).await), "released");
    let (enroll, halves) = node.enrollment(&operator, "theirs").await;
    let _: NodeRecord = post(&operator, &path(node.id, "/enrollment"), &enroll).await.unwrap();
    assert_eq!(refused(node.prove(&anybody, &halves).await), Reason::Proof);
    let lie = "UPDATE enrollments SET fetched_by = 'x' WHERE state = 'open'";
    server.database().execute(lie, []).unwrap();
    assert_eq!(refused(node.prove(&anybody, &halves).await), Reason::Proof);
    server.database().execute("UPDATE enrollments SET fetched_by = NULL WHERE state = 'open'", []).unwrap();
    node.reboot_into(&Software::default());
    assert_eq!(said(&node.boot(&anybody).await), "released", "the current one stays");
}
