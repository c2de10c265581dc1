//! `approve`, `deny`, `revoke`, `restore`, `hold`, `release`, and how NODE is found.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::pki::Pki;
use common::server::{Server, json, problem};
use common::{Desk, Ran, golden};
use halfkey_protocol::wire::operator::*;
use halfkey_protocol::wire::policies::Finding;
use std::fs::File;
use std::io::Write;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

const A: &str = "3f2a0000-0000-8000-8000-000000000001";
const B: &str = "3f2b0000-0000-8000-8000-000000000002";

fn record(id: &str, label: &str, pending: Option<PendingBoot>) -> NodeRecord {
    let record = common::record::node(id, label);
    NodeRecord {
        summary: NodeSummary { pending: pending.is_some(), ..record.summary.clone() },
        pending,
        ..record
    }
}

fn pending(approvable: bool) -> PendingBoot {
    PendingBoot {
        ticket: "ticket-7".into(),
        evidence_id: 7,
        code: if approvable { "policy_mismatch" } else { "counter_rollback" }.into(),
        message: "the kernel is not as allowed".into(),
        approvable,
        findings: vec![Finding {
            pcr: Some(4),
            event: Some(31),
            what: "boot application \\EFI\\Linux\\linux.efi".into(),
            rule: "boot \"6.1\" image 1 (uki)".into(),
            expected: "authenticode sha256:0202".into(),
            found: "sha256:0101".into(),
        }],
        since: 1,
        expires: 2,
    }
}

/// Two nodes called web1; the first has this boot waiting.
fn setup(boot: Option<PendingBoot>) -> (Server, Desk) {
    let pki = Pki::new();
    let server = Server::start(&pki, move |request| {
        let (first, second) = (record(A, "web1", boot.clone()), record(B, "web1", None));
        match request.path.trim_start_matches("/v1/operator/") {
            path if path.starts_with("nodes?name=") => {
                json(&NodeList { nodes: vec![first.summary, second.summary], next: None })
            }
            path if path == format!("nodes/{B}") => json(&second),
            path if path.starts_with(&format!("nodes/{A}")) => json(&first),
            _ => problem(404, "not_found", "no such node", None),
        }
    });
    let desk = Desk::logged_in(&pki.bundle(&[server.url()]));
    (server, desk)
}

fn posts(server: &Server) -> Vec<(String, serde_json::Value)> {
    let seen = server.seen.lock().unwrap();
    let posts = seen.iter().filter(|r| r.method == "POST");
    posts.map(|r| (r.path.clone(), serde_json::from_slice(&r.body).unwrap())).collect()
}

#[test]
fn a_pending_boot_is_shown_and_exactly_that_one_is_approved() {
    let (server, desk) = setup(Some(pending(true)));
    let ran = desk.ok(&["approve", "3f2a", "--once", "--yes", "--json"]);
    for needle in ["PCR 4", "boot loader, kernel image or UKI", "linux.efi", "sha256:0101", "policy_mismatch"]
    {
        assert!(ran.stderr.contains(needle), "{needle}: {ran:?}");
    }
    let _: NodeRecord = serde_json::from_str(&ran.stdout).unwrap();
    desk.ok(&["deny", A, "--because", "not our kernel"]);
    desk.ok(&["revoke", &A.to_uppercase(), "--because", "stolen"]);
    desk.ok(&["restore", A, "--because", "found"]);
    let held = desk.ok(&["hold", A, "--because", "the root file system is damaged"]);
    assert_eq!(held.stdout, format!("held until `halfkey release`: web1 ({A})\n"));
    desk.ok(&["release", A]);
    let path = |what: &str| format!("/v1/operator/nodes/{A}/{what}");
    assert_eq!(
        posts(&server),
        [
            (path("approve"), serde_json::json!({"ticket": "ticket-7"})),
            (path("deny"), serde_json::json!({"ticket": "ticket-7", "because": "not our kernel"})),
            (path("revoke"), serde_json::json!({"because": "stolen"})),
            (path("restore"), serde_json::json!({"because": "found"})),
            (path("hold"), serde_json::json!({"because": "the root file system is damaged"})),
            (path("release"), serde_json::json!({"because": "maintenance is over"})),
        ]
    );
}

#[test]
fn what_can_not_be_decided_is_said() {
    let (server, desk) = setup(Some(pending(false)));
    let mut said = String::new();
    for args in [
        &["approve", A, "--yes"][..],
        &["approve", B, "--yes"],
        &["deny", B, "--because", "x"],
        &["approve", "web1", "--yes"],
        &["approve", "mail", "--yes"],
        &["approve", "3f2", "--yes"],
        &["revoke", A, "--because", " "],
        &["revoke", A, "--because", "two\nlines"],
        &["hold", A, "--because", "two\nlines"],
        &["hold", "mail"],
        &["revoke", "00000000-0000-8000-8000-000000000000", "--because", "x"],
    ] {
        let (code, stderr) = desk.error(args, server.port);
        let stderr = stderr
            .split_once("a boot of")
            .map_or(stderr.clone(), |(_, rest)| rest[rest.find("error:").unwrap()..].to_owned());
        said.push_str(&format!("# {}: exit {code}\n{stderr}\n", args.join(" ").replace('\n', "\\n")));
    }
    golden::check("decide-errors.txt", &said);
    assert_eq!(posts(&server).len(), 1, "only the one about the node that the server does not know");
}

#[test]
fn nothing_is_asked_without_a_terminal() {
    let (server, desk) = setup(Some(pending(true)));
    for args in [&["approve", A][..], &["approve", A, "--once"]] {
        let ran = desk.run(args);
        assert!(ran.code == 2 && ran.stderr.contains("hint:") && ran.stderr.contains("--yes"), "{ran:?}");
    }
    assert_eq!(posts(&server).len(), 0);
}

#[test]
fn on_a_terminal_only_yes_is_yes() {
    let (server, desk) = setup(Some(pending(true)));
    for (typed, code) in [("\n", 1), ("n\n", 1), ("yess\n", 1), ("\u{4}", 1), ("y\n", 0), ("YES\n", 0)] {
        let ran = on_terminal(&desk, &["approve", A, "--once"], typed);
        assert_eq!(ran.code, code, "{typed:?}: {ran:?}");
        assert!(ran.stderr.contains("[y/N]"), "{ran:?}");
    }
    assert_eq!(posts(&server).len(), 2);
    for (typed, code) in [("\n", 1), ("y\n", 1), ("learn it\n", 1), ("o\n", 0), ("Once\n", 0)] {
        let ran = on_terminal(&desk, &["approve", A], typed);
        assert_eq!(ran.code, code, "{typed:?}: {ran:?}");
        assert!(ran.stderr.contains("[o]nce, [l]earn, [r]eplace, [N]o"), "{ran:?}");
    }
    assert_eq!(posts(&server).len(), 4, "y chooses nothing");
}

/// With a terminal as standard input on which this was typed.
fn on_terminal(desk: &Desk, args: &[&str], typed: &str) -> Ran {
    let pty = nix::pty::openpty(None, None).unwrap();
    File::from(pty.master.try_clone().unwrap()).write_all(typed.as_bytes()).unwrap();
    let mut command = desk.command(args);
    command.stdin(pty.slave).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ran::from(command.output().unwrap())
}

#[test]
fn approve_can_wait_for_the_boot() {
    let pki = Pki::new();
    // The boot becomes pending when the trail is waited for.
    let arrived = Arc::new(Mutex::new(false));
    let server = Server::start(&pki, move |request| {
        let mut arrived = arrived.lock().unwrap();
        match request.path.trim_start_matches("/v1/operator/") {
            path if path.starts_with("audit?after=") => {
                *arrived = true;
                let entry = AuditEntry {
                    seq: 42,
                    at: 1,
                    actor: "verifier".into(),
                    action: "verdict".into(),
                    node_id: Some(A.into()),
                    detail: "pending".into(),
                };
                json(&AuditList { entries: vec![entry] })
            }
            path if path.starts_with("audit") => json(&AuditList { entries: vec![] }),
            _ => json(&record(A, "web1", arrived.then(|| pending(true)))),
        }
    });
    let desk = Desk::logged_in(&pki.bundle(&[server.url()]));
    assert_eq!(desk.run(&["approve", A, "--yes"]).code, 5);
    desk.ok(&["approve", A, "--once", "--yes", "--wait", "20"]);
    let asked = server.asked();
    assert_eq!(
        asked[1..3],
        ["GET /v1/operator/audit?limit=1".to_owned(), format!("GET /v1/operator/nodes/{A}")]
    );
    assert!(asked[3].starts_with("GET /v1/operator/audit?after=0&wait=1"), "{asked:?}");
    assert_eq!(
        asked[4..],
        [format!("GET /v1/operator/nodes/{A}"), format!("POST /v1/operator/nodes/{A}/approve")]
    );
}
