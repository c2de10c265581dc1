//! Two servers over one PostgreSQL database: either finishes what the other began, and what one is told counts at the other.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use common::node::{Node, enrolled, said};
use common::{Server, get, output, path, post, refused, until};
use halfkey_protocol::document::Place;
use halfkey_protocol::wire::operator::{AuditList, Head, NodeRecord};
use halfkey_protocol::wire::{Prove, Proved, Registered, Verdict, Wait, Waited};
use halfkey_protocol::{NodeId, Reason};
use halfkey_testkit::postgres::Postgres;
use halfkey_testkit::software::{lax, strict};
use halfkey_verifier::config::StateDir;
use halfkey_verifier::domain::{By, Error, Records};
use halfkey_verifier::keys::ClusterKey;
use halfkey_verifier::store::postgres::{Address, Postgres as Store};
use halfkey_verifier::store::{Changes, Store as _, Then};
use std::sync::Arc;

/// Two servers, and the database that they share.
fn two() -> (Server, Server, String) {
    let database = Postgres::shared().database();
    let first = Server::over(&database);
    let second = first.replica();
    (first, second, database)
}

async fn decide(server: &Server, node: &Node, what: &str) {
    node.decide(&server.operator(), what, "so").await.unwrap();
}

#[tokio::test]
async fn what_one_began_the_other_finishes() {
    let (first, second, _) = two();
    let node = Node::new();
    let registered: Registered = post(&first.anybody(), "/v1/register", &node.register).await.unwrap();
    let message = node.activation(&registered, common::node::CHALLENGE);
    let _: halfkey_protocol::wire::Activated =
        post(&second.anybody(), "/v1/activate", &message).await.unwrap();
    node.wants(common::node::CHALLENGE);

    let (enroll, halves) = node.enrollment(&first.operator(), "first").await;
    let _: NodeRecord = post(&second.operator(), &path(node.id, "/enrollment"), &enroll).await.unwrap();
    let session = node.begin(&first.anybody(), "enroll").await.unwrap();
    let evidence = node.evidence("enroll", &session);
    let verdict: Verdict = post(&second.anybody(), "/v1/finish", &evidence).await.unwrap();
    assert_eq!(said(&verdict), "released");
    node.prove(&first.anybody(), &halves).await.unwrap();

    node.reboot();
    let session = node.begin(&second.anybody(), "boot").await.unwrap();
    let evidence = node.evidence("boot", &session);
    let verdict: Verdict = post(&first.anybody(), "/v1/finish", &evidence).await.unwrap();
    assert_eq!(said(&verdict), "pending no_policy");
    let again: Verdict = post(&second.anybody(), "/v1/finish", &evidence).await.unwrap();
    assert_eq!(said(&again), "denied stale", "the counters count everywhere");
    let trails = [&first, &second].map(|server| server.operator());
    let mut read = Vec::new();
    for operator in &trails {
        let trail: AuditList = get(operator, "/v1/operator/audit?after=0").await.unwrap();
        read.push(trail.entries.iter().map(|entry| (entry.seq, entry.action.clone())).collect::<Vec<_>>());
    }
    assert_eq!(read[0], read[1]);
    let numbers: Vec<u64> = read[0].iter().map(|(seq, _)| *seq).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_one_is_told_counts_at_the_next_request_of_the_other() {
    let (first, second, _) = two();
    let node = enrolled(&first).await;
    node.reboot();
    assert_eq!(said(&node.boot(&second.anybody()).await), "pending no_policy");
    node.approve(&first.operator()).await.unwrap();
    assert_eq!(said(&node.boot(&second.anybody()).await), "released");
    assert_eq!(said(&node.boot(&first.anybody()).await), "pending no_policy", "the approval is used");

    let scope = format!("node:{}", node.id);
    node.apply(&second.operator(), &scope, &lax()).await.unwrap();
    assert_eq!(said(&node.boot(&first.anybody()).await), "released");
    node.apply(&first.operator(), &scope, &strict()).await.unwrap();
    assert_eq!(said(&node.boot(&second.anybody()).await), "denied policy_mismatch");
    node.apply(&second.operator(), &scope, &lax()).await.unwrap();

    decide(&first, &node, "/revoke").await;
    assert_eq!(said(&node.boot(&second.anybody()).await), "denied revoked");
    decide(&second, &node, "/restore").await;
    assert_eq!(said(&node.boot(&first.anybody()).await), "released");
    decide(&second, &node, "/hold").await;
    assert_eq!(said(&node.boot(&first.anybody()).await), "denied held");
    decide(&first, &node, "/release").await;
    assert_eq!(said(&node.boot(&second.anybody()).await), "released");

    // Operators that are listed, and those that are not any more.
    let state = first.state().to_str().unwrap();
    common::command(&["operator", "add", "eve", "--state", state]);
    let eve = second.with_bundle(&first.state().join("operator-eve.bundle"));
    let _: NodeRecord = get(&eve, &path(node.id, "")).await.unwrap();
    common::command(&["operator", "remove", "eve", "--state", state]);
    assert!(get::<NodeRecord>(&eve, &path(node.id, "")).await.is_err());
}

/// Whoever has no proof is told so while others write, and keeps none of them waiting: a document waits for all of them, and all of them
/// for it.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_proof_waits_for_nobody_who_writes() {
    let (first, _, database) = two();
    let node = enrolled(&first).await;
    let store = Store::open(&Address::parse(&database).unwrap()).unwrap();
    let (writes, wrote) = tokio::sync::oneshot::channel();
    let (tell, told) = std::sync::mpsc::channel();
    let mut writes = Some(writes);
    let anybody = first.anybody();
    let wrong = |node: NodeId, enrollment: &str| Prove {
        node_id: node.to_string(),
        enrollment_id: enrollment.to_owned(),
        proof: vec![7; 32].into(),
    };
    let id = node.id.to_string();
    let asking = async {
        wrote.await.unwrap();
        let mut said = Vec::new();
        for (of, enrollment) in [(node.id, id.as_str()), (node.id, "another"), (NodeId([9; 16]), "x")] {
            let answer = post::<Proved>(&anybody, "/v1/prove", &wrong(of, enrollment)).await;
            said.push(answer.err().map(|problem| problem.code));
        }
        tell.send(()).unwrap();
        said
    };
    let said = std::thread::scope(|scope| {
        scope.spawn(move || {
            let holding = store.write(Changes::Rows, &mut |_| {
                writes.take().expect("it runs once").send(()).unwrap();
                told.recv().unwrap();
                Then::RollBack
            });
            holding.unwrap();
        });
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(asking))
    });
    assert_eq!(said, ["proof", "not_enrolled", "not_enrolled"].map(|code| Some(code.to_owned())));
}

/// A boot that waits at one server while an operator asks the other.
#[tokio::test]
async fn who_waits_at_one_is_told_what_was_said_at_the_other() {
    let (first, second, _) = two();
    let node = enrolled(&first).await;
    node.reboot();
    let pending = node.boot(&second.anybody()).await;
    assert_eq!(said(&pending), "pending no_policy");
    let wait = Wait { node_id: node.id.to_string(), ticket: pending.ticket };
    let waiting = tokio::spawn({
        let anybody = second.anybody();
        async move { post::<Waited>(&anybody, "/v1/wait", &wait).await.unwrap() }
    });
    node.approve(&first.operator()).await.unwrap();
    assert!(waiting.await.unwrap().changed);
    node.boot(&second.anybody()).await;
    node.reboot();
    let pending = node.boot(&second.anybody()).await;
    let wait = Wait { node_id: node.id.to_string(), ticket: pending.ticket };
    let waiting = tokio::spawn({
        let anybody = second.anybody();
        async move { post::<Waited>(&anybody, "/v1/wait", &wait).await.unwrap() }
    });
    decide(&first, &node, "/hold").await;
    assert!(waiting.await.unwrap().changed);
    assert!(!second.log().contains("executing statement"), "what is in statements is not logged");
}

/// What operators decide is announced, and what machines do is not. Whoever reaches the database can announce as well: it wakes, and
/// nothing changes.
#[tokio::test]
async fn what_operators_decide_is_announced_and_an_announcement_only_wakes() {
    let (first, second, database) = two();
    let node = enrolled(&first).await;
    node.reboot();
    let mut heard = listen(&database).await;
    until("it listens", async || second.log().contains("hears at once")).await;
    let pending = node.boot(&second.anybody()).await;
    let wait = Wait { node_id: node.id.to_string(), ticket: pending.ticket };
    let waiting = || {
        let (anybody, wait) = (second.anybody(), wait.clone());
        tokio::spawn(async move { post::<Waited>(&anybody, "/v1/wait", &wait).await.unwrap().changed })
    };
    let waits = |count| second.log().matches("over=false").count() == count;
    let tell = |sql: &str| Postgres::shared().sql(&database, sql);
    let this = format!("node {}", node.id);

    let woken = waiting();
    until("it waits", async || waits(1)).await;
    tell("SELECT pg_notify('halfkey', repeat('x', 7999))");
    tell("NOTIFY halfkey");
    tell("NOTIFY halfkey, 'documents'");
    tell("NOTIFY halfkey, 'node 17171717-1717-1717-1717-171717171717'");
    assert!(!woken.is_finished());
    tell(&format!("NOTIFY halfkey, '{this}'"));
    assert!(woken.await.unwrap(), "nothing else can have woken it");
    assert_eq!(said(&node.boot(&second.anybody()).await), "pending no_policy");

    // A connection that is lost comes back.
    tell(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE '%listens' \
          AND datname = current_database()",
    );
    until("it listens again", async || second.log().matches("hears at once").count() == 2).await;
    let woken = waiting();
    until("it waits", async || waits(2)).await;
    tell(&format!("NOTIFY halfkey, '{this}'"));
    assert!(woken.await.unwrap());

    until("the other listens again", async || first.log().matches("hears at once").count() == 2).await;
    tell("NOTIFY halfkey, 'so far'");
    while heard.recv().await.unwrap() != "so far" {}
    // One after the other: of what is told together PostgreSQL drops what is told twice.
    node.approve(&first.operator()).await.unwrap();
    assert_eq!(heard.recv().await.unwrap(), this);
    assert_eq!(said(&node.boot(&second.anybody()).await), "released");
    decide(&first, &node, "/hold").await;
    assert_eq!(heard.recv().await.unwrap(), this);
    decide(&first, &node, "/release").await;
    assert_eq!(heard.recv().await.unwrap(), this);
    let other = enrolled(&first).await;
    node.apply(&first.operator(), &format!("node:{}", node.id), &lax()).await.unwrap();
    assert_eq!(heard.recv().await.unwrap(), "documents");
    decide(&first, &other, "/revoke").await;
    assert_eq!(heard.recv().await.unwrap(), format!("node {}", other.id));
}

/// What is announced in a database.
async fn listen(database: &str) -> tokio::sync::mpsc::UnboundedReceiver<String> {
    let (client, mut connection) = tokio_postgres::connect(database, tokio_postgres::NoTls).await.unwrap();
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|context| connection.poll_message(context)).await {
            if let tokio_postgres::AsyncMessage::Notification(notification) = message {
                let _ = sender.send(notification.payload().to_owned());
            }
        }
    });
    client.batch_execute("LISTEN halfkey").await.unwrap();
    // Its connection ends with it.
    std::mem::forget(client);
    receiver
}

/// It takes nothing, and appends nothing that the others would refuse.
#[tokio::test]
async fn a_server_with_another_cluster_key_serves_nothing_and_harms_nobody() {
    let (first, _second, _) = two();
    let node = enrolled(&first).await;
    node.allow(&first.operator()).await;
    let other = first.replica_with(|state| std::fs::write(state.join("cluster.key"), [7; 32]).unwrap());
    assert_eq!(refused(node.begin(&other.anybody(), "boot").await), Reason::RolledBack);
    let anybody = get::<NodeRecord>(&other.operator(), &path(node.id, "")).await;
    assert_eq!(refused(anybody), Reason::Unavailable, "no certificate is listed by its key");
    assert!(other.log().contains("another cluster key"), "{}", other.log());
    assert_eq!(said(&node.boot(&first.anybody()).await), "released");
}

/// One that was away, or whose folder is from a backup, goes on from where the others are.
#[tokio::test]
async fn a_state_file_that_is_older_than_the_database_goes_along() {
    let (first, mut second, _) = two();
    let node = enrolled(&first).await;
    let file = second.state().join("sequence.state");
    second.stop();
    let old = std::fs::read(&file).unwrap();
    node.allow(&first.operator()).await;
    second.serve();
    assert_eq!(said(&node.boot(&second.anybody()).await), "released");
    second.stop();
    std::fs::write(&file, old).unwrap();
    second.serve();
    assert_eq!(said(&node.boot(&second.anybody()).await), "released");
}

/// Each has a state file of its own, and both go along.
#[tokio::test]
async fn a_database_that_is_older_than_what_one_of_them_answered_is_refused_by_it() {
    let (mut first, mut second, database) = two();
    let node = enrolled(&first).await;
    node.allow(&first.operator()).await;
    decide(&first, &node, "/revoke").await;
    assert_eq!(said(&node.boot(&second.anybody()).await), "denied revoked");
    assert_eq!(second.stop(), Some(0));
    decide(&first, &node, "/restore").await;
    decide(&first, &node, "/hold").await;

    // An entry that none of them made, with its right place and the tag of another.
    let forge = "INSERT INTO documents SELECT number + 1, scope, sha256, handed_in_at, handed_in_by, signatures, document, tag \
                 FROM documents ORDER BY number DESC LIMIT 1";
    Postgres::shared().sql(&database, forge);
    second.serve();
    for server in [&first, &second] {
        assert_eq!(refused(node.begin(&server.anybody(), "boot").await), Reason::RolledBack);
    }
    let newest = "DELETE FROM documents WHERE number = (SELECT max(number) FROM documents)";
    Postgres::shared().sql(&database, newest);
    second.stop();
    second.serve();
    for server in [&first, &second] {
        assert_eq!(said(&node.boot(&server.anybody()).await), "denied held");
    }

    // The hold is gone; both have answered with it.
    Postgres::shared().sql(&database, newest);
    for _ in 0..2 {
        for server in [&mut first, &mut second] {
            let refusal = node.begin(&server.anybody(), "boot").await.err().unwrap();
            assert_eq!(refusal.code, "rolled_back", "{refusal:?}");
            server.stop();
            server.serve();
        }
    }
    // Whoever restored it says so at each of them, before any goes on.
    for server in [&mut first, &mut second] {
        server.stop();
        let accepted = output(&["accept-rollback", "--state", server.state().to_str().unwrap()]);
        let said = String::from_utf8_lossy(&accepted.stderr).into_owned();
        assert!(accepted.status.success() && said.contains("accepted, and recorded"), "{said}");
    }
    first.serve();
    second.serve();
    for server in [&first, &second] {
        node.begin(&server.anybody(), "boot").await.unwrap();
    }
}

/// One is killed in the middle; the other goes on, and so does the first after its restart.
#[tokio::test]
async fn a_server_that_is_killed_keeps_nobody_waiting() {
    let (mut first, second, _) = two();
    let node = enrolled(&second).await;
    let scope = format!("node:{}", node.id);
    for _ in 0..4 {
        let (operator, anybody) = (first.operator(), first.anybody());
        let signed = node.sign_policy(&operator, &scope, &lax()).await;
        let at = format!("/v1/operator/policies/{scope}");
        let writing = tokio::spawn(async move {
            post::<halfkey_protocol::wire::policies::PolicyRecord>(&operator, &at, &signed).await.is_ok()
        });
        let _ = anybody.get::<serde_json::Value>("/healthz").await;
        first.kill();
        let _ = writing.await;
        node.apply(&second.operator(), &scope, &lax()).await.unwrap();
        assert_eq!(said(&node.boot(&second.anybody()).await), "released");
        first.serve();
        assert_eq!(said(&node.boot(&first.anybody()).await), "released");
    }
    let file = |server: &Server| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(server.state().join("sequence.state")).unwrap()).unwrap()
    };
    until("both know the newest", async || file(&first)["newest"] == file(&second)["newest"]).await;
    let head: Head = serde_json::from_value(file(&first)["newest"].clone()).unwrap();
    assert!(head.number >= 6, "{head:?}");
}

/// An entry that who writes the database put there, with the hash that everybody can compute and a time before all times.
#[tokio::test]
async fn an_entry_with_a_time_that_is_none_stops_nobody() {
    let (first, second, database) = two();
    let node = enrolled(&first).await;
    let sql = |sql: &str| Postgres::shared().sql(&database, sql);
    let last = "SELECT max(seq) FROM audit";
    let entry: u64 = sql(last).trim().parse().unwrap();
    // As `chained` in domain/audit.rs: each field with its length. The time counts as 0.
    let field = |sql: &str| format!("int8send(octet_length({sql})) || {sql}");
    let number = |number: u64| field(&format!("int8send({number})"));
    let text = |text: &str| field(&format!("'{text}'::BYTEA"));
    let hash = [
        "int8send(32) || hash".to_owned(),
        number(entry + 1),
        number(0),
        text("eve"),
        text("approve"),
        field("'\\x00'::BYTEA"),
        text(""),
        text("so"),
    ];
    sql(&format!(
        "INSERT INTO audit SELECT {}, -1, 'eve', 'approve', NULL, 'so', sha256({}) FROM audit WHERE seq = {entry}",
        entry + 1,
        hash.join(" || ")
    ));
    for server in [&first, &second] {
        let noted = async || {
            let file = std::fs::read(server.state().join("sequence.state")).unwrap();
            let file: serde_json::Value = serde_json::from_slice(&file).unwrap();
            file["audit"]["number"].as_u64().unwrap() > entry
        };
        until("the state file goes on", noted).await;
        let trail: AuditList = get(&server.operator(), "/v1/operator/audit").await.unwrap();
        assert!(trail.entries.iter().any(|entry| entry.actor == "eve" && entry.at == 0));
        decide(server, &node, "/hold").await;
        decide(server, &node, "/release").await;
    }
}

#[test]
fn documents_of_several_servers_are_one_sequence() {
    const EACH: u8 = 8;
    let url = Postgres::shared().database();
    let records = || {
        let store = Store::open(&Address::parse(&url).unwrap()).unwrap();
        Records::over(Arc::new(store), ClusterKey::from_bytes(&[1; 32])).unwrap()
    };
    let servers = [records(), records()];
    let by = By { actor: "ada", now: 1 };
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let server = &servers[usize::from(thread % 2)];
            scope.spawn(move || {
                for number in 0..EACH {
                    let mut id = [thread; 16];
                    id[15] = number;
                    server.revoke(NodeId(id), Some("web"), "stolen", by).unwrap();
                    assert!(server.node(NodeId(id)).unwrap().unwrap().revoked.is_some());
                }
            });
        }
    });
    let count = 6 * u64::from(EACH);
    for server in &servers {
        assert_eq!(server.head().unwrap().number, count);
        assert_eq!(server.audit(Some(0), None, 1000).unwrap().len() as u64, count);
        for thread in 0..6 {
            let mut id = [thread; 16];
            id[15] = EACH - 1;
            assert!(server.node(NodeId(id)).unwrap().unwrap().revoked.is_some());
        }
    }
    // Another key: what these servers took is nothing to it once it has begun.
    let store = Store::open(&Address::parse(&url).unwrap()).unwrap();
    let other = Records::over(Arc::new(store), ClusterKey::from_bytes(&[2; 32])).unwrap();
    let node = NodeId([99; 16]);
    servers[0].revoke(node, Some("web"), "stolen", by).unwrap();
    let refused = other.hold(node, "found", by).unwrap_err();
    assert!(matches!(refused, Error::Refused(Reason::RolledBack, _)), "{refused}");
    assert_ne!(other.head().unwrap(), Place::default());
}

#[test]
fn a_database_that_is_in_use_is_not_begun_again() {
    let url = Postgres::shared().database();
    let dir = tempfile::tempdir().unwrap();
    let init = |name: &str, url: &str| {
        let state = dir.path().join(name).display().to_string();
        let done = output(&["init", "--url", "https://127.0.0.1:8420", "--database", url, "--state", &state]);
        (done.status.success(), String::from_utf8_lossy(&done.stderr).into_owned())
    };
    let (done, said) = init("first", &url);
    assert!(done, "{said}");
    let (done, said) = init("second", &url);
    assert!(
        !done && said.contains("expected an empty database") && said.contains("docs/service.md"),
        "{said}"
    );
    assert!(!dir.path().join("second/cluster.key").exists());
    let (done, said) = init("third", &url.replace("halfkey@", "halfkey:secret@"));
    assert!(!done && said.contains("passfile=FILE") && !said.contains("secret"), "{said}");
    let (done, said) = init("fourth", &url.replace("host=", "host=/nowhere"));
    assert!(!done && said.contains("/nowhere") && said.contains("hint: "), "{said}");
    // A password in settings that others can read.
    let settings = dir.path().join("first/halfkey-verifier.toml");
    let text = std::fs::read_to_string(&settings).unwrap();
    std::fs::write(&settings, text.replace("halfkey@", "halfkey:secret@")).unwrap();
    let state = dir.path().join("first").display().to_string();
    let list = output(&["operator", "list", "--state", &state]);
    let said = String::from_utf8_lossy(&list.stderr);
    assert!(!list.status.success() && said.contains("chmod 600") && !said.contains("secret"), "{said}");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&settings, mode).unwrap();
    let list = output(&["operator", "list", "--state", &state]);
    assert!(list.status.success(), "{list:?}");
}

/// Who moves the records, or takes a restored database as it is, would leave behind what a command changes meanwhile.
#[test]
fn what_changes_the_records_does_not_run_beside_what_moves_them() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    Server::init(&state);
    let path = state.to_str().unwrap();
    let commands: [&[&str]; 3] =
        [&["operator", "add", "eve"], &["operator", "remove", "ada"], &["accept-rollback"]];
    let moving = StateDir::new(&state).lock_stopped().unwrap();
    for command in commands {
        let done = output(&[command, &["--state", path]].concat());
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(!done.status.success() && said.contains("try again afterwards"), "{command:?}: {said}");
    }
    assert!(!state.join("operator-eve.bundle").exists());
    drop(moving);
    // Beside a server they do.
    let _serving = StateDir::new(&state).lock_serving().unwrap();
    for command in commands {
        assert!(output(&[command, &["--state", path]].concat()).status.success(), "{command:?}");
    }
}

/// What a server has in its SQLite file goes to PostgreSQL, and the machines notice nothing.
#[tokio::test]
async fn records_move_to_a_database_of_several_servers() {
    let mut server = Server::start();
    let node = enrolled(&server).await;
    node.allow(&server.operator()).await;
    assert_eq!(said(&node.boot(&server.anybody()).await), "released");
    node.propose(&server.anybody(), &halfkey_testkit::software::Software::default()).await;
    let other = Node::new();
    other.register(&server.anybody()).await.unwrap();
    let trail: AuditList = get(&server.operator(), "/v1/operator/audit?after=0").await.unwrap();
    let database = Postgres::shared().database();
    let state = server.state().to_str().unwrap().to_owned();
    let migrate = |url: &str| {
        let done = output(&["migrate", "--database", url, "--state", &state]);
        (done.status.success(), String::from_utf8_lossy(&done.stderr).into_owned())
    };
    let (done, text) = migrate(&database);
    assert!(!done && text.contains("stop the server"), "{text}");
    server.stop();
    // A row that it has no place for: nothing is moved.
    let damage = |sql: &str| server.database().execute(sql, []).unwrap();
    damage("UPDATE nodes SET last_seen = 'x'");
    let (done, text) = migrate(&database);
    assert!(!done && text.contains("table nodes, row 1: what is in last_seen"), "{text}");
    damage("UPDATE nodes SET last_seen = 1");
    let (done, text) = migrate(&database);
    assert!(
        done && text.contains("names the database now") && text.contains("halfkey.db is not used"),
        "{text}"
    );
    let (done, text) = migrate(&database);
    assert!(!done && text.contains("names a database already"), "{text}");
    // It is not asked any more.
    std::fs::remove_file(server.state().join("halfkey.db")).unwrap();
    server.serve();
    let second = server.replica();
    let moved: AuditList = get(&second.operator(), "/v1/operator/audit?after=0").await.unwrap();
    assert_eq!(moved.entries[..trail.entries.len()], trail.entries[..]);
    for server in [&server, &second] {
        assert_eq!(said(&node.boot(&server.anybody()).await), "released");
        node.reboot();
    }
    let evidence: halfkey_protocol::wire::operator::EvidenceList =
        get(&second.operator(), &path(node.id, "/evidence")).await.unwrap();
    let numbers: Vec<u64> = evidence.evidence.iter().map(|evidence| evidence.id).collect();
    assert!(numbers.is_sorted_by(|a, b| a > b), "{numbers:?}");
    other.enroll(&second.anybody(), &server.operator(), "second").await;
    decide(&second, &node, "/revoke").await;
    assert_eq!(said(&node.boot(&server.anybody()).await), "denied revoked");
}
