//! Rows that say what nobody signed: whoever can write the database gets nothing released by them.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use common::node::{Line, Node, enrolled, said, sign};
use common::{Server, get, path, post, refused};
use halfkey_evidence::signed_document::open;
use halfkey_protocol::document::{Kind, Scope, signed_bytes};
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::wire::operator::{Because, NodeList, NodeRecord, NodeState};
use halfkey_protocol::wire::policies::{GroupList, PolicyList, PolicyRecord};
use halfkey_protocol::wire::{Evidence, Problem, Register, Verdict};
use halfkey_protocol::{NodeId, Reason};
use halfkey_testkit::software::{Software, lax, strict};
use halfkey_verifier::domain::{By, NewDocument, Records};
use halfkey_verifier::keys::ClusterKey;
use halfkey_verifier::store::sqlite::Sqlite;
use std::sync::Arc;

/// The newest policy would be nobody's of this node's, and the one before it the newest of its tenant.
#[tokio::test]
async fn a_document_signed_again_by_another_key_is_another_one() {
    let mut server = Server::start();
    let node = enrolled(&server).await;
    let scope = format!("node:{}", node.id);
    node.apply(&server.operator(), &scope, &lax()).await.unwrap();
    node.apply(&server.operator(), &scope, &strict()).await.unwrap();
    assert_eq!(said(&node.boot(&server.anybody()).await), "denied policy_mismatch");
    let stranger = Ed25519KeyPair::generate().unwrap();
    let database = server.database();
    let newest = "number = (SELECT max(number) FROM documents)";
    let text: Vec<u8> = database
        .query_row(&format!("SELECT document FROM documents WHERE {newest}"), [], |row| row.get(0))
        .unwrap();
    let signature = stranger.sign(&signed_bytes(&text));
    let packed = [stranger.public_key().as_ref(), signature.as_ref()].concat();
    database.execute(&format!("UPDATE documents SET signatures = ?1 WHERE {newest}"), [packed]).unwrap();
    database.execute("DELETE FROM policies WHERE version = (SELECT max(version) FROM policies)", []).unwrap();
    drop(database);
    assert_eq!(said(&node.boot(&server.anybody()).await), "pending no_policy");
    server.stop();
    server.serve();
    assert_eq!(refused(node.begin(&server.anybody(), "boot").await), Reason::RolledBack);
}

/// The quote of another machine, of what is wanted, for a session that the node's own TPM began.
#[tokio::test]
async fn a_quote_by_another_ak_than_the_enrolled_is_none() {
    let mut server = Server::start();
    let node = enrolled(&server).await;
    node.allow(&server.operator()).await;
    node.reboot_into(&Software::version("6.6.6-evil"));
    assert_eq!(said(&node.boot(&server.anybody()).await), "denied policy_mismatch");
    let session = node.begin(&server.anybody(), "boot").await.unwrap();
    let other = Node::new();
    let database = server.database();
    let text: String = database
        .query_row("SELECT registration FROM enrollments WHERE state = 'current'", [], |row| row.get(0))
        .unwrap();
    let mut register: Register = serde_json::from_str(&text).unwrap();
    register.ak_public = other.register.ak_public.clone();
    database
        .execute(
            "UPDATE enrollments SET registration = ?1, reset_count = NULL, restart_count = NULL, clock = NULL
             WHERE state = 'current'",
            [serde_json::to_string(&register).unwrap()],
        )
        .unwrap();
    drop(database);
    let (quote, signature) = other.tpm.quote(PcrBank::Sha256, &node.qualifying_data("boot", &session));
    let evidence = Evidence {
        quote: quote.into(),
        signature: signature.into(),
        pcrs: other.tpm.pcrs(PcrBank::Sha256),
        event_log: Some(Software::default().log().into()),
        command_line: Some(Software::default().proc_cmdline().into()),
        ..node.evidence("boot", &session)
    };
    for _ in 0..2 {
        let problem = post::<Verdict>(&server.anybody(), "/v1/finish", &evidence).await.unwrap_err();
        assert_eq!(problem.code, "rolled_back", "{problem:?}");
        assert!(problem.message.contains("it is not what the tenant signed"), "{problem:?}");
        server.stop();
        server.serve();
    }
}

/// Neither does the policy of the tenant before count again, nor an approval.
#[tokio::test]
async fn the_enrollment_of_the_tenant_before_is_not_current_again_by_a_row() {
    let server = Server::start();
    let mut node = enrolled(&server).await;
    let scope = format!("node:{}", node.id);
    node.apply(&server.operator(), &scope, &lax()).await.unwrap();
    assert_eq!(said(&node.boot(&server.anybody()).await), "released");
    let database = server.database();
    database
        .execute_batch(
            "CREATE TABLE kept_policies AS SELECT * FROM policies;
             CREATE TABLE kept_halves AS SELECT enrollment_id, c_v_id, c_v_secret FROM enrollments;",
        )
        .unwrap();
    node.tenant = Arc::new(Ed25519KeyPair::generate().unwrap());
    node.enroll(&server.anybody(), &server.operator(), "second").await;
    node.apply(&server.operator(), &scope, &strict()).await.unwrap();
    assert_eq!(said(&node.boot(&server.anybody()).await), "denied policy_mismatch");
    database
        .execute_batch(
            "UPDATE enrollments SET state = 'replaced' WHERE enrollment_id = 'second';
             UPDATE enrollments SET state = 'current', c_v_id = k.c_v_id, c_v_secret = k.c_v_secret
                 FROM kept_halves k WHERE k.enrollment_id = enrollments.enrollment_id;
             DELETE FROM policies;
             INSERT INTO policies SELECT * FROM kept_policies;",
        )
        .unwrap();
    for purpose in ["enroll", "boot"] {
        let problem = node.begin(&server.anybody(), purpose).await.err().unwrap();
        assert!(problem.code == "rolled_back" && problem.message.contains("is proved"), "{problem:?}");
    }
}

/// Who can write the database could else keep a stolen machine from being revoked, and put the byte back later.
#[tokio::test]
async fn a_damaged_row_is_in_the_way_of_nobody_who_revokes_or_enrolls_again() {
    let server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let node = enrolled(&server).await;
    node.allow(&operator).await;
    let database = server.database();
    let decide = async |what: &str, damage: &str| -> NodeState {
        let record = node.decide(&operator, what, "stolen").await;
        record.unwrap_or_else(|problem| panic!("{what} after {damage}: {problem:?}")).summary.state
    };
    for (at, damage) in [
        "UPDATE enrollments SET c_v_secret = x'00' WHERE state = 'current'",
        "UPDATE enrollments SET c_v_id = NULL WHERE state = 'current'",
        "UPDATE enrollments SET c_u = x'00' WHERE state = 'current'",
        "UPDATE enrollments SET bank = 'sha1' WHERE state = 'current'",
        "UPDATE enrollments SET registration = '{' WHERE state = 'current'",
        "UPDATE enrollments SET reset_count = 5000000000 WHERE state = 'current'",
        "UPDATE enrollments SET clock = NULL, reset_count = 1 WHERE state = 'current'",
        "UPDATE enrollments SET number = 999 WHERE state = 'current'",
        "UPDATE enrollments SET number = number - 1 WHERE state = 'current'",
        "UPDATE nodes SET group_name = 'x', group_number = 999",
        "UPDATE nodes SET held_by = 'x'",
        "UPDATE nodes SET tpm_firmware_before = 'x', tpm_firmware = NULL",
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(said(&node.boot(&anybody).await), "released", "before {damage}");
        database
            .execute_batch(
                "DROP TABLE IF EXISTS kept_enrollments; DROP TABLE IF EXISTS kept_nodes;
                 CREATE TABLE kept_enrollments AS SELECT * FROM enrollments;
                 CREATE TABLE kept_nodes AS SELECT * FROM nodes;",
            )
            .unwrap();
        let put_back = || {
            database
                .execute_batch(
                    "PRAGMA foreign_keys = OFF;
                     DELETE FROM enrollments; INSERT INTO enrollments SELECT * FROM kept_enrollments;
                     DELETE FROM nodes; INSERT INTO nodes SELECT * FROM kept_nodes;",
                )
                .unwrap();
        };
        database.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
        assert_eq!(database.execute(damage, []).unwrap(), 1, "{damage}");
        match node.attest(&anybody, "boot").await {
            Ok((_, verdict)) => assert_ne!(verdict.outcome, "released", "{damage}: {verdict:?}"),
            Err(problem) => assert_eq!(problem.code, "rolled_back", "{damage}: {problem:?}"),
        }
        let _: NodeRecord = get(&operator, &path(node.id, "")).await.expect(damage);
        decide("/hold", damage).await;
        decide("/release", damage).await;
        assert_eq!(decide("/revoke", damage).await, NodeState::Revoked);
        put_back();
        assert_eq!(said(&node.boot(&anybody).await), "denied revoked", "{damage}");
        decide("/restore", damage).await;
        assert_eq!(database.execute(damage, []).unwrap(), 1, "{damage}");
        // It is mended by the tenant, as after any loss.
        node.enroll(&anybody, &operator, &format!("after {at}")).await;
        if damage.contains("UPDATE nodes") {
            put_back();
            node.enroll(&anybody, &operator, &format!("once more {at}")).await;
        }
    }
    assert_eq!(said(&node.boot(&anybody).await), "released");
}

/// Texts that are no UTF-8, a decision and a proposal that can't be read: what is only shown, or allows something, forbids nothing.
#[tokio::test]
async fn a_damaged_row_of_what_is_only_shown_or_allows_more_keeps_no_node_from_booting() {
    let server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let node = enrolled(&server).await;
    node.allow(&operator).await;
    assert_eq!(said(&node.boot(&anybody).await), "released");
    // What waits has a row of this boot.
    node.reboot_into(&Software::version("6.1.0-2"));
    assert_eq!(said(&node.boot(&anybody).await), "denied policy_mismatch");
    let damages = [
        "UPDATE nodes SET label = CAST(x'ff' AS TEXT), last_code = CAST(x'ff' AS TEXT)",
        "UPDATE registrations SET label = CAST(x'ff' AS TEXT)",
        "UPDATE boots SET findings = '{', message = CAST(x'ff' AS TEXT)",
        "INSERT INTO proposals (node_id, sha256, at, state, message, from_evidence, by_trust, proposal)
             SELECT node_id, x'00', 1, 'accepted', '', 0, 0, '{' FROM nodes",
        "INSERT INTO proposals (node_id, sha256, at, state, message, from_evidence, by_trust, proposal, trusted_scope, trusted_since)
             SELECT node_id, x'01', 1, 'trusted', '', 0, 1, '{', 'node:' || node_id, 0 FROM nodes",
    ];
    for damage in damages {
        assert_eq!(server.database().execute(damage, []).unwrap(), 1, "{damage}");
        assert_eq!(said(&node.boot(&anybody).await), "denied policy_mismatch", "{damage}");
    }
    node.allow(&operator).await;
    assert_eq!(said(&node.boot(&anybody).await), "released");
    for id in ["'x'", "'0'", "CAST(x'ff' AS TEXT)"] {
        let row =
            format!("INSERT INTO nodes (node_id, label, last_seen, group_name) VALUES ({id}, '', 0, 'g')");
        server.database().execute(&row, []).unwrap();
    }
    let list: NodeList = get(&operator, "/v1/operator/nodes?limit=1").await.unwrap();
    assert_eq!(list.nodes[0].label, "web1");
    let _: NodeRecord = get(&operator, &path(node.id, "")).await.unwrap();
    let _: serde_json::Value = get(&operator, "/v1/operator/proposals").await.unwrap();
    // What the book says mends it.
    let group = "UPDATE nodes SET group_name = CAST(x'ff' AS TEXT)";
    server.database().execute(group, []).unwrap();
    let _: serde_json::Value = get(&operator, "/v1/operator/groups").await.unwrap();
    node.group(&operator, None).await.unwrap();
    assert_eq!(said(&node.boot(&anybody).await), "released");
    node.enroll(&anybody, &operator, "second").await;
}

/// Gone now, and put back when it boots: what the sequence says of a node is there, whatever became of its rows.
#[tokio::test]
async fn a_node_whose_rows_were_deleted_is_held_and_revoked_by_its_id() {
    let mut server = Server::start();
    let node = enrolled(&server).await;
    node.allow(&server.operator()).await;
    server
        .database()
        .execute_batch(
            "CREATE TABLE kept_nodes AS SELECT * FROM nodes;
             CREATE TABLE kept_enrollments AS SELECT * FROM enrollments;
             CREATE TABLE kept_registrations AS SELECT * FROM registrations;",
        )
        .unwrap();
    let put_back = "PRAGMA foreign_keys = OFF;
         DELETE FROM enrollments; INSERT INTO enrollments SELECT * FROM kept_enrollments;
         DELETE FROM registrations; INSERT INTO registrations SELECT * FROM kept_registrations;
         DELETE FROM nodes; INSERT INTO nodes SELECT * FROM kept_nodes;";
    let decide = async |server: &Server, id: NodeId, what: &str| -> Result<NodeRecord, Problem> {
        let because = Because { because: "stolen".into() };
        post(&server.operator(), &path(id, what), &because).await
    };
    for gone in [
        "DELETE FROM nodes",
        "DELETE FROM nodes; DELETE FROM enrollments",
        "DELETE FROM nodes; DELETE FROM enrollments; DELETE FROM registrations",
    ] {
        for (what, code, back) in [("/hold", "held", "/release"), ("/revoke", "revoked", "/restore")] {
            let delete = format!("PRAGMA foreign_keys = OFF; {gone}");
            server.database().execute_batch(&delete).unwrap();
            // Of nothing at all there is no record to show.
            match decide(&server, node.id, what).await {
                Ok(record) => assert_eq!(record.summary.label, "web1", "{what} after {gone}"),
                Err(problem) => {
                    let stands = problem.hint.as_deref().is_some_and(|hint| hint.contains("is recorded"));
                    assert!(stands && gone.contains("registrations"), "{what} after {gone}: {problem:?}");
                }
            }
            for _ in 0..2 {
                server.database().execute_batch(put_back).unwrap();
                assert_eq!(said(&node.boot(&server.anybody()).await), format!("denied {code}"), "{gone}");
                server.stop();
                server.serve();
            }
            server.database().execute_batch(&delete).unwrap();
            let _ = node.decide(&server.operator(), back, "found").await;
            server.database().execute_batch(put_back).unwrap();
            assert_eq!(said(&node.boot(&server.anybody()).await), "released", "{back} after {gone}");
        }
    }
    // Nor is there more to decide about than the sequence or a row names.
    for what in ["/hold", "/revoke"] {
        let problem = decide(&server, NodeId([7; 16]), what).await.unwrap_err();
        assert!(["not_enrolled", "not_found"].contains(&&*problem.code), "{what}: {problem:?}");
    }
}

/// What was damaged and is right again counts, without a restart.
#[tokio::test]
async fn a_document_that_was_put_right_is_read_again() {
    let server = Server::start();
    let node = enrolled(&server).await;
    let record = node.apply(&server.operator(), &format!("node:{}", node.id), &lax()).await.unwrap();
    let database = server.database();
    let number = record.summary.version.to_string();
    let signatures: Vec<u8> = database
        .query_row("SELECT signatures FROM documents WHERE number = ?1", [&number], |row| row.get(0))
        .unwrap();
    let set = |signatures: &[u8]| {
        let sql = "UPDATE documents SET signatures = ?2 WHERE number = ?1";
        assert_eq!(database.execute(sql, rusqlite::params![number, signatures]).unwrap(), 1);
    };
    set(&[0; 96]);
    assert_eq!(said(&node.boot(&server.anybody()).await), "pending no_policy");
    set(&signatures);
    assert_eq!(said(&node.boot(&server.anybody()).await), "released");
}

/// The row can't be read at all: a column is of another type than any that the program writes.
#[test]
fn a_row_that_can_t_be_read_forbids_no_revocation() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let key = ClusterKey::from_bytes(&[1; 32]);
    let records = Records::over(Arc::new(Sqlite::open(&path).unwrap()), key).unwrap();
    let (by, node) = (By { actor: "ada", now: 1 }, NodeId([7; 16]));
    let tenant = Ed25519KeyPair::generate().unwrap();
    let signed = |kind, scope: Scope| {
        let revocation = open(&records.documents_after(0).unwrap()[0]).unwrap();
        let line = Line { deployment: revocation.deployment, head: records.head().unwrap() };
        let signed = sign(&tenant, &line.next(kind, &scope.to_string(), "found"));
        (open(&signed).unwrap(), signed)
    };
    let restore = || {
        let (opened, signed) = signed(Kind::Restoration, Scope::Revocation(node));
        records.restore(node, NewDocument { opened: &opened, signed: &signed }, by).unwrap();
    };
    records.revoke(node, Some("web1"), "test", by).unwrap();
    restore();
    let sql =
        |statements: &str| rusqlite::Connection::open(&path).unwrap().execute_batch(statements).unwrap();
    sql("PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET sql = replace(sql, ') STRICT', ')') WHERE name = 'nodes';");
    let damage = || {
        sql("UPDATE nodes SET last_seen = 'x', revoked_because = NULL, held_by = NULL, held_because = NULL");
        let said = records.node(node).map(drop).unwrap_err().to_string();
        assert!(said.contains("last_seen"), "{said}");
    };
    damage();
    records.hold(node, "stolen", by).unwrap();
    assert!(records.node(node).unwrap().unwrap().held.is_some(), "it is a row again");
    damage();
    let (opened, signed) = signed(Kind::Release, Scope::Hold(node));
    records.release(node, NewDocument { opened: &opened, signed: &signed }, by).unwrap();
    damage();
    records.revoke(node, Some(""), "stolen", by).unwrap();
    assert!(records.node(node).unwrap().unwrap().revoked.is_some());
    damage();
    restore();
    assert!(records.node(node).unwrap().unwrap().revoked.is_none());
}

/// Rows of policies and of nodes that nobody signed, or that can't be read, beside those of a group: what is signed for the group
/// next counts as ever.
#[tokio::test]
async fn rows_of_nobody_keep_no_group_on_the_policy_that_it_has() {
    let server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let node = enrolled(&server).await;
    node.group(&operator, Some("web")).await.unwrap();
    node.apply(&operator, "group:web", &lax()).await.unwrap();
    assert_eq!(said(&node.boot(&anybody).await), "released");
    let newest = async || get::<PolicyRecord>(&operator, "/v1/operator/policies/group:web").await;
    let first = newest().await.unwrap().summary.version;
    let another = NodeId([9; 16]);
    let forged = [
        "INSERT INTO policies VALUES ('group:web', 1000000, 'x', x'00', zeroblob(32), 0, 'x')".to_owned(),
        "INSERT INTO policies VALUES ('group:web', 1000001, '', x'00', zeroblob(32), 0, 'x')".to_owned(),
        "INSERT INTO policies VALUES ('node:x', 1000000, 'x', x'00', x'00', 0, 'x')".to_owned(),
        format!("INSERT INTO policies VALUES ('node:{another}', 1000000, 'x', x'00', x'00', 0, 'x')"),
        format!(
            "INSERT INTO nodes (node_id, label, group_name, last_seen) VALUES ('{another}', 'x', 'web', 1)"
        ),
        "PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET sql = replace(sql, ') STRICT', ')') WHERE name = 'nodes';"
            .to_owned(),
        "INSERT INTO nodes (node_id, label, group_name, last_seen) VALUES (x'00', x'01', 'web', 'x')"
            .to_owned(),
    ];
    for statement in &forged {
        // Opened anew: the schema changes.
        server.database().execute_batch(statement).unwrap();
        assert_eq!(newest().await.unwrap().summary.version, first, "{statement}");
        get::<GroupList>(&operator, "/v1/operator/groups").await.unwrap();
        get::<PolicyList>(&operator, "/v1/operator/policies").await.unwrap();
        get::<NodeList>(&operator, "/v1/operator/nodes").await.unwrap();
    }
    node.apply(&operator, "group:web", &strict()).await.unwrap();
    assert!(newest().await.unwrap().summary.version > first);
    assert_eq!(said(&node.boot(&anybody).await), "denied policy_mismatch");
}
