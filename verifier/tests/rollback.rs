//! What was put back: in rows, in the database, with and without the state file.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use aws_lc_rs::signature::Ed25519KeyPair;
use common::node::{Node, enrolled, line_at, said};
use common::{Server, command, get, output, path, post, refused, until};
use halfkey_protocol::Reason;
use halfkey_protocol::keys::label;
use halfkey_protocol::wire::operator::{AuditList, Because, NodeList, NodeRecord, NodeState};
use halfkey_protocol::wire::policies::{NodePolicy, PolicyRecord};
use halfkey_protocol::wire::{Prove, Proved};
use halfkey_testkit::software::{lax, strict};
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::sync::Arc;

async fn revoke(server: &Server, node: &Node, what: &str) {
    let body = Because { because: "stolen".into() };
    let _: NodeRecord = post(&server.operator(), &path(node.id, what), &body).await.unwrap();
}

/// The database of a server that does not run, with everything in one file.
fn backup(server: &mut Server) -> PathBuf {
    assert_eq!(server.stop(), Some(0));
    let copy = server.dir.path().join("backup.db");
    std::fs::copy(server.state().join("halfkey.db"), &copy).unwrap();
    server.serve();
    copy
}

fn put_back(server: &mut Server, copy: &Path) {
    server.stop();
    let path = server.state().join("halfkey.db");
    for ending in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(path.with_extension(format!("db{ending}")));
    }
    std::fs::copy(copy, path).unwrap();
}

/// While the server runs, and again after it has started anew.
async fn both(server: &mut Server, change: impl Fn(&Connection), check: impl AsyncFn(&Server)) {
    change(&server.database());
    check(server).await;
    server.stop();
    server.serve();
    check(server).await;
}

#[tokio::test]
async fn an_older_policy_put_back_by_sql_is_not_judged_by() {
    let mut server = Server::start();
    let node = enrolled(&server).await;
    let scope = format!("node:{}", node.id);
    node.apply(&server.operator(), &scope, &lax()).await.unwrap();
    assert_eq!(said(&node.boot(&server.anybody()).await), "released");
    node.apply(&server.operator(), &scope, &strict()).await.unwrap();
    assert_eq!(said(&node.boot(&server.anybody()).await), "denied policy_mismatch");
    // The view of the policies alone: the newer one is missed.
    let newest = "version = (SELECT max(version) FROM policies)";
    let forget = |database: &Connection| {
        database.execute(&format!("DELETE FROM policies WHERE {newest}"), []).unwrap();
    };
    forget(&server.database());
    for _ in 0..2 {
        let verdict = node.boot(&server.anybody()).await;
        assert_eq!(said(&verdict), "pending no_policy");
        assert!(verdict.message.contains("is newer"), "{verdict:?}");
        server.stop();
        server.serve();
    }
    // The document itself as well.
    server
        .database()
        .execute("DELETE FROM documents WHERE number = (SELECT max(number) FROM documents)", [])
        .unwrap();
    for _ in 0..2 {
        let problem = node.begin(&server.anybody(), "boot").await.err().unwrap();
        assert_eq!(problem.code, "rolled_back");
        assert!(problem.hint.unwrap().contains("accept-rollback"));
        server.stop();
        server.serve();
    }
}

#[tokio::test]
async fn a_group_is_what_the_tenant_signed_last() {
    let mut server = Server::start();
    let node = enrolled(&server).await;
    node.apply(&server.operator(), "group:lax", &lax()).await.unwrap();
    node.apply(&server.operator(), "group:strict", &strict()).await.unwrap();
    node.group(&server.operator(), Some("lax")).await.unwrap();
    assert_eq!(said(&node.boot(&server.anybody()).await), "released");
    let earlier = line_at(&server.operator()).await.head.number;
    node.group(&server.operator(), Some("strict")).await.unwrap();
    assert_eq!(said(&node.boot(&server.anybody()).await), "denied policy_mismatch");

    let check = async |server: &Server| {
        let verdict = node.boot(&server.anybody()).await;
        assert_eq!(said(&verdict), "pending no_policy", "{verdict:?}");
    };
    let still_denied = async |server: &Server| {
        assert_eq!(said(&node.boot(&server.anybody()).await), "denied policy_mismatch");
    };
    // Another name in the row says nothing; the earlier membership with it; none at all.
    let name = |database: &Connection| {
        database.execute("UPDATE nodes SET group_name = 'lax'", []).unwrap();
    };
    both(&mut server, name, still_denied).await;
    let whole = |database: &Connection| {
        let set = format!("UPDATE nodes SET group_name = 'lax', group_number = {earlier}");
        database.execute(&set, []).unwrap();
    };
    both(&mut server, whole, check).await;
    let none = |database: &Connection| {
        database.execute("UPDATE nodes SET group_name = 'lax', group_number = NULL", []).unwrap();
    };
    both(&mut server, none, check).await;
    // The tenant's word mends it.
    node.group(&server.operator(), Some("lax")).await.unwrap();
    assert_eq!(said(&node.boot(&server.anybody()).await), "released");
    let governed: NodePolicy = get(&server.operator(), &path(node.id, "/policy")).await.unwrap();
    assert!(governed.group.as_deref() == Some("lax") && governed.membership.is_some());
}

#[tokio::test]
async fn a_revocation_is_not_taken_back_by_a_row() {
    let mut server = Server::start();
    let node = enrolled(&server).await;
    node.allow(&server.operator()).await;
    revoke(&server, &node, "/revoke").await;
    let check = async |server: &Server| {
        assert_eq!(said(&node.boot(&server.anybody()).await), "denied revoked");
        let list: NodeList = get(&server.operator(), "/v1/operator/nodes").await.unwrap();
        assert_eq!(list.nodes[0].state, NodeState::Revoked);
    };
    let forget = |database: &Connection| {
        database.execute("UPDATE nodes SET revoked_because = NULL", []).unwrap();
    };
    both(&mut server, forget, check).await;
    // Nor is it enrolled again, nor a new enrollment proved.
    let refusal = async |server: &Server| {
        let (enroll, halves) = node.enrollment(&server.operator(), "again").await;
        let answer = post::<NodeRecord>(&server.operator(), &path(node.id, "/enrollment"), &enroll).await;
        assert_eq!(refused(answer), Reason::Revoked);
        assert_eq!(refused(node.prove(&server.anybody(), &halves).await), Reason::Revoked);
    };
    both(&mut server, forget, refusal).await;
    // An entry that no server made, with its right place and the tag of another: only its own tag tells.
    let forge = |database: &Connection| {
        let (number, sha256): (i64, Vec<u8>) = database
            .query_row("SELECT number, sha256 FROM documents ORDER BY number DESC LIMIT 1", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .unwrap();
        let last: Vec<u8> = database
            .query_row("SELECT document FROM documents WHERE number = ?1", [number], |row| row.get(0))
            .unwrap();
        let mut forged: serde_json::Value = serde_json::from_slice(&last).unwrap();
        forged["kind"] = "restoration".into();
        forged["number"] = (number + 1).into();
        forged["previous"] = serde_json::to_value(halfkey_protocol::Bytes(sha256)).unwrap();
        let forged = serde_json::to_vec(&forged).unwrap();
        let hash = halfkey_protocol::document::sha256(&forged, &[]);
        database
            .execute(
                "INSERT INTO documents SELECT ?1, scope, ?2, handed_in_at, handed_in_by, signatures, ?3, tag
                 FROM documents WHERE number = ?4",
                rusqlite::params![number + 1, hash, forged, number],
            )
            .unwrap();
    };
    forge(&server.database());
    for _ in 0..2 {
        assert_eq!(refused(node.begin(&server.anybody(), "boot").await), Reason::RolledBack);
        server.stop();
        server.serve();
    }
    server
        .database()
        .execute("DELETE FROM documents WHERE number = (SELECT max(number) FROM documents)", [])
        .unwrap();
    server.stop();
    server.serve();
    node.decide(&server.operator(), "/restore", "found").await.unwrap();
    assert_eq!(said(&node.boot(&server.anybody()).await), "released");
}

#[tokio::test]
async fn a_database_that_was_put_back_serves_nothing_until_it_is_accepted() {
    let mut server = Server::start();
    let node = enrolled(&server).await;
    node.allow(&server.operator()).await;
    let copy = backup(&mut server);
    revoke(&server, &node, "/revoke").await;
    assert_eq!(said(&node.boot(&server.anybody()).await), "denied revoked");
    put_back(&mut server, &copy);
    server.serve();
    let refusal = |problem: halfkey_protocol::wire::Problem| {
        assert_eq!(problem.code, "rolled_back", "{problem:?}");
        assert!(problem.message.contains("already answered"), "{problem:?}");
    };
    refusal(node.begin(&server.anybody(), "boot").await.err().unwrap());
    refusal(node.begin(&server.anybody(), "enroll").await.err().unwrap());
    let scope = format!("node:{}", node.id);
    refusal(node.apply(&server.operator(), &scope, &lax()).await.err().unwrap());
    refusal(node.group(&server.operator(), Some("web")).await.err().unwrap());
    // Looking is allowed.
    let _: NodeRecord = get(&server.operator(), &path(node.id, "")).await.unwrap();
    let _: PolicyRecord = get(&server.operator(), &format!("/v1/operator/policies/{scope}")).await.unwrap();
    assert!(server.log().contains("nothing is enrolled or unlocked"), "{}", server.log());

    // Also while it runs: it looks at the file again.
    let state = server.state().to_str().unwrap().to_owned();
    let accepted = output(&["accept-rollback", "--state", &state]);
    assert!(accepted.status.success(), "{accepted:?}");
    assert!(
        String::from_utf8_lossy(&accepted.stderr).contains("already answered with number 4"),
        "{accepted:?}"
    );
    assert_eq!(
        said(&node.boot(&server.anybody()).await),
        "released",
        "the revocation is lost: that is what was accepted"
    );
    let trail: AuditList = get(&server.operator(), "/v1/operator/audit?after=0").await.unwrap();
    assert!(trail.entries.iter().any(|entry| entry.action == "accept_rollback"), "{trail:?}");
    let again = output(&["accept-rollback", "--state", &state]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("nothing to accept"), "{again:?}");
    server.stop();
    server.serve();
    assert_eq!(said(&node.boot(&server.anybody()).await), "released");
}

/// Bytes in the audit trail that are no text are another entry than the one that was answered: a damaged database can be accepted too.
#[tokio::test]
async fn a_trail_that_is_no_text_can_be_accepted() {
    let mut server = Server::start();
    let node = enrolled(&server).await;
    node.allow(&server.operator()).await;
    server.database().execute("UPDATE audit SET detail = CAST(x'ff' AS TEXT)", []).unwrap();
    assert_eq!(refused(node.begin(&server.anybody(), "boot").await), Reason::RolledBack);
    server.stop();
    let accepted = output(&["accept-rollback", "--state", server.state().to_str().unwrap()]);
    assert!(accepted.status.success(), "{accepted:?}");
    server.serve();
    assert_eq!(said(&node.boot(&server.anybody()).await), "released");
    let _: AuditList = get(&server.operator(), "/v1/operator/audit").await.unwrap();
}

/// Of a database from the middle of an enrollment nobody knows whether it was proved since: C_U would go to the running system, after
/// the boot that it was for.
#[tokio::test]
async fn an_enrollment_that_was_open_in_the_accepted_database_is_used() {
    let mut server = Server::start();
    let node = Node::new();
    node.register(&server.anybody()).await.unwrap();
    let (enroll, halves) = node.enrollment(&server.operator(), "first").await;
    let _: NodeRecord = post(&server.operator(), &path(node.id, "/enrollment"), &enroll).await.unwrap();
    let middle = backup(&mut server);
    let (_, verdict) = node.attest(&server.anybody(), "enroll").await.unwrap();
    assert_eq!(said(&verdict), "released");
    node.prove(&server.anybody(), &halves).await.unwrap();
    put_back(&mut server, &middle);
    let accepted = output(&["accept-rollback", "--state", server.state().to_str().unwrap()]);
    assert!(accepted.status.success(), "{accepted:?}");
    server.serve();
    node.reboot();
    node.tpm.measure(15, label::FENCE_CLOSED);
    let (_, verdict) = node.attest(&server.anybody(), "enroll").await.unwrap();
    assert_eq!(said(&verdict), "denied enrollment_used", "{verdict:?}");
    let left: i64 = server
        .database()
        .query_row("SELECT count(*) FROM enrollments WHERE c_u IS NOT NULL", [], |row| row.get(0))
        .unwrap();
    assert_eq!(left, 0);
    // Nor if who writes the database puts its row back.
    let database = server.database();
    database.execute("ATTACH ?1 AS middle", [middle.to_str().unwrap()]).unwrap();
    let back =
        "UPDATE main.enrollments SET (c_u, fetched_by) = (SELECT c_u, fetched_by FROM middle.enrollments)";
    assert_eq!(database.execute(back, []).unwrap(), 1);
    drop(database);
    for _ in 0..2 {
        let (_, verdict) = node.attest(&server.anybody(), "enroll").await.unwrap();
        assert_eq!(said(&verdict), "denied enrollment_used", "{verdict:?}");
        server.stop();
        server.serve();
    }
    let said_so = String::from_utf8_lossy(&accepted.stderr);
    assert!(said_so.contains("1 open enrollment"), "{said_so}");
    // The tenant enrolls once more, and all is well.
    node.register(&server.anybody()).await.unwrap();
    node.enroll(&server.anybody(), &server.operator(), "second").await;
    node.allow(&server.operator()).await;
    node.reboot();
    assert_eq!(said(&node.boot(&server.anybody()).await), "released");
}

/// Nor does accepting a database pass for the machine's word: whoever signed the open enrollment would prove it without the machine.
#[tokio::test]
async fn an_enrollment_that_was_open_in_the_accepted_database_is_not_proved() {
    let mut server = Server::start();
    let mut node = enrolled(&server).await;
    node.allow(&server.operator()).await;
    let ours = node.tenant.clone();
    node.tenant = Arc::new(Ed25519KeyPair::generate().unwrap());
    let (enroll, halves) = node.enrollment(&server.operator(), "theirs").await;
    let _: NodeRecord = post(&server.operator(), &path(node.id, "/enrollment"), &enroll).await.unwrap();
    node.tenant = ours;
    let copy = backup(&mut server);
    assert_eq!(said(&node.boot(&server.anybody()).await), "released");
    put_back(&mut server, &copy);
    command(&["accept-rollback", "--state", server.state().to_str().unwrap()]);
    server.serve();
    for fetched in ["NULL", "'a ticket'"] {
        let set = format!("UPDATE enrollments SET fetched_by = {fetched} WHERE state = 'open'");
        assert_eq!(server.database().execute(&set, []).unwrap(), 1);
        assert_eq!(refused(node.prove(&server.anybody(), &halves).await), Reason::EnrollmentUsed);
        node.reboot();
        assert_eq!(said(&node.boot(&server.anybody()).await), "released");
        server.stop();
        server.serve();
    }
}

/// By the book: the database and its state file, of one moment. The file fits, and nobody sees that a proof came after it.
#[tokio::test]
async fn a_state_folder_that_was_restored_gives_out_no_open_enrollment_again() {
    let mut server = Server::start();
    let node = Node::new();
    node.register(&server.anybody()).await.unwrap();
    let (enroll, halves) = node.enrollment(&server.operator(), "first").await;
    let _: NodeRecord = post(&server.operator(), &path(node.id, "/enrollment"), &enroll).await.unwrap();
    let middle = backup(&mut server);
    server.stop();
    let file = server.state().join("sequence.state");
    let kept = std::fs::read(&file).unwrap();
    server.serve();
    assert_eq!(said(&node.attest(&server.anybody(), "enroll").await.unwrap().1), "released");
    node.prove(&server.anybody(), &halves).await.unwrap();
    node.allow(&server.operator()).await;
    put_back(&mut server, &middle);
    std::fs::write(&file, kept).unwrap();

    let state = server.state().to_str().unwrap().to_owned();
    let said_so = |args: &[&str]| {
        let done = output(&[&["accept-rollback", "--state", &state], args].concat());
        (done.status.success(), String::from_utf8_lossy(&done.stderr).into_owned())
    };
    let (done, text) = said_so(&[]);
    assert!(done && text.contains("nothing to accept") && text.contains("--restored"), "{text}");
    let (done, text) = said_so(&["--restored"]);
    assert!(done && text.contains("together with its state file") && text.contains("1 open"), "{text}");
    let (done, text) = said_so(&["--restored"]);
    assert!(done && text.contains("0 open"), "once more: {text}");
    server.serve();
    // A server that runs would write its own file over it.
    let (done, text) = said_so(&["--restored"]);
    assert!(!done && text.contains("stop the server"), "{text}");
    node.reboot();
    node.tpm.measure(15, label::FENCE_CLOSED);
    for _ in 0..2 {
        let (_, verdict) = node.attest(&server.anybody(), "enroll").await.unwrap();
        assert_eq!(said(&verdict), "denied enrollment_used", "{verdict:?}");
        assert!(verdict.sealed.is_none());
        assert_eq!(refused(node.prove(&server.anybody(), &halves).await), Reason::EnrollmentUsed);
        server.stop();
        server.serve();
    }
    let trail: AuditList = get(&server.operator(), "/v1/operator/audit?after=0").await.unwrap();
    assert!(trail.entries.iter().any(|entry| entry.action == "accept_rollback"), "{trail:?}");
    node.register(&server.anybody()).await.unwrap();
    node.enroll(&server.anybody(), &server.operator(), "second").await;
}

/// A shorter audit trail tells of a database without a newer document.
#[tokio::test]
async fn lost_verdicts_are_noticed() {
    let mut server = Server::start();
    let node = enrolled(&server).await;
    node.allow(&server.operator()).await;
    let copy = backup(&mut server);
    assert_eq!(said(&node.boot(&server.anybody()).await), "released");
    put_back(&mut server, &copy);
    server.serve();
    let problem = node.begin(&server.anybody(), "boot").await.err().unwrap();
    assert!(problem.code == "rolled_back" && problem.message.contains("audit trail"), "{problem:?}");
}

/// Who holds both can put back both: the threat model says so.
#[tokio::test]
async fn a_state_folder_put_back_whole_is_served() {
    let mut server = Server::start();
    let node = enrolled(&server).await;
    node.allow(&server.operator()).await;
    let copy = backup(&mut server);
    let file = server.state().join("sequence.state");
    let kept = std::fs::read(&file).unwrap();
    revoke(&server, &node, "/revoke").await;
    put_back(&mut server, &copy);
    std::fs::write(&file, kept).unwrap();
    server.serve();
    assert_eq!(said(&node.boot(&server.anybody()).await), "released");
    // Without the file it is no database of this server.
    server.stop();
    std::fs::remove_file(&file).unwrap();
    server.serve();
    assert_eq!(refused(node.begin(&server.anybody(), "boot").await), Reason::RolledBack);
    command(&["accept-rollback", "--state", server.state().to_str().unwrap()]);
    assert_eq!(said(&node.boot(&server.anybody()).await), "released");
}

#[tokio::test]
async fn a_kill_while_documents_are_written_locks_nobody_out() {
    let mut server = Server::start();
    let node = enrolled(&server).await;
    let scope = format!("node:{}", node.id);
    for _ in 0..5 {
        let (operator, anybody) = (server.operator(), server.anybody());
        let signed = node.sign_policy(&operator, &scope, &lax()).await;
        let at = format!("/v1/operator/policies/{scope}");
        let writing =
            tokio::spawn(async move { post::<PolicyRecord>(&operator, &at, &signed).await.is_ok() });
        let _ = anybody.get::<serde_json::Value>("/healthz").await;
        server.kill();
        let _ = writing.await;
        server.serve();
        node.begin(&server.anybody(), "boot").await.unwrap();
    }
}

/// The node asks again until it has the answer: with its proof written or not.
#[tokio::test]
async fn a_kill_while_a_proof_is_written_leaves_an_enrollment_that_can_be_proved() {
    let mut server = Server::start();
    let node = enrolled(&server).await;
    node.allow(&server.operator()).await;
    for round in 0..5 {
        let (enroll, halves) = node.enrollment(&server.operator(), &format!("round {round}")).await;
        let _: NodeRecord = post(&server.operator(), &path(node.id, "/enrollment"), &enroll).await.unwrap();
        node.attest(&server.anybody(), "enroll").await.unwrap();
        let message = Prove {
            node_id: node.id.to_string(),
            enrollment_id: halves.enrollment_id.clone(),
            proof: halves.key.proof().into(),
        };
        let anybody = server.anybody();
        let proving =
            tokio::spawn(async move { post::<Proved>(&anybody, "/v1/prove", &message).await.is_ok() });
        let _ = server.anybody().get::<serde_json::Value>("/healthz").await;
        server.kill();
        let _ = proving.await;
        server.serve();
        assert_eq!(said(&node.boot(&server.anybody()).await), "released");
        node.prove(&server.anybody(), &halves).await.unwrap();
        assert_eq!(said(&node.boot(&server.anybody()).await), "released");
    }
}

#[tokio::test]
async fn a_policy_of_another_deployment_is_none() {
    let (server, other) = (Server::start(), Server::start());
    let node = enrolled(&server).await;
    node.register(&other.anybody()).await.unwrap();
    node.enroll(&other.anybody(), &other.operator(), &node.id.to_string()).await;
    let scope = format!("node:{}", node.id);
    let signed = node.sign_policy(&server.operator(), &scope, &lax()).await;
    assert_eq!(line_at(&other.operator()).await.head.number, 2, "the place would be right");
    let there =
        post::<PolicyRecord>(&other.operator(), &format!("/v1/operator/policies/{scope}"), &signed).await;
    let problem = there.unwrap_err();
    assert_eq!(problem.code, "deployment");
    assert!(problem.hint.unwrap().contains("halfkey login"));
    let _: PolicyRecord =
        post(&server.operator(), &format!("/v1/operator/policies/{scope}"), &signed).await.unwrap();
}

/// A database that was put back, and made longer: it is another trail.
#[tokio::test]
async fn entries_that_make_up_for_lost_ones_are_noticed() {
    let mut server = Server::start();
    let node = enrolled(&server).await;
    let copy = backup(&mut server);
    for _ in 0..3 {
        assert_eq!(said(&node.boot(&server.anybody()).await), "pending no_policy");
    }
    put_back(&mut server, &copy);
    let database = Connection::open(server.state().join("halfkey.db")).unwrap();
    for index in 0..20 {
        let add =
            "INSERT INTO audit (at, actor, action, detail, hash) VALUES (1, 'verifier', 'verdict', 'x', ?1)";
        database.execute(add, [(index % 2 == 0).then(|| vec![index; 32])]).unwrap();
    }
    drop(database);
    server.serve();
    let check = async |server: &Server, what: &str| {
        for purpose in ["enroll", "boot"] {
            let problem = node.begin(&server.anybody(), purpose).await.err().unwrap();
            assert!(problem.code == "rolled_back" && problem.message.contains(what), "{problem:?}");
        }
    };
    check(&server, "is not the one that this server has written").await;
    command(&["accept-rollback", "--state", server.state().to_str().unwrap()]);
    node.begin(&server.anybody(), "boot").await.unwrap();

    // While it runs, and longer: the state file does not go along.
    let kept = || std::fs::read(server.state().join("sequence.state")).unwrap();
    let noted = || serde_json::from_slice::<serde_json::Value>(&kept()).unwrap()["audit"]["number"].as_i64();
    let last = "(SELECT max(seq) FROM audit)";
    let size = |sql: &str| server.database().query_row(sql, [], |row| row.get::<_, Option<i64>>(0)).unwrap();
    until("the size is noted", async || noted() == size("SELECT max(seq) FROM audit")).await;
    let before = kept();
    server.database().execute(&format!("UPDATE audit SET detail = 'y' WHERE seq = {last}"), []).unwrap();
    let add = "INSERT INTO audit (at, actor, action, detail) VALUES (1, 'verifier', 'verdict', 'x')";
    server.database().execute(add, []).unwrap();
    check(&server, "is not the one that this server has written").await;
    let said = "the length of the audit trail could not be written down";
    until(said, async || server.log().contains(said)).await;
    assert_eq!(kept(), before);
}
