//! Webhooks, with a receiver that looks at signatures, refuses, is silent, is gone and comes back; and servers that are killed.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use aws_lc_rs::hmac;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use base64ct::{Base64, Encoding as _};
use common::node::{Node, enrolled, said};
use common::scrape::Scrape;
use common::{Server, output, post, until};
use halfkey_protocol::wire::Verdict;
use halfkey_testkit::pki::Pki;
use halfkey_testkit::port::HeldPort;
use halfkey_testkit::postgres::Postgres;
use halfkey_testkit::software::lax;
use std::collections::BTreeSet;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// What the receiver does next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    Takes,
    Refuses,
    /// Reads and does not answer.
    Hangs,
    /// To another place of its own.
    Redirects,
}

/// A message that came in.
#[derive(Clone)]
struct Got {
    id: String,
    body: serde_json::Value,
    taken: bool,
    path: String,
}

/// What is shared with the receiver's tasks.
#[derive(Clone)]
struct Desk(Arc<Mutex<(Mood, Vec<Got>)>>);

struct Receiver {
    dir: TempDir,
    port: HeldPort,
    desk: Desk,
    serving: Option<JoinHandle<()>>,
}

impl Receiver {
    /// One that nobody serves yet.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        write_secret(&dir.path().join("secret"), SECRET);
        let desk = Desk(Arc::new(Mutex::new((Mood::Takes, Vec::new()))));
        Self { dir, port: HeldPort::new(), desk, serving: None }
    }

    async fn serve(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port.number())).await.unwrap();
        let router = Router::new().fallback(receive).with_state(self.desk.clone());
        self.serving = Some(tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }));
    }

    /// It is gone: who connects is refused.
    async fn die(&mut self) {
        let serving = self.serving.take().unwrap();
        serving.abort();
        let _ = serving.await;
    }

    fn mood(&self, mood: Mood) {
        self.desk.0.lock().unwrap().0 = mood;
    }

    /// Messages of this type, in the order of their arrival.
    fn got(&self, kind: &str) -> Vec<Got> {
        let got = self.desk.0.lock().unwrap().1.clone();
        got.into_iter().filter(|got| got.body["type"] == kind).collect()
    }

    /// Its line of the settings.
    fn settings(&self, more: &str) -> String {
        let (port, secret) = (self.port.number(), self.dir.path().join("secret"));
        let secret = secret.display();
        format!(
            "webhooks = [{{ name = \"pager\", url = \"http://127.0.0.1:{port}/hook?x=1\", secret_file = \"{secret}\", deadline_seconds = 1{more} }}]\n"
        )
    }

    /// A copy of that server which tells this receiver.
    fn told_by(&self, server: &Server) -> Server {
        let line = self.settings("");
        server.replica_with(|state| {
            let file = state.join("halfkey-verifier.toml");
            let text = std::fs::read_to_string(&file).unwrap();
            std::fs::write(&file, line + &text).unwrap();
        })
    }
}

fn write_secret(path: &Path, text: &str) {
    use std::io::Write as _;
    let mut file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(path).unwrap();
    writeln!(file, "{text}").unwrap();
}

/// As the specification has it, without what the server signs by.
fn is_signed(headers: &HeaderMap, body: &[u8]) -> bool {
    let header = |name: &str| headers[name].to_str().unwrap();
    let key = Base64::decode_vec(SECRET.strip_prefix("whsec_").unwrap()).unwrap();
    let content =
        [header("webhook-id").as_bytes(), b".", header("webhook-timestamp").as_bytes(), b".", body].concat();
    let signature = header("webhook-signature").strip_prefix("v1,").unwrap();
    let signature = Base64::decode_vec(signature).unwrap();
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, &key), &content, &signature).is_ok()
}

async fn receive(State(desk): State<Desk>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    assert!(is_signed(&head.headers, &body) && head.headers["content-type"] == "application/json");
    let mood = {
        let (mood, all) = &mut *desk.0.lock().unwrap();
        let id = head.headers["webhook-id"].to_str().unwrap().to_owned();
        let (body, taken) = (serde_json::from_slice(&body).unwrap(), *mood == Mood::Takes);
        all.push(Got { id, body, taken, path: head.uri.to_string() });
        *mood
    };
    match mood {
        Mood::Takes => StatusCode::NO_CONTENT.into_response(),
        Mood::Refuses => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Mood::Redirects => (StatusCode::TEMPORARY_REDIRECT, [("location", "/elsewhere")]).into_response(),
        Mood::Hangs => std::future::pending().await,
    }
}

async fn decide(server: &Server, node: &Node, what: &str) {
    node.decide(&server.operator(), what, "so").await.unwrap();
}

#[tokio::test]
async fn each_event_is_told_at_least_once_whoever_is_gone_meanwhile() {
    let first = Server::over(&Postgres::shared().database());
    let mut receiver = Receiver::new();
    let mut one = receiver.told_by(&first);
    let node = enrolled(&one).await;
    receiver.serve().await;

    // It refuses at first. A boot that waits is told once, however often it asks.
    receiver.mood(Mood::Refuses);
    node.reboot();
    assert_eq!(said(&node.boot(&one.anybody()).await), "pending no_policy");
    assert_eq!(said(&node.boot(&one.anybody()).await), "pending no_policy");
    until("it refuses", async || !receiver.got("pending").is_empty()).await;
    receiver.mood(Mood::Takes);
    until("it takes it", async || receiver.got("pending").iter().any(|got| got.taken)).await;
    let pending = receiver.got("pending");
    assert_eq!(pending.iter().map(|got| got.id.as_str()).collect::<BTreeSet<_>>().len(), 1);
    let data = &pending[0].body["data"];
    assert_eq!((&data["node_id"], &data["reason"]), (&node.id.to_string().into(), &"no_policy".into()));
    assert_eq!((&data["label"], &data["by"]), (&"web1".into(), &serde_json::Value::Null));
    assert!(data["evidence_id"].is_u64() && pending[0].body["timestamp"].as_str().unwrap().ends_with('Z'));

    // It is silent while the server that tells it is killed.
    receiver.mood(Mood::Hangs);
    node.apply(&one.operator(), &format!("node:{}", node.id), &lax()).await.unwrap();
    assert_eq!(said(&node.boot(&one.anybody()).await), "released");
    until("it is told", async || !receiver.got("first_boot").is_empty()).await;
    one.kill();
    receiver.mood(Mood::Takes);
    let two = receiver.told_by(&first);
    until("another tells it", async || receiver.got("first_boot").iter().any(|got| got.taken)).await;
    let told = receiver.got("first_boot");
    assert_eq!(told.iter().map(|got| got.id.as_str()).collect::<BTreeSet<_>>().len(), 1);

    // It is gone meanwhile.
    receiver.die().await;
    let mut session = node.begin(&two.anybody(), "boot").await.unwrap();
    session.purpose_data = vec![9; 32];
    let again: Verdict = post(&two.anybody(), "/v1/finish", &node.evidence("boot", &session)).await.unwrap();
    assert_eq!(
        said(&again),
        "released",
        "a second time in this boot: as another machine with a copy of its TPM"
    );
    decide(&two, &node, "/revoke").await;
    assert_eq!(said(&node.boot(&two.anybody()).await), "denied revoked");
    until("it is missed", async || two.log().contains("does not take messages")).await;
    one.serve();
    receiver.serve().await;
    for kind in ["cloned", "revoked", "denied"] {
        until(kind, async || receiver.got(kind).iter().any(|got| got.taken)).await;
    }
    assert_eq!(receiver.got("revoked")[0].body["data"]["by"], "ada");
    assert_eq!(receiver.got("denied")[0].body["data"]["reason"], "revoked");
    assert_eq!(receiver.got("first_boot").len(), told.len(), "once");
    for server in [&first, &one, &two] {
        assert!(!server.log().contains(&SECRET["whsec_".len()..]));
    }
}

#[tokio::test]
async fn an_endpoint_that_is_gone_for_long_loses_the_oldest_and_a_redirect_is_not_followed() {
    let mut receiver = Receiver::new();
    let settings = receiver.settings(", queue = 2, events = [\"denied\"]");
    let server = Server::with(&settings, &["--metrics-listen", "127.0.0.1:0"]);
    let node = enrolled(&server).await;
    node.apply(&server.operator(), &format!("node:{}", node.id), &lax()).await.unwrap();
    assert_eq!(said(&node.boot(&server.anybody()).await), "released");
    decide(&server, &node, "/revoke").await;
    for _ in 0..6 {
        assert_eq!(said(&node.boot(&server.anybody()).await), "denied revoked");
    }
    let value = async |sample: &str| Scrape::of(&server.metrics_url).await.value(sample);
    let outcome =
        |outcome: &str| format!("halfkey_webhooks_total{{endpoint=\"pager\",outcome=\"{outcome}\"}}");
    until("some are dropped", async || value(&outcome("dropped")).await > 0.0).await;
    assert!(server.log().contains("the oldest messages are dropped"));
    assert!(value(&outcome("failed")).await > 0.0);
    until("two wait", async || value("halfkey_webhooks_waiting{endpoint=\"pager\"}").await == 2.0).await;

    receiver.mood(Mood::Redirects);
    receiver.serve().await;
    until("it is asked", async || !receiver.got("denied").is_empty()).await;
    receiver.mood(Mood::Takes);
    until("all are told", async || value("halfkey_webhooks_waiting{endpoint=\"pager\"}").await == 0.0).await;
    let got = receiver.got("denied");
    assert!(got.iter().all(|got| got.path == "/hook?x=1"), "no other place");
    let newest = got.iter().map(|got| got.body["data"]["evidence_id"].as_u64().unwrap()).max();
    assert_eq!(got.iter().filter(|got| got.taken).count(), 2);
    // One of the enrollment, one that was released, six that were denied.
    assert_eq!(newest, Some(8), "the newest is among them");
    for kind in ["first_boot", "revoked", "pending"] {
        assert!(receiver.got(kind).is_empty(), "{kind}: it did not ask for these");
    }
}

/// `webhook-test`, with plain HTTP and TLS; and what is refused at the start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_tries_an_endpoint() {
    let mut receiver = Receiver::new();
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let verifier = Server::init(&state);
    let ran = |more: &[&str]| {
        let args = [&["webhook-test", "--state", state.to_str().unwrap()], more].concat();
        let output = output(&args);
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    };
    let (done, text) = ran(&[]);
    assert!(!done && text.contains("[[webhooks]]"), "{text}");
    verifier.settings(&receiver.settings("")).unwrap();
    let (done, text) = ran(&[]);
    assert!(!done && text.contains("pager\t") && text.contains("refused"), "{text}");
    receiver.serve().await;
    let (done, text) = ran(&["pager"]);
    assert!(done && text == "pager\tdelivered\n", "{text}");
    assert_eq!(receiver.got("test").len(), 1);
    let (done, text) = ran(&["another"]);
    assert!(!done && text.contains("named another"), "{text}");

    let pki = Pki::new();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, &pki.ca_pem).unwrap();
    let leaf = pki.server("127.0.0.1");
    let config = rustls::ServerConfig::builder_with_provider(halfkey_verifier::tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der.clone()], leaf.key_der())
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = Vec::new();
            while !request.ends_with(b"}}") && stream.read_buf(&mut request).await.unwrap_or(0) > 0 {}
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        }
    });
    let secret = receiver.dir.path().join("secret");
    let tls = |more: &str| {
        format!(
            "webhooks = [{{ name = \"tls\", url = \"https://127.0.0.1:{port}/\", secret_file = \"{}\"{more} }}]\n",
            secret.display()
        )
    };
    verifier.settings(&tls(&format!(", ca_file = \"{}\"", ca.display()))).unwrap();
    assert_eq!(ran(&[]), (true, "tls\tdelivered\n".to_owned()));
    let other = dir.path().join("other.pem");
    std::fs::write(&other, &Pki::new().ca_pem).unwrap();
    verifier.settings(&tls(&format!(", ca_file = \"{}\"", other.display()))).unwrap();
    let (done, text) = ran(&[]);
    assert!(!done && text.contains("certificate"), "{text}");

    // What can't be used is said at the start, and none of it is shown.
    let open = dir.path().join("open");
    std::fs::write(&open, SECRET).unwrap();
    let none = dir.path().join("none");
    write_secret(&none, "whsec_c2hvcnQ=");
    for (file, expected) in [(&open, "only its owner"), (&none, "expected whsec_")] {
        let line = receiver.settings("").replace(secret.to_str().unwrap(), file.to_str().unwrap());
        verifier.settings(&line).unwrap();
        let served = output(&["serve", "--state", state.to_str().unwrap()]);
        let text = String::from_utf8(served.stderr).unwrap();
        assert!(!served.status.success() && text.contains(expected) && !text.contains("c2hv"), "{text}");
    }
}
