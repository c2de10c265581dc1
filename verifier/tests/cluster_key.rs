//! Another cluster key in the place of the one in use, while two servers work.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use common::node::{CHALLENGE, Halves, Node, answered, enrolled, said};
use common::proposing::{actions, new, opened, trusted};
use common::{Server, command, get, output, path, post, refused};
use halfkey_protocol::Reason;
use halfkey_protocol::wire::operator::NodeRecord;
use halfkey_protocol::wire::{Activated, Registered, Verdict};
use halfkey_testkit::postgres::Postgres;
use halfkey_testkit::software::Software;
use halfkey_verifier::config::StateDir;
use halfkey_verifier::keys::ClusterKey;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

fn file(server: &Server, name: &str) -> PathBuf {
    server.state().join(name)
}

/// `cluster-key` at a server, and its next start.
fn rotate(server: &mut Server, step: &str) {
    without_a_start(server, step);
    again(server);
}

fn without_a_start(server: &Server, step: &str) {
    command(&["cluster-key", step, "--state", server.state().to_str().unwrap()]);
}

fn again(server: &mut Server) {
    assert_eq!(server.stop(), Some(0));
    server.serve();
}

fn refusal(server: &Server, step: &str) -> String {
    refusal_in(server.state(), step)
}

fn refusal_in(state: &Path, step: &str) -> String {
    let done = output(&["cluster-key", step, "--state", state.to_str().unwrap()]);
    assert!(!done.status.success(), "{step}");
    String::from_utf8(done.stderr).unwrap()
}

/// As if it had been used for an hour.
fn an_hour_later(server: &Server) {
    for name in ["cluster.key.old", "cluster.key.used"] {
        let file = std::fs::File::options().write(true).open(file(server, name)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
    }
}

/// What one begins the other finishes, in both directions, and both know their operator.
async fn both_serve(node: &Node, servers: [&Server; 2]) {
    for [one, other] in [servers, [servers[1], servers[0]]] {
        node.reboot();
        let session = node.begin(&one.anybody(), "boot").await.unwrap();
        let evidence = node.evidence("boot", &session);
        let verdict: Verdict = post(&other.anybody(), "/v1/finish", &evidence).await.unwrap();
        assert_eq!(said(&verdict), "released");
        // As if that answer had been lost: it is given again, and is the same.
        assert_eq!(said(&node.boot(&one.anybody()).await), "released");
        let registered: Registered = post(&one.anybody(), "/v1/register", &node.register).await.unwrap();
        let message = node.activation(&registered, CHALLENGE);
        let _: Activated = post(&other.anybody(), "/v1/activate", &message).await.unwrap();
        let _: NodeRecord = get(&other.operator(), &path(node.id, "")).await.unwrap();
    }
}

/// A machine whose enrollment is open: C_U is encrypted by the key of then.
async fn half_enrolled(server: &Server) -> (Node, Halves) {
    let node = Node::new();
    node.register(&server.anybody()).await.unwrap();
    node.wants(CHALLENGE);
    let (enroll, halves) = node.enrollment(&server.operator(), "half").await;
    let _: NodeRecord = post(&server.operator(), &path(node.id, "/enrollment"), &enroll).await.unwrap();
    (node, halves)
}

#[tokio::test]
async fn a_cluster_key_is_rotated_while_two_servers_work() {
    let mut first = Server::over(&Postgres::shared().database());
    let mut second = first.replica();
    let node = enrolled(&first).await;
    node.allow(&first.operator()).await;
    both_serve(&node, [&first, &second]).await;
    let (trusts, _) = trusted(&first).await;
    let (open, halves) = half_enrolled(&first).await;
    let waits = enrolled(&first).await;
    waits.reboot();
    assert_eq!(said(&waits.boot(&first.anybody()).await), "pending no_policy");
    let before = std::fs::read(file(&first, "cluster.key")).unwrap();

    // Accepted by both before any uses it.
    assert!(refusal(&first, "use").contains("expected a new key"));
    assert!(refusal(&first, "drop").contains("expected a key of before"));
    rotate(&mut first, "new");
    assert!(refusal(&first, "new").contains("cluster.key.new"));
    let mode = std::fs::metadata(file(&first, "cluster.key.new")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    both_serve(&node, [&first, &second]).await;
    std::fs::copy(file(&first, "cluster.key.new"), file(&second, "cluster.key.new")).unwrap();
    again(&mut second);
    both_serve(&node, [&first, &second]).await;

    // Used by one, then by both. What was approved by the one before still is.
    waits.approve(&second.operator()).await.unwrap();
    rotate(&mut first, "use");
    assert_eq!(said(&waits.boot(&first.anybody()).await), "released");
    both_serve(&node, [&first, &second]).await;
    assert!(refusal(&second, "drop").contains("found it new"));
    rotate(&mut second, "use");
    both_serve(&node, [&first, &second]).await;

    // Forgotten by one, then by both.
    let why = refusal(&first, "drop");
    assert!(why.contains("nothing is made with") && why.contains("hint: "), "{why}");
    an_hour_later(&first);
    rotate(&mut first, "drop");
    both_serve(&node, [&first, &second]).await;
    an_hour_later(&second);
    rotate(&mut second, "drop");
    both_serve(&node, [&first, &second]).await;
    let keys = [&first, &second].map(|server| std::fs::read(file(server, "cluster.key")).unwrap());
    assert!(keys[0] == keys[1] && keys[0] != before);
    for server in [&first, &second] {
        for rest in ["new", "old", "used", "new.tmp", "old.tmp", "used.tmp"] {
            assert!(!file(server, &format!("cluster.key.{rest}")).exists(), "{rest}");
        }
    }

    // What was in the database before is as good as it was.
    let session = open.begin(&second.anybody(), "enroll").await.unwrap();
    let verdict: Verdict =
        post(&first.anybody(), "/v1/finish", &open.evidence("enroll", &session)).await.unwrap();
    assert_eq!(said(&verdict), "released");
    open.prove(&second.anybody(), &halves).await.unwrap();
    // A proposal from a boot that was released before, and one that was trusted before.
    let next = trusts.propose(&first.anybody(), &Software::version("6.1.0-57")).await;
    assert_eq!(answered(&next), "accepted");
    opened(&second, &trusts, &new()).await;
    assert!(!actions(&first.operator()).await.contains_key("cloned"));
    assert!(!first.log().contains("changed beside this server"), "{}", first.log());

    // Nothing is by the key before any more.
    let with_old =
        first.replica_with(|state: &Path| std::fs::write(state.join("cluster.key"), &before).unwrap());
    assert_eq!(refused(node.begin(&with_old.anybody(), "boot").await), Reason::RolledBack);
}

/// What docs/service.md says of it, and how it is mended.
#[tokio::test]
async fn a_server_that_still_uses_the_key_before_stops_those_that_have_dropped_it() {
    let mut first = Server::over(&Postgres::shared().database());
    let mut second = first.replica();
    let node = enrolled(&first).await;
    node.allow(&first.operator()).await;
    rotate(&mut first, "new");
    std::fs::copy(file(&first, "cluster.key.new"), file(&second, "cluster.key.new")).unwrap();
    again(&mut second);
    rotate(&mut first, "use");
    an_hour_later(&first);
    rotate(&mut first, "drop");
    assert_eq!(said(&node.boot(&second.anybody()).await), "released");
    enrolled(&second).await;
    assert_eq!(said(&node.boot(&second.anybody()).await), "released");
    again(&mut first);
    assert_eq!(refused(node.begin(&first.anybody(), "boot").await), Reason::RolledBack);

    rotate(&mut second, "use");
    an_hour_later(&second);
    rotate(&mut second, "drop");
    again(&mut first);
    both_serve(&node, [&first, &second]).await;
}

/// With an SQLite file and one server it is the same.
#[tokio::test]
async fn one_server_rotates_its_cluster_key() {
    let mut server = Server::start();
    let node = enrolled(&server).await;
    node.allow(&server.operator()).await;
    rotate(&mut server, "new");
    assert_eq!(said(&node.boot(&server.anybody()).await), "released");
    // Interrupted between its two steps, and said again.
    std::fs::copy(file(&server, "cluster.key"), file(&server, "cluster.key.old")).unwrap();
    again(&mut server);
    without_a_start(&server, "use");
    // The server that runs has started with the key before: what it makes is by that, however long ago `use` was said.
    an_hour_later(&server);
    let why = refusal(&server, "drop");
    assert!(
        why.contains("started with the new key") && why.contains("hint: start this server again"),
        "{why}"
    );
    assert!(file(&server, "cluster.key.old").exists());
    again(&mut server);
    assert_eq!(said(&node.boot(&server.anybody()).await), "released");
    assert!(refusal(&server, "drop").contains("nothing is made with"));
    an_hour_later(&server);
    // It counts from the first start with it.
    again(&mut server);
    rotate(&mut server, "drop");
    assert_eq!(said(&node.boot(&server.anybody()).await), "released");
    let _: NodeRecord = get(&server.operator(), &path(node.id, "")).await.unwrap();
}

/// `use` alone, however long ago.
#[test]
fn a_key_that_no_server_has_started_with_ends_no_rotation() {
    let (_dir, state) = initialized();
    for step in ["new", "use"] {
        command(&["cluster-key", step, "--state", state.to_str().unwrap()]);
    }
    let old = std::fs::File::options().write(true).open(state.join("cluster.key.old")).unwrap();
    old.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
    assert!(refusal_in(&state, "drop").contains("started with the new key"));
    assert!(state.join("cluster.key.old").exists());
}

/// What is moved meanwhile would have the tags of before.
#[test]
fn no_key_is_rotated_beside_what_moves_the_records() {
    let (_dir, state) = initialized();
    let moving = StateDir::new(&state).lock_stopped().unwrap();
    for step in ["new", "use", "drop"] {
        let why = refusal_in(&state, step);
        assert!(why.contains("try again afterwards"), "{step}: {why}");
    }
    drop(moving);
    assert!(!state.join("cluster.key.new").exists());
    command(&["cluster-key", "new", "--state", state.to_str().unwrap()]);
}

/// A power cut, a full disk: the command is said again.
#[test]
fn a_key_that_was_cut_short_is_written_anew() {
    let (_dir, state) = initialized();
    let at = |name: &str| state.join(name);
    let step = |step: &str| command(&["cluster-key", step, "--state", state.to_str().unwrap()]);
    let before = std::fs::read(at("cluster.key")).unwrap();
    let cut = |name: &str, bytes: &[u8]| {
        std::fs::write(at(name), bytes).unwrap();
        std::fs::set_permissions(at(name), std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    for bytes in [&b""[..], &[7; 31]] {
        cut("cluster.key.new", bytes);
        // Nor does a copy that was cut short become the key in use.
        assert!(refusal_in(&state, "use").contains(&format!("expected 32 bytes, found {}", bytes.len())));
        assert_eq!(std::fs::read(at("cluster.key")).unwrap(), before);
    }
    cut("cluster.key.new.tmp", b"");
    step("new");
    let new = std::fs::read(at("cluster.key.new")).unwrap();
    assert!(new.len() == 32 && refusal_in(&state, "new").contains("found one"));
    cut("cluster.key.old", b"");
    step("use");
    assert_eq!(std::fs::read(at("cluster.key.old")).unwrap(), before);
    assert_eq!(std::fs::read(at("cluster.key")).unwrap(), new);
    ClusterKey::load(&StateDir::new(&state)).map(|_| ()).unwrap();
}

fn initialized() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    Server::init(&state);
    (dir, state)
}
