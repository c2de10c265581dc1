//! A node without an agent: a TPM, and what an agent would say to registrar and verifier. It makes messages and reads answers;
//! the tests of a crate carry them, each over the client that it has.

use crate::software::Software;
use crate::tpm::Tpm;
use halfkey_protocol::identity::sha256;
use halfkey_protocol::keys::half;
use halfkey_protocol::keys::hpke::{Ephemeral, Released};
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::tpm::kdf::Hash;
use halfkey_protocol::tpm::name::object_name;
use halfkey_protocol::tpm::qualifying_data::{QualifyingData, Wanted};
use halfkey_protocol::wire::{
    Activate, Begin, Begun, Credential, Document, Enrollment, Evidence, Propose, Prove, Purpose, Register,
    Registered, SignedDocument, Verdict,
};
use halfkey_protocol::{Bytes, Half, Key, NodeId};
use std::sync::Mutex;

/// What a node wants to see in its enrollment, where a test does not say another.
pub const CHALLENGE: [u8; 32] = [0x33; 32];

/// Of every boot.
pub const R: &[u8] = &[6; 32];

/// What does the work of a node's TPM.
pub trait Attester {
    /// AK's quote of PCR 0 to 15: `TPMS_ATTEST` and `TPMT_SIGNATURE`.
    fn quote(&self, bank: PcrBank, qualifying: &[u8; 32]) -> (Vec<u8>, Vec<u8>);
    /// PCR 0 to 15.
    fn pcrs(&self, bank: PcrBank) -> Vec<Bytes>;
    /// TPM2_ActivateCredential with the EK.
    fn activate_with_ek(&self, credential: &Credential) -> Vec<u8>;
}

impl Attester for Tpm {
    fn quote(&self, bank: PcrBank, qualifying: &[u8; 32]) -> (Vec<u8>, Vec<u8>) {
        Tpm::quote(self, bank, qualifying)
    }
    fn pcrs(&self, bank: PcrBank) -> Vec<Bytes> {
        Tpm::pcrs(self, bank)
    }
    fn activate_with_ek(&self, credential: &Credential) -> Vec<u8> {
        Tpm::activate_with_ek(self, credential)
    }
}

/// A machine: a TPM with keys, and what its agent would do.
pub struct SimulatedNode<T = Tpm> {
    /// Its TPM.
    pub tpm: T,
    /// What it registers with.
    pub register: Register,
    /// By its EK.
    pub id: NodeId,
    /// What it made for the enrollment that it waits for.
    challenge: Mutex<[u8; 32]>,
    /// What it has booted; none if nothing was measured.
    software: Mutex<Option<Software>>,
    /// SHA-256 of the last proof of K that it gave.
    proof_sha256: Mutex<[u8; 32]>,
    /// What opens the fence, since a boot was released.
    opening: Mutex<Option<[u8; 32]>>,
}

/// What one attestation needs besides the TPM.
pub struct Session {
    /// What V is sealed to.
    pub ephemeral: Ephemeral,
    /// Of the session that unseals U, in a boot.
    pub nonce_tpm: Vec<u8>,
    /// The last thing that the quote commits to.
    pub purpose_data: Vec<u8>,
    /// The answer to `begin`.
    pub begun: Begun,
}

impl SimulatedNode {
    /// That has measured nothing.
    pub fn powered_on(tpm: Tpm) -> Self {
        let register = tpm.register.clone();
        Self::new(tpm, register)
    }

    /// Whose TPM was reset, and that has booted this.
    pub fn booted(tpm: Tpm, software: &Software) -> Self {
        let node = Self::powered_on(tpm);
        software.measure(&node.tpm);
        node.has_booted(software);
        node
    }

    /// With a copy of this one's TPM, after that was powered on with the same software.
    pub fn copied(&self) -> Self {
        let node = Self::new(self.tpm.copied(), self.register.clone());
        if let Some(software) = self.software() {
            software.measure(&node.tpm);
            node.has_booted(&software);
        }
        node
    }

    /// Off and on, with this software.
    pub fn reboot_into(&self, software: &Software) {
        self.tpm.reset();
        software.measure(&self.tpm);
        self.has_booted(software);
    }

    /// Off and on, with the same software.
    pub fn reboot(&self) {
        self.reboot_into(&self.software().expect("it has booted something"));
    }

    /// Extends the fence as an agent does that opened its volumes: with what came with the last release.
    pub fn open_fence(&self) {
        let event = self.opening.lock().unwrap().expect("a boot that was released");
        self.tpm.measure(15, &event);
    }

    /// K, from what an enrollment released.
    pub fn key(&self, released: &Released) -> Key {
        let mut u = self.tpm.activate_with_ek(released.c_u.as_ref().expect("C_U"));
        let mut v = self.tpm.activate_with_srk(&released.c_v);
        Key::combine(&Half::take(&mut u).expect("U"), &Half::take(&mut v).expect("V"))
    }
}

impl<T: Attester> SimulatedNode<T> {
    /// That has booted nothing, with the keys of this registration.
    pub fn new(tpm: T, register: Register) -> Self {
        let id = NodeId::from_ek_name(&object_name(&register.ek_public).expect("an EK"));
        Self {
            tpm,
            register,
            id,
            challenge: Mutex::new(CHALLENGE),
            software: Mutex::default(),
            proof_sha256: Mutex::default(),
            opening: Mutex::default(),
        }
    }

    /// The answer to a registrar's challenge, with the node's own.
    pub fn activation(&self, registered: &Registered, challenge: [u8; 32]) -> Activate {
        assert_eq!(registered.node_id, self.id.to_string());
        let secret = self.tpm.activate_with_ek(&registered.credential);
        self.activate(&registered.state, challenge, &half::activation_proof(&secret, &self.id.0, &challenge))
    }

    /// The same with this proof.
    pub fn activate(&self, state: &Bytes, challenge: [u8; 32], proof: &[u8; 32]) -> Activate {
        Activate {
            register: self.register.clone(),
            state: state.clone(),
            challenge: challenge.into(),
            proof: (*proof).into(),
        }
    }

    /// It waits for an enrollment with this challenge from now on.
    pub fn wants(&self, challenge: [u8; 32]) {
        *self.challenge.lock().unwrap() = challenge;
    }

    /// What its log and command line say from now on.
    pub fn has_booted(&self, software: &Software) {
        *self.software.lock().unwrap() = Some(software.clone());
    }

    /// What it has booted.
    pub fn software(&self) -> Option<Software> {
        self.software.lock().unwrap().clone()
    }

    /// `begin`, with these enrollments on its disks.
    pub fn begin(&self, purpose: &str, enrollments: &[&str]) -> Begin {
        Begin {
            versions: vec![1],
            node_id: self.id.to_string(),
            purpose: purpose.to_owned(),
            enrollments: enrollments.iter().map(|id| (*id).to_owned()).collect(),
        }
    }

    /// What comes after it. Its operator told it the fingerprint of its tenant's key.
    pub fn session(&self, purpose: &str, begun: Begun, tenant_key: &[u8; 32]) -> Session {
        Session {
            ephemeral: Ephemeral::generate(),
            nonce_tpm: if purpose == "boot" { vec![4; 32] } else { vec![] },
            purpose_data: self.commits(purpose, tenant_key),
            begun,
        }
    }

    /// The last thing that a quote commits to: r, or which enrollment the node wants. A proposal comes later.
    pub fn commits(&self, purpose: &str, tenant_key: &[u8; 32]) -> Vec<u8> {
        match purpose {
            "boot" => sha256(R).to_vec(),
            "enroll" => {
                let challenge = *self.challenge.lock().unwrap();
                Wanted { tenant_key: *tenant_key, challenge }.bytes().to_vec()
            }
            _ => Vec::new(),
        }
    }

    /// Evidence for a session.
    pub fn evidence(&self, purpose: &str, session: &Session) -> Evidence {
        let bank = PcrBank::from_name(&session.begun.bank).expect("a bank");
        let (quote, signature) = self.tpm.quote(bank, &self.qualifying_data(purpose, session));
        let software = self.software();
        Evidence {
            version: session.begun.version,
            node_id: self.id.to_string(),
            purpose: purpose.to_owned(),
            nonce: session.begun.nonce.clone(),
            hpke_public: hpke_public(purpose, session).into(),
            nonce_tpm: session.nonce_tpm.clone().into(),
            purpose_data: session.purpose_data.clone().into(),
            quote: quote.into(),
            signature: signature.into(),
            bank: bank.name().to_owned(),
            pcrs: self.tpm.pcrs(bank),
            event_log: software.as_ref().map(|software| software.log().into()),
            systemd_log: None,
            ima_log: None,
            command_line: software.map(|software| software.proc_cmdline().into()),
            agent: "test".to_owned(),
        }
    }

    /// What that quote is over besides the PCRs.
    pub fn qualifying_data(&self, purpose: &str, session: &Session) -> [u8; 32] {
        QualifyingData {
            version: session.begun.version,
            node: &self.id.0,
            purpose: Purpose::parse(purpose).expect("a purpose"),
            nonce: &session.begun.nonce,
            hpke_public: hpke_public(purpose, session),
            nonce_tpm: &session.nonce_tpm,
            srk_name: &object_name(&self.register.srk_public).expect("an SRK"),
            purpose_data: &session.purpose_data,
        }
        .digest()
    }

    /// Keeps what opens the fence, if this verdict on a boot released it.
    pub fn received(&self, session: &Session, verdict: &Verdict) {
        if verdict.sealed.is_some() {
            let opening = self.open("boot", session, verdict).opening.expect("what opens the fence");
            let r_sha256 = session.purpose_data.as_slice().try_into().expect("SHA-256(r)");
            let event = opening.event_by(r_sha256, &self.proof_sha256.lock().unwrap());
            *self.opening.lock().unwrap() = Some(*event);
        }
    }

    /// What was released to this session.
    pub fn open(&self, purpose: &str, session: &Session, verdict: &Verdict) -> Released {
        let aad = self.qualifying_data(purpose, session);
        let sealed = verdict.sealed.as_ref().expect("released");
        session.ephemeral.open(sealed, &aad).expect("sealed to this session")
    }

    /// That it has K of this enrollment.
    pub fn proves(&self, enrollment_id: &str, key: &Key) -> Prove {
        *self.proof_sha256.lock().unwrap() = half::proof_digest(&key.proof());
        Prove {
            node_id: self.id.to_string(),
            enrollment_id: enrollment_id.to_owned(),
            proof: key.proof().into(),
        }
    }

    /// A proposal with its quote, which commits to these bytes.
    pub fn proposes(&self, mut session: Session, proposal: Vec<u8>) -> Propose {
        session.purpose_data = Hash::Sha256.digest(&[&proposal]);
        let evidence = Evidence { event_log: None, command_line: None, ..self.evidence("propose", &session) };
        Propose { evidence, proposal: proposal.into() }
    }
}

/// The enrollment that came with a verdict.
pub fn enrollment_of(verdict: &Verdict) -> Enrollment {
    enrollment_in(verdict.enrollment.as_ref().expect("an enrollment"))
}

/// What a tenant signed as an enrollment.
pub fn enrollment_in(signed: &SignedDocument) -> Enrollment {
    let document: Document = serde_json::from_slice(&signed.document).expect("a document");
    serde_json::from_str(&document.body).expect("an enrollment")
}

fn hpke_public<'a>(purpose: &str, session: &'a Session) -> &'a [u8] {
    if purpose == "propose" { &[] } else { &session.ephemeral.public }
}
