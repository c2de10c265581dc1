//! Servers and their database are killed in the middle of a storm of boots, and a standby takes over.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use common::fleet::SoftNode;
use common::node::{Line, said};
use common::siege::fleet;
use common::{Server, output, path, post, refused, until};
use halfkey_protocol::Reason;
use halfkey_protocol::document::{Kind, Scope};
use halfkey_protocol::wire::operator::{Because, NodeRecord, ServerInfo};
use halfkey_testkit::postgres::Postgres;
use halfkey_verifier::client::{Client, ClientError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;

const NODES: usize = 10;
const BOOTS: usize = 8;

/// A database with a standby, and where it is: at whichever of them can be written to.
fn pair() -> (Postgres, Postgres, String) {
    let primary = Postgres::start(&[]).unwrap();
    let url = primary.database();
    let standby = primary.standby(&[]).unwrap();
    let url = standby.or_at(&url);
    (primary, standby, url)
}

/// From now on commits wait for the standby.
async fn synchronise(primary: &mut Postgres) {
    primary.stop();
    primary.set("synchronous_standby_names=*");
    primary.resume().unwrap();
    until("the standby follows", async || {
        primary.sql("postgres", "SELECT sync_state FROM pg_stat_replication") == "sync\n"
    })
    .await;
}

/// Asks one server after the other, as an agent does, until it is released. Gives the number of the evidence.
async fn boot(node: &SoftNode, servers: &[Client], turn: usize) -> u64 {
    let mut pace = tokio::time::interval(Duration::from_millis(100));
    for attempt in turn.. {
        pace.tick().await;
        match node.boot(&servers[attempt % servers.len()]).await {
            Ok(verdict) => {
                assert_eq!(said(&verdict), "released");
                return verdict.evidence_id.unwrap();
            }
            Err(ClientError::Unreachable(_)) => {}
            Err(ClientError::Refused(_, problem)) => {
                let reason = Reason::from_code(&problem.code);
                assert!(reason.is_some_and(Reason::retry), "{problem:?}");
            }
        }
    }
    unreachable!("it asks until it is released")
}

/// Whether the server has taken it: a hold, or what takes it back, which the node's tenant signs.
async fn tells(operator: &Client, node: &SoftNode, what: &str) -> bool {
    let at = path(node.node.id, what);
    if what == "/hold" {
        return operator.post::<NodeRecord>(&at, &Because { because: "so".into() }).await.is_ok();
    }
    let Ok(info) = operator.get::<ServerInfo>("/v1/operator/info").await else { return false };
    let scope = Scope::Hold(node.node.id).to_string();
    let signed = node.node.sign(&Line::of(&info).next(Kind::Release, &scope, "so"));
    operator.post::<NodeRecord>(&at, &signed).await.is_ok()
}

/// No verdict that was answered is lost, nor what an operator was told, and each boot that had time left is released.
#[tokio::test]
async fn servers_and_database_are_killed_in_a_storm_and_nothing_that_was_answered_is_lost() {
    let (mut primary, standby, url) = pair();
    synchronise(&mut primary).await;
    let mut first = Server::over(&url);
    let second = first.replica();
    until("it says so", async || second.log().contains("commits wait for a standby")).await;
    let nodes = fleet(&first, &first.url, NODES).await;
    let held = nodes[0].clone();

    let answered = Arc::new(AtomicUsize::new(0));
    let mut storm = JoinSet::new();
    for (number, node) in nodes.iter().skip(1).enumerate() {
        let servers = [&first, &second].map(|server| server.anybody().within(Duration::from_secs(20)));
        let (node, answered) = (node.clone(), answered.clone());
        storm.spawn(async move {
            let mut evidence = Vec::new();
            for turn in 0..BOOTS {
                evidence.push(boot(&node, &servers, number + turn).await);
                answered.fetch_add(1, Ordering::SeqCst);
            }
            evidence
        });
    }
    // An operator who says something all the time, at the server that stays.
    let over = Arc::new(AtomicBool::new(false));
    let deciding = tokio::spawn({
        let (operator, over, held) = (second.operator(), over.clone(), held.clone());
        async move {
            let mut told = 0;
            while !over.load(Ordering::SeqCst) {
                for what in ["/hold", "/release"] {
                    told += usize::from(tells(&operator, &held, what).await);
                }
            }
            told
        }
    });
    let after = async |count: usize| {
        until("the storm goes on", async || answered.load(Ordering::SeqCst) >= count).await;
    };
    after(NODES).await;
    first.kill();
    after(2 * NODES).await;
    first.serve();
    after(3 * NODES).await;
    primary.stop();
    standby.promote();
    let mut evidence = Vec::new();
    while let Some(boots) = storm.join_next().await {
        evidence.extend(boots.unwrap());
    }
    over.store(true, Ordering::SeqCst);
    let told = deciding.await.unwrap();

    assert_eq!(evidence.len(), (NODES - 1) * BOOTS);
    let list = evidence.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    let kept = standby
        .sql(&url, &format!("SELECT count(*) FROM evidence WHERE outcome = 'released' AND id IN ({list})"));
    assert_eq!(kept.trim().parse::<usize>().unwrap(), evidence.len(), "verdicts that were answered");
    let kept =
        standby.sql(&url, &format!("SELECT count(*) FROM documents WHERE scope = 'hold:{}'", held.node.id));
    assert!(
        kept.trim().parse::<usize>().unwrap() >= told,
        "{told} decisions were answered, {kept} are there"
    );
    assert!(told > 0);
    let trail = standby.sql(&url, "SELECT count(*) = max(seq) FROM audit");
    assert_eq!(trail, "t\n", "the trail is whole");
    for server in [&first, &second] {
        assert_eq!(said(&nodes[1].boot(&server.anybody()).await.unwrap()), "released");
    }
}

/// For longer than a request waits: it is refused, nothing is answered that is not recorded, and all goes on by itself.
#[tokio::test]
async fn a_database_that_is_gone_for_long_is_survived() {
    let mut database = Postgres::start(&[]).unwrap();
    let server = Server::over(&database.database());
    let nodes = fleet(&server, &server.url, 2).await;
    database.stop();
    let booting = tokio::spawn({
        let (node, client) = (nodes[0].clone(), server.anybody());
        async move { boot(&node, &[client], 0).await }
    });
    let begin = halfkey_testkit::node::SimulatedNode::begin(&nodes[1].node, "boot", &[]);
    let begun = post::<halfkey_protocol::wire::Begun>(&server.anybody(), "/v1/begin", &begin).await;
    assert_eq!(refused(begun), Reason::Unavailable);
    let health = server.anybody().get::<serde_json::Value>("/readyz").await;
    assert!(matches!(health, Err(ClientError::Refused(status, _)) if status == 503));
    assert!(!booting.is_finished());
    database.resume().unwrap();
    booting.await.unwrap();
    assert_eq!(said(&nodes[1].boot(&server.anybody()).await.unwrap()), "released");
}

/// What a failover could forget is said, or refused, as the settings have it.
#[tokio::test]
async fn a_server_says_what_a_failover_could_forget() {
    let (mut primary, _standby, url) = pair();
    let mut server = Server::over(&url);
    let log = server.log();
    assert!(log.contains("1 standby is connected and synchronous_standby_names is empty"), "{log}");
    server.stop();
    let set = |mode: &str| {
        let settings = server.state().join("halfkey-verifier.toml");
        let text = std::fs::read_to_string(&settings).unwrap();
        let lines: Vec<_> = text.lines().filter(|line| !line.starts_with("standbys")).collect();
        std::fs::write(&settings, format!("standbys = {mode:?}\n{}\n", lines.join("\n"))).unwrap();
    };
    let refused = || {
        let serving =
            output(&["serve", "--listen", "127.0.0.1:0", "--state", server.state().to_str().unwrap()]);
        assert!(!serving.status.success());
        String::from_utf8(serving.stderr).unwrap()
    };
    set("require-synchronous");
    let why = refused();
    assert!(why.contains("a commit waits for none of them") && why.contains("hint: "), "{why}");
    set("sometimes");
    assert!(refused().contains("require-synchronous"));
    synchronise(&mut primary).await;
    set("require-synchronous");
    server.serve();
    assert!(server.log().contains("commits wait for a standby"));
    // A file has none.
    let dir = tempfile::tempdir().unwrap();
    let file = Server::init(&dir.path().join("state"));
    file.settings("standbys = \"require-synchronous\"").unwrap();
    let serving = file.command(&["serve", "--listen", "127.0.0.1:0"]).output().unwrap();
    let why = String::from_utf8(serving.stderr).unwrap();
    assert!(!serving.status.success() && why.contains("found a file"), "{why}");
}
