//! What goes wrong beneath a server: its clock, its disks, its database's schema. Nothing is answered that is not recorded, nothing is
//! written by half, and all goes on by itself.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use common::fleet::{SoftNode, tenant};
use common::node::{Node, said};
use common::turned::TurnedServer;
use common::{Server, get, limit_file_size, output, path, post};
use halfkey_protocol::Reason;
use halfkey_protocol::wire::operator::{AuditList, NodeRecord, NodeState};
use halfkey_protocol::wire::{Evidence, Verdict};
use halfkey_testkit::postgres::Postgres;
use halfkey_verifier::client::Client;
use std::time::Duration;

const YEAR: Duration = Duration::from_secs(365 * 86_400);

async fn decide(operator: &Client, node: &SoftNode, what: &str) -> Result<NodeRecord, Reason> {
    let answer = node.node.decide(operator, what, "so").await;
    answer.map_err(|problem| Reason::from_code(&problem.code).unwrap())
}

async fn boots(server: &Server, node: &SoftNode) -> String {
    said(&node.boot(&server.anybody()).await.unwrap())
}

/// By years, forwards and back: what is begun on either side of a jump is refused with a reason, and the next attempt is as ever.
#[tokio::test]
async fn a_clock_that_jumps_locks_nobody_out() {
    let mut server = TurnedServer::start("").await;
    let node = Node::new();
    node.register(&server.anybody()).await.unwrap();
    node.enroll(&server.anybody(), &server.operator(), "first").await;
    node.allow(&server.operator()).await;
    let finish = async |server: &TurnedServer, session| {
        let evidence: Evidence = node.evidence("boot", &session);
        said(&post::<Verdict>(&server.anybody(), "/v1/finish", &evidence).await.unwrap())
    };
    let decide = async |server: &TurnedServer, what: &str| {
        node.decide(&server.operator(), what, "so").await.unwrap();
    };
    assert_eq!(said(&node.boot(&server.anybody()).await), "released");
    let before = node.begin(&server.anybody(), "boot").await.unwrap();
    server.clock.turn(10 * YEAR);
    assert_eq!(finish(&server, before).await, "denied nonce_expired");
    assert_eq!(said(&node.boot(&server.anybody()).await), "released");
    decide(&server, "/hold").await;
    let later = node.begin(&server.anybody(), "boot").await.unwrap();
    server.clock.turn_back(20 * YEAR);
    assert_eq!(finish(&server, later).await, "denied nonce_foreign");
    assert_eq!(said(&node.boot(&server.anybody()).await), "denied held");
    decide(&server, "/release").await;
    assert_eq!(said(&node.boot(&server.anybody()).await), "released");
    for _ in 0..2 {
        server.restart().await;
        assert_eq!(said(&node.boot(&server.anybody()).await), "released");
        let trail: AuditList = get(&server.operator(), "/v1/operator/audit?after=0").await.unwrap();
        let numbers: Vec<u64> = trail.entries.iter().map(|entry| entry.seq).collect();
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "the order is not the clock's");
        // To where a clock without a battery begins, and on.
        server.clock.turn_back(Duration::from_secs(server.clock.now()));
    }
    decide(&server, "/revoke").await;
    server.clock.turn(60 * YEAR);
    assert_eq!(said(&node.boot(&server.anybody()).await), "denied revoked");
}

/// The state file, or the database beside it, can't be written: a decision is refused, is not there afterwards, and is made again.
#[tokio::test]
async fn a_decision_that_finds_the_disk_full_is_not_made_by_half() {
    for (mut server, limits) in
        [(Server::start(), &[1, 8192][..]), (Server::over(&Postgres::shared().database()), &[1])]
    {
        let node = SoftNode::new(&tenant());
        node.enroll(&server.anybody(), &server.operator()).await;
        let operator = server.operator();
        for limit in limits {
            limit_file_size(server.pid(), *limit);
            for what in ["/revoke", "/hold"] {
                let answer = decide(&operator, &node, what).await;
                assert_eq!(answer.err(), Some(Reason::Unavailable), "{what} at {limit}");
            }
            limit_file_size(server.pid(), u64::MAX);
            let record: NodeRecord = get(&operator, &path(node.node.id, "")).await.unwrap();
            assert!(record.held.is_none() && record.summary.state == NodeState::Enrolled, "{record:?}");
            assert_eq!(boots(&server, &node).await, "released", "at {limit}");
            decide(&operator, &node, "/hold").await.unwrap();
            assert_eq!(boots(&server, &node).await, "denied held");
            server.stop();
            server.serve();
            assert_eq!(boots(&server, &node).await, "denied held", "after a start");
            decide(&operator, &node, "/release").await.unwrap();
        }
        // Killed while it can't write.
        limit_file_size(server.pid(), 1);
        assert_eq!(decide(&operator, &node, "/revoke").await.err(), Some(Reason::Unavailable));
        server.kill();
        server.serve();
        assert_eq!(boots(&server, &node).await, "released");
        decide(&operator, &node, "/revoke").await.unwrap();
        assert_eq!(boots(&server, &node).await, "denied revoked");
    }
}

/// The disk of PostgreSQL's tables, a real one: what does not fit is refused and said once, and what was refused fits when there is room.
#[tokio::test]
async fn a_full_disk_of_postgresql_releases_nothing() {
    let database = match Postgres::with_small_disk(48) {
        Ok(database) => database,
        Err(why) => return eprintln!("not run: {why}"),
    };
    let url = database.small_database();
    let server = Server::over(&url);
    let node = SoftNode::new(&tenant());
    node.enroll(&server.anybody(), &server.operator()).await;
    assert_eq!(boots(&server, &node).await, "released");
    let fill = "DO $$ BEGIN LOOP
        INSERT INTO ballast SELECT repeat(md5(random()::text), 60) FROM generate_series(1, 200);
        END LOOP; EXCEPTION WHEN disk_full THEN NULL; END $$";
    database.sql(&url, "CREATE TABLE ballast (text TEXT)");
    database.sql(&url, fill);

    let session = node.node.begin(&server.anybody(), "boot").await.unwrap();
    let evidence =
        Evidence { ima_log: Some(incompressible(900_000).into()), ..node.node.evidence("boot", &session) };
    let answer = post::<Verdict>(&server.anybody(), "/v1/finish", &evidence).await;
    let problem = answer.expect_err("there is no room");
    assert!(problem.code == "unavailable" && problem.message.contains("its disk is full"), "{problem:?}");
    let log = server.log();
    assert_eq!(log.matches("the database is full").count(), 1, "{log}");

    database.sql(&url, "DROP TABLE ballast");
    let verdict: Verdict = post(&server.anybody(), "/v1/finish", &evidence).await.unwrap();
    assert_eq!(said(&verdict), "released", "nothing of it was recorded before");
    let rows = database.sql(&url, "SELECT count(*) FROM evidence WHERE purpose = 'boot'");
    assert_eq!(rows, "2\n");
}

fn incompressible(bytes: usize) -> Vec<u8> {
    let mut state = 1u64;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..bytes).map(next).collect()
}

/// A server of this build meets the database of a newer one: it does not start, and says what to do. One that runs goes on.
#[tokio::test]
async fn a_database_of_another_schema_is_brought_along_or_left_alone() {
    let shared = Postgres::shared();
    let url = shared.database();
    let first = Server::over(&url);
    let mut second = first.replica();
    let node = SoftNode::new(&tenant());
    node.enroll(&first.anybody(), &first.operator()).await;
    let version = || shared.sql(&url, "SELECT version FROM halfkey_schema").trim().parse::<u32>().unwrap();
    let tables =
        || shared.sql(&url, "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace");
    let ours = version();
    second.stop();
    let start = || {
        let state = second.state().to_str().unwrap();
        let started = output(&["serve", "--listen", "127.0.0.1:0", "--state", state]);
        assert!(!started.status.success());
        String::from_utf8(started.stderr).unwrap()
    };

    shared.sql(&url, "ALTER TABLE nodes ADD COLUMN later TEXT; UPDATE halfkey_schema SET version = 99");
    let why = start();
    assert!(why.contains("found 99") && why.contains("newer halfkey-verifier"), "{why}");
    assert!(why.contains("hint: nothing was changed"), "{why}");
    assert_eq!(boots(&first, &node).await, "released", "one that runs");
    decide(&first.operator(), &node, "/hold").await.unwrap();
    decide(&first.operator(), &node, "/release").await.unwrap();
    assert_eq!(version(), 99);

    // Damage: what is there is not made a second time, nor a part of it.
    let before = tables();
    shared.sql(&url, "DELETE FROM halfkey_schema");
    let why = start();
    assert!(why.contains("already exists"), "{why}");
    assert_eq!(
        (tables(), shared.sql(&url, "SELECT count(*) FROM halfkey_schema")),
        (before.clone(), "0\n".into())
    );

    // Of the build before: brought along, beside one that runs.
    shared.sql(&url, &format!("INSERT INTO halfkey_schema VALUES ({}); DROP TABLE notices", ours - 1));
    second.serve();
    assert_eq!((version(), tables()), (ours, before));
    for server in [&first, &second] {
        assert_eq!(boots(server, &node).await, "released");
    }
}
