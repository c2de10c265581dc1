//! `halfkey enroll` with a real TPM, against honest and lying servers.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::server::{Answer, Server, json};
use common::{Workstation, flipped, golden};
use halfkey_evidence::signed_document::{open, open_enrollment};
use halfkey_protocol::document::{Deployment, Scope};
use halfkey_protocol::keys::half::{Half, Key, proof_digest};
use halfkey_protocol::tpm::template;
use halfkey_protocol::wire::operator::{
    Enroll, Head, NodeRecord, NodeState, NodeSummary, SequencePart, ServerInfo,
};
use halfkey_protocol::wire::{Register, SignedDocument, credential_digest};
use halfkey_protocol::{Bytes, NodeId};
use halfkey_testkit::pki::Pki;
use halfkey_testkit::tpm::{ECC_P384, RSA_2048, Tpm};
use std::fs;
use std::sync::{Arc, Mutex};

/// What the server believes, or claims to.
#[derive(Clone)]
struct ServerState {
    id: NodeId,
    info: ServerInfo,
    record: NodeRecord,
    /// What it took.
    sequence: Vec<SignedDocument>,
    /// What it does with an enrollment before it answers.
    take: fn(&mut NodeRecord, Enroll),
}

const HERE: Deployment = Deployment([5; 16]);

/// A point on P-256 as a release key: the generator, or its double.
fn release_key(double: bool) -> Bytes {
    let hex = |text: &str| -> [u8; 32] {
        std::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
    };
    let (x, y) = if double {
        (
            hex("7cf27b188d034f7e8a52380304b51ac3c08969e277f21b35a60b48fc47669978"),
            hex("07775510db8ed040293d9ac69f7430dbba7dade63ce982299e04b79d227873d1"),
        )
    } else {
        (
            hex("6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"),
            hex("4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"),
        )
    };
    template::RELEASE.public(&x, &y).into()
}

impl ServerState {
    fn new(pki: &Pki, id: NodeId, registration: Register) -> Self {
        let info = ServerInfo {
            version: "0.1.0".into(),
            deployment: HERE.to_string(),
            head: Head { number: 0, sha256: [0; 32].into() },
            release_public: release_key(false),
            ca: pki.ca_pem.clone(),
            servers: vec!["https://verifier.example:8443".into()],
        };
        let made = common::record::node(&id.to_string(), &registration.label);
        let summary = NodeSummary { state: NodeState::Registered, ..made.summary.clone() };
        let record = NodeRecord { summary, registration: Some(registration), ..made };
        let take = |record: &mut NodeRecord, enroll: Enroll| {
            record.enrollment = Some(enroll.signed);
            record.summary.state = NodeState::Enrolling;
        };
        Self { id, info, record, sequence: vec![], take }
    }

    /// What the machine sent, as the server shows it.
    fn sent(&mut self) -> &mut Register {
        self.record.registration.as_mut().unwrap()
    }

    fn serve(self, pki: &Pki) -> (Server, Arc<Mutex<ServerState>>) {
        let server_state = Arc::new(Mutex::new(self));
        let shared = server_state.clone();
        let server =
            Server::start(pki, move |request| shared.lock().unwrap().answer(&request.path, &request.body));
        (server, server_state)
    }

    fn answer(&mut self, path: &str, body: &[u8]) -> Answer {
        match path.trim_start_matches("/v1/operator/") {
            "info" => json(&self.info),
            path if path.starts_with("nodes?name=") => {
                json(&serde_json::json!({ "nodes": [self.record.summary] }))
            }
            path if path.starts_with("sequence?after=") => {
                let after: usize = path["sequence?after=".len()..].parse().unwrap();
                json(&SequencePart { documents: self.sequence[after..].to_vec() })
            }
            path if path.ends_with("/enrollment") => {
                let enroll: Enroll = serde_json::from_slice(body).unwrap();
                let place = open(&enroll.signed).unwrap().place;
                self.info.head = Head { number: place.number, sha256: place.sha256.into() };
                self.sequence.push(enroll.signed.clone());
                (self.take)(&mut self.record, enroll);
                json(&self.record)
            }
            path if path == format!("nodes/{}", self.id) => json(&self.record),
            other => panic!("{other}"),
        }
    }
}

fn posted(server: &Server) -> Vec<Enroll> {
    let seen = server.seen.lock().unwrap();
    seen.iter().filter(|r| r.method == "POST").map(|r| serde_json::from_slice(&r.body).unwrap()).collect()
}

#[test]
fn the_tpm_and_only_it_gets_both_halves_of_the_signed_key() {
    let (pki, tpm) = (Pki::new(), Tpm::new(RSA_2048));
    let (server, _) = ServerState::new(&pki, tpm.node_id(), tpm.register.clone()).serve(&pki);
    let workstation = Workstation::logged_in(&pki.bundle(&[server.url()]));
    let roots = tpm.ca();
    let args =
        ["enroll", "web1", "--ek-roots", roots.to_str().unwrap(), "--label", "Web 1", "--yes", "--json"];
    let ran = workstation.ok(&args);
    assert!(ran.stderr.contains(&tpm.fingerprint()), "{ran:?}");
    assert!(ran.stderr.contains("signkey.pem: no certificate in it"), "what was skipped is said: {ran:?}");
    let record: NodeRecord = serde_json::from_str(&ran.stdout).unwrap();

    let enroll = posted(&server).remove(0);
    assert_eq!(record.enrollment.as_ref(), Some(&enroll.signed));
    let (opened, document) = open_enrollment(&enroll.signed).unwrap();
    let key = workstation.ok(&["key"]).stdout;
    assert_eq!(halfkey_protocol::identity::fingerprint(enroll.signed.tenant_key()), key.trim());
    assert_eq!((document.label.as_str(), document.bank.as_str()), ("Web 1", "sha256"));
    assert_eq!((opened.scope, opened.deployment), (Scope::Enrollment(tpm.node_id()), HERE));
    assert_eq!((document.ca.as_str(), &document.release_public), (pki.ca_pem.as_str(), &release_key(false)));
    assert_eq!(document.servers, ["https://verifier.example:8443"]);
    assert_eq!(document.c_u_sha256.as_ref(), credential_digest(&enroll.c_u));
    assert_eq!(document.c_v_sha256.as_ref(), credential_digest(&enroll.c_v));
    for (name, public) in [
        (&document.ek_name, &tpm.register.ek_public),
        (&document.ak_name, &tpm.register.ak_public),
        (&document.srk_name, &tpm.register.srk_public),
    ] {
        assert_eq!(Some(name.to_vec()), halfkey_protocol::tpm::name::object_name(public));
    }

    // The TPM itself opens both, and together they are the key that was signed.
    let u = Half::take(&mut tpm.activate_with_ek(&enroll.c_u)).unwrap();
    let v = Half::take(&mut tpm.activate_with_srk(&enroll.c_v)).unwrap();
    assert_ne!(u.expose(), v.expose());
    assert_eq!(document.proof_sha256.as_ref(), proof_digest(&Key::combine(&u, &v).proof()));

    // Again: another key, another enrollment.
    let ran = workstation.ok(&args);
    assert!(ran.stderr.contains("was enrolled before"), "{ran:?}");
    let again = posted(&server).remove(1);
    let (_, again_document) = open_enrollment(&again.signed).unwrap();
    assert_ne!(again_document.enrollment_id, document.enrollment_id);
    assert_ne!(again_document.proof_sha256, document.proof_sha256);
}

#[test]
fn an_ecc_ek_is_trusted_by_chain_or_by_fingerprint() {
    let (pki, tpm, stranger) = (Pki::new(), Tpm::new(ECC_P384), Tpm::new(RSA_2048));
    let id = tpm.node_id().to_string();
    let (server, _) = ServerState::new(&pki, tpm.node_id(), tpm.register.clone()).serve(&pki);
    let workstation = Workstation::logged_in(&pki.bundle(&[server.url()]));
    let roots = |tpm: &Tpm| tpm.ca().to_str().unwrap().to_owned();
    workstation.ok(&["enroll", &id[..9], "--ek-roots", &roots(&tpm), "--yes"]);
    let typed = tpm.fingerprint().to_uppercase();
    workstation.ok(&["enroll", &id, "--trust-ek", &typed, "--yes", "--bank", "sha384"]);
    assert_eq!(open_enrollment(&posted(&server)[1].signed).unwrap().1.bank, "sha384");

    // Another manufacturer's roots, another machine's fingerprint.
    for args in [["--ek-roots", &roots(&stranger)], ["--trust-ek", &stranger.fingerprint()]] {
        let ran = workstation.run(&[&["enroll", "web1", "--yes"], &args[..]].concat());
        assert_eq!(ran.code, 6, "{ran:?}");
        assert!(ran.stderr.contains("hint:"), "{ran:?}");
    }
    // No certificates in the folder, or no folder.
    let empty = workstation.path("empty");
    fs::create_dir(&empty).unwrap();
    fs::write(empty.join("README"), "none").unwrap();
    for folder in [empty.to_str().unwrap(), "/nonexistent"] {
        assert_eq!(workstation.run(&["enroll", "web1", "--yes", "--ek-roots", folder]).code, 2);
    }
    assert_eq!(posted(&server).len(), 2);
}

#[test]
fn what_a_lying_server_says_is_refused_here() {
    let (pki, tpm, evil) = (Pki::new(), Tpm::new(RSA_2048), Tpm::new(RSA_2048));
    let (id, other_ca) = (tpm.node_id(), Pki::new().ca_pem);
    let honest = ServerState::new(&pki, id, tpm.register.clone());
    let stolen = evil.register.clone();
    type Lie<'a> = (&'a str, Box<dyn Fn(&mut ServerState) + 'a>);
    let lies: Vec<Lie> = vec![
        ("another TPM under this id", Box::new(|w| w.record.registration = Some(stolen.clone()))),
        ("another node's record", Box::new(|w| w.record.summary.id = evil.node_id().to_string())),
        ("the EK of another TPM", Box::new(|w| w.sent().ek_public = stolen.ek_public.clone())),
        (
            "an EK that can be factored",
            Box::new(|w| {
                let digits: String =
                    include_str!("../../evidence/tests/fixtures/roca.hex").split_whitespace().collect();
                let public = &mut w.sent().ek_public.0;
                let from = public.len() - 256;
                for (byte, at) in public[from..].iter_mut().zip((0..512).step_by(2)) {
                    *byte = u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
                }
            }),
        ),
        ("the AK of another TPM", Box::new(|w| w.sent().ak_public = stolen.ak_public.clone())),
        (
            "an SRK that the AK did not certify",
            Box::new(|w| {
                w.sent().srk_public = stolen.srk_public.clone();
            }),
        ),
        (
            "the certificate of another EK",
            Box::new(|w| {
                w.sent().ek_certificate = stolen.ek_certificate.clone();
            }),
        ),
        ("no certificate", Box::new(|w| w.sent().ek_certificate = None)),
        (
            "a damaged certificate",
            Box::new(|w| {
                let der = w.sent().ek_certificate.clone().unwrap();
                w.sent().ek_certificate = Some(flipped(&der, 700));
            }),
        ),
        (
            "an SRK with other attributes",
            Box::new(|w| {
                w.sent().srk_public = flipped(&tpm.register.srk_public, 7);
            }),
        ),
        ("another CA for the nodes", Box::new(|w| w.info.ca = other_ca.clone())),
        ("two CAs for the nodes", Box::new(|w| w.info.ca = format!("{}{other_ca}", pki.ca_pem))),
        ("a release key of another kind", Box::new(|w| w.info.release_public.0[4] ^= 1)),
        ("a release key that is no point", Box::new(|w| *w.info.release_public.0.last_mut().unwrap() ^= 1)),
        ("a plain URL for the nodes", Box::new(|w| w.info.servers = vec!["http://verifier".into()])),
        ("no URL for the nodes", Box::new(|w| w.info.servers.clear())),
        (
            "another enrollment in place of ours",
            Box::new(|w| {
                w.take = |record, mut enroll| {
                    enroll.signed.signatures[0].signature.0[0] ^= 1;
                    record.enrollment = Some(enroll.signed);
                }
            }),
        ),
    ];
    let roots = tpm.ca();
    let mut said = String::new();
    for (title, lie) in lies {
        let mut server_state = honest.clone();
        lie(&mut server_state);
        let (server, _) = server_state.serve(&pki);
        let workstation = Workstation::logged_in(&pki.bundle(&[server.url()]));
        let args = ["enroll", &id.to_string(), "--ek-roots", roots.to_str().unwrap(), "--yes"];
        let (code, stderr) = workstation.error(&args, server.port);
        let stderr: String = stderr
            .lines()
            .filter(|l| l.starts_with("error:") || l.starts_with("hint:"))
            .fold(String::new(), |text, line| text + line + "\n");
        let stderr = [(id, "NODE"), (evil.node_id(), "OTHER")]
            .iter()
            .fold(stderr, |text, (id, name)| text.replace(&id.to_string(), name));
        said.push_str(&format!("# {title}: exit {code}\n{stderr}\n"));
        let expected = usize::from(title.starts_with("another enrollment"));
        assert_eq!((code, posted(&server).len()), (6, expected), "{title}: {stderr}");
    }
    let said: String = said.lines().map(|line| format!("{}\n", hide_details(line))).collect();
    golden::check("lying-server.txt", &said);
}

#[test]
fn an_enrollment_answers_what_the_machine_asked_last() {
    let (pki, tpm) = (Pki::new(), Tpm::new(RSA_2048));
    let (server, server_state) = ServerState::new(&pki, tpm.node_id(), tpm.register.clone()).serve(&pki);
    let workstation = Workstation::logged_in(&pki.bundle(&[server.url()]));
    let fingerprint = tpm.fingerprint();
    let args = ["enroll", "web1", "--trust-ek", &fingerprint, "--yes"];
    for short in [vec![], vec![0x33; 31], vec![0x33; 33]] {
        server_state.lock().unwrap().record.challenge = short.into();
        let ran = workstation.run(&args);
        assert!(ran.code != 0 && ran.stderr.contains("expected a challenge"), "{}", ran.stderr);
    }
    assert!(posted(&server).is_empty());
    for challenge in [[1; 32], [2; 32]] {
        server_state.lock().unwrap().record.challenge = challenge.into();
        let said = workstation.ok(&args).stderr;
        assert!(!said.contains("has not registered since"), "{said}");
        let (_, enrollment) = open_enrollment(&posted(&server).pop().unwrap().signed).unwrap();
        assert_eq!(*enrollment.challenge, challenge);
        server_state.lock().unwrap().record.summary.state = NodeState::Enrolled;
    }
    let said = workstation.ok(&args).stderr;
    assert!(said.contains("has not registered since"), "{said}");
}

#[test]
fn with_the_ak_and_srk_of_another_tpm_u_opens_nowhere() {
    // Only the activation at registration binds an AK to its EK, and a lying registrar can skip
    // that. It gains nothing: U is for the EK of one TPM and the AK of another.
    let (pki, tpm, evil) = (Pki::new(), Tpm::new(RSA_2048), Tpm::new(RSA_2048));
    let register = Register {
        ek_public: tpm.register.ek_public.clone(),
        ek_certificate: tpm.register.ek_certificate.clone(),
        ..evil.register.clone()
    };
    let (server, _) = ServerState::new(&pki, tpm.node_id(), register).serve(&pki);
    let workstation = Workstation::logged_in(&pki.bundle(&[server.url()]));
    workstation.ok(&["enroll", "web1", "--ek-roots", tpm.ca().to_str().unwrap(), "--yes"]);
    let enroll = posted(&server).remove(0);
    assert!(tpm.try_with_ek(&enroll.c_u).is_err());
    assert!(evil.try_with_ek(&enroll.c_u).is_err());
}

/// What comes after the reason is the evidence crate's wording, and has digests in it.
fn hide_details(line: &str) -> &str {
    line.split_once(": expected ")
        .filter(|_| line.contains(" EK ") || line.contains(" AK ") || line.contains(" SRK "))
        .map_or(line, |(reason, _)| reason)
}

#[test]
fn a_changed_release_key_is_refused_until_it_is_named() {
    let (pki, tpm) = (Pki::new(), Tpm::new(RSA_2048));
    let (server, server_state) = ServerState::new(&pki, tpm.node_id(), tpm.register.clone()).serve(&pki);
    let workstation = Workstation::logged_in(&pki.bundle(&[server.url()]));
    let fingerprint = tpm.fingerprint();
    let args = ["enroll", "web1", "--trust-ek", &fingerprint, "--yes"];
    workstation.ok(&args);
    server_state.lock().unwrap().info.release_public = release_key(true);
    let (code, said) = workstation.error(&args, server.port);
    golden::check("release-key-changed.txt", &said);
    assert_eq!(code, 6);

    let new = halfkey_protocol::identity::fingerprint(&release_key(true));
    let old = halfkey_protocol::identity::fingerprint(&release_key(false));
    assert_eq!(workstation.run(&[&args[..], &["--trust-release", &old]].concat()).code, 6);
    workstation.ok(&[&args[..], &["--trust-release", &new]].concat());
    workstation.ok(&args);
    // A new login keeps the memory.
    assert_eq!(workstation.login(&pki.bundle(&[server.url()]), &[]).code, 0);
    server_state.lock().unwrap().info.release_public = release_key(false);
    assert_eq!(workstation.run(&args).code, 6);
    assert_eq!(posted(&server).len(), 3);
}

#[test]
fn labels_and_questions() {
    let (pki, tpm) = (Pki::new(), Tpm::new(RSA_2048));
    let mut register = tpm.register.clone();
    register.label = "web\u{1b}[2J".into();
    let (server, _) = ServerState::new(&pki, tpm.node_id(), register).serve(&pki);
    let workstation = Workstation::logged_in(&pki.bundle(&[server.url()]));
    let (id, fingerprint) = (tpm.node_id().to_string(), tpm.fingerprint());
    let args = ["enroll", &id, "--trust-ek", &fingerprint];
    let ran = workstation.run(&[&args[..], &["--yes"]].concat());
    assert_eq!((ran.code, ran.stderr.contains('\u{1b}')), (2, false), "{ran:?}");
    let ran = workstation.run(&[&args[..], &["--label", "web1"]].concat());
    assert_eq!(ran.code, 2, "no terminal to ask on: {ran:?}");
    assert!(ran.stderr.contains("--yes") && ran.stderr.contains(&fingerprint), "{ran:?}");
    assert_eq!(posted(&server).len(), 0);
    // `node show` needs nothing but the bundle, and checks too.
    assert!(workstation.ok(&["node", "show", &id]).stdout.contains("the AK certified the SRK"));
}
