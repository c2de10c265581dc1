//! What was answered is there afterwards, and what can't be recorded is not answered.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use common::node::{Node, said};
use common::turned::TurnedServer;
use common::{Server, get, limit_file_size, path, post, refused, until};
use halfkey_protocol::Reason;
use halfkey_protocol::wire::operator::{AuditList, EvidenceList, NodeRecord, NodeState};
use halfkey_protocol::wire::{Registered, Verdict, Wait, Waited};
use halfkey_verifier::domain::{By, Error, Records, StoreError};
use halfkey_verifier::keys::ClusterKey;
use halfkey_verifier::limit::Source;
use halfkey_verifier::store::memory::Memory;
use halfkey_verifier::store::sqlite::Sqlite;
use std::sync::Arc;
use std::time::Duration;

#[tokio::test]
async fn nothing_that_was_answered_is_lost_with_the_process() {
    let mut server = Server::start();
    let node = Node::new();
    node.register(&server.anybody()).await.unwrap();
    server.kill();
    server.serve();
    node.enroll(&server.anybody(), &server.operator(), "first").await;
    server.kill();
    server.serve();
    assert_eq!(said(&node.boot(&server.anybody()).await), "pending no_policy");
    server.kill();
    server.serve();
    node.approve(&server.operator()).await.unwrap();
    server.kill();
    server.serve();
    // A nonce outlives the process: any replica can check it.
    let session = node.begin(&server.anybody(), "boot").await.unwrap();
    server.kill();
    server.serve();
    let evidence = node.evidence("boot", &session);
    let verdict: Verdict = post(&server.anybody(), "/v1/finish", &evidence).await.unwrap();
    assert_eq!(said(&verdict), "released");
    server.kill();
    server.serve();
    let verdict: Verdict = post(&server.anybody(), "/v1/finish", &evidence).await.unwrap();
    assert_eq!(said(&verdict), "denied stale", "the counters were recorded with the verdict");
    assert_eq!(said(&node.boot(&server.anybody()).await), "pending no_policy", "the approval was used");

    let list: EvidenceList = get(&server.operator(), &path(node.id, "/evidence")).await.unwrap();
    assert_eq!(list.evidence.len(), 5);
    let trail: AuditList = get(&server.operator(), "/v1/operator/audit?after=0").await.unwrap();
    let verdicts = trail.entries.iter().filter(|entry| entry.action == "verdict").count();
    assert_eq!(verdicts, 5);
}

/// Kills the server at some moment of a stream of evidence: each verdict that
/// came is on record.
#[tokio::test]
async fn a_kill_in_the_middle_of_writes_loses_no_answer() {
    let mut server = Server::with_settings("evidence_per_minute = 100000\nforged_per_minute = 100000\n");
    let node = Node::new();
    node.register(&server.anybody()).await.unwrap();
    node.enroll(&server.anybody(), &server.operator(), "first").await;
    for round in 0..3 {
        let session = node.begin(&server.anybody(), "boot").await.unwrap();
        let evidence = node.evidence("boot", &session);
        let client = server.anybody();
        let (sender, mut answers) = tokio::sync::mpsc::unbounded_channel();
        let stream = tokio::spawn(async move {
            while let Ok(verdict) = client.post::<Verdict>("/v1/finish", &evidence).await {
                sender.send(verdict.evidence_id.unwrap()).unwrap();
            }
        });
        let mut answered = Vec::new();
        while answered.len() < 10 + 3 * round {
            answered.push(answers.recv().await.unwrap());
        }
        // The next request is under way.
        server.kill();
        stream.await.unwrap();
        while let Some(last) = answers.recv().await {
            answered.push(last);
        }
        server.serve();
        let last = answered.last().unwrap();
        let record: serde_json::Value =
            get(&server.operator(), &format!("/v1/operator/evidence/{last}")).await.unwrap();
        assert_eq!(record["summary"]["id"], *last);
    }
}

#[tokio::test]
async fn a_disk_that_takes_no_more_releases_nothing() {
    let server = Server::start();
    let node = Node::new();
    let (anybody, operator) = (server.anybody(), server.operator());
    node.register(&anybody).await.unwrap();
    node.enroll(&anybody, &operator, "first").await;
    node.allow(&operator).await;
    assert_eq!(said(&node.boot(&anybody).await), "released");

    let session = node.begin(&anybody, "boot").await.unwrap();
    let mut evidence = node.evidence("boot", &session);
    evidence.ima_log = Some(vec![7; 900_000].into());
    limit_file_size(server.pid(), 300_000);
    let answer = post::<Verdict>(&anybody, "/v1/finish", &evidence).await;
    assert_eq!(refused(answer), Reason::Unavailable);
    assert!(server.log().contains("the database can't do its work"), "{}", server.log());
    // Nothing at all can be written, not even the log: it still answers.
    let session = node.begin(&anybody, "boot").await.unwrap();
    let short = node.evidence("boot", &session);
    limit_file_size(server.pid(), 1);
    let health = get::<serde_json::Value>(&anybody, "/readyz").await;
    assert_eq!(refused(health), Reason::Unavailable);
    let answer = post::<Verdict>(&anybody, "/v1/finish", &short).await;
    assert_eq!(refused(answer), Reason::Unavailable);

    // Room again: the same evidence is as good as before, nothing of it was recorded.
    limit_file_size(server.pid(), u64::MAX);
    for evidence in [evidence, short] {
        let verdict: Verdict = post(&anybody, "/v1/finish", &evidence).await.unwrap();
        assert_eq!(said(&verdict), "released");
    }
    let list: EvidenceList = get(&operator, &path(node.id, "/evidence")).await.unwrap();
    assert_eq!(list.evidence.len(), 4);
}

fn key() -> ClusterKey {
    ClusterKey::from_bytes(&[1; 32])
}

#[test]
fn strangers_do_not_fill_the_audit_trail() {
    let records = Records::over(Arc::new(Memory::default()), key()).unwrap();
    let by = |now| By { actor: "verifier", now };
    for index in 0..1000u16 {
        let source = Source::from(std::net::IpAddr::from([0x2001, 0xdb8, index % 100, 0, 0, 0, 0, index]));
        records.count("refuse", source, None, "x", by(7200 + u64::from(index))).unwrap();
    }
    let entries = records.audit(Some(0), None, 1000).unwrap();
    assert_eq!(entries.len(), 33, "the first of each of 32 sources, and of the others");
    records.expire(0, 10_800).unwrap();
    let entries = records.audit(Some(0), None, 1000).unwrap();
    let summary = &entries.last().unwrap().detail;
    assert_eq!(entries.len(), 34);
    assert!(
        summary.starts_with("967 more in the hour from Jan  1 02:00") && summary.contains("others (680)"),
        "{summary}"
    );
    records.expire(0, 20_000).unwrap();
    assert_eq!(records.audit(Some(0), None, 1000).unwrap().len(), 34, "once");
}

#[test]
fn a_full_database_says_so_and_keeps_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let rows = Arc::new(Sqlite::open(&dir.path().join("db")).unwrap());
    let records = Records::over(rows.clone(), key()).unwrap();
    let by = By { actor: "test", now: 1 };
    let source = Source::from(std::net::IpAddr::from([192, 0, 2, 1]));
    records.count("first", source, None, "", by).unwrap();
    rows.limit_pages(1).unwrap();
    let mut full = Ok(());
    for index in 0..100 {
        full = full.and_then(|()| records.count(&index.to_string(), source, None, &"x".repeat(4000), by));
    }
    assert!(matches!(full, Err(Error::Store(StoreError::Full(_)))), "{full:?}");
    assert_eq!(records.audit(Some(0), None, 1).unwrap()[0].action, "first");
    rows.limit_pages(10_000).unwrap();
    records.count("again", source, None, "", by).unwrap();
    records.probe(1).unwrap();
}

#[test]
fn a_database_of_a_newer_build_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    drop(Sqlite::open(&path).unwrap());
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let refused = Sqlite::open(&path).err().unwrap().to_string();
    assert!(refused.contains("99") && refused.contains("newer"), "{refused}");
}

#[tokio::test]
async fn a_stop_ends_waits_and_finishes_what_is_in_flight() {
    let mut server = Server::start();
    let node = Node::new();
    node.register(&server.anybody()).await.unwrap();
    let waiting = tokio::spawn({
        let (client, wait) = (server.anybody(), Wait { node_id: node.id.to_string(), ticket: None });
        async move { post::<Waited>(&client, "/v1/wait", &wait).await.unwrap() }
    });
    until("it waits", async || server.log().contains("waiting node=")).await;
    // It is given less time than a wait has.
    assert_eq!(server.stop(), Some(0));
    assert!(!waiting.await.unwrap().changed);
    assert!(!server.state().join("halfkey.db-wal").exists(), "the write-ahead log was emptied");
}

#[tokio::test]
async fn registrations_that_no_tenant_enrolled_expire() {
    let mut server = TurnedServer::start("registration = 3600\nunenrolled = 1\n").await;
    let (one, two) = (Node::new(), Node::new());
    one.register(&server.anybody()).await.unwrap();
    two.register(&server.anybody()).await.expect("the oldest makes room");
    let pushed_out = get::<NodeRecord>(&server.operator(), &path(one.id, "")).await;
    assert_eq!(refused(pushed_out), Reason::NotFound);
    // What is over is forgotten at the start.
    server.clock.turn(Duration::from_secs(3600));
    server.restart().await;
    assert!(get::<NodeRecord>(&server.operator(), &path(two.id, "")).await.is_ok(), "not yet");
    server.clock.turn(Duration::from_secs(1));
    server.restart().await;
    let operator = server.operator();
    until("it is forgotten", async || get::<NodeRecord>(&operator, &path(two.id, "")).await.is_err()).await;
    two.register(&server.anybody()).await.unwrap();
    // An enrolled one stays.
    let operator = server.operator();
    let (enroll, _) = two.enrollment(&operator, "first").await;
    let _: NodeRecord = post(&operator, &path(two.id, "/enrollment"), &enroll).await.unwrap();
    server.clock.turn(Duration::from_secs(2 * 3600));
    server.restart().await;
    let record: NodeRecord = get(&server.operator(), &path(two.id, "")).await.unwrap();
    assert_eq!(record.summary.state, NodeState::Enrolling);
    assert!(record.registered_at > 0);
    let answer: Result<Registered, _> = post(&server.anybody(), "/v1/register", &one.register).await;
    assert!(answer.is_ok(), "the other one may come again");
}
