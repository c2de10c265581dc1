//! What who watches the server sees: metrics, and whether it lives and serves.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use common::node::{Node, enrolled, said};
use common::scrape::{Scrape, plain};
use common::{Server, get, post, refused, until};
use halfkey_protocol::Reason;
use halfkey_protocol::wire::Begin;
use halfkey_protocol::wire::operator::ServerInfo;
use halfkey_testkit::postgres::Postgres;
use halfkey_testkit::software::strict;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

const WATCHED: [&str; 2] = ["--metrics-listen", "127.0.0.1:0"];

#[tokio::test]
async fn metrics_move_with_what_happens() {
    let server = Server::with("forged_per_minute = 1\n", &WATCHED);
    let before = Scrape::of(&server.metrics_url).await;
    let node = enrolled(&server).await;
    let (anybody, operator) = (server.anybody(), server.operator());
    assert_eq!(said(&node.boot(&anybody).await), "pending no_policy");
    node.allow(&operator).await;
    assert_eq!(said(&node.boot(&anybody).await), "released");
    node.apply(&operator, &format!("node:{}", node.id), &strict()).await.unwrap();
    assert!(said(&node.boot(&anybody).await).starts_with("denied policy_mismatch"));
    let session = node.begin(&anybody, "boot").await.unwrap();
    let mut forged = node.evidence("boot", &session);
    forged.nonce = vec![7; 56].into();
    assert!(said(&post(&anybody, "/v1/finish", &forged).await.unwrap()).starts_with("denied nonce_foreign"));
    let beyond = post::<serde_json::Value>(&anybody, "/v1/finish", &forged).await;
    assert_eq!(refused(beyond), Reason::RateLimited);
    let info: ServerInfo = get(&operator, "/v1/operator/info").await.unwrap();

    let after = Scrape::of(&server.metrics_url).await;
    let grown = |sample: &str| after.value(sample) - before.value(sample);
    for (outcome, reason, count) in [
        ("pending", "no_policy", 1.0),
        ("released", "none", 1.0),
        ("denied", "policy_mismatch", 1.0),
        ("denied", "nonce_foreign", 1.0),
    ] {
        let sample =
            format!("halfkey_verdicts_total{{outcome=\"{outcome}\",purpose=\"boot\",reason=\"{reason}\"}}");
        assert_eq!(grown(&sample), count, "{sample}");
    }
    // With the enrollment's; what nobody signed has no beginning.
    assert_eq!(grown("halfkey_begin_to_verdict_seconds_count"), 4.0);
    assert_eq!(grown("halfkey_http_request_seconds_count{route=\"/v1/finish\"}"), 6.0);
    assert_eq!(grown("halfkey_http_responses_total{route=\"/v1/finish\",status=\"200\"}"), 5.0);
    assert_eq!(grown("halfkey_refusals_total{reason=\"rate_limited\",route=\"/v1/finish\"}"), 1.0);
    assert!(grown("halfkey_http_request_seconds_count{route=\"/v1/operator/info\"}") >= 1.0);
    assert!(grown("halfkey_database_transaction_seconds_count{kind=\"document\"}") >= 4.0);
    assert_eq!(after.value("halfkey_sequence_document") as u64, info.head.number);
    assert_eq!(after.value("halfkey_rolled_back"), 0.0);
    assert_eq!(after.value("halfkey_connection_places{listener=\"everybody\"}"), 1024.0);
    let end = after.value("halfkey_certificate_not_after_seconds{file=\"server.pem\"}");
    assert!(end > after.value("process_start_time_seconds") && end > 1.7e9, "{end}");
    assert!(after.samples().any(|sample| sample.starts_with("halfkey_build_info{database=\"sqlite\"")));
}

/// Whatever is sent: labels are the program's own, and as many as it has.
#[tokio::test]
async fn no_label_is_what_a_stranger_sends() {
    let server = Server::with("", &WATCHED);
    let anybody = server.anybody();
    for path in ["/v1/begin/halfkey\"}", "/surely/not", "/v1/finish"] {
        let _ = anybody.post::<serde_json::Value>(path, &"surely\n").await;
    }
    let listed = get::<serde_json::Value>(&anybody, "/v1/operator/nodes/surely").await;
    assert_eq!(refused(listed), Reason::Unauthorized);
    let begin = Begin {
        versions: vec![1],
        node_id: "surely".into(),
        purpose: "surely".into(),
        enrollments: vec!["surely".into()],
    };
    assert_eq!(refused(post::<serde_json::Value>(&anybody, "/v1/begin", &begin).await), Reason::Malformed);
    let seen = Scrape::of(&server.metrics_url).await;
    assert!(seen.samples().all(|sample| !sample.contains("surely")));
    assert_eq!(seen.value("halfkey_refusals_total{reason=\"not_found\",route=\"other\"}"), 2.0);
    assert_eq!(
        seen.value("halfkey_refusals_total{reason=\"unauthorized\",route=\"/v1/operator/nodes/{id}\"}"),
        1.0
    );
    // And nothing of it is where machines ask, nor anything of theirs here.
    let missing = get::<serde_json::Value>(&anybody, "/metrics").await;
    assert_eq!(refused(missing), Reason::NotFound);
    assert_eq!(plain(&server.metrics_url, "/v1/operator/info").await.0, 404);
    assert_eq!(plain(&server.metrics_url, "/healthz").await.0, 200);
}

#[tokio::test]
async fn connections_to_postgresql_are_counted() {
    let server = Server::over_with(&Postgres::shared().database(), &WATCHED);
    let node = Node::new();
    node.register(&server.anybody()).await.unwrap();
    let seen = Scrape::of(&server.metrics_url).await;
    assert!(seen.samples().any(|sample| sample.starts_with("halfkey_build_info{database=\"postgres\"")));
    assert_eq!(seen.value("halfkey_database_connections_limit{kind=\"write\"}"), 16.0);
    let open =
        |state| seen.value(&format!("halfkey_database_connections{{kind=\"write\",state=\"{state}\"}}"));
    assert!(open("busy") + open("idle") >= 1.0);
    assert!(seen.value("halfkey_database_transaction_seconds_count{kind=\"write\"}") >= 1.0);
}

/// A load balancer sees that it stops before anybody is turned away.
#[tokio::test]
async fn a_server_that_stops_says_so_first() {
    // Longer than any test: the second signal ends it.
    let mut server = Server::with("drain_seconds = 3600\n", &WATCHED);
    let node = enrolled(&server).await;
    let anybody = server.anybody();
    assert_eq!(plain(&server.metrics_url, "/readyz").await.0, 200);

    server.signal_stop();
    until("it says that it stops", async || plain(&server.metrics_url, "/readyz").await.0 == 503).await;
    assert_eq!(refused(get::<serde_json::Value>(&anybody, "/readyz").await), Reason::Unavailable);
    assert_eq!(plain(&server.metrics_url, "/healthz").await.0, 200, "it lives");
    assert_eq!(Scrape::of(&server.metrics_url).await.value("halfkey_stopping"), 1.0);
    // Who was sent here is served, on a new connection too.
    assert_eq!(said(&node.boot(&server.anybody()).await), "pending no_policy");
    assert_eq!(server.stop(), Some(0));
    assert!(server.log().contains("stopped"), "{}", server.log());
}

/// Who asks and goes away again leaves no question to the database behind for each time.
#[tokio::test]
async fn whoever_asks_whether_it_is_ready_there_is_one_probe() {
    let server = Server::with("", &WATCHED);
    let database = server.database();
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    let address = server.metrics_url.strip_prefix("http://").unwrap();
    for _ in 0..30 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        // Until it is being looked at, or as good as that.
        let _ = timeout(Duration::from_millis(30), stream.readable()).await;
    }
    // Besides it the server writes down the length of the trail, and forgets what is over.
    let asked = Scrape::of(&server.metrics_url).await.value("halfkey_database_calls");
    assert!((1.0..5.0).contains(&asked), "{asked}");
    database.execute_batch("COMMIT").unwrap();
    until("it is ready", async || plain(&server.metrics_url, "/readyz").await.0 == 200).await;
}

/// Alive, and not ready: a process that is started again would be no better.
#[tokio::test]
async fn a_server_with_another_database_is_not_ready() {
    let mut server = Server::with("", &WATCHED);
    let before = server.state().with_extension("before");
    let node = enrolled(&server).await;
    server.stop();
    std::fs::copy(server.state().join("halfkey.db"), &before).unwrap();
    server.serve();
    node.apply(&server.operator(), &format!("node:{}", node.id), &strict()).await.unwrap();
    server.stop();
    std::fs::copy(&before, server.state().join("halfkey.db")).unwrap();
    server.serve();
    let (status, _, said) = plain(&server.metrics_url, "/readyz").await;
    assert!(status == 503 && said.contains("rolled_back"), "{status} {said}");
    assert_eq!(plain(&server.metrics_url, "/healthz").await.0, 200);
    assert_eq!(Scrape::of(&server.metrics_url).await.value("halfkey_rolled_back"), 1.0);
}
