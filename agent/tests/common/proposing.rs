//! An enrolled machine that proposes, and a verifier that checks what it is sent.

#![allow(clippy::unwrap_used, dead_code, reason = "a test that fails here should say where")]

use crate::common::swtpm::Swtpm;
use crate::server::{Answer, TestServer};
use crate::volume::{self, Volume};
use halfkey_agent::enroll::bind;
use halfkey_agent::luks::Token;
use halfkey_agent::luks::cryptsetup::Existing;
use halfkey_agent::net::Server;
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::tpm::kdf::Hash;
use halfkey_protocol::tpm::qualifying_data::QualifyingData;
use halfkey_protocol::{Bytes, NodeId};
use halfkey_testkit::pki::Pki;
use halfkey_testkit::uki;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};

const NONCE: &[u8] = b"a nonce";

/// An enrolled machine: TPM, volume, and where its boot loader's files are.
pub struct Machine {
    pub swtpm: Swtpm,
    pub volume: Volume,
    pub node: NodeId,
    pub ak: Vec<u8>,
    pub srk_name: Vec<u8>,
    pub esp: tempfile::TempDir,
}

/// How the agent ended.
pub struct Ended {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Machine {
    pub fn enrolled_at(url: &str, ca: &str) -> Self {
        let swtpm = Swtpm::start();
        let mut tpm = swtpm.open();
        let node = NodeId::from_ek_name(&tpm.endorsement_key().unwrap().object.name);
        let (ak, srk) = (tpm.attestation_key().unwrap(), tpm.storage_key(None).unwrap());
        drop(tpm);
        let volume = Volume::new();
        let token = Token {
            node,
            servers: vec![Server::parse(url).unwrap()],
            ca: ca.into(),
            srk_name: srk.name.clone(),
            bank: PcrBank::Sha384,
            ..volume::token(0)
        };
        bind::bind(volume.path(), &token, &volume::key(), &Existing::File(volume.key_file())).unwrap();
        let esp = tempfile::tempdir().unwrap();
        Self { swtpm, volume, node, ak: ak.public, srk_name: srk.name, esp }
    }

    /// The same, with a UKI for kernel 6.1.0-56 in place. The kernel in it is another image of its size.
    pub fn with_uki(self) -> Self {
        let folder = self.esp.path().join("EFI/Linux");
        std::fs::create_dir_all(&folder).unwrap();
        // What is in it, also as files of its own.
        for (name, content) in [("osrel", "ID=halfkey-test\n"), ("initrd", "an initramfs")] {
            std::fs::write(self.esp.path().join(name), content).unwrap();
        }
        uki::make(&folder.join("tok-6.1.0-56.efi"), "root=/dev/x quiet\n", b"an initramfs");
        self
    }

    pub fn uki(&self) -> PathBuf {
        self.esp.path().join("EFI/Linux/tok-6.1.0-56.efi")
    }

    pub fn propose(&self, args: &[&str]) -> Ended {
        let mut all = vec!["propose", "--device", self.volume.path().to_str().unwrap()];
        all.extend(["--boot-root", self.esp.path().to_str().unwrap()]);
        all.extend(args);
        agent(&self.swtpm, &all)
    }
}

pub fn agent(swtpm: &Swtpm, args: &[&str]) -> Ended {
    let output = Command::new(env!("CARGO_BIN_EXE_halfkey-agent"))
        .args(args)
        .env("HALFKEY_TPM", swtpm.location().to_string())
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

/// A verifier that gives a nonce, keeps what is proposed, and gives the answers in turn; the last one again and again.
pub struct Verifier {
    pub server: TestServer,
    pki: Pki,
    pub proposed: Arc<Mutex<Vec<Value>>>,
}

impl Verifier {
    pub fn answering(answers: &[Value]) -> Self {
        let answers: Vec<Value> = answers.to_vec();
        let proposed: Arc<Mutex<Vec<Value>>> = Arc::default();
        let kept = proposed.clone();
        let judge = move |path: &str, body: &[u8]| {
            let body: Value = serde_json::from_slice(body).unwrap();
            match path {
                "/v1/begin" => {
                    let purpose = body["purpose"].as_str().unwrap();
                    let nonce = Bytes::from(NONCE).encode();
                    assert_eq!(purpose, "propose");
                    (200, json!({"version": 1, "nonce": nonce, "bank": "sha256"}).to_string())
                }
                "/v1/propose" => {
                    let mut kept = kept.lock().unwrap();
                    kept.push(body);
                    let answer = answers.get(kept.len() - 1).or(answers.last()).unwrap();
                    (if answer["outcome"].is_string() { 200 } else { 403 }, answer.to_string())
                }
                _ => (404, "{}".into()),
            }
        };
        let pki = Pki::new();
        let server = TestServer::start(&pki, "127.0.0.1", Answer::By(Arc::new(judge)));
        Self { server, pki, proposed }
    }

    pub fn machine(&self) -> Machine {
        Machine::enrolled_at(&self.server.url(), &self.pki.ca_pem).with_uki()
    }

    /// What was proposed last, after its quote was checked; and PCR 15.
    pub fn checked(&self, machine: &Machine) -> (Value, Vec<u8>) {
        let message = self.proposed.lock().unwrap().last().unwrap().clone();
        let bytes = |value: &Value| Bytes::decode(value.as_str().unwrap()).unwrap().0;
        let (evidence, proposal) = (&message["evidence"], bytes(&message["proposal"]));
        let qualifying = QualifyingData {
            version: 1,
            node: &machine.node.0,
            purpose: halfkey_protocol::wire::Purpose::Propose,
            nonce: NONCE,
            hpke_public: &[],
            nonce_tpm: &[],
            srk_name: &machine.srk_name,
            purpose_data: &Hash::Sha256.digest(&[&proposal]),
        };
        let quote = bytes(&evidence["quote"]);
        assert!(machine.swtpm.oracle_accepts(&machine.ak, &quote, &bytes(&evidence["signature"])));
        assert!(quote.windows(32).any(|part| part == qualifying.digest()));
        assert_eq!(bytes(&evidence["purpose_data"]), Hash::Sha256.digest(&[&proposal]));
        assert_eq!(
            (&evidence["bank"], &evidence["hpke_public"], &evidence["nonce_tpm"]),
            (&json!("sha256"), &json!(""), &json!(""))
        );
        (serde_json::from_slice(&proposal).unwrap(), bytes(&evidence["pcrs"][15]))
    }
}

pub fn accepted() -> Value {
    json!({"outcome": "accepted", "message": "boot \"6.1.0-56\" by its hash", "proposal_id": 7})
}

pub fn refused(code: &str) -> Value {
    json!({"outcome": "refused", "code": code, "message": "no", "hint": "reboot"})
}
