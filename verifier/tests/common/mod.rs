//! A real server process on loopback, and clients for it.
#![allow(dead_code, reason = "each test file uses a part")]

pub mod fleet;
pub mod node;
pub mod proposing;
pub mod scrape;
pub mod siege;
pub mod turned;

use halfkey_protocol::wire::Problem;
use halfkey_protocol::{NodeId, Reason};
use halfkey_testkit::verifier::Verifier;
use halfkey_verifier::client::{Client, ClientError};
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

pub const BINARY: &str = env!("CARGO_BIN_EXE_halfkey-verifier");

/// A verifier's process, its folder, and clients for it.
pub struct Server {
    pub dir: TempDir,
    process: Verifier,
    pub url: String,
    /// With `--operator-listen`.
    pub operator_url: String,
    /// With `--metrics-listen`.
    pub metrics_url: String,
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
        let process = Self::init(&dir.path().join("state"));
        process.settings(settings).unwrap();
        Self::serving(dir, process, extra)
    }

    /// Over a PostgreSQL database that is new.
    pub fn over(database: &str) -> Self {
        Self::over_with(database, &[])
    }

    /// The same with more flags.
    pub fn over_with(database: &str, extra: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let flags = ["--database", database];
        let state = dir.path().join("state");
        let process = Verifier::init_with(Path::new(BINARY), &state, "127.0.0.1", "ada", &flags).unwrap();
        Self::serving(dir, process, extra)
    }

    /// A second server over the same database: with a copy of the state folder, as docs/service.md says.
    pub fn replica(&self) -> Self {
        self.replica_with(|_| {})
    }

    /// The same with something changed in the copy.
    pub fn replica_with(&self, change: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let copy = "mkdir \"$1\" && tar -C \"$0\" -cf - --exclude=sequence.state.new --exclude=ca.key . | tar -C \"$1\" -xpf -";
        let copied = Command::new("sh").args(["-c", copy]).arg(self.state()).arg(&state).status().unwrap();
        assert!(copied.success());
        change(&state);
        Self::on(dir, &state, &[])
    }

    /// For a state folder that exists, with more flags.
    pub fn on(dir: TempDir, state: &Path, extra: &[&str]) -> Self {
        Self::serving(dir, Verifier::on(Path::new(BINARY), state), extra)
    }

    fn serving(dir: TempDir, process: Verifier, extra: &[&str]) -> Self {
        let process = process.with_flags(&["--log-level", "debug"]).with_flags(extra);
        let mut server = Self {
            dir,
            url: process.local_url(),
            operator_url: String::new(),
            metrics_url: String::new(),
            process,
        };
        server.serve();
        server
    }

    /// A state folder that nobody serves yet.
    pub fn init(state: &Path) -> Verifier {
        Verifier::init_at(Path::new(BINARY), state, "127.0.0.1", "ada").unwrap()
    }

    pub fn serve(&mut self) {
        self.process.start().unwrap();
        self.operator_url = self.process.operator_url().unwrap_or_default().to_owned();
        self.metrics_url = self.process.metrics_url().unwrap_or_default().to_owned();
    }

    pub fn state(&self) -> &Path {
        self.process.state()
    }

    /// The database, for who can write it.
    pub fn database(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.process.database()).unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.process.pid().unwrap()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.process.log()).unwrap()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// SIGTERM; gives the exit code.
    pub fn stop(&mut self) -> Option<i32> {
        self.process.stop().unwrap()
    }

    pub fn signal_stop(&self) {
        self.signal("-TERM");
    }

    /// As `kill` names it.
    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.pid().to_string()]).status().unwrap();
        assert!(status.success());
    }

    pub fn address(&self) -> &str {
        self.url.strip_prefix("https://").unwrap()
    }

    pub fn roots(&self) -> RootCertStore {
        roots(self.state())
    }

    /// Without a certificate: a node.
    pub fn anybody(&self) -> Client {
        client(&self.url, self.state(), None)
    }

    /// With the first operator's bundle.
    pub fn operator(&self) -> Client {
        self.with_bundle(&self.state().join("operator-ada.bundle"))
    }

    pub fn with_bundle(&self, path: &Path) -> Client {
        self.at(&self.url, path)
    }

    /// At this URL, with a bundle.
    pub fn at(&self, url: &str, path: &Path) -> Client {
        client(url, self.state(), Some(path))
    }
}

/// What clients of this state folder pin.
fn roots(state: &Path) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(state.join("ca.pem")).unwrap()).unwrap();
    roots
}

/// For the server of this state folder at this URL; an operator's if there is a bundle.
pub fn client(url: &str, state: &Path, bundle: Option<&Path>) -> Client {
    let identity = bundle.map(|path| {
        let bundle: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let pem = |name: &str| bundle[name].as_str().unwrap().as_bytes().to_vec();
        let certificate = CertificateDer::from_pem_slice(&pem("certificate")).unwrap();
        (vec![certificate], PrivateKeyDer::from_pem_slice(&pem("key")).unwrap())
    });
    Client::new(url, roots(state), identity).unwrap().within(Duration::from_secs(40))
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

/// Asks until it is so.
///
/// # Panics
/// If that takes a minute, with what it is.
pub async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let asking = async {
        let mut pace = tokio::time::interval(Duration::from_millis(10));
        while !so().await {
            pace.tick().await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(60), asking).await.is_ok(), "{what}");
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

/// TLS from this address.
pub async fn connect(server: &Server, from: [u8; 4]) -> tokio_rustls::client::TlsStream<TcpStream> {
    let config = rustls::ClientConfig::builder_with_provider(halfkey_verifier::tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(server.roots())
        .with_no_client_auth();
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((std::net::Ipv4Addr::from(from), 0).into()).unwrap();
    let stream = socket.connect(server.address().parse().unwrap()).await.unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect("127.0.0.1".try_into().unwrap(), stream).await.unwrap()
}

/// Sends bytes over TLS and reads until the server closes.
pub async fn exchange(server: &Server, bytes: &[u8]) -> String {
    let mut stream = connect(server, [127, 0, 0, 1]).await;
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// RLIMIT_FSIZE of another process: writing beyond it fails, as on a full disk.
pub fn limit_file_size(pid: u32, bytes: u64) {
    let limit = if bytes == u64::MAX { "unlimited".to_owned() } else { bytes.to_string() };
    let set = Command::new("prlimit")
        .args(["--pid", &pid.to_string(), &format!("--fsize={limit}:unlimited")])
        .status()
        .unwrap();
    assert!(set.success());
}
