//! Boots that wait at a real verifier, by a real TPM, and a server that shows them as a test likes.

use super::Workstation;
use super::node::{Node, software};
use super::server::{Answer, Request, Server, json, problem};
use super::verifier::Verifier;
use halfkey_protocol::Bytes;
use halfkey_protocol::wire::operator::*;
use halfkey_protocol::wire::policies::{NodePolicy, ProposalList};
use halfkey_protocol::wire::{Document, SignedDocument};
use halfkey_testkit::node::SimulatedNode;
use halfkey_testkit::pki::Pki;
use halfkey_testkit::tpm::{RSA_2048, Tpm};
use std::sync::{Arc, Mutex};

const CMDLINE: &str = "root=/dev/mapper/root quiet efi=noruntime systemd.import_credentials=no";

/// What a server shows of one node.
#[derive(Clone)]
pub struct Shown {
    pub record: NodeRecord,
    pub evidence: EvidenceRecord,
    /// The deployment that the node is enrolled at.
    pub deployment: String,
    pub governed: NodePolicy,
    pub sequence: Vec<SignedDocument>,
}

pub fn answer(request: &Request, shown: &mut Shown) -> Answer {
    if request.path.ends_with("/approve") {
        shown.sequence.push(serde_json::from_slice(&request.body).unwrap());
    }
    let Shown { record, evidence, deployment, governed, sequence } = shown;
    let path = request.path.trim_start_matches("/v1/operator/");
    let node = format!("nodes/{}", record.summary.id);
    match path.strip_prefix(&node) {
        Some("" | "/approve") => json(record),
        Some("/policy") => json(governed),
        Some(_) => json(&EvidenceList { evidence: vec![evidence.summary.clone()] }),
        None if path.starts_with("nodes?name=") => {
            json(&NodeList { nodes: vec![record.summary.clone()], next: None })
        }
        None if path == "info" => json(&ServerInfo {
            version: "0".into(),
            deployment: deployment.clone(),
            head: sequence.last().map(head).unwrap_or(Head { number: 0, sha256: [0; 32].into() }),
            release_public: Bytes::default(),
            ca: String::new(),
            servers: vec![],
        }),
        None if path.starts_with("sequence?after=") => {
            let after = path["sequence?after=".len()..].parse().unwrap();
            json(&SequencePart { documents: sequence.iter().skip(after).cloned().collect() })
        }
        None if path.starts_with("evidence/") => json(evidence),
        None if path.starts_with("proposals?") => json(&ProposalList { proposals: vec![], next: None }),
        None => problem(404, "not_found", "no such thing", None),
    }
}

fn head(signed: &SignedDocument) -> Head {
    let keys: Vec<[u8; 32]> = signed.signatures.iter().map(|by| by.key.array().unwrap()).collect();
    let number = serde_json::from_slice::<Document>(&signed.document).unwrap().number;
    Head { number, sha256: halfkey_protocol::document::sha256(&signed.document, &keys).into() }
}

/// What governs a node that is in no group and has no policy.
pub fn ungoverned() -> NodePolicy {
    NodePolicy { group: None, membership: None, policy: None, additions: None, trusted: vec![] }
}

/// Boots of one machine that wait, as the verifier stored them, and the workstation that enrolled it.
pub fn waiting(kernels: &[&str]) -> (Workstation, Vec<Shown>) {
    let verifier = Verifier::start();
    let machine = SimulatedNode::booted(Tpm::new(RSA_2048), &software("6.0", CMDLINE));
    let workstation = Workstation::logged_in(&verifier.file("operator-alice.bundle"));
    verifier.register(&machine);
    workstation.ok(&["enroll", "web1", "--trust-ek", &machine.tpm.fingerprint(), "--yes"]);
    let node = Node { machine: &machine, verifier: &verifier };
    node.finish_enrollment(&workstation);
    let boots = kernels.iter().map(|kernel| {
        assert_eq!(node.boot(&software(kernel, CMDLINE)).outcome, "pending");
        let record: NodeRecord =
            serde_json::from_str(&workstation.ok(&["node", "show", "web1", "--json"]).stdout).unwrap();
        let number = record.pending.as_ref().unwrap().evidence_id.to_string();
        let evidence = workstation.ok(&["evidence", "--id", &number, "--json"]).stdout;
        let enrollment: Document =
            serde_json::from_slice(&record.enrollment.as_ref().unwrap().document).unwrap();
        let deployment = enrollment.deployment;
        let evidence = serde_json::from_str(&evidence).unwrap();
        Shown { record, evidence, deployment, governed: ungoverned(), sequence: vec![] }
    });
    let boots = boots.collect();
    (workstation, boots)
}

/// A workstation with the same tenant key as `other`, at a server that shows what is in the mutex.
pub fn lying(other: &Workstation, shown: &Arc<Mutex<Shown>>) -> (Server, Workstation) {
    let (pki, shown) = (Pki::new(), shown.clone());
    let server = Server::start(&pki, move |request| answer(request, &mut shown.lock().unwrap()));
    let workstation = Workstation::logged_in(&pki.bundle(&[server.url()]));
    std::fs::copy(other.home().join("tenant.key"), workstation.home().join("tenant.key")).unwrap();
    (server, workstation)
}
