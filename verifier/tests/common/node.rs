//! The dialogue of a node and its tenant, with a real TPM.

use super::software::Software;
use super::{Server, get, path, post};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use halfkey_evidence::{credential, registration};
use halfkey_protocol::document::{Deployment, Kind, Place, Scope, next, signed_bytes};
use halfkey_protocol::identity::sha256;
use halfkey_protocol::keys::half;
use halfkey_protocol::keys::hpke::{Ephemeral, Released};
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::tpm::qualifying_data::{QualifyingData, Wanted};
use halfkey_protocol::wire::operator::{Approve, Enroll, NodeRecord, ServerInfo};
use halfkey_protocol::wire::policies::PolicyRecord;
use halfkey_protocol::wire::{
    Activate, Activated, Begin, Begun, Document, DocumentSignature, Enrollment, Evidence, Problem, Proposal,
    Propose, Proposed, Prove, Proved, Purpose, Register, Registered, SignedDocument, Verdict,
    credential_digest,
};
use halfkey_protocol::{Half, Key, NodeId};
use halfkey_testkit::tpm::{RSA_2048, Tpm};
use halfkey_verifier::client::Client;
use std::sync::{Arc, Mutex};

/// What a node wants to see in its enrollment, where a test does not say another.
pub const CHALLENGE: [u8; 32] = [0x33; 32];

/// A machine: a TPM with keys, and what its agent would do.
pub struct Node {
    pub tpm: Tpm,
    pub register: Register,
    pub id: NodeId,
    pub tenant: Arc<Ed25519KeyPair>,
    /// What it made for the enrollment that it waits for.
    challenge: Mutex<[u8; 32]>,
    /// What it has booted.
    software: Mutex<Software>,
}

/// What one attestation needs besides the TPM.
pub struct Session {
    pub ephemeral: Ephemeral,
    pub nonce_tpm: Vec<u8>,
    pub purpose_data: Vec<u8>,
    pub begun: Begun,
}

/// K with what it was made from, for the checks of a test only.
pub struct Halves {
    pub key: Key,
    pub enrollment_id: String,
}

/// A machine that is enrolled at this server, with its id for a label.
pub async fn enrolled(server: &Server) -> Node {
    let node = Node::new();
    node.register(&server.anybody()).await.unwrap();
    node.enroll(&server.anybody(), &server.operator(), &node.id.to_string()).await;
    node
}

impl Node {
    pub fn new() -> Self {
        let mut tpm = Tpm::new(RSA_2048);
        tpm.register.label = "node".into();
        let software = Software::default();
        software.measure(&tpm);
        let register = tpm.register.clone();
        let id = registration::check(&register).unwrap().node_id();
        let tenant = Arc::new(Ed25519KeyPair::generate().unwrap());
        Self { tpm, register, id, tenant, software: Mutex::new(software), challenge: Mutex::new(CHALLENGE) }
    }

    /// A machine with a copy of this one's TPM, after it was powered on with the same software.
    pub fn copied(&self) -> Self {
        let tpm = self.tpm.copied();
        let software = self.software.lock().unwrap().clone();
        software.measure(&tpm);
        let (register, tenant) = (self.register.clone(), self.tenant.clone());
        Self {
            tpm,
            register,
            id: self.id,
            tenant,
            software: Mutex::new(software),
            challenge: Mutex::new(CHALLENGE),
        }
    }

    /// With keys that the caller holds: a machine without a TPM, for a test that takes hundreds of them.
    pub fn of_software(register: Register, tenant: Arc<Ed25519KeyPair>) -> Self {
        let id = registration::check(&register).unwrap().node_id();
        Self {
            tpm: Tpm::absent(register.clone()),
            register,
            id,
            tenant,
            software: Mutex::default(),
            challenge: Mutex::new(CHALLENGE),
        }
    }

    /// One more machine of this one's tenant.
    pub fn sibling(&self) -> Self {
        Self { tenant: self.tenant.clone(), ..Self::new() }
    }

    /// Register and activate.
    pub async fn register(&self, server: &Client) -> Result<(), Problem> {
        self.register_with(server, CHALLENGE).await
    }

    /// The same, with this challenge.
    pub async fn register_with(&self, server: &Client, challenge: [u8; 32]) -> Result<(), Problem> {
        let registered: Registered = post(server, "/v1/register", &self.register).await?;
        assert_eq!(registered.node_id, self.id.to_string());
        let secret = self.tpm.activate_with_ek(&registered.credential);
        let proof = half::activation_proof(&secret, &self.id.0, &challenge);
        self.activate(server, challenge, &proof).await?;
        *self.challenge.lock().unwrap() = challenge;
        Ok(())
    }

    pub async fn activate(
        &self,
        server: &Client,
        challenge: [u8; 32],
        proof: &[u8; 32],
    ) -> Result<(), Problem> {
        let message =
            Activate { node_id: self.id.to_string(), challenge: challenge.into(), proof: (*proof).into() };
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
            enrollment_id: enrollment_id.to_owned(),
            challenge: record.challenge.clone(),
            ek_name: checked.ek_name().into(),
            ak_name: checked.ak_name().into(),
            srk_name: checked.srk_name().into(),
            c_u_sha256: credential_digest(&c_u).into(),
            c_v_sha256: credential_digest(&c_v).into(),
            release_public: info.release_public.clone(),
            bank: "sha256".into(),
            proof_sha256: half::proof_digest(&key.proof()).into(),
            ca: info.ca.clone(),
            servers: info.servers.clone(),
            label: "web1".into(),
        };
        let signed = self.sign(&self.envelope(&Line::of(&info), &document));
        let enroll = Enroll { signed, c_u, c_v };
        (enroll, Halves { key, enrollment_id: enrollment_id.to_owned() })
    }

    /// The document of an enrollment.
    pub fn envelope(&self, line: &Line, enrollment: &Enrollment) -> Document {
        let body = serde_json::to_string(enrollment).unwrap();
        Document { created: 0, ..line.next(Kind::Enrollment, &Scope::Enrollment(self.id).to_string(), &body) }
    }

    pub fn sign(&self, document: &Document) -> SignedDocument {
        sign(&self.tenant, document)
    }

    /// Tenant and node, up to the proof. The node's K is the tenant's.
    pub async fn enroll(&self, server: &Client, operator: &Client, enrollment_id: &str) -> Halves {
        let (enroll, halves) = self.enrollment(operator, enrollment_id).await;
        let _: NodeRecord = post(operator, &path(self.id, "/enrollment"), &enroll).await.unwrap();
        let (session, verdict) = self.attest(server, "enroll").await.unwrap();
        assert_eq!(verdict.outcome, "released", "{verdict:?}");
        let released = self.open("enroll", &session, &verdict);
        let mut u = self.tpm.activate_with_ek(released.c_u.as_ref().unwrap());
        let mut v = self.tpm.activate_with_srk(&released.c_v);
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
        self.begin_naming(server, purpose, &[]).await
    }

    /// The same, with these enrollments on its disks.
    pub async fn begin_naming(
        &self,
        server: &Client,
        purpose: &str,
        enrollments: &[&str],
    ) -> Result<Session, Problem> {
        let message = Begin {
            versions: vec![1],
            node_id: self.id.to_string(),
            purpose: purpose.to_owned(),
            enrollments: enrollments.iter().map(|id| (*id).to_owned()).collect(),
        };
        let begun: Begun = post(server, "/v1/begin", &message).await?;
        let boot = purpose == "boot";
        Ok(Session {
            ephemeral: Ephemeral::generate(),
            nonce_tpm: if boot { vec![4; 32] } else { vec![] },
            purpose_data: self.commits(purpose),
            begun,
        })
    }

    /// The last thing that a quote commits to: r, or which enrollment the node wants. Its operator told it its tenant's key.
    pub fn commits(&self, purpose: &str) -> Vec<u8> {
        match purpose {
            "boot" => sha256(R).to_vec(),
            "enroll" => {
                let tenant_key = sha256(self.tenant.public_key().as_ref());
                Wanted { tenant_key, challenge: *self.challenge.lock().unwrap() }.bytes().to_vec()
            }
            _ => Vec::new(),
        }
    }

    /// Extends the fence as an agent does that opened its volumes.
    pub fn open_fence(&self) {
        self.tpm.measure(15, R);
    }

    /// Evidence for a session.
    pub fn evidence(&self, purpose: &str, session: &Session) -> Evidence {
        let bank = PcrBank::from_name(&session.begun.bank).unwrap();
        let digest = self.qualifying_data(purpose, session);
        let (quote, signature) = self.tpm.quote(bank, &digest);
        let software = self.software.lock().unwrap();
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
            event_log: Some(software.log().into()),
            systemd_log: None,
            ima_log: None,
            command_line: Some(software.proc_cmdline().into()),
            agent: "test".to_owned(),
        }
    }

    pub fn qualifying_data(&self, purpose: &str, session: &Session) -> [u8; 32] {
        let checked = registration::check(&self.register).unwrap();
        QualifyingData {
            version: session.begun.version,
            node: &self.id.0,
            purpose: Purpose::parse(purpose).unwrap(),
            nonce: &session.begun.nonce,
            hpke_public: hpke_public(purpose, session),
            nonce_tpm: &session.nonce_tpm,
            srk_name: checked.srk_name(),
            purpose_data: &session.purpose_data,
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
        let aad = self.qualifying_data(purpose, session);
        session.ephemeral.open(verdict.sealed.as_ref().unwrap(), &aad).expect("sealed to this session")
    }

    /// Approves what waits.
    pub async fn approve(&self, operator: &Client) -> Result<NodeRecord, Problem> {
        let record: NodeRecord = get(operator, &path(self.id, "")).await.unwrap();
        let ticket = record.pending.expect("a boot that waits").ticket;
        post(operator, &path(self.id, "/approve"), &Approve { ticket }).await
    }

    /// Signs a policy, additions, or a withdrawal if there is no text: the next document of the server's sequence.
    pub async fn sign_policy(&self, operator: &Client, scope: &str, policy: &str) -> SignedDocument {
        sign_policy(&self.tenant, operator, scope, policy).await
    }

    /// Applies a policy for a scope.
    pub async fn apply(&self, operator: &Client, scope: &str, policy: &str) -> Result<PolicyRecord, Problem> {
        let signed = self.sign_policy(operator, scope, policy).await;
        post(operator, &format!("/v1/operator/policies/{scope}"), &signed).await
    }

    /// Makes what it has booted its policy: one of the node's own.
    pub async fn allow(&self, operator: &Client) {
        let policy = self.software.lock().unwrap().policy("what it boots");
        self.apply(operator, &format!("node:{}", self.id), &policy).await.unwrap();
    }

    /// Puts it into a group.
    pub async fn group(&self, operator: &Client, group: Option<&str>) -> Result<NodeRecord, Problem> {
        let scope = Scope::Membership(self.id).to_string();
        let line = Line::at(operator).await;
        let signed = self.sign(&line.next(Kind::Membership, &scope, group.unwrap_or_default()));
        post(operator, &path(self.id, "/group"), &signed).await
    }

    /// A proposal with its quote.
    pub async fn proposal(&self, server: &Client, proposal: &Proposal) -> Result<Propose, Problem> {
        self.proposal_bytes(server, serde_json::to_vec(proposal).unwrap()).await
    }

    /// The same with any bytes.
    pub async fn proposal_bytes(&self, server: &Client, proposal: Vec<u8>) -> Result<Propose, Problem> {
        let mut session = self.begin(server, "propose").await?;
        session.purpose_data = digest(&SHA256, &proposal).as_ref().to_vec();
        let evidence = Evidence { event_log: None, command_line: None, ..self.evidence("propose", &session) };
        Ok(Propose { evidence, proposal: proposal.into() })
    }

    /// Proposes what to boot next.
    pub async fn propose(&self, server: &Client, software: &Software) -> Proposed {
        let message = self.proposal(server, &software.proposal()).await.unwrap();
        post(server, "/v1/propose", &message).await.unwrap()
    }

    /// Power off and on, with the same software.
    pub fn reboot(&self) {
        let same = self.software.lock().unwrap().clone();
        self.reboot_into(&same);
    }

    /// Power off and on, with this software.
    pub fn reboot_into(&self, software: &Software) {
        self.power_cycle();
        software.measure(&self.tpm);
        *self.software.lock().unwrap() = software.clone();
    }

    /// PCRs are zero, resetCount grows.
    pub fn power_cycle(&self) {
        self.tpm.reset();
    }
}

/// What the fence of every boot is extended with.
pub const R: &[u8] = &[6; 32];

fn hpke_public<'a>(purpose: &str, session: &'a Session) -> &'a [u8] {
    if purpose == "propose" { &[] } else { &session.ephemeral.public }
}

/// Where a server's sequence ends.
#[derive(Clone, Copy)]
pub struct Line {
    pub deployment: Deployment,
    pub head: Place,
}

impl Line {
    pub async fn at(operator: &Client) -> Self {
        Self::of(&get(operator, "/v1/operator/info").await.unwrap())
    }

    pub fn of(info: &ServerInfo) -> Self {
        let head = Place { number: info.head.number, sha256: info.head.sha256.array().unwrap() };
        Self { deployment: Deployment::parse(&info.deployment).unwrap(), head }
    }

    /// The next document, made long ago.
    pub fn next(&self, kind: Kind, scope: &str, body: &str) -> Document {
        let place =
            next(kind, &Scope::Node(NodeId([0; 16])), self.deployment, &self.head, 1, body.to_owned());
        Document { scope: scope.to_owned(), ..place }
    }
}

/// Signs anything with any key.
pub fn sign(key: &Ed25519KeyPair, document: &Document) -> SignedDocument {
    let document = serde_json::to_vec(document).unwrap();
    let signature = key.sign(&signed_bytes(&document)).as_ref().into();
    let signature = DocumentSignature { key: key.public_key().as_ref().into(), signature };
    SignedDocument { document: document.into(), signatures: vec![signature] }
}

/// Signs a policy with any key.
pub async fn sign_policy(
    key: &Ed25519KeyPair,
    operator: &Client,
    scope: &str,
    policy: &str,
) -> SignedDocument {
    let kind = match (policy.is_empty(), scope.starts_with("additions:")) {
        (true, _) => Kind::Withdrawal,
        (false, true) => Kind::Additions,
        (false, false) => Kind::Policy,
    };
    sign(key, &Line::at(operator).await.next(kind, scope, policy))
}

/// `outcome code` of a verdict.
pub fn said(verdict: &Verdict) -> String {
    match &verdict.code {
        Some(code) => format!("{} {code}", verdict.outcome),
        None => verdict.outcome.clone(),
    }
}

/// `outcome code` of the answer to a proposal.
pub fn answered(proposed: &Proposed) -> String {
    match &proposed.code {
        Some(code) => format!("{} {code}", proposed.outcome),
        None => proposed.outcome.clone(),
    }
}
