//! What gives a node something (a boot that waits is released, a revocation or a hold is taken back) is its tenant's word: a document that
//! the tenant key of its enrollment signed. What takes something from it any operator says who is listed.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use common::node::{Node, enrolled, line_at, said};
use common::{Server, get, path, post, refused};
use halfkey_protocol::document::{Kind, Scope};
use halfkey_protocol::wire::SignedDocument;
use halfkey_protocol::wire::operator::{AuditList, NodeRecord};
use halfkey_protocol::{NodeId, Reason};
use halfkey_verifier::client::Client;

/// Signed for this node by the tenant of that one.
async fn signed(by: &Node, operator: &Client, kind: Kind, scope: Scope, body: &str) -> SignedDocument {
    by.sign(&line_at(operator).await.next(kind, &scope.to_string(), body))
}

async fn asks(operator: &Client, id: NodeId, what: &str, signed: &SignedDocument) -> Reason {
    refused(post::<NodeRecord>(operator, &path(id, what), signed).await)
}

/// An operator with a tenant key of his own, and machines of his own.
#[tokio::test]
async fn another_tenant_gives_a_node_nothing_back() {
    let server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let (mut node, other) = (enrolled(&server).await, enrolled(&server).await);
    node.reboot();
    assert_eq!(said(&node.boot(&anybody).await), "pending no_policy");
    let waits: NodeRecord = get(&operator, &path(node.id, "")).await.unwrap();
    let ticket = waits.pending.unwrap().ticket;
    other.decide(&operator, "/hold", "not mine").await.unwrap();
    node.decide(&operator, "/hold", "repair").await.unwrap();
    let given = [
        ("/approve", Kind::Approval, Scope::Approval(node.id), ticket.as_str()),
        ("/release", Kind::Release, Scope::Hold(node.id), "so"),
    ];
    for (what, kind, scope, body) in given {
        let theirs = signed(&other, &operator, kind, scope.clone(), body).await;
        let problem = post::<NodeRecord>(&operator, &path(node.id, what), &theirs).await.unwrap_err();
        assert_eq!(problem.code, "policy_signature", "{what}");
        assert!(problem.message.contains("by the tenant key that enrolled node"), "{problem:?}");
        let unsigned = SignedDocument { signatures: Vec::new(), ..theirs };
        assert_eq!(asks(&operator, node.id, what, &unsigned).await, Reason::PolicySignature, "{what}");
    }
    // Theirs for their own machine is not for this one.
    let theirs = signed(&other, &operator, Kind::Release, Scope::Hold(other.id), "so").await;
    assert_eq!(asks(&operator, node.id, "/release", &theirs).await, Reason::PolicySignature);
    assert_eq!(said(&node.boot(&anybody).await), "denied held");
    node.decide(&operator, "/release", "repaired").await.unwrap();
    assert_eq!(said(&node.boot(&anybody).await), "pending no_policy");

    node.decide(&operator, "/revoke", "stolen").await.unwrap();
    let theirs = signed(&other, &operator, Kind::Restoration, Scope::Revocation(node.id), "so").await;
    assert_eq!(asks(&operator, node.id, "/restore", &theirs).await, Reason::PolicySignature);
    assert_eq!(said(&node.boot(&anybody).await), "denied revoked");
    // Nor by becoming its tenant: it can't be enrolled while it is revoked.
    node.tenant = other.tenant.clone();
    let (enroll, _) = node.enrollment(&operator, "theirs").await;
    let taken = post::<NodeRecord>(&operator, &path(node.id, "/enrollment"), &enroll).await;
    assert_eq!(refused(taken), Reason::Revoked);
}

/// Each has its place, and is of its kind: what was said once is not said again by somebody who has kept it.
#[tokio::test]
async fn what_was_given_once_is_not_given_again() {
    let mut server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let node = enrolled(&server).await;
    node.allow(&operator).await;
    node.decide(&operator, "/hold", "repair").await.unwrap();
    let release = signed(&node, &operator, Kind::Release, Scope::Hold(node.id), "repaired").await;
    let _: NodeRecord = post(&operator, &path(node.id, "/release"), &release).await.unwrap();
    node.decide(&operator, "/hold", "again").await.unwrap();
    assert_eq!(asks(&operator, node.id, "/release", &release).await, Reason::Sequence);
    let head = signed(&node, &operator, Kind::Policy, Scope::Node(node.id), "format = 1").await;
    assert_eq!(asks(&operator, node.id, "/release", &head).await, Reason::PolicySignature);
    let hold = signed(&node, &operator, Kind::Approval, Scope::Approval(node.id), "none").await;
    assert_eq!(asks(&operator, node.id, "/approve", &hold).await, Reason::NotFound);
    assert_eq!(said(&node.boot(&anybody).await), "denied held");
    // The trail says whose key it was.
    let trail: AuditList = get(&operator, "/v1/operator/audit").await.unwrap();
    let released: Vec<_> = trail.entries.iter().filter(|entry| entry.action == "release").collect();
    assert!(matches!(&released[..], [entry] if entry.detail.contains("repaired, document ")), "{released:?}");
    server.stop();
    server.serve();
    assert_eq!(said(&node.boot(&server.anybody()).await), "denied held");
}

/// A node that nobody enrolled has no tenant: any of them says it.
#[tokio::test]
async fn a_node_that_is_only_registered_is_anybodys_to_restore() {
    let server = Server::start();
    let (node, other) = (Node::new(), enrolled(&server).await);
    node.register(&server.anybody()).await.unwrap();
    let operator = server.operator();
    node.decide(&operator, "/revoke", "a mistake").await.unwrap();
    let restoration = signed(&other, &operator, Kind::Restoration, Scope::Revocation(node.id), "so").await;
    let record: NodeRecord = post(&operator, &path(node.id, "/restore"), &restoration).await.unwrap();
    assert!(record.revoked_because.is_none());
}

/// Anybody can leave an enrollment open, and revoke the node then: that keeps it from nobody.
#[tokio::test]
async fn an_open_enrollment_makes_nobody_the_tenant() {
    let server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let (mut node, other) = (Node::new(), enrolled(&server).await);
    node.register(&anybody).await.unwrap();
    let mine = std::mem::replace(&mut node.tenant, other.tenant.clone());
    let (theirs, _) = node.enrollment(&operator, "theirs").await;
    let _: NodeRecord = post(&operator, &path(node.id, "/enrollment"), &theirs).await.unwrap();
    node.decide(&operator, "/revoke", "not yours").await.unwrap();
    node.tenant = mine;
    node.decide(&operator, "/restore", "mine").await.unwrap();
    node.enroll(&anybody, &operator, "mine").await;
    node.allow(&operator).await;
    assert_eq!(said(&node.boot(&anybody).await), "released");
}
