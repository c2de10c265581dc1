//! What an operator's approval, and a repeated `enroll`, hold for.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use common::node::{Node, Session, enrolled, said};
use common::{Server, get, path, post, refused};
use halfkey_evidence::public::AkPublic;
use halfkey_evidence::quote::{self, QuoteContext};
use halfkey_evidence::registration;
use halfkey_evidence::ticket::BootTicket;
use halfkey_protocol::Reason;
use halfkey_protocol::keys::hpke::Ephemeral;
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::tpm::qualifying_data::QualifyingData;
use halfkey_protocol::wire::operator::{NodeRecord, PendingBoot};
use halfkey_protocol::wire::{Begun, Purpose};
use halfkey_testkit::software::Software;

#[tokio::test]
async fn an_approval_names_every_pcr_but_that_of_ima_and_the_fence() {
    let server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let node = enrolled(&server).await;

    // With IMA every program that runs moves PCR 10: between the quote that waits and the next one many do.
    node.reboot();
    assert_eq!(said(&node.boot(&anybody).await), "pending no_policy");
    node.approve(&operator).await.unwrap();
    node.tpm.measure(10, b"a file that was run");
    assert_eq!(said(&node.boot(&anybody).await), "released");

    // The same when the policy says no.
    node.allow(&operator).await;
    node.reboot_into(&Software::version("6.1.0-99"));
    assert_eq!(said(&node.boot(&anybody).await), "denied policy_mismatch");
    node.tpm.measure(10, b"a file that was run");
    assert_eq!(said(&node.boot(&anybody).await), "denied policy_mismatch");
    node.approve(&operator).await.unwrap();
    node.tpm.measure(10, b"another file");
    assert_eq!(said(&node.boot(&anybody).await), "released");

    // Enrolling takes two quotes in one boot of a running system.
    let (enroll, _) = node.enrollment(&operator, "second").await;
    let _: NodeRecord = post(&operator, &path(node.id, "/enrollment"), &enroll).await.unwrap();
    assert_eq!(said(&node.attest(&anybody, "enroll").await.unwrap().1), "released");
    node.tpm.measure(10, b"a third file");
    assert_eq!(said(&node.attest(&anybody, "enroll").await.unwrap().1), "released");
    node.tpm.measure(14, b"anything else");
    assert_eq!(said(&node.attest(&anybody, "enroll").await.unwrap().1), "denied enrollment_used");
}

#[test]
fn a_ticket_is_another_one_when_any_other_pcr_moves() {
    let node = Node::new();
    let ak = AkPublic::parse(&node.register.ak_public).unwrap();
    let begun = Begun { version: 1, nonce: vec![1; 56].into(), bank: "sha256".into(), enrollment: None };
    let session = Session {
        ephemeral: Ephemeral::generate(),
        nonce_tpm: vec![2; 32],
        purpose_data: vec![3; 32],
        begun,
    };
    let ticket = || {
        let evidence = node.evidence("boot", &session);
        let checked = registration::check(&node.register).unwrap();
        let qualifying_data = QualifyingData {
            version: evidence.version,
            node: &node.id.0,
            purpose: Purpose::Boot,
            nonce: &evidence.nonce,
            hpke_public: &evidence.hpke_public,
            nonce_tpm: &evidence.nonce_tpm,
            srk_name: checked.srk_name(),
            purpose_data: &evidence.purpose_data,
        };
        let context = QuoteContext { ak: &ak, qualifying_data, bank: PcrBank::Sha256 };
        BootTicket::of(&quote::verify(&context, &evidence).unwrap())
    };
    let mut before = ticket();
    for pcr in 0..16 {
        node.tpm.measure(pcr, b"moved");
        let after = ticket();
        assert_eq!(after == before, pcr == 10 || pcr == 15, "pcr {pcr}");
        before = after;
    }
}

/// Who writes the database could else show an honest update beside the ticket of an image of their own.
#[tokio::test]
async fn what_is_approved_is_the_boot_that_is_shown() {
    let server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let node = enrolled(&server).await;
    node.allow(&operator).await;
    let waiting = async || -> Option<PendingBoot> {
        get::<NodeRecord>(&operator, &path(node.id, "")).await.unwrap().pending
    };
    node.reboot_into(&Software::version("6.1.0-99"));
    assert_eq!(said(&node.boot(&anybody).await), "denied policy_mismatch");
    let update = waiting().await.unwrap();
    node.reboot_into(&Software::version("6.6.6-evil"));
    assert_eq!(said(&node.boot(&anybody).await), "denied policy_mismatch");
    let evil = waiting().await.unwrap();
    assert_ne!((&evil.ticket, &evil.message), (&update.ticket, &update.message));
    let database = server.database();
    let change = |sql: &str| assert_eq!(database.execute(sql, [&evil.ticket]).unwrap(), 1, "{sql}");
    let approve =
        async || -> Result<NodeRecord, _> { node.decide(&operator, "/approve", &evil.ticket).await };

    // The words of a row are not what is shown.
    change("UPDATE boots SET message = 'harmless', code = 'no_policy', findings = '[]' WHERE ticket = ?1");
    assert_eq!(waiting().await, Some(evil.clone()));

    // Nor is another boot's evidence. The update itself does not wait any longer.
    database.execute("UPDATE boots SET expires = 1 WHERE ticket = ?1", [&update.ticket]).unwrap();
    let (theirs, ours) = (evil.evidence_id, update.evidence_id);
    let of_update = format!(
        "UPDATE boots SET (evidence_id, message, findings, since) =
             (SELECT evidence_id, message, findings, since FROM boots WHERE evidence_id = {ours})
         WHERE ticket = ?1"
    );
    let as_it_was = format!("UPDATE boots SET evidence_id = {theirs} WHERE ticket = ?1");
    change(&of_update);
    assert_eq!(waiting().await, None);
    assert_eq!(refused(approve().await), Reason::Conflict);
    assert_eq!(said(&node.boot(&anybody).await), "denied policy_mismatch");
    change(&as_it_was);
    assert_eq!(waiting().await.map(|boot| boot.ticket), Some(evil.ticket.clone()));

    // Nor what was put in the place of its own evidence.
    let columns = "evidence, event_log_id, systemd_log_id, event_log";
    database.execute_batch("CREATE TABLE kept AS SELECT * FROM evidence").unwrap();
    for put in [
        format!("({columns}) = (SELECT {columns} FROM kept WHERE id = {ours})"),
        format!("event_log_id = (SELECT event_log_id FROM kept WHERE id = {ours})"),
        "event_log_id = NULL, event_log = x'00'".to_owned(),
        "evidence = replace(evidence, '\"purpose\":\"boot\"', '\"purpose\":\"enroll\"')".to_owned(),
    ] {
        let sql = format!("UPDATE evidence SET {put} WHERE id = {theirs}");
        assert_eq!(database.execute(&sql, []).unwrap(), 1, "{sql}");
        assert_eq!(waiting().await, None, "{put}");
        assert_eq!(refused(approve().await), Reason::Conflict, "{put}");
        let back = format!(
            "UPDATE evidence SET ({columns}) = (SELECT {columns} FROM kept k WHERE k.id = evidence.id)"
        );
        database.execute(&back, []).unwrap();
    }
    let of_theirs = format!("id = (SELECT event_log_id FROM evidence WHERE id = {theirs})");
    database.execute_batch("CREATE TABLE kept_logs AS SELECT * FROM logs").unwrap();
    assert_eq!(database.execute(&format!("UPDATE logs SET log = x'00' WHERE {of_theirs}"), []).unwrap(), 1);
    assert_eq!(waiting().await, None, "another log in its place");
    database
        .execute("UPDATE logs SET log = (SELECT log FROM kept_logs WHERE kept_logs.id = logs.id)", [])
        .unwrap();
    // A log that is no longer there is said, not passed over.
    database.execute(&format!("UPDATE evidence SET event_log_id = NULL WHERE id = {theirs}"), []).unwrap();
    let without = waiting().await.unwrap();
    assert!(without.message.contains("event log") && without.ticket == evil.ticket, "{without:?}");

    // What is shown as it is can be approved.
    assert_eq!(said(&node.boot(&anybody).await), "denied policy_mismatch");
    node.approve(&operator).await.unwrap();
    assert_eq!(said(&node.boot(&anybody).await), "released");
}
