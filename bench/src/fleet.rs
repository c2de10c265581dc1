//! Machines whose TPMs are keys in memory. A seed stands for any number of them, so that a fleet is enrolled once and boots as often
//! as one likes.

use crate::Result;
use crate::boot::SecureBoot;
use crate::https::{Connection, Failed, Target};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use halfkey_evidence::{credential, registration};
use halfkey_protocol::document::{Kind, Scope};
use halfkey_protocol::identity::sha256;
use halfkey_protocol::wire::operator::{Enroll, NodeRecord, ServerInfo};
use halfkey_protocol::wire::policies::PolicyRecord;
use halfkey_protocol::wire::{Activated, Begun, Outcome, Proved, Registered, SignedDocument, Verdict};
use halfkey_protocol::{Bytes, Half, Key, NodeId};
use halfkey_testkit::node::{CHALLENGE, SimulatedNode};
use halfkey_testkit::soft_tpm::SoftTpm;
use halfkey_testkit::workstation::{Line, NewEnrollment, sign};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::task::JoinSet;

/// The group that all machines of a fleet are in.
const GROUP: &str = "fleet";
/// Connections that enroll side by side.
const SIDE_BY_SIDE: usize = 16;

/// Machines of one owner, that all boot the same.
pub struct Fleet {
    machines: Vec<Arc<Machine>>,
    tenant: Arc<Ed25519KeyPair>,
    boot: Arc<SecureBoot>,
}

/// One of them.
pub struct Machine {
    node: SimulatedNode<SoftTpm>,
    tenant_key: [u8; 32],
    boot: Arc<SecureBoot>,
}

impl Fleet {
    /// The first so many machines of a seed.
    ///
    /// # Errors
    /// If the clock of this host is before 1970, or the recorded boot is damaged.
    pub fn new(seed: &[u8; 32], machines: usize) -> Result<Self> {
        let boot = Arc::new(SecureBoot::new()?);
        let tenant = Ed25519KeyPair::from_seed_unchecked(&sha256(&[&seed[..], b"tenant"].concat()))?;
        let tenant = Arc::new(tenant);
        let tenant_key = sha256(tenant.public_key().as_ref());
        // Later than in every run before, as the clock of a TPM is.
        let clock = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64;
        let machines = (0..machines as u64).map(|number| {
            let (tpm, register) = SoftTpm::of(seed, number, clock, boot.pcrs.clone());
            let node = SimulatedNode::new(tpm, register);
            Arc::new(Machine { node, tenant_key, boot: boot.clone() })
        });
        Ok(Self { machines: machines.collect(), tenant, boot })
    }

    /// Its first so many machines.
    pub fn first(&self, machines: usize) -> Self {
        Self {
            machines: self.machines.iter().take(machines).cloned().collect(),
            tenant: Arc::clone(&self.tenant),
            boot: Arc::clone(&self.boot),
        }
    }

    /// All of them.
    pub fn machines(&self) -> &[Arc<Machine>] {
        &self.machines
    }

    /// Registers all, enrolls them, and puts them into a group with the policy that is learned from what they boot.
    ///
    /// # Errors
    /// What the server refuses first.
    pub async fn enroll(&self, nodes: &Arc<Target>, operators: &Target) -> Result<()> {
        self.enroll_from(0, nodes, operators).await
    }

    /// The same, where so many are enrolled already.
    ///
    /// # Errors
    /// What the server refuses first.
    pub async fn enroll_from(&self, first: usize, nodes: &Arc<Target>, operators: &Target) -> Result<()> {
        let new = self.machines.get(first..).unwrap_or_default();
        side_by_side(new, nodes, &Arc::new(Step::Register)).await?;

        let mut desk = operators.connect(Ipv4Addr::LOCALHOST).await?;
        let info: ServerInfo = desk.get("/v1/operator/info").await?;
        let mut line = Line::of(&info);
        let mut keys = BTreeMap::new();
        for machine in new {
            let (enroll, key) = machine.enrollment(&info, &line, &self.tenant)?;
            let _: NodeRecord = desk.post(&machine.path("/enrollment"), &enroll).await?;
            line = line.after(&enroll.signed, &self.tenant);
            keys.insert(machine.node.id, key);
        }

        side_by_side(new, nodes, &Arc::new(Step::Prove(keys))).await?;

        // A server closes a connection on which nothing is said for long. And a proof is a document, too.
        let mut desk = operators.connect(Ipv4Addr::LOCALHOST).await?;
        let mut line = Line::of(&desk.get("/v1/operator/info").await?);
        let scope = format!("group:{GROUP}");
        if first == 0 {
            let policy = sign(&self.tenant, &line.next(Kind::Policy, &scope, &self.boot.policy(GROUP)?));
            let _: PolicyRecord = desk.post(&format!("/v1/operator/policies/{scope}"), &policy).await?;
            line = line.after(&policy, &self.tenant);
        }
        for machine in new {
            let scope = Scope::Membership(machine.node.id).to_string();
            let member: SignedDocument = sign(&self.tenant, &line.next(Kind::Membership, &scope, GROUP));
            let _: NodeRecord = desk.post(&machine.path("/group"), &member).await?;
            line = line.after(&member, &self.tenant);
        }
        Ok(())
    }
}

/// Takes a step with each machine, over a few connections at the same time.
async fn side_by_side(machines: &[Arc<Machine>], nodes: &Arc<Target>, step: &Arc<Step>) -> Result<()> {
    let share = machines.len().div_ceil(SIDE_BY_SIDE).max(1);
    let mut steps = JoinSet::new();
    for machines in machines.chunks(share) {
        let (machines, nodes, step) = (machines.to_vec(), nodes.clone(), step.clone());
        steps.spawn(async move {
            let mut connection = nodes.connect(Ipv4Addr::LOCALHOST).await?;
            for machine in machines {
                step.take(&machine, &mut connection).await?;
            }
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        });
    }
    while let Some(done) = steps.join_next().await {
        done??;
    }
    Ok(())
}

/// What a machine does in its enrollment.
enum Step {
    Register,
    /// Fetches C_U and proves K. The tenant's K is taken: what is enrolled here never opens a disk.
    Prove(BTreeMap<NodeId, Key>),
}

impl Step {
    async fn take(&self, machine: &Machine, connection: &mut Connection) -> Result<()> {
        match self {
            Self::Register => {
                let registered: Registered = connection.post("/v1/register", &machine.node.register).await?;
                let message = machine.node.activation(&registered, CHALLENGE);
                let _: Activated = connection.post("/v1/activate", &message).await?;
            }
            Self::Prove(keys) => {
                let verdict = machine.attest(connection, "enroll").await?;
                if verdict.outcome != Outcome::Released.as_str() {
                    return Err(format!("an enrollment was {}: {}", verdict.outcome, verdict.message).into());
                }
                let proof = machine.node.proves(&machine.node.id.to_string(), &keys[&machine.node.id]);
                let _: Proved = connection.post("/v1/prove", &proof).await?;
            }
        }
        Ok(())
    }
}

impl Machine {
    /// Begin and finish.
    ///
    /// # Errors
    /// When the server refuses, or there is no answer; also if what it released is not for this machine.
    pub async fn boot(&self, connection: &mut Connection) -> std::result::Result<Verdict, Failed> {
        self.attest(connection, "boot").await
    }

    async fn attest(
        &self,
        connection: &mut Connection,
        purpose: &str,
    ) -> std::result::Result<Verdict, Failed> {
        let begun: Begun = connection.post("/v1/begin", &self.node.begin(purpose, &[])).await?;
        let session = self.node.session(purpose, begun, &self.tenant_key);
        let evidence = self.boot.of(self.node.evidence(purpose, &session));
        let verdict: Verdict = connection.post("/v1/finish", &evidence).await?;
        if let Some(sealed) = &verdict.sealed {
            let aad = self.node.qualifying_data(purpose, &session);
            let opened = session.ephemeral.open(sealed, &aad);
            opened.ok_or_else(|| Failed::Lost("a release that does not open".to_owned()))?;
        }
        Ok(verdict)
    }

    /// What the tenant sends, as the next document, and K.
    fn enrollment(&self, info: &ServerInfo, line: &Line, tenant: &Ed25519KeyPair) -> Result<(Enroll, Key)> {
        let checked = registration::check(&self.node.register)?;
        let (u, v) = (Half::random()?, Half::random()?);
        let key = Key::combine(&u, &v);
        let c_u = credential::make_for_ek(checked.ek(), checked.ak_name(), u.expose())?;
        let c_v = credential::make_for_srk(&checked, checked.ak_name(), v.expose())?;
        let enrollment = NewEnrollment {
            id: &self.node.id.to_string(),
            challenge: &Bytes::from(CHALLENGE),
            names: [checked.ek_name(), checked.ak_name(), checked.srk_name()],
            c_u: &c_u,
            c_v: &c_v,
            key: &key,
        };
        let signed = sign(tenant, &line.enrolls(self.node.id, &enrollment.document(info)));
        Ok((Enroll { signed, c_u, c_v }, key))
    }

    fn path(&self, rest: &str) -> String {
        format!("/v1/operator/nodes/{}{rest}", self.node.id)
    }
}
