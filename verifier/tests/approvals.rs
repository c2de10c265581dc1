//! What an operator's approval, and a repeated `enroll`, hold for.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use common::node::{Node, Session, said};
use common::software::Software;
use common::{Server, path, post};
use halfkey_evidence::public::AkPublic;
use halfkey_evidence::quote::{self, QuoteContext};
use halfkey_evidence::registration;
use halfkey_evidence::ticket::BootTicket;
use halfkey_protocol::hpke::Ephemeral;
use halfkey_protocol::kdf::Hash;
use halfkey_protocol::qualify::Qualifier;
use halfkey_protocol::wire::operator::NodeRecord;
use halfkey_protocol::wire::{Begun, Purpose};

#[tokio::test]
async fn an_approval_names_every_pcr_but_that_of_ima_and_the_fence() {
    let server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let node = Node::new();
    node.register(&anybody).await.unwrap();
    node.enroll(&anybody, &operator, "first").await;

    // With IMA every program that runs moves PCR 10: between the quote that waits and the next one many do.
    node.reboot();
    assert_eq!(said(&node.boot(&anybody).await), "pending no_policy");
    node.approve(&operator).await.unwrap();
    node.tpm.extend(10, b"a file that was run");
    assert_eq!(said(&node.boot(&anybody).await), "released");

    // The same when the policy says no.
    node.allow(&operator).await;
    node.reboot_into(&Software::version("6.1.0-99"));
    assert_eq!(said(&node.boot(&anybody).await), "denied policy_mismatch");
    node.tpm.extend(10, b"a file that was run");
    assert_eq!(said(&node.boot(&anybody).await), "denied policy_mismatch");
    node.approve(&operator).await.unwrap();
    node.tpm.extend(10, b"another file");
    assert_eq!(said(&node.boot(&anybody).await), "released");

    // Enrolling takes two quotes in one boot of a running system.
    let (enroll, _) = node.enrollment(&operator, "second").await;
    let _: NodeRecord = post(&operator, &path(node.id, "/enrollment"), &enroll).await.unwrap();
    assert_eq!(said(&node.attest(&anybody, "enroll").await.unwrap().1), "released");
    node.tpm.extend(10, b"a third file");
    assert_eq!(said(&node.attest(&anybody, "enroll").await.unwrap().1), "released");
    node.tpm.extend(14, b"anything else");
    assert_eq!(said(&node.attest(&anybody, "enroll").await.unwrap().1), "denied enrollment_used");
}

#[test]
fn a_ticket_is_another_one_when_any_other_pcr_moves() {
    let node = Node::new();
    let ak = AkPublic::parse(&node.register.ak_public).unwrap();
    let begun = Begun { version: 1, nonce: vec![1; 56].into(), bank: "sha256".into(), enrollment: None };
    let session =
        Session { ephemeral: Ephemeral::generate(), nonce_tpm: vec![2; 32], r_sha256: vec![3; 32], begun };
    let ticket = || {
        let finish = node.evidence("boot", &session);
        let checked = registration::check(&node.register).unwrap();
        let qualifier = Qualifier {
            version: finish.version,
            node: &node.id.0,
            purpose: Purpose::Boot,
            nonce: &finish.nonce,
            hpke_public: &finish.hpke_public,
            nonce_tpm: &finish.nonce_tpm,
            srk_name: checked.srk_name(),
            r_sha256: &finish.r_sha256,
        };
        let context = QuoteContext { ak: &ak, qualifier, bank: Hash::Sha256 };
        BootTicket::of(&quote::verify(&context, &finish).unwrap())
    };
    let mut before = ticket();
    for pcr in 0..16 {
        node.tpm.extend(pcr, b"moved");
        let after = ticket();
        assert_eq!(after == before, pcr == 10 || pcr == 15, "pcr {pcr}");
        before = after;
    }
}
