//! docs/openapi.json is what is served: it is made of the routes, each of them answers, and a client that knows nothing else finds
//! nothing that it does not say.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use common::node::{Node, answered, enrolled, said};
use common::scrape::plain;
use common::{Server, command, get};
use halfkey_protocol::wire::Problem;
use halfkey_protocol::wire::operator::ServerInfo;
use halfkey_testkit::golden;
use halfkey_testkit::software::Software;
use halfkey_verifier::client::{Client, ClientError};
use hyper::Method;
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Stdio};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

#[test]
fn the_document_is_what_is_served() {
    golden::check(Path::new(ROOT).join("docs/openapi.json"), &command(&["openapi"]));
}

fn document() -> Value {
    serde_json::from_str(&command(&["openapi"])).unwrap()
}

/// Path and method of each operation, with what it is.
fn operations(document: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    document["paths"].as_object().unwrap().iter().flat_map(|(path, methods)| {
        methods
            .as_object()
            .unwrap()
            .iter()
            .map(move |(method, operation)| (&path[..], &method[..], operation))
    })
}

async fn refusal(client: &Client, method: Method, path: &str) -> Option<(u16, Problem)> {
    match client.ask::<Value>(method, path, b"{".to_vec()).await {
        Err(ClientError::Refused(status, problem)) => Some((status.as_u16(), problem)),
        // An answer, or one that is no JSON: a health route's.
        _ => None,
    }
}

#[tokio::test]
async fn each_route_answers_to_its_method_and_to_no_other() {
    let server = Server::with("", &["--metrics-listen", "127.0.0.1:0"]);
    let (anybody, operator) = (server.anybody(), server.operator());
    let document = document();
    let mut names = std::collections::BTreeSet::new();
    for (path, method, operation) in operations(&document) {
        assert!(names.insert(operation["operationId"].as_str().unwrap()), "{operation}");
        let asked = path.replace("{id}", "x").replace("{number}", "0").replace("{scope}", "x");
        if path == "/metrics" {
            assert_eq!(plain(&server.metrics_url, path).await.0, 200);
            continue;
        }
        let client = if operation["security"] == json!([]) { &anybody } else { &operator };
        let right = if method == "get" { Method::GET } else { Method::POST };
        if let Some((status, problem)) = refusal(client, right.clone(), &asked).await {
            assert!(status != 405 && !problem.message.contains("no such path"), "{path}: {problem:?}");
        }
        let answer = refusal(client, Method::PUT, &asked).await;
        assert_eq!(
            answer.map(|(status, problem)| (status, problem.code)),
            Some((405, "malformed".to_owned())),
            "{path}"
        );
        // Without a certificate nobody is told more.
        if operation["security"] != json!([]) {
            let (status, problem) = refusal(&anybody, right, &asked).await.unwrap();
            assert!((status, problem.code.as_str()) == (403, "unauthorized"), "{path}: {problem:?}");
        }
    }
}

/// Schemathesis (PyPI) asks all that the document allows, and some of what it does not: nothing ends in a 5xx, and each answer has the
/// form that the document gives it.
#[tokio::test]
#[ignore = "make api runs it: a minute or two, and PyPI"]
async fn schemathesis_finds_nothing_that_the_document_does_not_say() {
    let many = "100000000";
    let settings: String = [
        "registrations_per_minute",
        "registrations_per_source",
        "evidence_per_minute",
        "forged_per_minute",
        "forged_per_source",
    ]
    .map(|limit| format!("{limit} = {many}\n"))
    .concat();
    let server = Server::with_settings(&settings);
    let node = populated(&server).await;
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let bundle = std::fs::read(server.state().join("operator-ada.bundle")).unwrap();
    let bundle: Value = serde_json::from_slice(&bundle).unwrap();
    let certificate = file("operator.pem", bundle["certificate"].as_str().unwrap());
    let key = file("operator.key", bundle["key"].as_str().unwrap());
    let described = file("openapi.json", &with_examples(document(), &node).to_string());
    let asked = Command::new(Path::new(ROOT).join(".ci/schemathesis"))
        .arg(&server.url)
        .args([&described, &server.state().join("ca.pem"), &certificate, &key])
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&asked.stdout) + String::from_utf8_lossy(&asked.stderr);
    assert!(asked.status.success(), "{said}");
    eprintln!("{said}");
    let log = server.log();
    let wrong: Vec<_> =
        log.lines().filter(|line| line.contains("ERROR") || line.contains("panicked")).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(get::<ServerInfo>(&server.operator(), "/v1/operator/info").await.is_ok());
}

/// A server that has something to show of each kind.
async fn populated(server: &Server) -> Node {
    let (anybody, operator) = (server.anybody(), server.operator());
    let node = enrolled(server).await;
    node.group(&operator, Some("web")).await.unwrap();
    node.allow(&operator).await;
    assert_eq!(said(&node.boot(&anybody).await), "released");
    node.open_fence();
    let proposed = node.propose(&anybody, &Software::version("6.1.0-57")).await;
    assert_eq!(answered(&proposed), "waiting proposal_waits");
    node.reboot_into(&Software::version("6.1.0-57"));
    assert_eq!(said(&node.boot(&anybody).await), "denied policy_mismatch");
    node
}

/// The document with what there is at this server: the first questions are about that.
fn with_examples(mut document: Value, node: &Node) -> Value {
    let paths = document["paths"].as_object_mut().unwrap();
    // Served elsewhere.
    paths.remove("/metrics");
    for methods in paths.values_mut() {
        for operation in methods.as_object_mut().unwrap().values_mut() {
            let Some(parameters) = operation.get_mut("parameters").and_then(Value::as_array_mut) else {
                continue;
            };
            // It waits for as long as it is told.
            parameters.retain(|parameter| parameter["name"] != "wait");
            for parameter in parameters {
                let example = match parameter["name"].as_str().unwrap() {
                    "id" | "node" => json!(node.id.to_string()),
                    "number" => json!(1),
                    "scope" => json!(format!("node:{}", node.id)),
                    _ => continue,
                };
                parameter["example"] = example;
            }
        }
    }
    document
}
