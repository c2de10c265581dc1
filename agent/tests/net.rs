//! A small real TLS server with hostile answers: each is one clear error, and none outlives its deadline.

#![allow(clippy::unwrap_used, reason = "a test that fails here should say where")]

#[path = "common/server.rs"]
mod server;

use halfkey_agent::deadline::Deadline;
use halfkey_agent::exchange;
use halfkey_agent::net::race::{Race, RaceConfig};
use halfkey_agent::net::{Again, Client, Error, Server, tls};
use halfkey_agent::timing::Timeline;
use halfkey_protocol::{MAX_ANSWER, wire};
use halfkey_testkit::pki::{AFTER_ALL_CERTIFICATES, Pki};
use halfkey_testkit::port::HeldPort;
use proptest::prelude::*;
use server::{Answer, TestServer, ok};
use std::net::TcpListener;
use std::ops::Range;
use std::process::Command;
use std::time::Duration;

const BEGUN: &str = r#"{"version":1,"nonce":"AAAA","bank":"sha256","unknown":{"x":[1]}}"#;

fn begin() -> wire::Begin {
    wire::Begin { versions: vec![1], node_id: "x".into(), purpose: "boot".into(), enrollments: vec![] }
}

fn client(server: &TestServer, pki: &Pki) -> Client {
    let tls = tls::config(&pki.ca_pem, 0).unwrap();
    Client::new(Server::parse(&server.url()).unwrap(), tls, Timeline::default())
}

fn ask(client: &Client, seconds: f32) -> Result<wire::Begun, Error> {
    let at_most = Duration::from_secs_f32(seconds);
    client.post("/v1/begin", &begin(), at_most, Deadline::after(Duration::from_secs(30)))
}

fn answered(answer: Answer) -> Result<wire::Begun, Error> {
    let pki = Pki::new();
    let server = TestServer::start(&pki, "127.0.0.1", answer);
    ask(&client(&server, &pki), 10.0)
}

#[test]
fn an_answer_is_read_and_the_connection_kept() {
    let pki = Pki::new();
    let server = TestServer::start(&pki, "127.0.0.1", ok(BEGUN));
    let client = client(&server, &pki);
    for _ in 0..3 {
        assert_eq!(*ask(&client, 10.0).unwrap().nonce, [0; 3]);
    }
    assert_eq!(server.connections(), 1);
}

#[test]
fn a_connection_that_the_server_closed_is_opened_again() {
    let pki = Pki::new();
    // It says that it keeps the connection, and closes it.
    let server = TestServer::start(&pki, "127.0.0.1", Answer::ThenClose(BEGUN.into()));
    let client = client(&server, &pki);
    ask(&client, 10.0).unwrap();
    server.wait_until_closed();
    ask(&client, 10.0).unwrap();
    assert_eq!(server.connections(), 2);
}

#[test]
fn refusals_of_the_protocol_keep_their_code() {
    let problem = r#"{"code":"revoked","message":"this node is revoked","hint":"ask"}"#;
    let error = answered(Answer::Status(403, problem.into())).unwrap_err();
    assert_eq!(error.again(), Again::Never);
    let error = error.at("https://v");
    assert_eq!((error.code.as_deref(), error.hint.as_deref()), (Some("revoked"), Some("ask")));
    let busy = r#"{"code":"unavailable","message":"disk full"}"#;
    assert_eq!(answered(Answer::Status(503, busy.into())).unwrap_err().again(), Again::AfterPause);
}

#[test]
fn answers_that_are_none_are_named() {
    let at = |answer| answered(answer).unwrap_err();
    assert!(matches!(at(Answer::Status(500, "<html>".into())), Error::Http(500)));
    assert!(matches!(at(Answer::Status(302, String::new())), Error::Http(302)));
    assert!(matches!(at(ok("{}")), Error::Malformed(_)));
    assert!(matches!(at(ok("[[[[[[")), Error::Malformed(_)));
    assert!(matches!(at(Answer::Raw(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec())), Error::Malformed(_)));
    assert!(matches!(at(ok(&"x".repeat(70 << 10))), Error::TooLarge));
    assert!(matches!(
        at(Answer::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n{".to_vec())),
        Error::Broken(_)
    ));
    assert!(matches!(at(Answer::Raw(Vec::new())), Error::Broken(_)));
    let mut endless = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    endless.extend(b"1000\r\n".iter().copied().chain([b'x'; 0x1000]).chain(*b"\r\n").cycle().take(200 << 10));
    assert!(matches!(at(Answer::Raw(endless)), Error::TooLarge));
}

fn raw(text: &str) -> Answer {
    Answer::Raw(text.into())
}

#[test]
fn the_ways_to_end_a_body() {
    let length = BEGUN.len();
    let (a, b) = BEGUN.split_at(15);
    for text in [
        format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{BEGUN}HTTP"),
        format!(
            "HTTP/1.1 200\r\ntransfer-encoding: chunked\r\n\r\nf;x=y\r\n{a}\r\n{:x} \r\n{b}\r\n0\r\nTrailer: x\r\n\r\n",
            b.len()
        ),
        format!("HTTP/1.1 200 OK\r\n\r\n{BEGUN}"),
        format!("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\n\r\n{BEGUN}"),
    ] {
        assert!(answered(raw(&text)).is_ok(), "{text}");
    }
    let error = answered(raw("HTTP/1.1 204 No Content\r\n\r\n")).unwrap_err();
    assert!(matches!(error, Error::Malformed(_)), "{error}");
}

#[test]
fn an_answer_has_its_bound() {
    let padded = |length: usize| format!("{BEGUN}{}", " ".repeat(length - BEGUN.len()));
    assert!(answered(ok(&padded(MAX_ANSWER))).is_ok());
    assert!(matches!(answered(ok(&padded(MAX_ANSWER + 1))), Err(Error::TooLarge)));
    let until_the_end = format!("HTTP/1.1 200 OK\r\n\r\n{}", padded(MAX_ANSWER + 1));
    assert!(matches!(answered(raw(&until_the_end)), Err(Error::TooLarge)));
    let head = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n{BEGUN}", "x".repeat(20_000));
    assert!(matches!(answered(raw(&head)), Err(Error::TooLarge)));
}

#[test]
fn hostile_answers_are_refused() {
    for text in [
        "HTTP/2 200\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1 2000\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\n folded: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nname : x\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\nx",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: gzip\r\n\r\nx",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nx",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nxxx\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-1\r\n",
    ] {
        let found = answered(raw(text));
        assert!(matches!(found, Err(Error::Malformed(_))), "{text}: {found:?}");
    }
    let fields = format!("HTTP/1.1 200 OK\r\n{}\r\n{BEGUN}", "x: y\r\n".repeat(5_000));
    assert!(matches!(answered(raw(&fields)), Err(Error::TooLarge)));
    let line = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{}", "0".repeat(100_000));
    assert!(matches!(answered(raw(&line)), Err(Error::TooLarge)));
}

#[test]
fn a_cut_connection_is_no_end_of_an_answer() {
    for text in [
        "",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nx",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nx",
    ] {
        for answer in [raw(text), Answer::Cut(text.into())] {
            let found = answered(answer);
            assert!(matches!(found, Err(Error::Broken(_))), "{text}: {found:?}");
        }
    }
    // Whoever sits on the wire can close TCP, but not say so in TLS.
    let text = format!("HTTP/1.1 200 OK\r\n\r\n{BEGUN}");
    assert!(matches!(answered(Answer::Cut(text.into())), Err(Error::Broken(_))));
}

#[test]
fn a_redirect_is_not_followed() {
    let pki = Pki::new();
    let elsewhere = TestServer::start(&pki, "127.0.0.1", ok(BEGUN));
    for status in [301, 302, 303, 307, 308] {
        let head = format!("HTTP/1.1 {status} X\r\nlocation: {}/v1/begin\r\n", elsewhere.url());
        let whole = raw(&format!("{head}content-length: 0\r\n\r\n"));
        let server = TestServer::start(&pki, "127.0.0.1", whole);
        let found = ask(&client(&server, &pki), 10.0);
        assert!(matches!(found, Err(Error::Http(found)) if found == status), "{status}: {found:?}");
    }
    assert_eq!(elsewhere.connections(), 0);
}

/// Run as another process: the environment belongs to all tests of this one.
#[test]
fn a_proxy_in_the_environment_is_not_asked() {
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", "an_answer_is_read_and_the_connection_kept"]);
    let nobody = HeldPort::new();
    for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy"] {
        again.env(name, format!("http://127.0.0.1:{}", nobody.number()));
    }
    let output = again.env_remove("NO_PROXY").env_remove("no_proxy").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_answer_is_read_or_refused(
        status in "HTTP/1\\.[01] [0-9]{1,3}.{0,5}|.{0,20}",
        fields in "((content-length|transfer-encoding|connection|location|x):? ?([a-z0-9]{0,7}|chunked)\r\n){0,4}",
        body in "([0-9a-f]{1,3}\r\n[a-z]{0,8}\r\n){0,4}.{0,80}",
    ) {
        let found = answered(raw(&format!("{status}\r\n{fields}\r\n{body}")));
        prop_assert!(!matches!(found, Ok(_) | Err(Error::Timeout(_) | Error::Tls(_))), "{found:?}");
    }
}

#[test]
fn a_server_that_accepts_and_never_answers_costs_no_more_than_its_time() {
    for answer in [Answer::Silence, Answer::Drip] {
        let pki = Pki::new();
        let server = TestServer::start(&pki, "127.0.0.1", answer);
        let error = ask(&client(&server, &pki), 1.0).unwrap_err();
        assert!(matches!(error, Error::Timeout(_)), "{error}");
        assert_eq!(error.again(), Again::AfterPause);
    }
    // Interim answers, trailers: something comes in, nothing comes of it.
    let trailers = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n";
    for (first, flood) in [("", "HTTP/1.1 100 Continue\r\n\r\n"), (trailers, "x: y\r\n")] {
        let pki = Pki::new();
        let server = TestServer::start(&pki, "127.0.0.1", Answer::Flood(first.into(), flood.into()));
        let error = ask(&client(&server, &pki), 10.0).unwrap_err();
        assert!(matches!(error, Error::Malformed(_) | Error::TooLarge), "{error}");
    }
    // Not even TLS.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = Server::parse(&format!("https://{}", mute.local_addr().unwrap())).unwrap();
    let client = Client::new(server, tls::config(&Pki::new().ca_pem, 0).unwrap(), Timeline::default());
    assert!(matches!(ask(&client, 1.0), Err(Error::Timeout("agreeing on TLS"))));
}

#[test]
fn another_ca_another_name_an_expired_certificate_are_refused_before_anything_is_sent() {
    let pki = Pki::new();
    let server = TestServer::start(&pki, "127.0.0.1", ok(BEGUN));
    let error = ask(&client(&server, &Pki::new()), 10.0).unwrap_err();
    assert!(matches!(&error, Error::Tls(what) if what.contains("pins")), "{error}");
    assert_eq!(error.again(), Again::Never);
    assert_eq!(server.requests(), 0);

    let server = TestServer::start(&pki, "127.0.0.2", ok(BEGUN));
    let error = ask(&client(&server, &pki), 10.0).unwrap_err();
    assert!(matches!(&error, Error::Tls(what) if what.contains("another name")), "{error}");

    let server = TestServer::start_in(2000..2020, &pki, "127.0.0.1", ok(BEGUN));
    let error = ask(&client(&server, &pki), 10.0).unwrap_err();
    assert!(matches!(&error, Error::Tls(what) if what.contains("expired")), "{error}");
}

#[test]
fn the_enrollment_time_counts_where_the_clock_stands_still() {
    let pki = Pki::new();
    let server = TestServer::start(&pki, "127.0.0.1", ok(BEGUN));
    // The certificate ends before this enrollment was made: the machine's clock can't say otherwise.
    let late = tls::config(&pki.ca_pem, AFTER_ALL_CERTIFICATES).unwrap();
    let client = Client::new(Server::parse(&server.url()).unwrap(), late, Timeline::default());
    assert!(matches!(ask(&client, 10.0), Err(Error::Tls(_))));
}

/// A renewed certificate, and a machine whose clock has stood still since before it: the time that it knows is a lower bound.
#[test]
fn a_certificate_that_is_newer_than_all_that_the_machine_knows_is_taken() {
    let pki = Pki::new();
    let server = TestServer::start_in(2110..2120, &pki, "127.0.0.1", ok(BEGUN));
    assert!(ask(&client(&server, &pki), 10.0).is_ok());
    // Neither from another CA, nor one that was never good.
    assert!(matches!(ask(&client(&server, &Pki::new()), 10.0), Err(Error::Tls(_))));
    let server = TestServer::start_in(Range { start: 2120, end: 2110 }, &pki, "127.0.0.1", ok(BEGUN));
    assert!(matches!(ask(&client(&server, &pki), 10.0), Err(Error::Tls(_))));
}

#[test]
fn names_and_ports_that_do_not_answer_are_told_apart() {
    let tls = tls::config(&Pki::new().ca_pem, 0).unwrap();
    let ask = |url: &str| {
        let client = Client::new(Server::parse(url).unwrap(), tls.clone(), Timeline::default());
        ask(&client, 10.0).unwrap_err()
    };
    let free = HeldPort::new();
    assert!(matches!(ask(&format!("https://127.0.0.1:{}", free.number())), Error::Refused(_)));
    assert!(matches!(ask("https://no-such-host.invalid:8443"), Error::Name(_)));
}

fn config(urls: &[String], pki: &Pki, seconds: u64) -> RaceConfig {
    RaceConfig {
        servers: urls.iter().map(|url| Server::parse(url).unwrap()).collect(),
        tls: tls::config(&pki.ca_pem, 0).unwrap(),
        begin: begin(),
        deadline: Deadline::after(Duration::from_secs(seconds)),
        timeline: Timeline::default(),
    }
}

#[test]
fn the_first_server_that_answers_wins() {
    let pki = Pki::new();
    let silent = TestServer::start(&pki, "127.0.0.1", Answer::Silence);
    let broken = TestServer::start(&pki, "127.0.0.1", Answer::Status(500, String::new()));
    let good = TestServer::start(&pki, "127.0.0.1", ok(BEGUN));
    let config = config(&[silent.url(), broken.url(), good.url()], &pki, 20);
    let connection = Race::start(&config).unwrap().winner().unwrap();
    assert_eq!(connection.client.server().as_str(), good.url());
}

#[test]
fn a_server_that_starts_late_is_found() {
    let pki = Pki::new();
    let port = HeldPort::new();
    let config = config(&[format!("https://127.0.0.1:{}", port.number())], &pki, 20);
    let race = Race::start(&config).unwrap();
    let server = TestServer::start_at(&pki, "127.0.0.1", port.number(), ok(BEGUN));
    race.winner().unwrap();
    assert_eq!(server.requests(), 1);
}

#[test]
fn a_race_that_nobody_wins_ends_at_the_deadline_with_the_reason() {
    let pki = Pki::new();
    let silent = TestServer::start(&pki, "127.0.0.1", Answer::Silence);
    let error = Race::start(&config(&[silent.url()], &pki, 2)).unwrap().winner().err().unwrap();
    assert!(error.message.contains("no answer in time"), "{error}");
    // One that refuses for good is not asked again.
    let other = TestServer::start(&Pki::new(), "127.0.0.1", ok(BEGUN));
    let error = Race::start(&config(&[other.url()], &pki, 20)).unwrap().winner().err().unwrap();
    assert!(error.message.contains("pins"), "{error}");
    assert_eq!(other.connections(), 1);
}

/// Another attempt begins on the connection that is there, and not with less care than the first.
#[test]
fn a_second_begin_is_checked_as_the_first() {
    let pki = Pki::new();
    for (body, says) in [
        (r#"{"version":2,"nonce":"AAAA","bank":"sha256"}"#, "expected protocol version 1, found 2"),
        (r#"{"version":1,"nonce":"","bank":"sha256"}"#, "expected a nonce of 1 to 128 bytes, found 0"),
    ] {
        let server = TestServer::start(&pki, "127.0.0.1", ok(body));
        let config = config(&[server.url()], &pki, 20);
        for begun in
            [Race::start(&config).unwrap().winner(), exchange::begin_again(client(&server, &pki), &config)]
        {
            assert!(begun.err().unwrap().message.contains(says), "{says}");
        }
    }
}
