//! Registrar and verifier on two hosts.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use common::node::{Node, said};
use common::{Server, command, get, path, post, refused};
use halfkey_protocol::wire::operator::{NodeList, NodeRecord};
use halfkey_protocol::wire::{Wait, Waited};
use halfkey_protocol::{NodeId, Reason};
use tempfile::TempDir;

#[tokio::test]
async fn a_verifier_asks_its_registrar() {
    let dir: TempDir = tempfile::tempdir().unwrap();
    let (here, there) = (dir.path().join("verifier"), dir.path().join("registrar"));
    Server::init(&here);
    command(&[
        "certificate",
        "--state",
        here.to_str().unwrap(),
        "--role",
        "registrar",
        "--url",
        "https://127.0.0.1:8421",
        "--out",
        there.to_str().unwrap(),
    ]);
    assert!(!there.join("ca.key").exists() && !there.join("release.key").exists());
    let mut registrar = Server::on(tempfile::tempdir().unwrap(), &there, &[]);
    let url = registrar.url.clone();
    let verifier = Server::on(dir, &here, &["--role", "verifier", "--registrar", &url]);
    let operator = verifier.operator();

    let node = Node::new();
    assert_eq!(refused(node.register(&verifier.anybody()).await), Reason::WrongRole);
    assert_eq!(refused(node.begin(&registrar.anybody(), "boot").await), Reason::WrongRole);
    let propose = post::<serde_json::Value>(&registrar.anybody(), "/v1/propose", &()).await;
    assert_eq!(refused(propose), Reason::WrongRole);
    node.register(&registrar.anybody()).await.unwrap();
    let list: NodeList = get(&operator, "/v1/operator/nodes").await.unwrap();
    assert_eq!(list.nodes.len(), 1);
    let answer = get::<serde_json::Value>(&registrar.anybody(), "/v1/internal/registrations").await;
    assert_eq!(refused(answer), Reason::Unauthorized);

    node.enroll(&verifier.anybody(), &operator, "first").await;
    node.allow(&operator).await;
    assert_eq!(said(&node.boot(&verifier.anybody()).await), "released");

    // Strangers don't reach through to it: they name nodes, and it is asked about some of them.
    let (mut unknown, mut limited) = (0, 0);
    for index in 0..300u32 {
        let mut id = [0x8a; 16];
        id[..4].copy_from_slice(&index.to_be_bytes());
        let wait = Wait { node_id: NodeId(id).to_string(), ticket: None };
        match refused(post::<Waited>(&verifier.anybody(), "/v1/wait", &wait).await) {
            Reason::UnknownNode => unknown += 1,
            Reason::RateLimited => limited += 1,
            other => panic!("{other:?}"),
        }
    }
    // As many as one address may cause, and what comes back while this goes on.
    assert!(unknown >= 60 && limited > 0, "{unknown} {limited}");
    assert_eq!(said(&node.boot(&verifier.anybody()).await), "released");

    // Without its registrar the verifier still boots what is enrolled.
    registrar.kill();
    assert_eq!(said(&node.boot(&verifier.anybody()).await), "released");
    assert_eq!(refused(get::<NodeList>(&operator, "/v1/operator/nodes").await), Reason::Unavailable);
    let revoke = halfkey_protocol::wire::operator::Because { because: "stolen".into() };
    let revoked = post::<NodeRecord>(&operator, &path(node.id, "/revoke"), &revoke).await;
    assert!(revoked.is_ok(), "{revoked:?}");
    assert_eq!(said(&node.boot(&verifier.anybody()).await), "denied revoked");
}
