//! Nodes register: a challenge to the TPM, and its answer.
//!
//! Nothing is kept in between. The secret of a challenge is derived from the cluster key, the time and what the node sent; with the
//! answer both come back. So any replica can take the answer to what another one asked, a restart breaks no registration, and
//! whoever asks for challenges fills nothing.

use crate::config::Config;
use crate::domain::registration::{SKEW, TICKS};
use crate::domain::{Answered, By, Db, Error, NewRegistration, Saved, legible};
use crate::http::refusal::Refusal;
use crate::keys::ClusterKey;
use crate::limit::{Rate, Room, Source, SourceRate};
use crate::{Clock, Failure};
use aws_lc_rs::digest::{SHA256, digest};
use halfkey_evidence::ek::Roots;
use halfkey_evidence::{credential, registration};
use halfkey_protocol::keys::{half, label};
use halfkey_protocol::tpm::name::object_name;
use halfkey_protocol::wire::{Activate, Register, Registered};
use halfkey_protocol::{NodeId, Reason};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tracing::{info, warn};
use zeroize::Zeroizing;

/// The longest suggested label, in characters.
const MAX_LABEL: usize = 64;

/// Activations of one node in a minute that take nothing from its address: nobody needs more.
const ACTIVATED: u32 = 6;

/// Registers nodes.
pub struct Registering {
    clock: Clock,
    cluster: Arc<ClusterKey>,
    roots: Option<Roots>,
    /// Seconds between a challenge and its answer.
    lifetime: u64,
    /// Among what no tenant enrolled.
    room: Arc<Room>,
    by_source: SourceRate,
    overall: Rate<()>,
    refusals: Rate<NodeId>,
    /// Activations of a node that take nothing from its address.
    activated: Rate<NodeId>,
    /// When the last challenge was made, in [`TICKS`]: no two are of one time.
    last: AtomicU64,
}

impl Registering {
    /// As the settings say.
    ///
    /// # Errors
    /// When the folder of EK roots can't be read or holds none.
    pub fn new(config: &Config, cluster: Arc<ClusterKey>, clock: Clock) -> Result<Self, Failure> {
        Ok(Self {
            clock,
            cluster,
            roots: config.ek_roots.as_deref().map(read_roots).transpose()?,
            lifetime: config.lifetimes.activation,
            room: Arc::new(Room::new(config.limits.unenrolled)),
            by_source: SourceRate::per_minute(config.limits.registrations_per_source),
            overall: Rate::per_minute(config.limits.registrations_per_minute),
            refusals: Rate::per_minute(1),
            activated: Rate::per_minute(ACTIVATED),
            last: AtomicU64::new(0),
        })
    }

    /// Checks what a node sent and challenges its TPM.
    ///
    /// # Errors
    /// Those of [`registration::check`], `EkUntrusted`, `AkChanged`, `RateLimited`.
    pub async fn register(
        &self,
        db: &Db,
        register: &Register,
        version: u32,
        source: Source,
    ) -> Result<Registered, Refusal> {
        self.limit(source)?;
        let checked = registration::check(register)?;
        let node = checked.node_id();
        if let Some(roots) = &self.roots {
            roots.verify(&checked, register, self.clock.now())?;
        }
        if let Some(known) = db.run(move |records| legible(records.registration(node))).await?.0
            && known.register.ak_public != register.ak_public
        {
            return Err(self.refuse_ak(db, node, source).await);
        }
        let issued = self.issued();
        let secret = self.secret(issued, node, register)?;
        let credential = credential::make_for_ek(checked.ek(), checked.ak_name(), &*secret)?;
        let state = issued.to_be_bytes().to_vec().into();
        Ok(Registered { version, node_id: node.to_string(), credential, state })
    }

    /// Stores what the TPM has proved, with the node's challenge; gives the node. The answer to an earlier challenge than the one that
    /// was answered last changes nothing, so one that is sent again can't bring back an earlier challenge of the node.
    ///
    /// # Errors
    /// `Malformed`, `Activation`, `AkChanged`, `RateLimited`.
    pub async fn activate(
        &self,
        db: &Db,
        mut message: Activate,
        challenge: [u8; 32],
        source: Source,
    ) -> Result<NodeId, Refusal> {
        let ek_name = object_name(&message.register.ek_public)
            .ok_or_else(|| Refusal::new(Reason::Malformed, "expected an EK, found none"))?;
        let node = NodeId::from_ek_name(&ek_name);
        // First: it costs less than to check signatures.
        let issued = self.answered(node, &message, &challenge)?;
        let checked = registration::check(&message.register)?;
        message.register.label = clean_label(&message.register.label);
        let new = NewRegistration {
            node,
            ak_name: checked.ak_name().to_vec(),
            srk_name: checked.srk_name().to_vec(),
            register: message.register,
            answered: Answered { issued, challenge },
            source,
        };
        let (room, clock) = (self.room.clone(), self.clock.clone());
        match db.run(move |records| records.save_registration(&new, &room, clock.now())).await {
            Ok(saved) => {
                info!(%node, ?saved, "registered");
                // One TPM, and one answer of it, does not pay for any number of challenges.
                if saved != Saved::Again && self.activated.take(node) {
                    self.by_source.give_back(source);
                }
                Ok(node)
            }
            Err(Error::Refused(Reason::AkChanged, _)) => Err(self.refuse_ak(db, node, source).await),
            Err(e) => Err(e.into()),
        }
    }

    fn limit(&self, source: Source) -> Result<(), Refusal> {
        if self.by_source.take(source) && self.overall.take(()) {
            return Ok(());
        }
        Err(Refusal::new(Reason::RateLimited, "too many registrations"))
    }

    /// Another AK for a known EK. Recorded, but not for every repetition: anybody can ask.
    async fn refuse_ak(&self, db: &Db, node: NodeId, source: Source) -> Refusal {
        let from = source.address();
        warn!(%node, source = %from, "another attestation key for a registered endorsement key");
        if self.refusals.take(node) {
            let detail = format!("another attestation key for this endorsement key, from {from}");
            let clock = self.clock.clone();
            let noted = db.run(move |records| {
                records.count(
                    "refuse",
                    source,
                    Some(node),
                    &detail,
                    By { actor: "verifier", now: clock.now() },
                )
            });
            if let Err(e) = noted.await {
                return e.into();
            }
        }
        Refusal::new(Reason::AkChanged, format!("node {node}"))
    }

    /// A time for the next challenge, after that of every other one of this process.
    fn issued(&self) -> u64 {
        let now = self.clock.micros();
        // A clock that was ahead and was set right: what was issued then is over.
        let ahead = now.saturating_add(SKEW * TICKS);
        let after = |last: u64| if last > ahead { now } else { now.max(last.saturating_add(1)) };
        let next = |last: u64| Some(after(last));
        let last = self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        after(last.unwrap_or_default())
    }

    /// What only the node's TPM finds out: of this time, and for all that the node sent.
    fn secret(&self, issued: u64, node: NodeId, register: &Register) -> Result<Zeroizing<[u8; 32]>, Refusal> {
        with_fields(issued, node, register, |fields| Zeroizing::new(self.cluster.tag(fields)))
    }

    /// When the challenge was made that this is the answer to.
    fn answered(&self, node: NodeId, message: &Activate, challenge: &[u8; 32]) -> Result<u64, Refusal> {
        let refused = |what: &str| Refusal::new(Reason::Activation, format!("node {node}: {what}"));
        let Ok(issued) = <[u8; 8]>::try_from(&message.state[..]).map(u64::from_be_bytes) else {
            return Err(Refusal::new(
                Reason::Malformed,
                format!("expected a state of 8 bytes, found {}", message.state.len()),
            ));
        };
        let answers = |secret: [u8; 32]| {
            let secret = Zeroizing::new(secret);
            half::equal(&message.proof, &half::activation_proof(&*secret, &node.0, challenge))
        };
        if !with_fields(issued, node, &message.register, |fields| self.cluster.tags(fields).any(answers))? {
            return Err(refused("no challenge has this answer"));
        }
        let (made, now) = (issued / TICKS, self.clock.now());
        if now.saturating_sub(made) > self.lifetime || made > now.saturating_add(SKEW) {
            return Err(refused("the challenge is over"));
        }
        Ok(issued)
    }
}

/// What the secret of a challenge is made of.
fn with_fields<T>(
    issued: u64,
    node: NodeId,
    register: &Register,
    tell: impl FnOnce(&[&[u8]]) -> T,
) -> Result<T, Refusal> {
    let sent = serde_json::to_vec(register)
        .map_err(|e| Refusal::new(Reason::Unavailable, format!("our bug: {e}")))?;
    let sent = digest(&SHA256, &sent);
    Ok(tell(&[label::REGISTRATION.as_bytes(), &issued.to_be_bytes(), &node.0, sent.as_ref()]))
}

/// A suggested label ends on an operator's terminal.
fn clean_label(label: &str) -> String {
    label.chars().filter(|c| !c.is_control()).take(MAX_LABEL).collect::<String>().trim().to_owned()
}

fn read_roots(dir: &std::path::Path) -> Result<Roots, Failure> {
    let failed = |e: std::io::Error| Failure::new(format!("ek_roots {}: {e}", dir.display()));
    let (mut roots, mut skipped) = Roots::from_der([]);
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_file() {
            let (more, unreadable) = Roots::from_pem_or_der(&std::fs::read(&path).map_err(failed)?);
            roots.extend(more);
            skipped += unreadable;
        }
    }
    if roots.is_empty() {
        return Err(Failure::new(format!("ek_roots {}: expected certificates, found none", dir.display())));
    }
    info!(certificates = roots.len(), skipped, "EK roots");
    Ok(roots)
}
