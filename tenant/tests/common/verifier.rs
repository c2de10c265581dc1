//! The real verifier, as a child process. The test that is this child must be in each program:
//!
//! ```ignore
//! #[test]
//! fn as_verifier() { common::verifier::serve_if_asked(); }
//! ```

use clap::Parser;
use halfkey_protocol::keys::half::activation_proof;
use halfkey_protocol::wire::{Activate, Activated, Registered};
use halfkey_testkit::tpm::Tpm;
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

/// Serves until it is killed, if this is the child.
pub fn serve_if_asked() {
    let (Ok(state), Ok(listen)) = (std::env::var(STATE), std::env::var(LISTEN)) else { return };
    verifier(&["serve", "--state", &state, "--listen", &listen]);
}

/// Runs `halfkey-verifier` in this process.
pub fn verifier(args: &[&str]) {
    let cli = Cli::try_parse_from([&["halfkey-verifier"], args].concat()).unwrap();
    run(cli).unwrap_or_else(|e| panic!("{args:?}: {e}"));
}

/// What a machine wants to see in its enrollment.
pub const CHALLENGE: [u8; 32] = [0x33; 32];

pub struct Verifier {
    pub dir: tempfile::TempDir,
    child: Child,
    url: String,
}

impl Verifier {
    pub fn start() -> Self {
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

    pub fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join("state").join(name)).unwrap()
    }

    /// As who can write the database does.
    pub fn database(&self) -> rusqlite::Connection {
        let state = halfkey_verifier::config::StateDir::new(self.dir.path().join("state"));
        rusqlite::Connection::open(state.database()).unwrap()
    }

    /// What a node posts.
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> T {
        let ca = Certificate::from_pem(self.file("ca.pem").as_bytes()).unwrap();
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::new_with_certs(&[ca]))
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .build();
        let agent = ureq::Agent::config_builder()
            .proxy(None)
            .http_status_as_error(false)
            .tls_config(tls)
            .build()
            .new_agent();
        let body = serde_json::to_vec(body).unwrap();
        let request = agent.post(format!("{}{path}", self.url)).content_type("application/json");
        let answer = request.send(&body[..]).unwrap().body_mut().read_to_vec().unwrap();
        serde_json::from_slice(&answer)
            .unwrap_or_else(|e| panic!("{path}: {e}: {}", String::from_utf8_lossy(&answer)))
    }

    /// The whole registration, as the agent does it.
    pub fn register(&self, tpm: &Tpm) {
        let registered: Registered = self.post("/v1/register", &tpm.register);
        assert_eq!(registered.node_id, tpm.node_id().to_string());
        let secret = tpm.activate_with_ek(&registered.credential);
        let proof = activation_proof(&secret, &tpm.node_id().0, &CHALLENGE).into();
        let activate = Activate { node_id: registered.node_id, challenge: CHALLENGE.into(), proof };
        let _: Activated = self.post("/v1/activate", &activate);
    }
}

impl Drop for Verifier {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
