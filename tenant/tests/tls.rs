//! Who answers, and how.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::server::{Server, json, problem};
use common::{Workstation, golden};
use halfkey_protocol::wire::operator::NodeList;
use halfkey_testkit::pki::Pki;
use halfkey_testkit::port::HeldPort;
use std::io::Read;
use std::net::TcpListener;
use std::sync::mpsc;
use std::thread;

fn no_nodes() -> (u16, Vec<u8>) {
    json(&NodeList { nodes: vec![], next: None })
}

#[test]
fn the_operators_certificate_is_shown_and_tls_is_1_3() {
    let pki = Pki::new();
    let server = Server::start(&pki, |_| no_nodes());
    let workstation = Workstation::logged_in(&pki.bundle(&[server.url() + "/"]));
    assert_eq!(workstation.ok(&["nodes"]).stdout, "no nodes\n");
    assert_eq!(server.asked(), ["GET /v1/operator/nodes"]);
    assert!(!server.seen.lock().unwrap()[0].client.is_empty());
}

#[test]
fn a_long_list_is_read_page_after_page_and_has_an_end() {
    const A: &str = "3f2a0000-0000-8000-8000-000000000001";
    let pki = Pki::new();
    let page = |next: Option<&str>| json(&NodeList { nodes: vec![], next: next.map(str::to_owned) });
    let server = Server::start(&pki, move |request| match request.path.as_str() {
        "/v1/operator/nodes" => page(Some(A)),
        _ => page(None),
    });
    let workstation = Workstation::logged_in(&pki.bundle(&[server.url()]));
    workstation.ok(&["nodes"]);
    assert_eq!(
        server.asked(),
        ["GET /v1/operator/nodes".to_owned(), format!("GET /v1/operator/nodes?after={A}")]
    );

    let server = Server::start(&pki, move |_| page(Some("../../x")));
    let workstation = Workstation::logged_in(&pki.bundle(&[server.url()]));
    let (code, said) = workstation.error(&["nodes"], server.port);
    assert!(code == 6 && said.contains("does not end"), "{code} {said}");
}

#[test]
fn only_the_server_of_the_bundle_is_talked_to() {
    let (pki, impostor) = (Pki::new(), Pki::new());
    let leaf = impostor.server("127.0.0.1");
    // Its CA has the same name; it would even accept the operator's certificate.
    let server = Server::with(&leaf, &pki, &[&rustls::version::TLS13], |_| no_nodes());
    let workstation = Workstation::logged_in(&pki.bundle(&[server.url()]));
    let (code, said) = workstation.error(&["nodes"], server.port);
    golden::check("impostor.txt", &said);
    assert_eq!((code, server.asked().len()), (6, 0), "nothing was sent");
}

#[test]
fn a_certificate_for_another_name_or_another_use_is_refused() {
    let pki = Pki::new();
    for leaf in [pki.server("verifier.example"), pki.operator("mallory")] {
        let server = Server::with(&leaf, &pki, &[&rustls::version::TLS13], |_| no_nodes());
        let workstation = Workstation::logged_in(&pki.bundle(&[server.url()]));
        let (code, said) = workstation.error(&["nodes"], server.port);
        assert_eq!((code, server.asked().len()), (6, 0), "{said}");
    }
}

#[test]
fn tls_1_2_is_refused() {
    let pki = Pki::new();
    let server = Server::with(&pki.server("127.0.0.1"), &pki, &[&rustls::version::TLS12], |_| no_nodes());
    let workstation = Workstation::logged_in(&pki.bundle(&[server.url()]));
    let (code, said) = workstation.error(&["nodes"], server.port);
    assert_eq!((code, server.asked().len()), (6, 0), "{said}");
    assert!(said.contains("TLS 1.3"), "{said}");
}

#[test]
fn an_operator_whom_the_server_does_not_accept_is_told_so() {
    let (pki, others) = (Pki::new(), Pki::new());
    let server = Server::with(&pki.server("127.0.0.1"), &others, &[&rustls::version::TLS13], |_| no_nodes());
    let workstation = Workstation::logged_in(&pki.bundle(&[server.url()]));
    let (code, said) = workstation.error(&["nodes"], server.port);
    golden::check("operator-refused.txt", &said);
    assert_eq!(code, 1);
}

#[test]
fn the_next_server_is_asked_when_one_is_away() {
    let pki = Pki::new();
    let server = Server::start(&pki, |_| no_nodes());
    let away = HeldPort::new();
    let url = format!("https://127.0.0.1:{}", away.number());
    let workstation = Workstation::logged_in(&pki.bundle(&[url.clone(), server.url()]));
    workstation.ok(&["nodes"]);
    let workstation = Workstation::logged_in(&pki.bundle(&[url]));
    let (code, said) = workstation.error(&["nodes"], away.number());
    golden::check("unreachable.txt", &said);
    assert_eq!(code, 4);
}

#[test]
fn a_change_is_not_sent_twice() {
    let pki = Pki::new();
    // Reads the request, then goes away without a word.
    let first = Server::start(&pki, |_| panic!("gone"));
    let second = Server::start(&pki, |_| no_nodes());
    let workstation = Workstation::logged_in(&pki.bundle(&[first.url(), second.url()]));
    let id = "3f2a0000-0000-8000-8000-000000000001";
    let (code, said) = workstation.error(&["revoke", id, "--because", "stolen"], first.port);
    assert_eq!(code, 4, "{said}");
    assert_eq!(first.asked(), [format!("POST /v1/operator/nodes/{id}/revoke")]);
    assert_eq!(second.asked().len(), 0);
    // A question may go on to the next.
    workstation.ok(&["nodes"]);
}

#[test]
fn a_server_that_accepts_and_never_answers_ends_in_a_timeout() {
    let pki = Pki::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (done, wait) = mpsc::channel::<()>();
    thread::spawn(move || {
        let (mut tcp, _) = listener.accept().unwrap();
        let _ = tcp.read(&mut [0; 1]);
        let _ = wait.recv();
    });
    let workstation = Workstation::logged_in(&pki.bundle(&[format!("https://127.0.0.1:{port}")]));
    let (code, said) = workstation.error(&["nodes", "--timeout", "1"], port);
    golden::check("timeout.txt", &said);
    assert_eq!(code, 4);
    drop(done);
}

#[test]
fn answers_that_make_no_sense_are_errors() {
    let pki = Pki::new();
    let mut said = String::new();
    type Answer = fn() -> (u16, Vec<u8>);
    let answers: [(&str, Answer); 9] = [
        ("not json", || (200, b"<html>".to_vec())),
        ("json of something else", || (200, b"{\"nodes\":[{\"id\":1}]}".to_vec())),
        ("empty", || (200, vec![])),
        ("a redirect", || (302, vec![])),
        ("no content", || (204, vec![])),
        ("500 without a reason", || (500, b"oops".to_vec())),
        ("a reason", || {
            problem(409, "conflict", "expected enrolled, found revoked", Some("restore it first"))
        }),
        ("busy", || problem(503, "unavailable", "disk full\u{1b}[2J", None)),
        ("a code of the future", || problem(418, "teapot", "short and stout", None)),
    ];
    for (title, answer) in answers {
        let server = Server::start(&pki, move |_| answer());
        let workstation = Workstation::logged_in(&pki.bundle(&[server.url()]));
        let (code, stderr) = workstation.error(&["nodes"], server.port);
        said.push_str(&format!("# {title}: exit {code}\n{stderr}\n"));
    }
    golden::check("answers.txt", &said);
}

#[test]
fn an_answer_without_end_is_cut() {
    let pki = Pki::new();
    let server = Server::start(&pki, |_| (200, vec![b' '; 17 << 20]));
    let workstation = Workstation::logged_in(&pki.bundle(&[server.url()]));
    let (code, said) = workstation.error(&["nodes"], server.port);
    assert!(code == 1 && said.contains("larger than"), "{said}");
}
