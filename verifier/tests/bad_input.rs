//! What is sent that no client of ours sends: each of it gets an answer with a reason, or the end of its connection, and nothing else.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use common::fleet::{SoftNode, tenant};
use common::node::{enrolled, said};
use common::{Server, command, connect, exchange, get, output, path, post, refused, until};
use halfkey_protocol::Reason;
use halfkey_protocol::wire::Problem;
use halfkey_protocol::wire::operator::{
    AuditList, Because, NodeList, NodeRecord, NodeState, ServerInfo, query_value,
};
use halfkey_testkit::pki::{Leaf, Pki};
use halfkey_testkit::postgres::Postgres;
use halfkey_verifier::client::{Client, ClientError};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Ends what is silent within a second, so that a test can read to the end.
const IMPATIENT: &str = "handshake_seconds = 1\nheader_seconds = 1\nbody_seconds = 1\n";

fn status(answer: &str) -> Option<u16> {
    answer.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

/// A page that an operator's browser shows can send forms and text anywhere, with the certificate that the browser has.
#[tokio::test]
async fn only_json_is_read_and_nothing_is_decompressed() {
    let server = Server::start();
    // 10 MiB of spaces in 10 kB, by gzip.
    let bomb = std::process::Command::new("sh")
        .args(["-c", "head -c 10485760 /dev/zero | tr '\\0' ' ' | gzip -9"])
        .output()
        .unwrap()
        .stdout;
    assert!(bomb.starts_with(&[0x1f, 0x8b]) && bomb.len() < 20_000);
    let ask = async |headers: &str, body: &[u8]| {
        let head = format!(
            "POST /v1/begin HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n",
            body.len()
        );
        let answer = exchange(&server, &[head.as_bytes(), body].concat()).await;
        let problem: Problem = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        (status(&answer).unwrap(), problem.code, problem.message)
    };
    let malformed = "{\"node_id\":7}";
    for (headers, found) in [
        ("", "content-type application/json, found none"),
        ("content-type: text/plain\r\n", "found \"text/plain\""),
        (
            "content-type: application/x-www-form-urlencoded\r\n",
            "found \"application/x-www-form-urlencoded\"",
        ),
        ("content-type: multipart/form-data; boundary=x\r\n", "found \"multipart/form-data"),
        ("content-type: application/jsonp\r\n", "found"),
        ("content-type: application/json\r\ncontent-encoding: gzip\r\n", "content-encoding identity"),
        ("content-type: application/json\r\ncontent-encoding: br, gzip\r\n", "content-encoding identity"),
    ] {
        for body in [malformed.as_bytes(), &bomb] {
            let (status, code, message) = ask(headers, body).await;
            assert_eq!((status, code.as_str()), (415, "malformed"), "{headers}: {message}");
            assert!(message.contains(found), "{message}");
        }
    }
    for headers in [
        "content-type: application/json\r\n",
        "content-type: Application/JSON; charset=utf-8\r\ncontent-encoding: identity\r\n",
    ] {
        for body in [malformed.as_bytes(), &bomb] {
            let (status, code, message) = ask(headers, body).await;
            assert_eq!((status, code.as_str()), (400, "malformed"), "{message}");
        }
    }
}

/// A list of empty values takes eight times as much memory as its text, before anybody says that it is too long.
#[tokio::test]
async fn a_body_of_a_million_values_is_not_read() {
    let server = Server::start();
    let peak = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
    };
    let before = peak();
    for (path, list) in [("finish", "pcrs"), ("propose", "pcrs"), ("begin", "enrollments")] {
        let evidence =
            format!("{{\"{list}\":[{}\"\"]}}", "\"\",".repeat(halfkey_protocol::MAX_BODY / 3 - 100));
        let body = match path {
            "finish" => evidence,
            "propose" => format!("{{\"evidence\":{evidence}}}"),
            _ => format!("{{\"{list}\":[{}\"\"]}}", "\"\",".repeat(20_000)),
        };
        let head = format!(
            "POST /v1/{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let answer = exchange(&server, &[head.as_bytes(), body.as_bytes()].concat()).await;
        let problem: Problem = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!((status(&answer), problem.code.as_str()), (Some(400), "malformed"), "{problem:?}");
        assert!(problem.message.contains("expected at most 1024 values"), "{problem:?}");
    }
    let more = peak() - before;
    assert!(more < 5 * halfkey_protocol::MAX_BODY, "{more} bytes");
}

/// What costs most is done for nobody who has no more evidence in this minute.
#[tokio::test]
async fn evidence_beyond_the_rate_of_its_node_is_not_appraised() {
    let server = Server::with_settings("evidence_per_minute = 1\n");
    let node = enrolled(&server).await;
    node.allow(&server.operator()).await;
    let mut answered = 1;
    for _ in 0..5 {
        match node.attest(&server.anybody(), "boot").await {
            Ok(_) => answered += 1,
            Err(problem) => assert_eq!(problem.code, "rate_limited", "{problem:?}"),
        }
    }
    assert!(answered < 6, "a minute has passed");
    assert_eq!(server.log().matches("evidence is appraised").count(), answered);
}

/// Nothing of HTTP or TLS, or more than there may be of it.
#[tokio::test]
async fn what_is_no_http_or_no_tls_ends_its_connection() {
    let server = Server::with_settings(IMPATIENT);
    let post = "POST /v1/begin HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    let headers: String = (0..200).map(|index| format!("x-{index}: y\r\n")).collect();
    let long = "x".repeat(64 << 10);
    let requests = [
        "nonsense\r\n\r\n".to_owned(),
        "\r\n\r\n\r\n".to_owned(),
        "GET / HTTP/9.9\r\n\r\n".to_owned(),
        "GET http://[::1 HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        format!("GET /{long} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"),
        format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx: {long}\r\nconnection: close\r\n\r\n"),
        format!("GET /healthz HTTP/1.1\r\nhost: x\r\n{headers}connection: close\r\n\r\n"),
        "GET /healthz HTTP/1.1\r\nhost: x\r\nx: a\0b\r\nconnection: close\r\n\r\n".to_owned(),
        "GET /v1/operator/nodes/%ff HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_owned(),
        "GET /v1/operator/nodes?name=%00 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_owned(),
        "TRACE /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_owned(),
        "CONNECT 10.0.0.1:22 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_owned(),
        format!("{post}content-length: -1\r\n\r\n"),
        format!("{post}content-length: 99999999999999999999999\r\n\r\n"),
        format!("{post}content-length: 18446744073709551615\r\nconnection: close\r\n\r\n{{}}"),
        format!("{post}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}"),
        format!("{post}content-length: 2\r\ntransfer-encoding: gzip\r\n\r\n{{}}"),
        format!("{post}transfer-encoding: gzip, chunked\r\nconnection: close\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n"),
        format!("{post}transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n{{}}\r\n0\r\n\r\n"),
        format!("{post}transfer-encoding: chunked\r\n\r\nzz\r\n{{}}\r\n0\r\n\r\n"),
        format!("{post}transfer-encoding: chunked\r\n\r\n2;{long}\r\n{{}}\r\n0\r\n\r\n"),
        format!("{post}transfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\nx: {long}\r\n\r\n"),
    ];
    let answers: Vec<String> = {
        let asked = requests.iter().map(|request| exchange(&server, request.as_bytes()));
        futures_of(asked).await
    };
    for (request, answer) in requests.iter().zip(&answers) {
        let refused = status(answer).is_some_and(|status| (400..500).contains(&status) || status == 505);
        assert!(answer.is_empty() || refused, "{:.80}: {answer}", request);
    }
    let plain = [
        &b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"[..],
        &[0; 40_000],
        &[0xff; 40_000],
        // A ClientHello of TLS 1.3 that is cut short, and a record larger than there may be.
        &[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 3],
        &[0x16, 3, 3, 0xff, 0xff, 1, 0, 0xff, 0xff],
    ];
    for bytes in plain {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.len() < 8 && !answer.starts_with(b"HTTP"), "{answer:?}");
    }
    let health = exchange(&server, b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(health.ends_with("ok\n"), "{health}");
    let log = server.log();
    assert!(!log.contains("panicked") && !log.contains("ERROR"), "{log}");
}

/// All of them at once.
async fn futures_of<T>(asked: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut asked: Vec<_> = asked.map(Box::pin).collect();
    let mut answers: Vec<Option<T>> = asked.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, answer) in asked.iter_mut().zip(&mut answers) {
            if answer.is_none()
                && let std::task::Poll::Ready(said) = future.as_mut().poll(context)
            {
                *answer = Some(said);
            }
        }
        if answers.iter().all(Option::is_some) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    answers.into_iter().flatten().collect()
}

/// What of a path or a query can't be read is refused as a message is.
#[tokio::test]
async fn paths_and_queries_that_can_t_be_read_are_refused_with_a_reason() {
    let server = Server::start();
    let operator = server.operator();
    for path in [
        "/v1/operator/nodes/%ff",
        "/v1/operator/nodes/%00",
        "/v1/operator/nodes/..%2f..%2fetc",
        "/v1/operator/nodes/%ff/evidence",
        "/v1/operator/nodes/x/policy",
        "/v1/operator/policies/%ff",
        "/v1/operator/policies/node:x",
        "/v1/operator/nodes?limit=-1",
        "/v1/operator/nodes?limit=99999999999999999999999",
        "/v1/operator/nodes?after=%27",
        "/v1/operator/nodes?name=",
        "/v1/operator/nodes?name=a%00b",
        "/v1/operator/audit?after=x",
        "/v1/operator/audit?wait=x",
        "/v1/operator/sequence?after=1.5",
    ] {
        assert_eq!(refused(get::<serde_json::Value>(&operator, path).await), Reason::Malformed, "{path}");
    }
    for path in ["/v1/operator/proposals/%ff", "/v1/operator/evidence/%ff"] {
        let reason = refused(get::<serde_json::Value>(&operator, path).await);
        assert!([Reason::Malformed, Reason::NotFound].contains(&reason), "{path}: {reason:?}");
    }
    assert!(!server.log().contains("ERROR"), "{}", server.log());
}

/// Certificates that the CA signed, and whose time is over or has not come: as server, and as operator.
#[tokio::test]
async fn a_certificate_out_of_its_time_is_none() {
    let mut server = Server::start();
    let pki = Pki::of(server.state());
    let info = "/v1/operator/info";
    for (years, alert) in [(2001..2002, "Expired"), (2148..2149, "")] {
        let leaf = pki.operator_in("ada", years);
        let late = Client::new(&server.url, server.roots(), Some((vec![leaf.der.clone()], leaf.key_der())));
        let Err(ClientError::Unreachable(why)) = late.unwrap().get::<ServerInfo>(info).await else {
            panic!("a certificate that is not good now");
        };
        assert!(why.contains("alert") && why.contains(alert), "{why}");
    }
    assert!(get::<ServerInfo>(&server.operator(), info).await.is_ok());

    let expired = pki.server_in("127.0.0.1", 2001..2002);
    let put = |leaf: &Leaf| {
        let key = server.state().join("server.key");
        std::fs::write(server.state().join("server.pem"), &leaf.pem).unwrap();
        std::fs::write(&key, leaf.key_pem()).unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    put(&expired);
    server.stop();
    server.serve();
    let answer = server.anybody().get::<serde_json::Value>("/readyz").await;
    assert!(
        matches!(&answer, Err(ClientError::Unreachable(why)) if why.contains("certificate expired")),
        "{answer:?}"
    );
    let log = server.log();
    assert_eq!(log.matches("the server certificate has ended: no machine unlocks").count(), 1, "{log}");
    assert!(log.contains("halfkey-verifier certificate --state"), "{log}");
    // As the log says.
    command(&["certificate", "--state", server.state().to_str().unwrap()]);
    server.signal("-HUP");
    // As long as the old one is served, there is no answer at all.
    until("it is served with", async || server.operator().get::<ServerInfo>(info).await.is_ok()).await;
}

/// What a machine, an operator or an administrator calls something is text, whatever it looks like to a database.
#[tokio::test]
async fn what_looks_like_sql_is_text() {
    const TEXTS: [&str; 9] = [
        "'",
        "x'); DROP TABLE nodes; --",
        "\\'; DELETE FROM audit; --",
        "%",
        "_____",
        "\"; SELECT $1, ?1, :a, @b; \"",
        "$$; TRUNCATE documents; $$",
        "{}::text[] /* */ \u{fe0f}\u{2019}",
        "NULL",
    ];
    for server in [Server::start(), Server::over(&Postgres::shared().database())] {
        let (anybody, operator, tenant) = (server.anybody(), server.operator(), tenant());
        let mut nodes = Vec::new();
        for text in TEXTS {
            let mut node = SoftNode::new(&tenant);
            node.node.register.label = text.to_owned();
            node.register(&anybody).await.unwrap();
            nodes.push(node.node.id);
        }
        for (text, node) in TEXTS.iter().zip(&nodes) {
            let query = format!("/v1/operator/nodes?name={}", query_value(text));
            let found: NodeList = get(&operator, &query).await.unwrap();
            let found: Vec<_> = found.nodes.iter().map(|node| node.id.as_str()).collect();
            assert_eq!(found, [node.to_string()], "{text}");
            let because = Because { because: (*text).to_owned() };
            let record: NodeRecord = post(&operator, &path(*node, "/revoke"), &because).await.unwrap();
            assert_eq!(record.revoked_because.as_deref(), Some(*text));
            assert_eq!(record.summary.label, *text);
            let of = format!("/v1/operator/policies/group:{}", query_value(text));
            let reason = refused(get::<serde_json::Value>(&operator, &of).await);
            assert!([Reason::Malformed, Reason::NotFound].contains(&reason), "{text}: {reason:?}");
        }
        let trail: AuditList = get(&operator, "/v1/operator/audit?after=0").await.unwrap();
        for text in TEXTS {
            assert!(
                trail.entries.iter().any(|entry| entry.action == "revoke" && entry.detail == text),
                "{text}"
            );
        }
        let state = server.state().to_str().unwrap();
        let name = "o'; DROP TABLE clients; --";
        let added = output(&["operator", "add", name, "--state", state]);
        if added.status.success() {
            assert!(
                command(&["operator", "list", "--state", state]).contains(&format!("operator\t{name}\t"))
            );
            command(&["operator", "remove", name, "--state", state]);
        }
        assert!(!command(&["operator", "list", "--state", state]).contains("DROP"));
        let all: NodeList = get(&operator, "/v1/operator/nodes").await.unwrap();
        assert_eq!(all.nodes.len(), TEXTS.len());
        assert!(all.nodes.iter().all(|node| node.state == NodeState::Revoked));
    }
}

/// 10,000, or as many as may be open, from some addresses: a machine boots and an operator is served beside them, and no part of the
/// server grows with what they don't send.
#[tokio::test]
async fn ten_thousand_idle_connections_hold_up_nobody() {
    const OTHERS: usize = 300;
    let open = halfkey_verifier::serve::raise_open_files() as usize;
    let places = open.saturating_sub(OTHERS).min(10_000);
    assert!(places > 500, "expected more open files to be allowed than {open}");
    let server = Server::with_settings(&format!(
        "connections = {places}\nhandshake_seconds = 3600\nheader_seconds = 3600\n"
    ));
    let node = SoftNode::new(&tenant());
    node.enroll(&server.anybody(), &server.operator()).await;
    let mut idle = JoinSet::new();
    for index in 0..places {
        let address = server.address().to_owned();
        idle.spawn(async move {
            let from = common::siege::From {
                address: std::net::Ipv4Addr::new(127, 0, 9, (index % 40) as u8 + 1),
                claims: None,
            };
            from.connect(&address).await.unwrap()
        });
    }
    let silent = idle.join_all().await;
    // Some have ended the handshake.
    let mut greeted = Vec::new();
    for index in 0..200 {
        greeted.push(connect(&server, [127, 0, 10, index % 20 + 1]).await);
    }
    let patient = |client: Client| client.within(Duration::from_secs(60));
    assert_eq!(said(&node.boot(&patient(server.anybody())).await.unwrap()), "released");
    let operator = patient(server.operator());
    assert!(get::<ServerInfo>(&operator, "/v1/operator/info").await.is_ok());
    let memory = resident_kib(server.pid());
    assert!(memory < 400 << 10, "{memory} KiB");
    drop((silent, greeted));
    assert_eq!(said(&node.boot(&patient(server.anybody())).await.unwrap()), "released");
    let log = server.log();
    assert!(!log.contains("panicked") && !log.contains("could not be accepted"), "{log:.2000}");
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
