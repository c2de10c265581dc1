//! Many machines: their TPMs are software in this process, so that hundreds of them boot within a test.

use super::node::Node;
use super::{path, post};
use aws_lc_rs::signature::Ed25519KeyPair;
use halfkey_protocol::Reason;
use halfkey_protocol::wire::operator::NodeRecord;
use halfkey_protocol::wire::{Evidence, Problem, Verdict};
use halfkey_testkit::node::SimulatedNode;
use halfkey_testkit::soft_tpm::{SoftTpm, booted};
use halfkey_testkit::software::Software;
use halfkey_verifier::client::{Client, ClientError};
use std::sync::Arc;
use std::time::Duration;

/// What one workstation signs is one sequence: it signs one document after the other.
static DESK: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// How often a machine asks again.
const AGAIN: Duration = Duration::from_millis(200);

/// A machine whose TPM is a few keys in memory.
pub struct SoftNode {
    pub node: Node<SoftTpm>,
}

impl SoftNode {
    pub fn new(tenant: &Arc<Ed25519KeyPair>) -> Self {
        let software = Software::default();
        let (tpm, register) = SoftTpm::new(booted(&software.records()));
        Self { node: Node::with(tpm, register, &software, tenant.clone()) }
    }

    /// Register and activate.
    pub async fn register(&self, server: &Client) -> Result<(), Problem> {
        self.node.register(server).await
    }

    /// Registers; the tenant enrolls it and allows what it boots. K is not put together: what a test of the
    /// server needs is a node that boots.
    pub async fn enroll(&self, server: &Client, operator: &Client) {
        self.enroll_only(server, operator).await;
        let _turn = DESK.lock().await;
        self.node.allow(operator).await;
    }

    /// The same without a policy: its boots wait for an operator.
    pub async fn enroll_only(&self, server: &Client, operator: &Client) {
        self.register(server).await.unwrap();
        let id = self.node.id.to_string();
        let _turn = DESK.lock().await;
        let (enroll, halves) = self.node.enrollment(operator, &id).await;
        let _: NodeRecord = post(operator, &path(self.node.id, "/enrollment"), &enroll).await.unwrap();
        assert_eq!(self.attest(server, "enroll").await.unwrap().outcome, "released");
        // That has a place in the sequence as well.
        self.node.prove(server, &halves).await.unwrap();
    }

    /// Begin and finish, once.
    pub async fn boot(&self, server: &Client) -> Result<Verdict, ClientError> {
        self.attest(server, "boot").await
    }

    async fn attest(&self, server: &Client, purpose: &str) -> Result<Verdict, ClientError> {
        let begun = server.post("/v1/begin", &SimulatedNode::begin(&self.node, purpose, &[])).await?;
        let session = self.node.session(purpose, begun, &self.node.tenant_key());
        // As large as evidence is in the field.
        let ima_log = Some(vec![b'i'; 150_000].into());
        server.post("/v1/finish", &Evidence { ima_log, ..self.node.evidence(purpose, &session) }).await
    }

    /// Asks again, as an agent does, until there is a verdict.
    pub async fn boot_at_last(&self, server: &Client) -> Verdict {
        let mut pace = tokio::time::interval(AGAIN);
        loop {
            pace.tick().await;
            match self.boot(server).await {
                Ok(verdict) => return verdict,
                Err(ClientError::Unreachable(_)) => {}
                Err(ClientError::Refused(_, problem)) => {
                    let reason = Reason::from_code(&problem.code);
                    assert!(reason.is_some_and(Reason::retry), "{problem:?}");
                }
            }
        }
    }
}

/// The key that a fleet is enrolled with.
pub fn tenant() -> Arc<Ed25519KeyPair> {
    Arc::new(Ed25519KeyPair::generate().unwrap())
}
