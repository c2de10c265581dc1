//! The real verifier, and what nodes post to it.

use halfkey_protocol::wire::{Activated, Registered};
use halfkey_testkit::node::{CHALLENGE, SimulatedNode};
use halfkey_testkit::process::run;
use halfkey_testkit::programs::Programs;
use halfkey_testkit::verifier as testkit;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

pub struct Verifier {
    process: testkit::Verifier,
    _dir: tempfile::TempDir,
}

impl Verifier {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (program, state) = (Programs::find().unwrap().verifier, dir.path().join("state"));
        let mut process = testkit::Verifier::init_at(&program, &state, "127.0.0.1", "alice").unwrap();
        process.start().unwrap();
        Self { process, _dir: dir }
    }

    pub fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.process.state().join(name)).unwrap()
    }

    /// Runs a command of the program for this server's state folder.
    pub fn command(&self, args: &[&str]) {
        run(&mut self.process.command(args)).unwrap();
    }

    /// Its secret, which is not in the database.
    pub fn cluster_key(&self) -> Vec<u8> {
        std::fs::read(self.process.state().join("cluster.key")).unwrap()
    }

    /// As who can write the database does.
    pub fn database(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.process.database()).unwrap()
    }

    /// What a node posts.
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> T {
        let ca = Certificate::from_pem(&self.process.ca().unwrap()).unwrap();
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
        let request = agent.post(format!("{}{path}", self.process.url())).content_type("application/json");
        let answer = request.send(&body[..]).unwrap().body_mut().read_to_vec().unwrap();
        serde_json::from_slice(&answer)
            .unwrap_or_else(|e| panic!("{path}: {e}: {}", String::from_utf8_lossy(&answer)))
    }

    /// The whole registration, as the agent does it.
    pub fn register(&self, machine: &SimulatedNode) {
        let registered: Registered = self.post("/v1/register", &machine.register);
        let _: Activated = self.post("/v1/activate", &machine.activation(&registered, CHALLENGE));
    }
}
