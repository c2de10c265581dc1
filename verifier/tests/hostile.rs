//! What the network can send: bodies, certificates, connections.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use common::siege::announcement;
use common::{Server, command, connect, exchange, get, output, post, problem, refused};
use halfkey_protocol::tpm::template;
use halfkey_protocol::wire::operator::{NodeList, ServerInfo};
use halfkey_protocol::wire::{Begin, Evidence, Prove, Register, Wait};
use halfkey_protocol::{Bytes, MAX_BODY, NodeId, Reason};
use halfkey_verifier::client::{Client, ClientError};
use hyper::Method;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

fn stranger() -> String {
    NodeId([0x8a; 16]).to_string()
}

async fn raw(client: &Client, path: &str, body: Vec<u8>) -> Reason {
    refused(problem(client.ask::<serde_json::Value>(Method::POST, path, body).await))
}

fn register() -> Register {
    Register {
        versions: vec![1],
        ek_public: Bytes(vec![0; 300]),
        ek_certificate: None,
        ek_chain: vec![],
        ak_public: template::AK.template().into(),
        srk_public: template::SRK.template().into(),
        certify_info: Bytes(vec![0; 100]),
        certify_signature: Bytes(vec![0; 72]),
        label: "x".into(),
    }
}

#[tokio::test]
async fn bodies_are_bounded_and_read_strictly() {
    let server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    for path in
        ["/v1/register", "/v1/activate", "/v1/begin", "/v1/finish", "/v1/propose", "/v1/wait", "/v1/prove"]
    {
        for body in [&b""[..], b"{", b"[]", b"null", b"\xff\xfe", b"{\"node_id\":7}"] {
            assert_eq!(raw(&anybody, path, body.to_vec()).await, Reason::Malformed, "{path}");
        }
        let deep = [vec![b'['; 60_000]].concat();
        assert_eq!(raw(&anybody, path, deep).await, Reason::Malformed, "{path}");
        let limit = match path {
            "/v1/finish" | "/v1/propose" => MAX_BODY,
            // The registration comes along.
            "/v1/activate" => 128 << 10,
            _ => 64 << 10,
        };
        assert_eq!(raw(&anybody, path, vec![b' '; limit + 1]).await, Reason::TooLarge, "{path}");
        assert_eq!(raw(&anybody, path, vec![b' '; limit]).await, Reason::Malformed, "{path}");
    }
    // Without an announced length.
    let mut request =
        b"POST /v1/begin HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
            .to_vec();
    for _ in 0..9 {
        request.extend(b"2000\r\n");
        request.extend([b' '; 0x2000]);
        request.extend(b"\r\n");
    }
    request.extend(b"0\r\n\r\n");
    let answer = exchange(&server, &request).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");

    for register in [
        register(),
        Register { ek_public: Bytes(vec![]), ..register() },
        Register { ek_public: Bytes(vec![0xff; 20_000]), ..register() },
    ] {
        let reason = refused(post::<serde_json::Value>(&anybody, "/v1/register", &register).await);
        assert!([Reason::EkTemplate, Reason::TooLarge, Reason::Malformed].contains(&reason), "{reason:?}");
    }
    let versions = Register { versions: vec![7; 1000], ..register() };
    assert_eq!(
        refused(post::<serde_json::Value>(&anybody, "/v1/register", &versions).await),
        Reason::Version
    );
    let list: NodeList = get(&operator, "/v1/operator/nodes").await.unwrap();
    assert!(list.nodes.is_empty(), "nothing was stored");
    assert!(server.log().contains("too_large") && !server.log().contains("panicked"));
}

#[tokio::test]
async fn strangers_learn_nothing() {
    let server = Server::start();
    let anybody = server.anybody();
    let begin = Begin { versions: vec![1], node_id: stranger(), purpose: "boot".into(), enrollments: vec![] };
    assert_eq!(refused(post::<serde_json::Value>(&anybody, "/v1/begin", &begin).await), Reason::UnknownNode);
    let runtime = Begin { purpose: "runtime".into(), ..begin.clone() };
    assert_eq!(refused(post::<serde_json::Value>(&anybody, "/v1/begin", &runtime).await), Reason::Conflict);
    let version = Begin { versions: vec![2, 3], ..begin };
    assert_eq!(refused(post::<serde_json::Value>(&anybody, "/v1/begin", &version).await), Reason::Version);
    let wait = Wait { node_id: stranger(), ticket: None };
    assert_eq!(refused(post::<serde_json::Value>(&anybody, "/v1/wait", &wait).await), Reason::UnknownNode);
    let propose =
        Begin { purpose: "propose".into(), versions: vec![1], node_id: stranger(), enrollments: vec![] };
    assert_eq!(
        refused(post::<serde_json::Value>(&anybody, "/v1/begin", &propose).await),
        Reason::UnknownNode
    );
    let prove = Prove { node_id: stranger(), enrollment_id: "x".into(), proof: Bytes(vec![0; 32]) };
    assert_eq!(refused(post::<serde_json::Value>(&anybody, "/v1/prove", &prove).await), Reason::NotEnrolled);
    let prove = Prove { enrollment_id: "a\0b".into(), ..prove };
    assert_eq!(refused(post::<serde_json::Value>(&anybody, "/v1/prove", &prove).await), Reason::Malformed);
    for ticket in ["a\0b", "", "A0A0A0A0A0A0A0A0A0A0A0A0A0A0A0A0"] {
        let wait = Wait { node_id: stranger(), ticket: Some(ticket.into()) };
        assert_eq!(refused(post::<serde_json::Value>(&anybody, "/v1/wait", &wait).await), Reason::Malformed);
    }
    let evidence = Evidence {
        version: 1,
        node_id: stranger(),
        purpose: "boot".into(),
        nonce: Bytes(vec![0; 56]),
        hpke_public: Bytes(vec![0; 32]),
        nonce_tpm: Bytes(vec![0; 32]),
        purpose_data: Bytes(vec![0; 32]),
        quote: Bytes(vec![0; 100]),
        signature: Bytes(vec![0; 72]),
        bank: "sha256".into(),
        pcrs: vec![Bytes(vec![0; 32]); 16],
        event_log: Some(Bytes(vec![0; 1 << 20])),
        systemd_log: None,
        ima_log: None,
        command_line: None,
        agent: "x".into(),
    };
    assert_eq!(
        refused(post::<serde_json::Value>(&anybody, "/v1/finish", &evidence).await),
        Reason::UnknownNode
    );
    let log = Evidence { event_log: Some(Bytes(vec![0; (1 << 20) + 1])), ..evidence };
    assert_eq!(refused(post::<serde_json::Value>(&anybody, "/v1/finish", &log).await), Reason::TooLarge);
    assert_eq!(refused(get::<serde_json::Value>(&anybody, "/v1/nothing").await), Reason::NotFound);
    assert_eq!(refused(get::<serde_json::Value>(&anybody, "/v1/begin").await), Reason::Malformed);
}

#[tokio::test]
async fn operators_need_a_listed_certificate() {
    let server = Server::start();
    let info = "/v1/operator/info";
    let known: ServerInfo = get(&server.operator(), info).await.unwrap();
    assert!(template::RELEASE.point(&known.release_public).is_some());
    for path in [
        info,
        "/v1/operator/nodes",
        "/v1/operator/audit",
        "/v1/operator/policies",
        "/v1/operator/groups",
        "/v1/operator/proposals",
        "/v1/internal/registrations",
    ] {
        assert_eq!(
            refused(get::<serde_json::Value>(&server.anybody(), path).await),
            Reason::Unauthorized,
            "{path}"
        );
    }
    let internal = get::<serde_json::Value>(&server.operator(), "/v1/internal/registrations").await;
    assert_eq!(refused(internal), Reason::Unauthorized, "an operator is no verifier");

    // Of another CA: the handshake fails.
    let other = Server::start();
    let foreign = other.with_bundle(&other.state().join("operator-ada.bundle"));
    assert!(get::<ServerInfo>(&foreign, info).await.is_ok());
    let moved = with_certificate_of(&other, &server);
    assert!(matches!(moved.get::<ServerInfo>(info).await, Err(ClientError::Unreachable(_))));

    // Added while it runs, and removed while it runs.
    let state = server.state().to_str().unwrap();
    let bundle = command(&["operator", "add", "grace", "--state", state]);
    let grace = server.with_bundle(Path::new(bundle.trim()));
    assert!(get::<ServerInfo>(&grace, info).await.is_ok());
    assert!(!output(&["operator", "add", "grace", "--state", state]).status.success(), "the name is taken");
    assert!(command(&["operator", "list", "--state", state]).contains("operator\tgrace\t"));
    command(&["operator", "remove", "grace", "--state", state]);
    assert_eq!(refused(get::<ServerInfo>(&grace, info).await), Reason::Unauthorized);
    assert!(get::<ServerInfo>(&server.operator(), info).await.is_ok());
}

/// A client of `to` with the certificate that `from` made.
fn with_certificate_of(from: &Server, to: &Server) -> Client {
    use rustls_pki_types::pem::PemObject as _;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer};
    let text = std::fs::read(from.state().join("operator-ada.bundle")).unwrap();
    let bundle: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let pem = |name: &str| bundle[name].as_str().unwrap().as_bytes().to_vec();
    let certificate = CertificateDer::from_pem_slice(&pem("certificate")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(&pem("key")).unwrap();
    Client::new(&to.url, to.roots(), Some((vec![certificate], key))).unwrap()
}

#[tokio::test]
async fn a_server_certificate_is_no_operator() {
    use rustls_pki_types::pem::PemObject as _;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer};
    let server = Server::start();
    let certificate = CertificateDer::from_pem_file(server.state().join("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(server.state().join("server.key")).unwrap();
    let client = Client::new(&server.url, server.roots(), Some((vec![certificate], key))).unwrap();
    let answer = client.get::<ServerInfo>("/v1/operator/info").await;
    assert!(matches!(answer, Err(ClientError::Unreachable(_))), "no clientAuth in it");
}

#[tokio::test]
async fn slow_and_silent_peers_are_let_go() {
    let server = Server::with_settings("handshake_seconds = 1\nheader_seconds = 1\nbody_seconds = 1\n");
    // No handshake.
    let mut silent = TcpStream::connect(server.address()).await.unwrap();
    assert_eq!(silent.read(&mut [0]).await.unwrap(), 0);
    // Half a header.
    let answer = exchange(&server, b"POST /v1/begin HTTP/1.1\r\nhost").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    // Nothing after a request: an idle connection.
    let answer = exchange(&server, b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(answer.ends_with("ok\n"), "{answer}");
    // Half a body.
    let half = b"POST /v1/begin HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    let answer = exchange(&server, half).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[tokio::test]
async fn connections_and_registrations_are_limited() {
    let server = Server::with_settings(
        "connections = 3\nreserved_for_nodes = 1\nreserved_for_clients = 1\nregistrations_per_source = 3\n",
    );
    let mut first = connect(&server, [127, 0, 0, 2]).await;
    let _others = [connect(&server, [127, 0, 0, 2]).await, connect(&server, [127, 0, 0, 2]).await];
    let anybody = server.anybody();
    for _ in 0..3 {
        let answer = post::<serde_json::Value>(&anybody, "/v1/register", &register()).await;
        assert_eq!(refused(answer), Reason::EkTemplate);
    }
    let answer = post::<serde_json::Value>(&anybody, "/v1/register", &register()).await;
    assert_eq!(refused(answer), Reason::RateLimited);
    assert_eq!(first.read(&mut [0]).await.unwrap_or(0), 0, "it made room");
}

/// Strangers are not even let in where operators are served.
#[tokio::test]
async fn operators_have_a_door_of_their_own() {
    let settings = "connections = 2\noperators_only_there = true\n";
    let server = Server::with(settings, &["--operator-listen", "127.0.0.1:0"]);
    let bundle = server.state().join("operator-ada.bundle");
    let operator = server.at(&server.operator_url, &bundle);
    assert!(get::<ServerInfo>(&operator, "/v1/operator/info").await.is_ok());
    assert_eq!(refused(get::<ServerInfo>(&server.operator(), "/v1/operator/info").await), Reason::WrongRole);
    let begin = Begin { versions: vec![1], node_id: stranger(), purpose: "boot".into(), enrollments: vec![] };
    assert_eq!(refused(post::<serde_json::Value>(&operator, "/v1/begin", &begin).await), Reason::NotFound);
    assert_eq!(
        refused(post::<serde_json::Value>(&server.anybody(), "/v1/begin", &begin).await),
        Reason::UnknownNode
    );
    let stranger = Client::new(&server.operator_url, server.roots(), None).unwrap();
    let answer = stranger.get::<serde_json::Value>("/healthz").await;
    assert!(matches!(answer, Err(ClientError::Unreachable(_))), "{answer:?}");

    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    Server::init(&state);
    let file = state.join("halfkey-verifier.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text.replace("operators_only_there = false", "operators_only_there = true");
    std::fs::write(&file, text).unwrap();
    let output = output(&["serve", "--state", state.to_str().unwrap(), "--listen", "127.0.0.1:0"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("operator_listen"), "{said}");
}

#[test]
fn a_key_that_others_can_read_stops_the_start() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    Server::init(&state);
    for name in ["cluster.key", "release.key", "server.key"] {
        let path = state.join(name);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o604)).unwrap();
        let output = output(&["serve", "--state", state.to_str().unwrap(), "--listen", "127.0.0.1:0"]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(name) && said.contains("0604"), "{said}");
        assert!(said.contains("hint: chmod 600"), "{said}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let again = output(&["init", "--state", state.to_str().unwrap(), "--url", "https://127.0.0.1:8420"]);
    assert!(!again.status.success(), "an existing state folder is not touched");
    let mut ca = String::new();
    std::fs::File::open(state.join("ca.pem")).unwrap().read_to_string(&mut ca).unwrap();
    assert!(ca.contains("BEGIN CERTIFICATE"));
}

/// Large bodies that are announced, or begun, and never sent: they hold up nobody but their own address.
#[tokio::test]
async fn announced_bodies_hold_up_nobody_else() {
    // Nobody is let go before the others are answered.
    let server = Server::with_settings("body_seconds = 600\n");
    let (anybody, operator) = (server.anybody().within(Duration::from_secs(10)), server.operator());
    let header = announcement();
    let mut idle = Vec::new();
    for index in 0..40 {
        let mut stream = connect(&server, [127, 0, 0, 2]).await;
        stream.write_all(header.as_bytes()).await.unwrap();
        if index % 2 == 0 {
            stream.write_all(&[b' '; 100_000]).await.unwrap();
        }
        stream.flush().await.unwrap();
        idle.push(stream);
    }
    let begin = Begin { versions: vec![1], node_id: stranger(), purpose: "boot".into(), enrollments: vec![] };
    assert_eq!(refused(post::<serde_json::Value>(&anybody, "/v1/begin", &begin).await), Reason::UnknownNode);
    for _ in 0..4 {
        assert_eq!(raw(&anybody, "/v1/finish", vec![b' '; MAX_BODY]).await, Reason::Malformed);
    }
    assert!(get::<ServerInfo>(&operator, "/v1/operator/info").await.is_ok());
    let because = serde_json::json!({"because": "x"});
    let revoke = format!("/v1/operator/nodes/{}/revoke", stranger());
    assert_eq!(refused(post::<serde_json::Value>(&operator, &revoke, &because).await), Reason::NotFound);
    // Small ones of the same address pass as well.
    let mut same = connect(&server, [127, 0, 0, 2]).await;
    let small = b"POST /v1/begin HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}";
    same.write_all(small).await.unwrap();
    let mut answer = Vec::new();
    let _ = same.read_to_end(&mut answer).await;
    assert!(answer.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&answer));
}
