//! Rows that say what nobody signed: whoever can write the database gets nothing released by them.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use common::node::{Node, enrolled, said};
use common::software::{Software, lax, strict};
use common::{Server, post, refused};
use halfkey_protocol::Reason;
use halfkey_protocol::document::signed_bytes;
use halfkey_protocol::kdf::Hash;
use halfkey_protocol::wire::{Finish, Register, Verdict};
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
    let (quote, signature) =
        other.tpm.quote(&common::rig::all_pcrs(Hash::Sha256), &node.qualifier("boot", &session));
    let finish = Finish {
        quote: quote.into(),
        signature: signature.into(),
        pcrs: other.tpm.pcrs(Hash::Sha256),
        event_log: Some(Software::default().log().into()),
        command_line: Some(Software::default().proc_cmdline().into()),
        ..node.evidence("boot", &session)
    };
    for _ in 0..2 {
        let problem = post::<Verdict>(&server.anybody(), "/v1/finish", &finish).await.unwrap_err();
        assert_eq!(problem.code, "unavailable", "{problem:?}");
        assert!(server.log().contains("it is not what the tenant signed"), "{}", server.log());
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
