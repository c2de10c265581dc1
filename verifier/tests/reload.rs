//! SIGHUP: certificates and settings are read again, and what can't be used is not.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use common::scrape::Scrape;
use common::{Server, command, connect, get, until};
use halfkey_protocol::wire::operator::ServerInfo;
use std::path::PathBuf;

/// The certificate with which a new connection is answered.
async fn certificate(server: &Server) -> Vec<u8> {
    let stream = connect(server, [127, 0, 0, 1]).await;
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

async fn urls(server: &Server) -> Vec<String> {
    get::<ServerInfo>(&server.operator(), "/v1/operator/info").await.unwrap().servers
}

fn settings(server: &Server) -> PathBuf {
    server.state().join("halfkey-verifier.toml")
}

fn change(server: &Server, from: &str, to: &str) {
    let text = std::fs::read_to_string(settings(server)).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(settings(server), text.replace(from, to)).unwrap();
}

/// SIGHUP, until it was heard for the `count`th time.
async fn reload(server: &Server, said: &str, count: usize) {
    server.signal("-HUP");
    until(said, async || server.log().matches(said).count() == count).await;
}

const READ: &str = "certificates and settings were read again";
const REFUSED: &str = "settings and certificates stay as they were";

#[tokio::test]
async fn a_new_certificate_counts_from_the_signal_on() {
    let server = Server::with("", &["--operator-listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]);
    let first = certificate(&server).await;
    let told = command(&["certificate", "--state", server.state().to_str().unwrap()]);
    assert_eq!(told, "");
    assert_eq!(certificate(&server).await, first);
    reload(&server, READ, 1).await;
    let second = certificate(&server).await;
    assert_ne!(second, first);
    // Where operators have their own listener as well.
    let bundle = server.state().join("operator-ada.bundle");
    assert!(get::<ServerInfo>(&server.at(&server.operator_url, &bundle), "/v1/operator/info").await.is_ok());

    // Half a certificate, and a key of another one: nothing of either is used.
    let pem = std::fs::read_to_string(server.state().join("server.pem")).unwrap();
    std::fs::write(server.state().join("server.pem"), &pem[..pem.len() / 2]).unwrap();
    reload(&server, REFUSED, 1).await;
    assert_eq!(certificate(&server).await, second);
    let seen = Scrape::of(&server.metrics_url).await;
    assert_eq!(seen.value("halfkey_last_reload_successful"), 0.0);
    let ca = std::fs::read_to_string(server.state().join("ca.pem")).unwrap();
    std::fs::write(server.state().join("server.pem"), ca).unwrap();
    reload(&server, REFUSED, 2).await;
    assert_eq!(certificate(&server).await, second);
    std::fs::write(server.state().join("server.pem"), pem).unwrap();
    reload(&server, READ, 2).await;
    let seen = Scrape::of(&server.metrics_url).await;
    assert_eq!(seen.value("halfkey_last_reload_successful"), 1.0);
}

#[tokio::test]
async fn settings_count_from_the_signal_on_or_are_named() {
    let server = Server::start();
    let before = urls(&server).await;
    change(&server, "urls = [", "urls = [\"https://other.example:8443\", ");
    change(&server, "waiters = 768", "waiters = 7");
    assert_eq!(urls(&server).await, before);
    reload(&server, READ, 1).await;
    assert_eq!(urls(&server).await[0], "https://other.example:8443");
    let log = server.log();
    let line = log.lines().find(|line| line.contains("count from the next start on")).unwrap();
    assert!(line.contains("settings=\"limits.waiters\"") && line.contains("WARN"), "{line}");
    assert!(log.lines().any(|line| line.contains(READ) && line.contains("settings=\"urls\"")), "{log}");

    // A word that is none, and what does not fit together.
    let good = std::fs::read_to_string(settings(&server)).unwrap();
    change(&server, "urls = [", "uls = [");
    reload(&server, REFUSED, 1).await;
    std::fs::write(settings(&server), &good).unwrap();
    change(&server, "operators_only_there = false", "operators_only_there = true");
    reload(&server, REFUSED, 2).await;
    assert!(server.log().contains("expected `operator_listen` as well"), "{}", server.log());
    assert_eq!(urls(&server).await[0], "https://other.example:8443", "and it serves");
}
