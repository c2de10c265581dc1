//! A real server process on loopback, and clients for it.
#![allow(dead_code, reason = "each test file uses a part")]

pub mod fleet;
pub mod node;
pub mod siege;
pub mod software;

use halfkey_protocol::wire::Problem;
use halfkey_protocol::{NodeId, Reason};
use halfkey_verifier::client::{Client, ClientError};
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;

pub const BINARY: &str = env!("CARGO_BIN_EXE_halfkey-verifier");

/// A state folder and the process that serves it.
pub struct Server {
    pub dir: TempDir,
    state: PathBuf,
    extra: Vec<String>,
    pub url: String,
    /// With `--operator-listen`.
    pub operator_url: String,
    process: Option<Child>,
}

impl Server {
    pub fn start() -> Self {
        Self::with_settings("")
    }

    /// With lines for the end of the settings file.
    pub fn with_settings(settings: &str) -> Self {
        Self::with(settings, &[])
    }

    /// With settings and more flags.
    pub fn with(settings: &str, extra: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        Self::init(&state);
        let mut server = Self::stopped(dir, &state, extra);
        server.settings(settings);
        server.serve();
        server
    }

    /// For a state folder that exists, with more flags.
    pub fn on(dir: TempDir, state: &Path, extra: &[&str]) -> Self {
        let mut server = Self::stopped(dir, state, extra);
        server.serve();
        server
    }

    fn stopped(dir: TempDir, state: &Path, extra: &[&str]) -> Self {
        let extra = extra.iter().map(|flag| (*flag).to_owned()).collect();
        let (url, operator_url) = (String::new(), String::new());
        Self { dir, state: state.to_owned(), extra, url, operator_url, process: None }
    }

    pub fn init(state: &Path) {
        let state = state.to_str().unwrap();
        command(&["init", "--state", state, "--url", "https://127.0.0.1:8420", "--operator", "ada"]);
    }

    /// Replaces or adds values of the settings file: lines of `key = value`.
    fn settings(&self, lines: &str) {
        let path = self.state.join("halfkey-verifier.toml");
        let mut text = std::fs::read_to_string(&path).unwrap();
        for line in lines.lines().filter(|line| !line.is_empty()) {
            let key = line.split(" = ").next().unwrap();
            let old = text.lines().find(|old| old.starts_with(&format!("{key} = "))).map(str::to_owned);
            text = match old {
                Some(old) => text.replace(&old, line),
                // Before the first table.
                None => format!("{line}\n{text}"),
            };
        }
        std::fs::write(path, text).unwrap();
    }

    pub fn serve(&mut self) {
        let log =
            std::fs::OpenOptions::new().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        // Writing beyond RLIMIT_FSIZE shall fail and not kill: a test plays a full disk.
        let mut child = Command::new("sh")
            .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\"", BINARY])
            .args(["serve", "--state", self.state.to_str().unwrap(), "--listen", "127.0.0.1:0"])
            .args(["--log-level", "debug"])
            .args(&self.extra)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut url = |prefix: &str| {
            let line = lines.next().transpose().unwrap().unwrap_or_default();
            let url = line.strip_prefix(prefix).map(str::to_owned);
            url.unwrap_or_else(|| panic!("{line:?}\n{}", self.log()))
        };
        let first = url("listening on ");
        let apart = self.extra.iter().any(|flag| flag == "--operator-listen");
        let second = apart.then(|| url("listening for operators on "));
        (self.url, self.operator_url) = (first, second.unwrap_or_default());
        self.process = Some(child);
    }

    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The database, for who can write it.
    pub fn database(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.state.join("halfkey.db")).unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().id()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let mut child = self.process.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM; gives the exit code.
    pub fn stop(&mut self) -> Option<i32> {
        self.signal_stop();
        self.process.take().unwrap().wait().unwrap().code()
    }

    pub fn signal_stop(&self) {
        let status = Command::new("kill").args(["-TERM", &self.pid().to_string()]).status().unwrap();
        assert!(status.success());
    }

    pub fn address(&self) -> &str {
        self.url.strip_prefix("https://").unwrap()
    }

    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.state.join("ca.pem")).unwrap()).unwrap();
        roots
    }

    /// Without a certificate: a node.
    pub fn anybody(&self) -> Client {
        Client::new(&self.url, self.roots(), None).unwrap().within(Duration::from_secs(40))
    }

    /// With the first operator's bundle.
    pub fn operator(&self) -> Client {
        self.with_bundle(&self.state.join("operator-ada.bundle"))
    }

    pub fn with_bundle(&self, path: &Path) -> Client {
        self.at(&self.url, path)
    }

    /// At this URL, with a bundle.
    pub fn at(&self, url: &str, path: &Path) -> Client {
        let bundle: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let pem = |name: &str| bundle[name].as_str().unwrap().as_bytes().to_vec();
        let certificate = CertificateDer::from_pem_slice(&pem("certificate")).unwrap();
        let key = PrivateKeyDer::from_pem_slice(&pem("key")).unwrap();
        Client::new(url, self.roots(), Some((vec![certificate], key)))
            .unwrap()
            .within(Duration::from_secs(40))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.process {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

/// Runs the program; it must succeed.
pub fn command(args: &[&str]) -> String {
    let output = output(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub fn output(args: &[&str]) -> Output {
    Command::new(BINARY).args(args).output().unwrap()
}

/// `POST`, as a function to shorten tests.
pub async fn post<T: DeserializeOwned>(
    client: &Client,
    path: &str,
    body: &impl Serialize,
) -> Result<T, Problem> {
    problem(client.post(path, body).await)
}

pub async fn get<T: DeserializeOwned>(client: &Client, path: &str) -> Result<T, Problem> {
    problem(client.get(path).await)
}

pub fn problem<T>(answer: Result<T, ClientError>) -> Result<T, Problem> {
    answer.map_err(|e| match e {
        ClientError::Refused(_, problem) => problem,
        ClientError::Unreachable(what) => panic!("{what}"),
    })
}

/// The reason of a refusal.
pub fn refused<T>(answer: Result<T, Problem>) -> Reason {
    let problem = answer.err().expect("a refusal");
    Reason::from_code(&problem.code).unwrap_or_else(|| panic!("{problem:?}"))
}

pub fn path(node: NodeId, rest: &str) -> String {
    format!("/v1/operator/nodes/{node}{rest}")
}
