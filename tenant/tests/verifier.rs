//! The desk and the real verifier, with a real TPM as the node.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use clap::Parser;
use common::Desk;
use common::tpm::{RSA_2048, Tpm};
use halfkey_protocol::half::activation_proof;
use halfkey_protocol::wire::operator::{AuditEntry, NodeList, NodeRecord, NodeState};
use halfkey_protocol::wire::{Activate, Activated, Registered};
use halfkey_verifier::cli::{Cli, run};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// Tells the child below which folder to serve.
const STATE: &str = "HALFKEY_TEST_STATE";
const LISTEN: &str = "HALFKEY_TEST_LISTEN";

/// Not a test of its own: the verifier, run as a child of the tests below.
#[test]
fn as_verifier() {
    let (Ok(state), Ok(listen)) = (std::env::var(STATE), std::env::var(LISTEN)) else { return };
    verifier(&["serve", "--state", &state, "--listen", &listen]);
}

fn verifier(args: &[&str]) {
    let cli = Cli::try_parse_from([&["halfkey-verifier"], args].concat()).unwrap();
    run(cli).unwrap_or_else(|e| panic!("{args:?}: {e}"));
}

struct Verifier {
    dir: tempfile::TempDir,
    child: Child,
    url: String,
}

impl Verifier {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state").to_str().unwrap().to_owned();
        // Free a moment ago; the URL has to be known before the server runs.
        let listen = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let url = format!("https://{listen}");
        verifier(&["init", "--state", &state, "--url", &url, "--operator", "alice"]);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["as_verifier", "--exact", "--nocapture", "--test-threads=1"])
            .env(STATE, &state)
            .env(LISTEN, &listen)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("listening on https://")), "it serves");
        // Its pipe stays open: it may say more.
        std::thread::spawn(move || lines.for_each(drop));
        Self { dir, child, url }
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join("state").join(name)).unwrap()
    }

    /// What a node posts.
    fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> T {
        let ca = Certificate::from_pem(self.file("ca.pem").as_bytes()).unwrap();
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::new_with_certs(&[ca]))
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .build();
        let agent = ureq::Agent::config_builder().proxy(None).tls_config(tls).build().new_agent();
        let body = serde_json::to_vec(body).unwrap();
        let request = agent.post(format!("{}{path}", self.url)).content_type("application/json");
        let answer = request.send(&body[..]).unwrap().body_mut().read_to_vec().unwrap();
        serde_json::from_slice(&answer).unwrap()
    }

    /// The whole registration, as the agent does it.
    fn register(&self, tpm: &Tpm) {
        let registered: Registered = self.post("/v1/register", &tpm.register);
        assert_eq!(registered.node_id, tpm.node_id().to_string());
        let secret = tpm.activate_with_ek(&registered.credential);
        let proof = activation_proof(&secret, &tpm.node_id().0).into();
        let _: Activated = self.post("/v1/activate", &Activate { node_id: registered.node_id, proof });
    }
}

impl Drop for Verifier {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn record(json: &str) -> NodeRecord {
    serde_json::from_str(json).unwrap()
}

#[test]
fn a_node_is_found_enrolled_revoked_and_restored() {
    let (verifier, tpm) = (Verifier::start(), Tpm::new(RSA_2048));
    let desk = Desk::logged_in(&verifier.file("operator-alice.bundle"));
    assert_eq!(desk.ok(&["nodes"]).stdout, "no nodes\n");
    verifier.register(&tpm);
    let list: NodeList = serde_json::from_str(&desk.ok(&["nodes", "--json"]).stdout).unwrap();
    assert_eq!((list.nodes.len(), list.nodes[0].state), (1, NodeState::Registered));

    let mut watch = desk.command(&["watch", "--json"]);
    let mut watch = watch.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut ready = String::new();
    BufReader::new(watch.stderr.as_mut().unwrap()).read_line(&mut ready).unwrap();
    let mut seen = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<AuditEntry>(&seen.next().unwrap().unwrap()).unwrap();

    let roots = tpm.roots();
    let args =
        ["enroll", "web1", "--ek-roots", roots.to_str().unwrap(), "--yes", "--label", "Web 1", "--json"];
    let enrolled = record(&desk.ok(&args).stdout);
    assert_eq!((enrolled.summary.state, enrolled.summary.label.as_str()), (NodeState::Enrolling, "Web 1"));
    let entry = next();
    assert_eq!((entry.action.as_str(), entry.actor.as_str()), ("enroll", "alice"));
    // Nobody finishes the machine's side.
    let ran = desk.run(&["enroll", "Web 1", "--trust-ek", &tpm.fingerprint(), "--yes", "--wait", "1"]);
    assert!(ran.code == 1 && ran.stderr.contains("halfkey-agent enroll"), "{ran:?}");
    assert_eq!(next().action, "enroll");

    let id = tpm.node_id().to_string();
    assert_eq!(desk.run(&["approve", &id, "--yes"]).code, 5);
    assert_eq!(desk.ok(&["evidence", &id]).stdout, "no evidence\n");
    assert_eq!(desk.run(&["evidence", "--id", "1"]).code, 3);
    assert_eq!(desk.run(&["node", "show", "00000000-0000-8000-8000-000000000000"]).code, 3);
    let shown = desk.ok(&["node", "show", "Web 1"]).stdout;
    assert!(shown.contains(&tpm.fingerprint()) && shown.contains("this desk's tenant key"), "{shown}");

    let revoked = record(&desk.ok(&["revoke", &id[..8], "--because", "stolen", "--json"]).stdout);
    assert_eq!(
        (revoked.summary.state, revoked.revoked_because.as_deref()),
        (NodeState::Revoked, Some("stolen"))
    );
    assert_eq!(next().action, "revoke");
    desk.ok(&["restore", &id, "--because", "found"]);
    assert_eq!(next().action, "restore");
    let trail = desk.ok(&["audit", "--node", "Web 1"]).stdout;
    assert!(trail.contains("alice: ") && trail.lines().count() >= 5, "{trail}");
    watch.kill().unwrap();
    watch.wait().unwrap();
}

#[test]
fn a_removed_operator_is_told_so() {
    let server = Verifier::start();
    let desk = Desk::logged_in(&server.file("operator-alice.bundle"));
    desk.ok(&["nodes"]);
    let state = server.dir.path().join("state");
    verifier(&["operator", "remove", "alice", "--state", state.to_str().unwrap()]);
    let ran = desk.run(&["nodes"]);
    assert!(
        ran.code == 1 && ran.stderr.contains("(unauthorized)") && ran.stderr.contains("hint:"),
        "{ran:?}"
    );
}
