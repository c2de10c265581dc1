//! A boot that the server altered is not learned: what a TPM signed is checked at the desk.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::log::Boot;
use common::node::Node;
use common::pki::Pki;
use common::server::{Answer, Request, Server, json, problem};
use common::tpm::{RSA_2048, Tpm, flipped};
use common::verifier::{Verifier, serve_if_asked};
use common::{Desk, Ran};
use halfkey::key::TenantKey;
use halfkey_protocol::Bytes;
use halfkey_protocol::document::Deployment;
use halfkey_protocol::wire::Document;
use halfkey_protocol::wire::operator::*;
use halfkey_protocol::wire::policies::NodePolicy;
use std::sync::{Arc, Mutex};

const CMDLINE: &str = "root=/dev/mapper/root quiet efi=noruntime systemd.import_credentials=no";

/// Not a test of its own: the verifier, run as a child of the test below.
#[test]
fn as_verifier() {
    serve_if_asked();
}

/// What a server shows of one node.
#[derive(Clone)]
struct Shown {
    record: NodeRecord,
    evidence: EvidenceRecord,
}

/// Exit code, what is said, what the server alters.
type Case<'a> = (i32, &'a str, &'a dyn Fn(&mut Shown));

fn answer(request: &Request, shown: &Shown) -> Answer {
    let Shown { record, evidence } = shown;
    let path = request.path.trim_start_matches("/v1/operator/");
    let node = format!("nodes/{}", record.summary.id);
    match path.strip_prefix(&node) {
        Some("") => json(record),
        Some("/policy") => json(&NodePolicy {
            group: None,
            membership: None,
            policy: None,
            additions: None,
            trusted: vec![],
        }),
        Some(_) => json(&EvidenceList { evidence: vec![evidence.summary.clone()] }),
        None if path.starts_with("nodes?name=") => {
            json(&NodeList { nodes: vec![record.summary.clone()], next: None })
        }
        None if path == "info" => json(&ServerInfo {
            version: "0".into(),
            deployment: Deployment([5; 16]).to_string(),
            head: Head { number: 0, sha256: [0; 32].into() },
            release_public: Bytes::default(),
            ca: String::new(),
            servers: vec![],
        }),
        None if path.starts_with("evidence/") => json(evidence),
        None => problem(404, "not_found", "no such thing", None),
    }
}

/// One honest boot that waits, as the verifier stored it.
fn honest() -> (Desk, Shown) {
    let (verifier, tpm) = (Verifier::start(), Tpm::new(RSA_2048));
    let desk = Desk::logged_in(&verifier.file("operator-alice.bundle"));
    verifier.register(&tpm);
    let boot = Boot::new("6.1", CMDLINE);
    boot.measure().0.iter().for_each(|(pcr, digest)| tpm.extend(*pcr, digest));
    desk.ok(&["enroll", "web1", "--trust-ek", &tpm.fingerprint(), "--yes"]);
    let node = Node { tpm: &tpm, verifier: &verifier };
    node.finish_enrollment();
    assert_eq!(node.boot(&boot).outcome, "pending");
    let record: NodeRecord =
        serde_json::from_str(&desk.ok(&["node", "show", "web1", "--json"]).stdout).unwrap();
    let number = record.pending.as_ref().unwrap().evidence_id.to_string();
    let evidence = desk.ok(&["evidence", "--id", &number, "--json"]).stdout;
    (desk, Shown { record, evidence: serde_json::from_str(&evidence).unwrap() })
}

#[test]
fn only_what_the_tpm_signed_is_learned() {
    let (honest_desk, original) = honest();
    let pki = Pki::new();
    let shown = Arc::new(Mutex::new(original.clone()));
    let shared = shown.clone();
    let server = Server::start(&pki, move |request| answer(request, &shared.lock().unwrap()));
    let desk = Desk::logged_in(&pki.bundle(&[server.url()]));
    std::fs::copy(honest_desk.home().join("tenant.key"), desk.home().join("tenant.key")).unwrap();
    let with = |change: &dyn Fn(&mut Shown), args: &[&str]| -> Ran {
        let mut altered = original.clone();
        change(&mut altered);
        *shown.lock().unwrap() = altered;
        desk.run(args)
    };

    let learn = ["policy", "learn", "web1", "--kernel-measures-initrd"];
    let ran = with(&|_| {}, &learn);
    assert!(ran.code == 0 && ran.stdout.contains("[[boot]]") && ran.stderr.is_empty(), "{ran:?}");

    let log = |shown: &mut Shown| shown.evidence.finish.event_log.clone().unwrap();
    let cases: [Case<'_>; 10] = [
        (6, "signature", &|s| s.evidence.finish.quote = flipped(&s.evidence.finish.quote, 30)),
        (6, "pcr values with digest", &|s| s.evidence.finish.pcrs[4] = vec![7; 32].into()),
        (6, "qualifying data", &|s| s.evidence.finish.r_sha256 = vec![7; 32].into()),
        (6, "bank", &|s| s.evidence.finish.bank = "sha384".into()),
        (6, "could not be read", &|s| {
            let whole = log(s);
            s.evidence.finish.event_log = Some(whole[..whole.len() - 5].into());
        }),
        (6, "replay", &|s| {
            // The digest of the first event: after the Spec ID event, PCR, type, count and algorithm.
            let whole = log(s);
            s.evidence.finish.event_log = Some(flipped(&whole, 32 + 33 + 14));
        }),
        (3, "no event log", &|s| s.evidence.finish.event_log = None),
        (6, "shows 999", &|s| s.evidence.summary.id = 999),
        (1, "is of node", &|s| s.evidence.finish.node_id = "00000000-0000-8000-8000-000000000000".into()),
        (1, "command line", &|s| s.evidence.finish.command_line = Some(Bytes::from(&b"rdinit=/bin/sh"[..]))),
    ];
    for (code, needle, change) in cases {
        let ran = with(change, &learn);
        assert!(
            ran.code == code && ran.stderr.contains(needle) && ran.stdout.is_empty(),
            "{needle}: {ran:?}"
        );
        let ran = with(change, &["approve", "web1", "--kernel-measures-initrd", "--learn", "--yes"]);
        assert!(ran.code == code && ran.stderr.contains(needle), "{needle}: {ran:?}");
    }

    // An enrollment by somebody else: a policy by this desk would not count.
    let other = TenantKey::generate().unwrap();
    let theirs = |s: &mut Shown| {
        let signed = s.record.enrollment.as_ref().unwrap();
        let document: Document = serde_json::from_slice(&signed.document).unwrap();
        s.record.enrollment = Some(other.sign(&document));
    };
    let ran = with(&theirs, &learn);
    assert!(
        ran.code == 0 && ran.stderr.contains("warning:") && ran.stderr.contains("another tenant key"),
        "{ran:?}"
    );
    let ran = with(&theirs, &["approve", "web1", "--kernel-measures-initrd", "--learn", "--yes"]);
    assert!(ran.code == 6 && ran.stderr.contains("another tenant key"), "{ran:?}");
    // An enrollment of other keys, or none.
    let damaged = |s: &mut Shown| {
        let signed = s.record.enrollment.as_mut().unwrap();
        signed.document = flipped(&signed.document, 40);
    };
    assert_eq!(with(&damaged, &learn).code, 6);
    let ran = with(&|s| s.record.enrollment = None, &learn);
    assert!(ran.code == 1 && ran.stderr.contains("not enrolled"), "{ran:?}");
    // No boot at all.
    let none = |s: &mut Shown| {
        s.record.pending = None;
        s.evidence.summary.purpose = "enroll".into();
    };
    let ran = with(&none, &learn);
    assert!(ran.code == 3 && ran.stderr.contains("no released boot stored"), "{ran:?}");
    let posts = server.asked().iter().filter(|asked| asked.starts_with("POST")).count();
    assert_eq!(posts, 0, "nothing was signed");
}
