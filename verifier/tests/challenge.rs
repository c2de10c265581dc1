//! What a node wants to see in its enrollment: the newest challenge that its TPM activated.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use common::node::{CHALLENGE, Node};
use common::turned::TurnedServer;
use common::{Server, get, path, post, refused};
use halfkey_protocol::keys::half;
use halfkey_protocol::wire::operator::{Enroll, NodeRecord, NodeState};
use halfkey_protocol::wire::{Activate, Document, Enrollment, Problem, Register, Registered};
use halfkey_protocol::{Bytes, Reason};
use halfkey_verifier::client::Client;
use std::time::Duration;

const OTHER: [u8; 32] = [0x44; 32];

async fn record(server: &Server, node: &Node) -> NodeRecord {
    get(&server.operator(), &path(node.id, "")).await.unwrap()
}

async fn known(server: &Server, node: &Node) -> Bytes {
    record(server, node).await.challenge
}

/// Registers, and returns what is sent back with the answer, and what only the node's TPM finds out.
async fn secret(server: &Client, node: &Node) -> (Bytes, Vec<u8>) {
    let registered: Registered = post(server, "/v1/register", &node.register).await.unwrap();
    (registered.state.clone(), node.tpm.activate_with_ek(&registered.credential))
}

async fn hand_in(server: &Server, node: &Node, enroll: &Enroll) -> Result<NodeRecord, Problem> {
    post(&server.operator(), &path(node.id, "/enrollment"), enroll).await
}

#[tokio::test]
async fn the_newest_that_was_activated_counts() {
    let mut server = Server::start();
    let (node, anybody) = (Node::new(), server.anybody());
    node.register(&anybody).await.unwrap();
    assert_eq!(*known(&server, &node).await, CHALLENGE);
    // The same keys.
    node.register_with(&anybody, OTHER).await.unwrap();
    assert_eq!(*known(&server, &node).await, OTHER);
    // What is not activated overwrites nothing: anybody can begin a registration with public keys.
    let (state, ours) = secret(&anybody, &node).await;
    let forged = half::activation_proof(&[7; 32], &node.id.0, &CHALLENGE);
    assert_eq!(refused(node.activate(&anybody, &state, CHALLENGE, &forged).await), Reason::Activation);
    // A proof is about one challenge, for one time and for what was sent.
    let proof = half::activation_proof(&ours, &node.id.0, &CHALLENGE);
    assert_eq!(refused(node.activate(&anybody, &state, [0x55; 32], &proof).await), Reason::Activation);
    for state in [&[0xff; 8][..], &[0; 8]] {
        let answer = node.activate(&anybody, &state.into(), CHALLENGE, &proof).await;
        assert_eq!(refused(answer), Reason::Activation);
    }
    let good =
        Activate { register: node.register.clone(), state, challenge: CHALLENGE.into(), proof: proof.into() };
    let others = Register { label: "another".into(), ..good.register.clone() };
    for (activate, expected) in [
        (Activate { challenge: Bytes::default(), ..good.clone() }, Reason::Malformed),
        (Activate { challenge: CHALLENGE[1..].into(), ..good.clone() }, Reason::Malformed),
        (Activate { challenge: [0x33; 33].as_slice().into(), ..good.clone() }, Reason::Malformed),
        (Activate { state: good.state[1..].into(), ..good.clone() }, Reason::Malformed),
        (Activate { register: others, ..good.clone() }, Reason::Activation),
    ] {
        let answer = post::<serde_json::Value>(&anybody, "/v1/activate", &activate).await;
        assert_eq!(refused(answer), expected);
    }
    assert_eq!(*known(&server, &node).await, OTHER);
    server.stop();
    server.serve();
    assert_eq!(*known(&server, &node).await, OTHER);
    // The registrar has kept nothing of what it asked: the answer is as good as before.
    post::<serde_json::Value>(&anybody, "/v1/activate", &good).await.unwrap();
    assert_eq!(*known(&server, &node).await, CHALLENGE);
    // And what it asks after a restart is later than what it asked before.
    for again in 0..3 {
        node.register_with(&anybody, [again; 32]).await.unwrap();
        server.stop();
        server.serve();
    }
}

/// The answer to one challenge, sent again: it is taken as long as it is the newest, as its own answer may have been lost.
#[tokio::test]
async fn an_activation_that_is_sent_again_brings_no_earlier_challenge_back() {
    let server = Server::start();
    let (node, anybody) = (Node::new(), server.anybody());
    let (state, ours) = secret(&anybody, &node).await;
    let proof = half::activation_proof(&ours, &node.id.0, &CHALLENGE);
    node.activate(&anybody, &state, CHALLENGE, &proof).await.unwrap();
    node.activate(&anybody, &state, CHALLENGE, &proof).await.unwrap();
    // The same secret, about another challenge: one was said already.
    let other = half::activation_proof(&ours, &node.id.0, &OTHER);
    assert_eq!(refused(node.activate(&anybody, &state, OTHER, &other).await), Reason::Activation);
    assert_eq!(*known(&server, &node).await, CHALLENGE);
    node.register_with(&anybody, OTHER).await.unwrap();
    let again = async || node.activate(&anybody, &state, CHALLENGE, &proof).await;
    assert_eq!(refused(again().await), Reason::Activation);
    // Also while another registration waits for its answer.
    secret(&anybody, &node).await;
    assert_eq!(refused(again().await), Reason::Activation);
    assert_eq!(*known(&server, &node).await, OTHER);
}

#[tokio::test]
async fn an_answer_is_in_time_or_too_late() {
    let server = TurnedServer::start("activation = 60\n").await;
    let (node, anybody) = (Node::new(), server.anybody());
    let (state, ours) = secret(&anybody, &node).await;
    let proof = half::activation_proof(&ours, &node.id.0, &CHALLENGE);
    server.clock.turn(Duration::from_secs(61));
    assert_eq!(refused(node.activate(&anybody, &state, CHALLENGE, &proof).await), Reason::Activation);
    let (state, ours) = secret(&anybody, &node).await;
    let proof = half::activation_proof(&ours, &node.id.0, &CHALLENGE);
    server.clock.turn(Duration::from_secs(60));
    node.activate(&anybody, &state, CHALLENGE, &proof).await.unwrap();
}

/// The clock was an hour ahead, and was set right.
#[tokio::test]
async fn a_clock_that_was_ahead_keeps_nobody_out() {
    let mut server = TurnedServer::start("").await;
    let (node, other) = (Node::new(), Node::new());
    server.clock.turn(Duration::from_secs(3600));
    node.register(&server.anybody()).await.unwrap();
    server.clock.turn(Duration::from_secs(u64::MAX - 3599));
    other.register(&server.anybody()).await.unwrap();
    node.register(&server.anybody()).await.unwrap();
    server.restart().await;
    server.clock.turn(Duration::from_secs(1));
    node.register(&server.anybody()).await.unwrap();
}

#[tokio::test]
async fn an_enrollment_answers_the_challenge_of_its_node() {
    let server = Server::start();
    let (node, neighbour, anybody) = (Node::new(), Node::new(), server.anybody());
    node.register(&anybody).await.unwrap();
    neighbour.register_with(&anybody, OTHER).await.unwrap();
    let (good, _) = node.enrollment(&server.operator(), "first").await;
    let with = |challenge: Bytes| {
        let document: Document = serde_json::from_slice(&good.signed.document).unwrap();
        let enrollment: Enrollment = serde_json::from_str(&document.body).unwrap();
        let body = serde_json::to_string(&Enrollment { challenge, ..enrollment }).unwrap();
        Enroll { signed: node.sign(&Document { body, ..document }), ..good.clone() }
    };
    for challenge in [known(&server, &neighbour).await, Bytes::default(), CHALLENGE[1..].into()] {
        let problem = hand_in(&server, &node, &with(challenge)).await.unwrap_err();
        assert_eq!(problem.code, "enrollment_signature", "{problem:?}");
        assert!(problem.hint.unwrap().contains("enroll it again"));
    }
    // The node began anew while the tenant was at it.
    node.register_with(&anybody, [0x55; 32]).await.unwrap();
    assert_eq!(refused(hand_in(&server, &node, &good).await), Reason::EnrollmentSignature);
    assert_eq!(record(&server, &node).await.summary.state, NodeState::Registered, "nothing was stored");
    node.register(&anybody).await.unwrap();
    hand_in(&server, &node, &good).await.unwrap();
}
