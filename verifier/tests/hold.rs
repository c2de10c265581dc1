//! `hold` and `release`: a machine whose boots are to ask for the passphrase.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use common::node::{Node, Session, enrolled, said};
use common::{Server, get, path, post, refused};
use halfkey_protocol::Reason;
use halfkey_protocol::wire::operator::{AuditList, Because, Held, NodeList, NodeRecord};
use halfkey_protocol::wire::{Problem, Verdict, Wait, Waited};
use halfkey_testkit::software::Software;
use halfkey_verifier::client::Client;

async fn decide(operator: &Client, node: &Node, what: &str) -> Result<NodeRecord, Problem> {
    node.decide(operator, what, "the root file system is damaged").await
}

#[tokio::test]
async fn a_held_node_boots_with_its_passphrase_until_it_is_released() {
    let server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let node = Node::new();
    node.register(&anybody).await.unwrap();
    assert_eq!(refused(decide(&operator, &node, "/hold").await), Reason::NotEnrolled);
    node.enroll(&anybody, &operator, "first").await;
    assert_eq!(refused(decide(&operator, &node, "/release").await), Reason::Conflict);

    // One that waits for an operator is told at once: the prompt must not come only at its deadline.
    node.reboot();
    let pending = node.boot(&anybody).await;
    assert_eq!(said(&pending), "pending no_policy");
    node.approve(&operator).await.unwrap();
    node.boot(&anybody).await;
    node.reboot();
    let pending = node.boot(&anybody).await;
    let waiting = tokio::spawn({
        let (anybody, wait) =
            (server.anybody(), Wait { node_id: node.id.to_string(), ticket: pending.ticket.clone() });
        async move { post::<Waited>(&anybody, "/v1/wait", &wait).await.unwrap() }
    });
    let record = decide(&operator, &node, "/hold").await.unwrap();
    let held = Held { by: "ada".into(), because: "the root file system is damaged".into() };
    assert_eq!((record.summary.held, record.held), (true, Some(held)));
    assert!(waiting.await.unwrap().changed);
    // And one that comes to wait only now does not.
    let wait = Wait { node_id: node.id.to_string(), ticket: pending.ticket };
    assert!(post::<Waited>(&anybody, "/v1/wait", &wait).await.unwrap().changed);
    let denied = node.boot(&anybody).await;
    assert_eq!(said(&denied), "denied held");
    assert!(denied.message.ends_with("ada: the root file system is damaged"), "{denied:?}");
    assert!(denied.hint.as_deref().is_some_and(|hint| hint.contains("halfkey release")), "{denied:?}");
    assert!(denied.sealed.is_none() && denied.release_signature.is_none() && denied.ticket.is_none());

    // Neither an approval nor a policy is above it, and an approval is not used up by it.
    node.approve(&operator).await.unwrap();
    assert_eq!(said(&node.boot(&anybody).await), "denied held");
    decide(&operator, &node, "/release").await.unwrap();
    assert_eq!(said(&node.boot(&anybody).await), "released");
    node.allow(&operator).await;
    decide(&operator, &node, "/hold").await.unwrap();
    node.reboot();
    assert_eq!(said(&node.boot(&anybody).await), "denied held");
    let list: NodeList = get(&operator, "/v1/operator/nodes").await.unwrap();
    assert!(list.nodes[0].held);

    // It is about boots only: whoever repairs the machine may enroll it again.
    node.enroll(&anybody, &operator, "second").await;
    assert_eq!(said(&node.boot(&anybody).await), "denied held");
    let record = decide(&operator, &node, "/release").await.unwrap();
    assert_eq!((record.summary.held, record.held), (false, None));
    assert_eq!(said(&node.boot(&anybody).await), "released");

    let trail: AuditList = get(&operator, &format!("/v1/operator/audit?node={}", node.id)).await.unwrap();
    let of = |action: &str| trail.entries.iter().filter(|e| e.action == action && e.actor == "ada").count();
    assert_eq!((of("hold"), of("release")), (2, 2));
}

/// The server remembers what it read of a node at `begin` until its evidence comes.
#[tokio::test]
async fn what_changes_between_begin_and_finish_counts() {
    let server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let node = enrolled(&server).await;
    let begin = async || node.begin(&anybody, "boot").await.unwrap();
    let finish = async |session: &Session| {
        let evidence = node.evidence("boot", session);
        let verdict: Verdict = post(&anybody, "/v1/finish", &evidence).await.unwrap();
        node.received(session, &verdict);
        said(&verdict)
    };
    let session = begin().await;
    node.allow(&operator).await;
    assert_eq!(finish(&session).await, "released", "by a policy that came in between");

    node.reboot();
    let session = begin().await;
    decide(&operator, &node, "/hold").await.unwrap();
    assert_eq!(finish(&session).await, "denied held");
    let session = begin().await;
    decide(&operator, &node, "/release").await.unwrap();
    assert_eq!(finish(&session).await, "released");

    // Not by this server: beside it.
    let session = begin().await;
    let held = "UPDATE nodes SET held_by = 'ada', held_because = 'beside'";
    assert_eq!(server.database().execute(held, []).unwrap(), 1);
    assert_ne!(finish(&session).await, "released");
    let released = "UPDATE nodes SET held_by = NULL, held_because = NULL";
    assert_eq!(server.database().execute(released, []).unwrap(), 1);

    // A policy for other software, and then this one's again.
    node.reboot();
    let session = begin().await;
    let policy = Software::version("6.1.0-56").policy("another");
    node.apply(&operator, &format!("node:{}", node.id), &policy).await.unwrap();
    assert_eq!(finish(&session).await, "denied policy_mismatch");
    let session = begin().await;
    node.allow(&operator).await;
    assert_eq!(finish(&session).await, "released");

    // Enrolled again: K is another one, and so is what is released.
    node.reboot();
    let session = begin().await;
    node.enroll(&anybody, &operator, "second").await;
    assert_eq!(finish(&session).await, "released");

    let session = begin().await;
    let because = Because { because: "stolen".into() };
    let _: NodeRecord = post(&operator, &path(node.id, "/revoke"), &because).await.unwrap();
    assert_eq!(finish(&session).await, "denied revoked");
}

#[tokio::test]
async fn a_hold_is_not_taken_back_by_a_row() {
    let mut server = Server::start();
    let node = Node::new();
    node.register(&server.anybody()).await.unwrap();
    node.enroll(&server.anybody(), &server.operator(), "first").await;
    node.allow(&server.operator()).await;
    decide(&server.operator(), &node, "/hold").await.unwrap();
    node.reboot();
    let forget = "UPDATE nodes SET held_by = NULL, held_because = NULL";
    assert_eq!(server.database().execute(forget, []).unwrap(), 1);
    // Beside the server, and read at its start.
    for _ in 0..2 {
        let denied = node.boot(&server.anybody()).await;
        assert_eq!(said(&denied), "denied held");
        assert!(denied.message.ends_with("ada: the root file system is damaged"), "{denied:?}");
        let list: NodeList = get(&server.operator(), "/v1/operator/nodes").await.unwrap();
        assert!(list.nodes[0].held);
        server.stop();
        server.serve();
    }
    // Who may end it still can.
    let record = decide(&server.operator(), &node, "/release").await.unwrap();
    assert!(!record.summary.held);
    assert_eq!(said(&node.boot(&server.anybody()).await), "released");
}
