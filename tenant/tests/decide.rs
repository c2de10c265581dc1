//! `deny`, `revoke`, `hold`, and how NODE is found. What takes them back is in `tests/verifier.rs`.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::server::{Server, json, problem};
use common::{Workstation, golden};
use halfkey_protocol::wire::operator::*;
use halfkey_protocol::wire::policies::Finding;
use halfkey_testkit::pki::Pki;

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
            hint: None,
        }],
        since: 1,
        expires: 2,
    }
}

/// Two nodes called web1; the first has this boot waiting.
fn setup(boot: Option<PendingBoot>) -> (Server, Workstation) {
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
    let workstation = Workstation::logged_in(&pki.bundle(&[server.url()]));
    (server, workstation)
}

fn posts(server: &Server) -> Vec<(String, serde_json::Value)> {
    let seen = server.seen.lock().unwrap();
    let posts = seen.iter().filter(|r| r.method == "POST");
    posts.map(|r| (r.path.clone(), serde_json::from_slice(&r.body).unwrap())).collect()
}

#[test]
fn what_needs_no_tenant_key_is_posted() {
    let (server, workstation) = setup(Some(pending(true)));
    workstation.ok(&["deny", A, "--because", "not our kernel"]);
    workstation.ok(&["revoke", &A.to_uppercase(), "--because", "stolen"]);
    let held = workstation.ok(&["hold", A, "--because", "the root file system is damaged"]);
    assert_eq!(held.stdout, format!("held until `halfkey release`: web1 ({A})\n"));
    let path = |what: &str| format!("/v1/operator/nodes/{A}/{what}");
    assert_eq!(
        posts(&server),
        [
            (path("deny"), serde_json::json!({"ticket": "ticket-7", "because": "not our kernel"})),
            (path("revoke"), serde_json::json!({"because": "stolen"})),
            (path("hold"), serde_json::json!({"because": "the root file system is damaged"})),
        ]
    );
}

#[test]
fn what_can_not_be_decided_is_said() {
    let (server, workstation) = setup(Some(pending(false)));
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
        let (code, stderr) = workstation.error(args, server.port);
        let stderr = stderr
            .split_once("a boot of")
            .map_or(stderr.clone(), |(_, rest)| rest[rest.find("error:").unwrap()..].to_owned());
        said.push_str(&format!("# {}: exit {code}\n{stderr}\n", args.join(" ").replace('\n', "\\n")));
    }
    golden::check("decide-errors.txt", &said);
    assert_eq!(posts(&server).len(), 1, "only the one about the node that the server does not know");
}
