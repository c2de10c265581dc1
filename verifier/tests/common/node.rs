//! The dialogue of a node and its tenant, with a real TPM.

use super::rig::{RSA_EK, Swtpm, all_pcrs};
use super::{get, path, post};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use halfkey_evidence::{credential, registration};
use halfkey_protocol::hpke::{Ephemeral, Released};
use halfkey_protocol::kdf::Hash;
use halfkey_protocol::qualify::Qualifier;
use halfkey_protocol::wire::operator::{Approve, Enroll, NodeRecord, ServerInfo};
use halfkey_protocol::wire::{
    Activate, Activated, Begin, Begun, Enrollment, Finish, Problem, Prove, Proved, Register, Registered,
    SignedEnrollment, Verdict, credential_digest, signed_bytes,
};
use halfkey_protocol::{Half, Key, NodeId, half};
use halfkey_verifier::client::Client;

/// A machine: a TPM with keys, and what its agent would do.
pub struct Node {
    pub tpm: Swtpm,
    pub register: Register,
    pub id: NodeId,
    pub tenant: Ed25519KeyPair,
}

/// What one attestation needs besides the TPM.
pub struct Session {
    pub ephemeral: Ephemeral,
    pub nonce_tpm: Vec<u8>,
    pub r_sha256: Vec<u8>,
    pub begun: Begun,
}

/// K with what it was made from, for the checks of a test only.
pub struct Halves {
    pub key: Key,
    pub enrollment_id: String,
}

impl Node {
    pub fn new() -> Self {
        let tpm = Swtpm::start();
        tpm.make_keys();
        tpm.separators();
        let register = tpm.register(RSA_EK.0, Some(RSA_EK.1));
        let id = registration::check(&register).unwrap().node_id();
        Self { tpm, register, id, tenant: Ed25519KeyPair::generate().unwrap() }
    }

    /// Register and activate.
    pub async fn register(&self, server: &Client) -> Result<(), Problem> {
        let registered: Registered = post(server, "/v1/register", &self.register).await?;
        assert_eq!(registered.node_id, self.id.to_string());
        let secret = self.tpm.activate(&registered.credential, RSA_EK.0, true).expect("our own credential");
        self.activate(server, &half::activation_proof(&secret, &self.id.0)).await
    }

    pub async fn activate(&self, server: &Client, proof: &[u8; 32]) -> Result<(), Problem> {
        let message = Activate { node_id: self.id.to_string(), proof: (*proof).into() };
        post::<Activated>(server, "/v1/activate", &message).await.map(|_| ())
    }

    /// What a tenant sends.
    pub async fn enrollment(&self, operator: &Client, enrollment_id: &str) -> (Enroll, Halves) {
        let info: ServerInfo = get(operator, "/v1/operator/info").await.unwrap();
        let record: NodeRecord = get(operator, &path(self.id, "")).await.unwrap();
        let checked = registration::check(&record.registration).unwrap();
        let (u, v) = (Half::random().unwrap(), Half::random().unwrap());
        let key = Key::combine(&u, &v);
        let c_u = credential::make_for_ek(checked.ek(), checked.ak_name(), u.expose()).unwrap();
        let c_v = credential::make_for_srk(&checked, checked.ak_name(), v.expose()).unwrap();
        let document = Enrollment {
            version: 1,
            node_id: self.id.to_string(),
            enrollment_id: enrollment_id.to_owned(),
            ek_name: checked.ek_name().into(),
            ak_name: checked.ak_name().into(),
            srk_name: checked.srk_name().into(),
            c_u_sha256: credential_digest(&c_u).into(),
            c_v_sha256: credential_digest(&c_v).into(),
            release_public: info.release_public,
            bank: "sha256".into(),
            proof_sha256: half::proof_digest(&key.proof()).into(),
            ca: info.ca,
            servers: info.servers,
            label: "web1".into(),
            created: 0,
        };
        let enroll = Enroll { signed: self.sign(&document), c_u, c_v };
        (enroll, Halves { key, enrollment_id: enrollment_id.to_owned() })
    }

    pub fn sign(&self, document: &Enrollment) -> SignedEnrollment {
        let document = serde_json::to_vec(document).unwrap();
        SignedEnrollment {
            tenant_key: self.tenant.public_key().as_ref().into(),
            signature: self.tenant.sign(&signed_bytes(&document)).as_ref().into(),
            document: document.into(),
        }
    }

    /// Tenant and node, up to the proof. The node's K is the tenant's.
    pub async fn enroll(&self, server: &Client, operator: &Client, enrollment_id: &str) -> Halves {
        let (enroll, halves) = self.enrollment(operator, enrollment_id).await;
        let _: NodeRecord = post(operator, &path(self.id, "/enrollment"), &enroll).await.unwrap();
        let (session, verdict) = self.attest(server, "enroll").await.unwrap();
        assert_eq!(verdict.outcome, "released", "{verdict:?}");
        let released = self.open("enroll", &session, &verdict);
        let mut u = self.tpm.activate(released.c_u.as_ref().unwrap(), RSA_EK.0, true).unwrap();
        let mut v = self.tpm.activate(&released.c_v, "srk.ctx", false).unwrap();
        let key = Key::combine(&Half::take(&mut u).unwrap(), &Half::take(&mut v).unwrap());
        assert_eq!(key.proof(), halves.key.proof());
        self.prove(server, &halves).await.unwrap();
        halves
    }

    pub async fn prove(&self, server: &Client, halves: &Halves) -> Result<Proved, Problem> {
        let message = Prove {
            node_id: self.id.to_string(),
            enrollment_id: halves.enrollment_id.clone(),
            proof: halves.key.proof().into(),
        };
        post(server, "/v1/prove", &message).await
    }

    pub async fn begin(&self, server: &Client, purpose: &str) -> Result<Session, Problem> {
        let message = Begin { versions: vec![1], node_id: self.id.to_string(), purpose: purpose.to_owned() };
        let begun: Begun = post(server, "/v1/begin", &message).await?;
        let boot = purpose == "boot";
        Ok(Session {
            ephemeral: Ephemeral::generate(),
            nonce_tpm: if boot { vec![4; 32] } else { vec![] },
            r_sha256: if boot { vec![6; 32] } else { vec![] },
            begun,
        })
    }

    /// Evidence for a session.
    pub fn evidence(&self, purpose: &str, session: &Session) -> Finish {
        let bank = Hash::from_name(&session.begun.bank).unwrap();
        let digest = self.qualifier(purpose, session);
        let (quote, signature) = self.tpm.quote(&all_pcrs(bank), &digest);
        Finish {
            version: session.begun.version,
            node_id: self.id.to_string(),
            purpose: purpose.to_owned(),
            nonce: session.begun.nonce.clone(),
            hpke_public: session.ephemeral.public.into(),
            nonce_tpm: session.nonce_tpm.clone().into(),
            r_sha256: session.r_sha256.clone().into(),
            quote: quote.into(),
            signature: signature.into(),
            bank: bank.name().to_owned(),
            pcrs: self.tpm.pcrs(bank),
            event_log: None,
            userspace_log: None,
            ima_log: None,
            command_line: None,
            agent: "test".to_owned(),
        }
    }

    pub fn qualifier(&self, purpose: &str, session: &Session) -> [u8; 32] {
        let checked = registration::check(&self.register).unwrap();
        Qualifier {
            version: session.begun.version,
            node: &self.id.0,
            purpose,
            nonce: &session.begun.nonce,
            hpke_public: &session.ephemeral.public,
            nonce_tpm: &session.nonce_tpm,
            srk_name: checked.srk_name(),
            r_sha256: &session.r_sha256,
        }
        .digest()
    }

    /// Begin and finish.
    pub async fn attest(&self, server: &Client, purpose: &str) -> Result<(Session, Verdict), Problem> {
        let session = self.begin(server, purpose).await?;
        let evidence = self.evidence(purpose, &session);
        let verdict = post(server, "/v1/finish", &evidence).await?;
        Ok((session, verdict))
    }

    /// A boot's verdict.
    pub async fn boot(&self, server: &Client) -> Verdict {
        self.attest(server, "boot").await.unwrap().1
    }

    pub fn open(&self, purpose: &str, session: &Session, verdict: &Verdict) -> Released {
        let aad = self.qualifier(purpose, session);
        session.ephemeral.open(verdict.sealed.as_ref().unwrap(), &aad).expect("sealed to this session")
    }

    /// Approves what waits.
    pub async fn approve(&self, operator: &Client, once: bool) -> Result<NodeRecord, Problem> {
        let record: NodeRecord = get(operator, &path(self.id, "")).await.unwrap();
        let ticket = record.pending.expect("a boot that waits").ticket;
        post(operator, &path(self.id, "/approve"), &Approve { ticket, once }).await
    }

    /// Power off and on: PCRs are zero, resetCount grows, transient keys are made again.
    pub fn reboot(&self) {
        // The control channel of swtpm is the port after the TPM's own.
        let reset = "tpm2_shutdown -c && port=${TPM2TOOLS_TCTI##*=} \
            && swtpm_ioctl --tcp 127.0.0.1:$((port + 1)) -i && tpm2_startup -c";
        self.tpm.tool("sh", &["-c", reset]);
        self.tpm.make_keys();
        self.tpm.separators();
    }
}

/// `outcome code` of a verdict.
pub fn said(verdict: &Verdict) -> String {
    match &verdict.code {
        Some(code) => format!("{} {code}", verdict.outcome),
        None => verdict.outcome.clone(),
    }
}
