//! A small real TLS server with hostile answers: each is one clear error, and none outlives its deadline.

#![allow(clippy::unwrap_used, reason = "a test that fails here should say where")]

#[path = "common/server.rs"]
mod server;

use halfkey_agent::deadline::Deadline;
use halfkey_agent::net::race::{Course, Race};
use halfkey_agent::net::{Again, Client, Error, Server, tls};
use halfkey_agent::timing::Timeline;
use halfkey_protocol::wire;
use server::{Answer, Authority, TestServer, ok};
use std::net::TcpListener;
use std::time::{Duration, Instant};

const BEGUN: &str = r#"{"version":1,"nonce":"AAAA","bank":"sha256","unknown":{"x":[1]}}"#;

fn begin() -> wire::Begin {
    wire::Begin { versions: vec![1], node_id: "x".into(), purpose: "boot".into() }
}

fn client(server: &TestServer, authority: &Authority) -> Client {
    let tls = tls::config(&authority.pem(), 0).unwrap();
    Client::new(Server::parse(&server.url()).unwrap(), tls, Timeline::default())
}

fn ask(client: &Client, seconds: f32) -> Result<wire::Begun, Error> {
    let at_most = Duration::from_secs_f32(seconds);
    client.post("/v1/begin", &begin(), at_most, Deadline::after(Duration::from_secs(30)))
}

fn answered(answer: Answer) -> Result<wire::Begun, Error> {
    let authority = Authority::new();
    let server = TestServer::start(&authority, "127.0.0.1", answer);
    ask(&client(&server, &authority), 10.0)
}

#[test]
fn an_answer_is_read_and_the_connection_kept() {
    let authority = Authority::new();
    let server = TestServer::start(&authority, "127.0.0.1", ok(BEGUN));
    let client = client(&server, &authority);
    for _ in 0..3 {
        assert_eq!(*ask(&client, 10.0).unwrap().nonce, [0; 3]);
    }
    assert_eq!(server.connections(), 1);
}

#[test]
fn a_connection_that_the_server_closed_is_opened_again() {
    let authority = Authority::new();
    // It says that it keeps the connection, and closes it.
    let server = TestServer::start(&authority, "127.0.0.1", Answer::ThenClose(BEGUN.into()));
    let client = client(&server, &authority);
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

#[test]
fn a_server_that_accepts_and_never_answers_costs_no_more_than_its_time() {
    for answer in [Answer::Silence, Answer::Drip] {
        let authority = Authority::new();
        let server = TestServer::start(&authority, "127.0.0.1", answer);
        let start = Instant::now();
        let error = ask(&client(&server, &authority), 1.0).unwrap_err();
        assert!(matches!(error, Error::Timeout(_)), "{error}");
        assert_eq!(error.again(), Again::AfterPause);
        assert!(start.elapsed() < Duration::from_secs(5));
    }
    // Not even TLS.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = Server::parse(&format!("https://{}", mute.local_addr().unwrap())).unwrap();
    let client = Client::new(server, tls::config(&Authority::new().pem(), 0).unwrap(), Timeline::default());
    assert!(matches!(ask(&client, 1.0), Err(Error::Timeout("agreeing on TLS"))));
}

#[test]
fn another_ca_another_name_an_expired_certificate_are_refused_before_anything_is_sent() {
    let authority = Authority::new();
    let server = TestServer::start(&authority, "127.0.0.1", ok(BEGUN));
    let error = ask(&client(&server, &Authority::new()), 10.0).unwrap_err();
    assert!(matches!(&error, Error::Tls(what) if what.contains("pins")), "{error}");
    assert_eq!(error.again(), Again::Never);
    assert_eq!(server.requests(), 0);

    let server = TestServer::start(&authority, "127.0.0.2", ok(BEGUN));
    let error = ask(&client(&server, &authority), 10.0).unwrap_err();
    assert!(matches!(&error, Error::Tls(what) if what.contains("another name")), "{error}");

    let server = TestServer::start_expired(&authority, "127.0.0.1", ok(BEGUN));
    let error = ask(&client(&server, &authority), 10.0).unwrap_err();
    assert!(matches!(&error, Error::Tls(what) if what.contains("expired")), "{error}");
}

#[test]
fn the_enrollment_time_counts_where_the_clock_stands_still() {
    let authority = Authority::new();
    let server = TestServer::start(&authority, "127.0.0.1", ok(BEGUN));
    // The certificate ends before this enrollment was made: the machine's clock can't say otherwise.
    let late = tls::config(&authority.pem(), server::AFTER_ALL_CERTIFICATES).unwrap();
    let client = Client::new(Server::parse(&server.url()).unwrap(), late, Timeline::default());
    assert!(matches!(ask(&client, 10.0), Err(Error::Tls(_))));
}

#[test]
fn names_and_ports_that_do_not_answer_are_told_apart() {
    let tls = tls::config(&Authority::new().pem(), 0).unwrap();
    let ask = |url: &str| {
        let client = Client::new(Server::parse(url).unwrap(), tls.clone(), Timeline::default());
        ask(&client, 10.0).unwrap_err()
    };
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(matches!(ask(&format!("https://{free}")), Error::Refused(_)));
    assert!(matches!(ask("https://no-such-host.invalid:8443"), Error::Name(_)));
}

fn course(urls: &[String], authority: &Authority, seconds: u64) -> Course {
    Course {
        servers: urls.iter().map(|url| Server::parse(url).unwrap()).collect(),
        tls: tls::config(&authority.pem(), 0).unwrap(),
        begin: begin(),
        deadline: Deadline::after(Duration::from_secs(seconds)),
        timeline: Timeline::default(),
    }
}

#[test]
fn the_first_server_that_answers_wins() {
    let authority = Authority::new();
    let silent = TestServer::start(&authority, "127.0.0.1", Answer::Silence);
    let broken = TestServer::start(&authority, "127.0.0.1", Answer::Status(500, String::new()));
    let good = TestServer::start(&authority, "127.0.0.1", ok(BEGUN));
    let course = course(&[silent.url(), broken.url(), good.url()], &authority, 20);
    let won = Race::start(&course).unwrap().winner().unwrap();
    assert_eq!(won.client.server().as_str(), good.url());
}

#[test]
fn a_server_that_starts_late_is_found() {
    let authority = Authority::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let course = course(&[format!("https://127.0.0.1:{port}")], &authority, 20);
    let race = Race::start(&course).unwrap();
    let server = TestServer::start_at(&authority, "127.0.0.1", port, ok(BEGUN));
    race.winner().unwrap();
    assert_eq!(server.requests(), 1);
}

#[test]
fn a_race_that_nobody_wins_ends_at_the_deadline_with_the_reason() {
    let authority = Authority::new();
    let silent = TestServer::start(&authority, "127.0.0.1", Answer::Silence);
    let start = Instant::now();
    let error = Race::start(&course(&[silent.url()], &authority, 2)).unwrap().winner().err().unwrap();
    assert!(error.message.contains("no answer in time"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(5));
    // One that refuses for good is not asked again.
    let other = TestServer::start(&Authority::new(), "127.0.0.1", ok(BEGUN));
    let start = Instant::now();
    let error = Race::start(&course(&[other.url()], &authority, 20)).unwrap().winner().err().unwrap();
    assert!(error.message.contains("pins") && start.elapsed() < Duration::from_secs(10), "{error}");
}
