//! Places in the sequence of documents: whoever submits what needs no signature, as fast as the server takes it, keeps nobody from
//! signing for the place after the newest.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use common::node::{enrolled, line_at};
use common::{Server, command, get, path, post, until};
use halfkey_protocol::NodeId;
use halfkey_protocol::wire::operator::{AuditList, Because, NodeRecord};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::task::JoinSet;

/// How often a workstation signs for the place after what others have submitted: as `halfkey` does.
const TRIES: u32 = 10;

/// Another operator revokes machine after machine, without a pause: those of a list that has no end, or a fleet that was stolen.
async fn signs_beside(connections: usize) {
    let server = Server::start();
    let (operator, node) = (server.operator(), enrolled(&server).await);
    command(&["operator", "add", "bob", "--state", server.state().to_str().unwrap()]);
    let bundle = server.state().join("operator-bob.bundle");
    let nodes = Arc::new(machines(&server, 20_000));
    let done = Arc::new(AtomicU64::new(0));
    let mut others = JoinSet::new();
    for _ in 0..connections {
        let (client, nodes, done) = (server.with_bundle(&bundle), nodes.clone(), done.clone());
        others.spawn(async move {
            loop {
                let next = done.fetch_add(1, Ordering::Relaxed);
                let node = nodes[usize::try_from(next).unwrap() % nodes.len()];
                let because = Because { because: "stolen".into() };
                // One that has to wait too long for the others of this operator is told so.
                if let Err(problem) = post::<NodeRecord>(&client, &path(node, "/revoke"), &because).await {
                    assert_eq!(problem.code, "rate_limited", "{problem:?}");
                }
            }
        });
    }
    let number = async || line_at(&operator).await.head.number;
    let before = number().await;
    until("they revoke", async || number().await >= before + 50).await;
    for _ in 0..3 {
        let mut tries = 0;
        loop {
            tries += 1;
            let policy = node.software().unwrap().policy("what it boots");
            match node.apply(&operator, &format!("node:{}", node.id), &policy).await {
                Ok(_) => break,
                Err(problem) => assert_eq!(problem.code, "sequence", "{problem:?}"),
            }
            assert!(tries < TRIES, "{connections} connections of another operator are always before it");
        }
        eprintln!("{connections} connections: signed at try {tries}, document {}", number().await);
    }
    // And they go on.
    let after = number().await;
    until("they revoke", async || number().await >= after + 50).await;
    others.shutdown().await;
}

/// Machines of which nothing is known but a row.
fn machines(server: &Server, count: u128) -> Vec<NodeId> {
    let nodes: Vec<_> = (1..=count).map(|id| NodeId(id.to_be_bytes())).collect();
    let mut database = server.database();
    let change = database.transaction().unwrap();
    for node in &nodes {
        change
            .execute(
                "INSERT INTO nodes (node_id, label, last_seen) VALUES (?1, 'web', 1)",
                [node.to_string()],
            )
            .unwrap();
    }
    change.commit().unwrap();
    nodes
}

#[tokio::test]
async fn a_document_has_its_place_beside_two_connections_of_another_operator() {
    signs_beside(2).await;
}

#[tokio::test]
async fn a_document_has_its_place_beside_many_connections_of_another_operator() {
    signs_beside(48).await;
}

/// What stands is not done twice, whatever the way there.
#[tokio::test]
async fn who_holds_a_node_again_and_again_adds_nothing() {
    let server = Server::start();
    let (operator, node) = (server.operator(), enrolled(&server).await);
    let state = async || {
        let trail: AuditList = get(&operator, "/v1/operator/audit?limit=1000").await.unwrap();
        (line_at(&operator).await.head.number, trail.entries.len())
    };
    for what in ["/hold", "/revoke"] {
        node.decide(&operator, what, "repair").await.unwrap();
        let once = state().await;
        let mut again = JoinSet::new();
        for _ in 0..20 {
            let (client, path) = (server.operator(), path(node.id, what));
            let because = Because { because: "repair".into() };
            again.spawn(async move { post::<NodeRecord>(&client, &path, &because).await.unwrap() });
        }
        while let Some(record) = again.join_next().await {
            let record = record.unwrap();
            assert_eq!(record.held.unwrap().because, "repair");
            assert_eq!(record.revoked_because.is_some(), what == "/revoke");
        }
        assert_eq!(state().await, once, "{what}");
    }
}
