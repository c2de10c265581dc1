//! A backup of a server that works, and what is made of it.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use common::node::{Node, enrolled, said};
use common::{Server, get, output, path, post, refused, until};
use halfkey_protocol::Reason;
use halfkey_protocol::wire::operator::{AuditList, Because, NodeRecord};
use halfkey_testkit::postgres::Postgres;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

fn run(args: &[&str]) -> (bool, String) {
    let done = output(args);
    (done.status.success(), String::from_utf8_lossy(&done.stderr).into_owned())
}

fn backup(server: &Server, out: &Path) -> (bool, String) {
    run(&["backup", "--state", server.state().to_str().unwrap(), "--out", out.to_str().unwrap()])
}

fn restore(from: &Path, state: &Path) -> (bool, String) {
    run(&["restore", "--from", from.to_str().unwrap(), "--state", state.to_str().unwrap()])
}

async fn revoke(server: &Server, node: &Node) {
    let body = Because { because: "stolen".into() };
    let _: NodeRecord = post(&server.operator(), &path(node.id, "/revoke"), &body).await.unwrap();
}

/// The server is busy meanwhile: each copy fits, and what is restored is what was there, and says that it was restored.
#[tokio::test]
async fn a_server_is_copied_while_it_works_and_restored() {
    let mut server = Server::start();
    let node = enrolled(&server).await;
    node.allow(&server.operator()).await;
    let other = enrolled(&server).await;
    let (over, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let busy = tokio::spawn({
        let (operator, over, done) = (server.operator(), over.clone(), done.clone());
        async move {
            while !over.load(Ordering::SeqCst) {
                for what in ["/hold", "/release"] {
                    other.decide(&operator, what, "so").await.unwrap();
                    done.fetch_add(1, Ordering::SeqCst);
                }
            }
        }
    });
    let copies: Vec<_> = (0..4).map(|number| server.dir.path().join(format!("copy-{number}"))).collect();
    for copy in &copies {
        let before = done.load(Ordering::SeqCst);
        until("it works", async || done.load(Ordering::SeqCst) > before).await;
        let (out, server) = (copy.clone(), server.state().to_str().unwrap().to_owned());
        let copied = tokio::task::spawn_blocking(move || {
            run(&["backup", "--state", &server, "--out", out.to_str().unwrap()])
        });
        let (copied, text) = copied.await.unwrap();
        assert!(copied && text.contains("as secret as the state folder"), "{text}");
    }
    over.store(true, Ordering::SeqCst);
    busy.await.unwrap();
    let copy = &copies[3];
    for name in ["halfkey.db", "release.key", "cluster.key", "sequence.state"] {
        let mode = std::fs::metadata(copy.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name}");
    }
    let (again, text) = backup(&server, copy);
    assert!(!again && text.contains("expected no"), "{text}");
    revoke(&server, &node).await;
    assert_eq!(said(&node.boot(&server.anybody()).await), "denied revoked");
    server.stop();

    // The host is gone; its backup is not, and comes to another folder.
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let (restored, text) = restore(copy, &state);
    assert!(
        restored && text.contains("accepted, and recorded") && text.contains("look at each revocation"),
        "{text}"
    );
    let (again, text) = restore(copy, &state);
    assert!(!again && text.contains("expected no"), "{text}");
    let again = Server::on(dir, &state, &[]);
    // What came after the backup is gone, as the command said.
    assert_eq!(said(&node.boot(&again.anybody()).await), "released");
    // No bundle is in a backup, and each is good as before.
    let operator = again.with_bundle(&server.state().join("operator-ada.bundle"));
    let trail: AuditList = get(&operator, "/v1/operator/audit?after=0").await.unwrap();
    assert!(trail.entries.iter().any(|entry| entry.action == "accept_rollback"));
}

#[tokio::test]
async fn what_can_t_be_copied_leaves_nothing() {
    let mut server = Server::start();
    server.stop();
    let copy = server.dir.path().join("copy");
    std::fs::write(server.state().join("halfkey.db"), b"this is no database, whatever its name says")
        .unwrap();
    let (copied, text) = backup(&server, &copy);
    assert!(!copied && text.contains("halfkey.db"), "{text}");
    assert!(std::fs::read_dir(&copy).unwrap().next().is_none());
    let (restored, text) = restore(&copy, &server.dir.path().join("new"));
    assert!(!restored, "{text}");
}

/// As docs/service.md has it: the folder first, then the database by its own means.
#[tokio::test]
async fn a_database_of_several_servers_is_copied_by_its_own_means() {
    let url = Postgres::shared().database();
    let mut server = Server::over(&url);
    let node = enrolled(&server).await;
    node.allow(&server.operator()).await;
    let (copy, dump) = (server.dir.path().join("copy"), server.dir.path().join("halfkey.dump"));
    let (copied, text) = backup(&server, &copy);
    assert!(copied && text.contains("pg_dump"), "{text}");
    assert!(!copy.join("halfkey.db").exists());
    Postgres::shared().dump(&url, &dump);
    revoke(&server, &node).await;
    server.stop();
    Postgres::shared().put_back(&url, &dump);
    // The server that knows better refuses it, until it is told.
    server.serve();
    assert_eq!(refused(node.begin(&server.anybody(), "boot").await), Reason::RolledBack);
    server.stop();
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let (restored, text) = restore(&copy, &state);
    assert!(restored && text.contains("accepted, and recorded"), "{text}");
    let restored = Server::on(dir, &state, &[]);
    assert_eq!(said(&node.boot(&restored.anybody()).await), "released");
}
