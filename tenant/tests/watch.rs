//! `watch`, `audit` and `evidence`.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::server::{Server, json, problem};
use common::{Workstation, mode};
use halfkey_protocol::Bytes;
use halfkey_protocol::wire::Evidence;
use halfkey_protocol::wire::operator::*;
use halfkey_testkit::pki::Pki;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

const A: &str = "3f2a0000-0000-8000-8000-000000000001";

fn entry(seq: u64) -> AuditEntry {
    AuditEntry {
        seq,
        at: seq,
        actor: "node".into(),
        action: "register".into(),
        node_id: Some(A.into()),
        detail: format!("number {seq}"),
    }
}

/// A trail that grows when the test says so; requests are held as the real server holds them.
struct Trail {
    length: Mutex<u64>,
    grown: Condvar,
}

impl Trail {
    fn start(pki: &Pki, length: u64) -> (Server, Arc<Self>) {
        let trail = Arc::new(Self { length: Mutex::new(length), grown: Condvar::new() });
        let shared = trail.clone();
        let server = Server::start(pki, move |request| {
            let query = request.path.split_once('?').unwrap().1;
            let of = |name: &str| {
                query.split('&').find_map(|part| part.strip_prefix(name)).map(|n| n.parse::<u64>().unwrap())
            };
            let mut length = shared.length.lock().unwrap();
            let first = match (of("after="), of("limit=")) {
                (Some(after), _) => {
                    let hold = Duration::from_secs(of("wait=").unwrap());
                    (length, _) = shared.grown.wait_timeout_while(length, hold, |n| *n <= after).unwrap();
                    after
                }
                (None, limit) => length.saturating_sub(limit.unwrap()),
            };
            json(&AuditList { entries: (first + 1..=*length).map(entry).collect() })
        });
        (server, trail)
    }

    fn grow(&self) {
        *self.length.lock().unwrap() += 1;
        self.grown.notify_all();
    }
}

#[test]
fn watch_prints_each_entry_as_it_comes_and_ends_with_its_reader() {
    let pki = Pki::new();
    let (server, trail) = Trail::start(&pki, 10);
    let workstation = Workstation::logged_in(&pki.bundle(&[server.url()]));
    let mut child = workstation
        .command(&["watch", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut notes = BufReader::new(child.stderr.take().unwrap());
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut note = String::new();
    notes.read_line(&mut note).unwrap();
    assert_eq!(note, "watching from entry 10 on\n");
    for seq in [11, 12] {
        trail.grow();
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        assert_eq!(serde_json::from_str::<AuditEntry>(&line).unwrap(), entry(seq));
    }
    drop(lines);
    trail.grow();
    assert!(child.wait().unwrap().success(), "nobody reads any more: that is no error");
}

#[test]
fn audit_follow_begins_with_what_was_and_watch_can_begin_earlier() {
    let pki = Pki::new();
    let (server, _trail) = Trail::start(&pki, 10);
    let workstation = Workstation::logged_in(&pki.bundle(&[server.url()]));
    let list: AuditList =
        serde_json::from_str(&workstation.ok(&["audit", "--limit", "2", "--json"]).stdout).unwrap();
    assert_eq!(list.entries, [entry(9), entry(10)]);
    assert_eq!(workstation.ok(&["audit", "--limit", "3"]).stdout.lines().count(), 3);
    for (args, first) in
        [(&["audit", "--follow", "--limit", "3"][..], "     8  "), (&["watch", "--after", "4"], "     5  ")]
    {
        let mut child =
            workstation.command(args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with(first), "{line}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
    workstation.ok(&["audit", "--node", A]);
    assert_eq!(server.asked().pop().unwrap(), format!("GET /v1/operator/audit?limit=50&node={A}"));
}

#[test]
fn watch_waits_for_a_server_that_went_away() {
    let pki = Pki::new();
    let busy = Mutex::new(true);
    let server = Server::start(&pki, move |request| {
        if request.path.contains("after=") && std::mem::take(&mut *busy.lock().unwrap()) {
            return problem(503, "unavailable", "restarting", None);
        }
        json(&AuditList { entries: vec![entry(1)] })
    });
    let workstation = Workstation::logged_in(&pki.bundle(&[server.url()]));
    let mut child = workstation
        .command(&["watch", "--after", "0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("number 1"), "{line}");
    child.kill().unwrap();
    let ran = common::Ran::from(child.wait_with_output().unwrap());
    assert!(ran.stderr.contains("restarting (unavailable); trying again in 1 s"), "{ran:?}");
}

#[test]
fn an_event_log_is_saved_raw_and_never_over_another_file() {
    let pki = Pki::new();
    let server = Server::start(&pki, |request| match request.path.as_str() {
        "/v1/operator/evidence/7" | "/v1/operator/evidence/8" => {
            let empty = Bytes(vec![]);
            let log = request.path.ends_with('7').then(|| Bytes(vec![0, 1, 2, 255]));
            json(&EvidenceRecord {
                summary: EvidenceSummary {
                    id: 7,
                    node_id: A.into(),
                    at: 1,
                    purpose: "boot".into(),
                    outcome: "denied".into(),
                    code: Some("signature".into()),
                    message: "m".into(),
                    cloned: None,
                },
                evidence: Evidence {
                    version: 1,
                    node_id: A.into(),
                    purpose: "boot".into(),
                    nonce: empty.clone(),
                    hpke_public: empty.clone(),
                    nonce_tpm: empty.clone(),
                    purpose_data: empty.clone(),
                    quote: empty.clone(),
                    signature: empty,
                    bank: "sha256".into(),
                    pcrs: vec![],
                    event_log: log,
                    systemd_log: None,
                    ima_log: None,
                    command_line: None,
                    agent: "a".into(),
                },
                reset_count: None,
                restart_count: None,
                clock: None,
                tpm_firmware: None,
                expected_fence: None,
                findings: vec![],
            })
        }
        path if path.starts_with(&format!("/v1/operator/nodes/{A}/evidence?limit=")) => {
            json(&EvidenceList { evidence: vec![] })
        }
        _ => problem(404, "not_found", "no such evidence", None),
    });
    let workstation = Workstation::logged_in(&pki.bundle(&[server.url()]));
    let path = workstation.path("log");
    let file = path.to_str().unwrap();
    workstation.ok(&["evidence", "--id", "7", "--event-log", file]);
    assert_eq!((std::fs::read(&path).unwrap(), mode(&path)), (vec![0, 1, 2, 255], 0o600));
    assert_eq!(workstation.run(&["evidence", "--id", "7", "--event-log", file]).code, 1);
    assert_eq!(
        workstation.run(&["evidence", "--id", "8", "--event-log", "/nonexistent/x"]).code,
        3,
        "it has none"
    );
    assert_eq!(workstation.run(&["evidence", "--id", "9"]).code, 3);
    assert_eq!(workstation.run(&["evidence", A, "--event-log", file]).code, 2);
    assert_eq!(workstation.ok(&["evidence", A, "--limit", "3"]).stdout, "no evidence\n");
    let json: EvidenceRecord =
        serde_json::from_str(&workstation.ok(&["evidence", "--id", "7", "--json"]).stdout).unwrap();
    assert_eq!(json.summary.id, 7);
}
