//! The dialogue of a node and its tenant, with a real TPM.

use super::{Server, get, path, post};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use halfkey_evidence::{credential, registration};
use halfkey_protocol::Bytes;
use halfkey_protocol::document::{Kind, Scope};
use halfkey_protocol::identity::sha256;
use halfkey_protocol::wire::operator::{Because, Enroll, NodeRecord, ServerInfo};
use halfkey_protocol::wire::policies::PolicyRecord;
use halfkey_protocol::wire::{
    Activated, Document, Enrollment, Problem, Proposal, Propose, Proposed, Proved, Register, Registered,
    SignedDocument, Verdict,
};
use halfkey_protocol::{Half, Key};
use halfkey_testkit::node::{Attester, SimulatedNode};
pub use halfkey_testkit::node::{CHALLENGE, Session};
use halfkey_testkit::software::Software;
use halfkey_testkit::tpm::{RSA_2048, Tpm};
use halfkey_testkit::workstation::NewEnrollment;
pub use halfkey_testkit::workstation::{Line, sign};
use halfkey_verifier::client::Client;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// A machine and its tenant.
pub struct Node<T = Tpm> {
    machine: SimulatedNode<T>,
    pub tenant: Arc<Ed25519KeyPair>,
}

impl<T> Deref for Node<T> {
    type Target = SimulatedNode<T>;
    fn deref(&self) -> &SimulatedNode<T> {
        &self.machine
    }
}

impl<T> DerefMut for Node<T> {
    fn deref_mut(&mut self) -> &mut SimulatedNode<T> {
        &mut self.machine
    }
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
        let tenant = Arc::new(Ed25519KeyPair::generate().unwrap());
        Self { machine: SimulatedNode::booted(tpm, &Software::default()), tenant }
    }

    /// A machine with a copy of this one's TPM, after it was powered on with the same software.
    pub fn copied(&self) -> Self {
        Self { machine: self.machine.copied(), tenant: self.tenant.clone() }
    }

    /// One more machine of this one's tenant.
    pub fn sibling(&self) -> Self {
        Self { tenant: self.tenant.clone(), ..Self::new() }
    }

    /// TPM2_Clear: its EK and AK are made again, and another SRK. It registers with those of before still.
    pub fn clear_tpm(&mut self) {
        self.tpm.tool("tpm2_clear", &["-c", "p"]);
        self.tpm.tool("tpm2_createek", &["-G", "rsa", "-c", "0x81010001", "-u", "ek.pub"]);
        self.tpm.make_keys();
    }

    /// It registers with the keys that its TPM has now, and without a certificate; gives what it registered with before.
    pub fn take_new_keys(&mut self) -> Register {
        let register = Register { ek_certificate: None, ..self.tpm.register.clone() };
        std::mem::replace(&mut self.register, register)
    }

    /// Tenant and node, up to the proof. The node's K is the tenant's.
    pub async fn enroll(&self, server: &Client, operator: &Client, enrollment_id: &str) -> Halves {
        let (enroll, halves) = self.enrollment(operator, enrollment_id).await;
        let _: NodeRecord = post(operator, &path(self.id, "/enrollment"), &enroll).await.unwrap();
        let (session, verdict) = self.attest(server, "enroll").await.unwrap();
        assert_eq!(verdict.outcome, "released", "{verdict:?}");
        let key = self.key(&self.open("enroll", &session, &verdict));
        assert_eq!(key.proof(), halves.key.proof());
        self.prove(server, &halves).await.unwrap();
        halves
    }
}

impl<T: Attester> Node<T> {
    /// A machine with these keys, whose TPM has booted this.
    pub fn with(tpm: T, register: Register, software: &Software, tenant: Arc<Ed25519KeyPair>) -> Self {
        let machine = SimulatedNode::new(tpm, register);
        machine.has_booted(software);
        Self { machine, tenant }
    }

    /// Register and activate.
    pub async fn register(&self, server: &Client) -> Result<(), Problem> {
        self.register_with(server, CHALLENGE).await
    }

    /// The same, with this challenge.
    pub async fn register_with(&self, server: &Client, challenge: [u8; 32]) -> Result<(), Problem> {
        let registered: Registered = post(server, "/v1/register", &self.register).await?;
        let message = self.activation(&registered, challenge);
        post::<Activated>(server, "/v1/activate", &message).await?;
        self.wants(challenge);
        Ok(())
    }

    /// Answers a registrar's challenge with this proof.
    pub async fn activate(
        &self,
        server: &Client,
        state: &Bytes,
        challenge: [u8; 32],
        proof: &[u8; 32],
    ) -> Result<(), Problem> {
        let message = self.machine.activate(state, challenge, proof);
        post::<Activated>(server, "/v1/activate", &message).await.map(|_| ())
    }

    /// What a tenant sends.
    pub async fn enrollment(&self, operator: &Client, enrollment_id: &str) -> (Enroll, Halves) {
        let info: ServerInfo = get(operator, "/v1/operator/info").await.unwrap();
        let record: NodeRecord = get(operator, &path(self.id, "")).await.unwrap();
        let checked = registration::check(record.registration.as_ref().unwrap()).unwrap();
        let (u, v) = (Half::random().unwrap(), Half::random().unwrap());
        let key = Key::combine(&u, &v);
        let c_u = credential::make_for_ek(checked.ek(), checked.ak_name(), u.expose()).unwrap();
        let c_v = credential::make_for_srk(&checked, checked.ak_name(), v.expose()).unwrap();
        let document = NewEnrollment {
            id: enrollment_id,
            challenge: &record.challenge,
            names: [checked.ek_name(), checked.ak_name(), checked.srk_name()],
            c_u: &c_u,
            c_v: &c_v,
            key: &key,
        }
        .document(&info);
        let signed = self.sign(&self.envelope(&Line::of(&info), &document));
        let enroll = Enroll { signed, c_u, c_v };
        (enroll, Halves { key, enrollment_id: enrollment_id.to_owned() })
    }

    /// The document of an enrollment.
    pub fn envelope(&self, line: &Line, enrollment: &Enrollment) -> Document {
        line.enrolls(self.id, enrollment)
    }

    pub fn sign(&self, document: &Document) -> SignedDocument {
        sign(&self.tenant, document)
    }

    pub async fn prove(&self, server: &Client, halves: &Halves) -> Result<Proved, Problem> {
        post(server, "/v1/prove", &self.proves(&halves.enrollment_id, &halves.key)).await
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
        let begun = post(server, "/v1/begin", &self.machine.begin(purpose, enrollments)).await?;
        Ok(self.session(purpose, begun, &self.tenant_key()))
    }

    /// SHA-256 of its tenant's key, as its operator told it.
    pub fn tenant_key(&self) -> [u8; 32] {
        sha256(self.tenant.public_key().as_ref())
    }

    /// Begin and finish.
    pub async fn attest(&self, server: &Client, purpose: &str) -> Result<(Session, Verdict), Problem> {
        let session = self.begin(server, purpose).await?;
        let evidence = self.evidence(purpose, &session);
        let verdict = post(server, "/v1/finish", &evidence).await?;
        if purpose == "boot" {
            self.machine.received(&session, &verdict);
        }
        Ok((session, verdict))
    }

    /// A boot's verdict.
    pub async fn boot(&self, server: &Client) -> Verdict {
        self.attest(server, "boot").await.unwrap().1
    }

    /// Approves what waits.
    pub async fn approve(&self, operator: &Client) -> Result<NodeRecord, Problem> {
        let record: NodeRecord = get(operator, &path(self.id, "")).await.unwrap();
        let ticket = record.pending.expect("a boot that waits").ticket;
        self.decide(operator, "/approve", &ticket).await
    }

    /// What an operator says of it; its tenant signs what gives it something. `body`: why, or the ticket of a boot.
    pub async fn decide(&self, operator: &Client, what: &str, body: &str) -> Result<NodeRecord, Problem> {
        let (kind, scope) = match what {
            "/approve" => (Kind::Approval, Scope::Approval(self.id)),
            "/restore" => (Kind::Restoration, Scope::Revocation(self.id)),
            "/release" => (Kind::Release, Scope::Hold(self.id)),
            _ => return post(operator, &path(self.id, what), &Because { because: body.into() }).await,
        };
        let signed = self.sign(&line_at(operator).await.next(kind, &scope.to_string(), body));
        post(operator, &path(self.id, what), &signed).await
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
        let policy = self.software().expect("it has booted something").policy("what it boots");
        self.apply(operator, &format!("node:{}", self.id), &policy).await.unwrap();
    }

    /// Puts it into a group.
    pub async fn group(&self, operator: &Client, group: Option<&str>) -> Result<NodeRecord, Problem> {
        let scope = Scope::Membership(self.id).to_string();
        let line = line_at(operator).await;
        let signed = self.sign(&line.next(Kind::Membership, &scope, group.unwrap_or_default()));
        post(operator, &path(self.id, "/group"), &signed).await
    }

    /// A proposal with its quote.
    pub async fn proposal(&self, server: &Client, proposal: &Proposal) -> Result<Propose, Problem> {
        self.proposal_bytes(server, serde_json::to_vec(proposal).unwrap()).await
    }

    /// The same with any bytes.
    pub async fn proposal_bytes(&self, server: &Client, proposal: Vec<u8>) -> Result<Propose, Problem> {
        Ok(self.proposes(self.begin(server, "propose").await?, proposal))
    }

    /// Proposes what to boot next.
    pub async fn propose(&self, server: &Client, software: &Software) -> Proposed {
        let message = self.proposal(server, &software.proposal()).await.unwrap();
        post(server, "/v1/propose", &message).await.unwrap()
    }
}

/// Where the server's sequence ends.
pub async fn line_at(operator: &Client) -> Line {
    Line::of(&get(operator, "/v1/operator/info").await.unwrap())
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
    sign(key, &line_at(operator).await.next(kind, scope, policy))
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
