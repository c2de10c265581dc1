//! Rows that say what nobody signed: whoever can write the database gets nothing released by them.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use common::node::{Node, said};
use common::software::Software;
use common::{Server, refused};
use halfkey_protocol::Reason;
use halfkey_protocol::document::signed_bytes;

async fn enrolled(server: &Server) -> Node {
    let node = Node::new();
    node.register(&server.anybody()).await.unwrap();
    node.enroll(&server.anybody(), &server.operator(), &node.id.to_string()).await;
    node
}

fn lax() -> String {
    Software::default().policy("lax")
}

/// Does not allow what the node boots.
fn strict() -> String {
    Software::version("6.1.0-56").policy("strict")
}

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
