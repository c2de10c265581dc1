//! Where nodes register: the challenge, and what waits for its answer.
//!
//! Nothing is stored before the TPM has activated the credential. What waits
//! is in memory, bounded, and gone after a restart: the node registers again.

use crate::api::Refusal;
use crate::config::Config;
use crate::domain::{By, Db, Error, NewRegistration};
use crate::keys::fill_random;
use crate::limit::{Holder, Rate, Source, SourceRate, first_to_go};
use crate::{Clock, Failure};
use halfkey_evidence::ek::Roots;
use halfkey_evidence::{credential, registration};
use halfkey_protocol::keys::half;
use halfkey_protocol::wire::{Register, Registered};
use halfkey_protocol::{NodeId, Reason};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tracing::{info, warn};
use zeroize::Zeroizing;

/// Challenges that wait for an answer, all together and per node. Whoever knows
/// an EK can ask for a challenge in its name, with an AK of their own: such ones
/// must not push out the real node's.
const WAITING: usize = 4096;
const WAITING_PER_NODE: usize = 8;

/// The longest suggested label, in characters.
const MAX_LABEL: usize = 64;

/// Registers nodes.
pub struct Desk {
    clock: Clock,
    roots: Option<Roots>,
    lifetime: Duration,
    unenrolled: u64,
    by_source: SourceRate,
    overall: Rate<()>,
    refusals: Rate<NodeId>,
    waiting: Mutex<VecDeque<Challenge>>,
}

struct Challenge {
    registration: NewRegistration,
    source: Source,
    secret: Zeroizing<[u8; 32]>,
    until: Instant,
}

impl Desk {
    /// As the settings say.
    ///
    /// # Errors
    /// When the folder of EK roots can't be read or holds none.
    pub fn new(config: &Config, clock: Clock) -> Result<Self, Failure> {
        Ok(Self {
            clock,
            roots: config.ek_roots.as_deref().map(read_roots).transpose()?,
            lifetime: Duration::from_secs(config.lifetimes.activation),
            unenrolled: config.limits.unenrolled,
            by_source: SourceRate::per_minute(config.limits.registrations_per_source),
            overall: Rate::per_minute(config.limits.registrations_per_minute),
            refusals: Rate::per_minute(1),
            waiting: Mutex::default(),
        })
    }

    /// Checks what a node sent and challenges its TPM.
    ///
    /// # Errors
    /// Those of [`registration::check`], `EkUntrusted`, `AkChanged`, `RateLimited`.
    pub async fn register(
        &self,
        db: &Db,
        mut register: Register,
        version: u32,
        source: Source,
    ) -> Result<Registered, Refusal> {
        self.limit(source)?;
        let checked = registration::check(&register)?;
        let node = checked.node_id();
        if let Some(roots) = &self.roots {
            roots.verify(&checked, &register, self.clock.now())?;
        }
        register.label = clean_label(&register.label);
        let new = NewRegistration {
            node,
            ak_name: checked.ak_name().to_vec(),
            srk_name: checked.srk_name().to_vec(),
            register,
            source,
        };
        if let Some(known) = db.run(move |records| records.registration(node)).await?
            && known.register.ak_public != new.register.ak_public
        {
            return Err(self.refuse_ak(db, node, source).await);
        }
        let secret = self.challenge(new, source)?;
        let credential = credential::make_for_ek(checked.ek(), checked.ak_name(), &*secret)?;
        Ok(Registered { version, node_id: node.to_string(), credential })
    }

    /// Stores what the TPM has proved, with the node's challenge. An answer is good for one time, so one that is sent again can't
    /// bring back an earlier challenge.
    ///
    /// # Errors
    /// `Activation`, `AkChanged`, `RateLimited`.
    pub async fn activate(
        &self,
        db: &Db,
        node: NodeId,
        challenge: [u8; 32],
        proof: &[u8],
        source: Source,
    ) -> Result<(), Refusal> {
        let Some(new) = self.answered(node, &challenge, proof) else {
            return Err(Refusal::new(
                Reason::Activation,
                format!("no challenge of node {node} has this answer"),
            )
            .hint("register again; challenges live for some minutes"));
        };
        let (unenrolled, clock) = (self.unenrolled, self.clock.clone());
        match db
            .run(move |records| records.save_registration(&new, &challenge, unenrolled, clock.now()))
            .await
        {
            Ok(saved) => {
                info!(%node, ?saved, "registered");
                self.by_source.give_back(source);
                Ok(())
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
            .hint("both keys come from the same seed of the TPM: one does not change without the other")
    }

    /// The secret for this registration. The same keys get the same secret as long as
    /// it waits: a repetition, by the node or by somebody else, breaks nothing.
    fn challenge(&self, new: NewRegistration, source: Source) -> Result<Zeroizing<[u8; 32]>, Refusal> {
        let mut waiting = self.fresh();
        let same = |challenge: &&mut Challenge| {
            let known = &challenge.registration;
            (known.node, &known.ak_name, &known.srk_name) == (new.node, &new.ak_name, &new.srk_name)
        };
        if let Some(known) = waiting.iter_mut().find(same) {
            (known.registration, known.source) = (new, source);
            return Ok(known.secret.clone());
        }
        let of_node = |challenge: &Challenge| challenge.registration.node == new.node;
        if waiting.iter().filter(|challenge| of_node(challenge)).count() >= WAITING_PER_NODE {
            let oldest = waiting.iter().position(of_node);
            oldest.and_then(|oldest| waiting.remove(oldest));
        } else if waiting.len() >= WAITING {
            let now = Instant::now();
            // Refusing would let one source keep all others out: the oldest of the one that has most goes.
            let holders = waiting.iter().enumerate().map(|(index, challenge)| Holder {
                id: index as u64,
                source: challenge.source,
                weight: 1,
                idle: self.lifetime.saturating_sub(challenge.until.saturating_duration_since(now)),
            });
            let gone = first_to_go(holders.collect());
            gone.and_then(|gone| waiting.remove(gone as usize));
        }
        let mut secret = Zeroizing::new([0; 32]);
        fill_random(&mut *secret)?;
        let until = Instant::now() + self.lifetime;
        waiting.push_back(Challenge { registration: new, source, secret: secret.clone(), until });
        Ok(secret)
    }

    /// Takes the registration whose challenge has this answer.
    fn answered(&self, node: NodeId, challenge: &[u8; 32], proof: &[u8]) -> Option<NewRegistration> {
        let mut waiting = self.fresh();
        let index = waiting.iter().position(|ours| {
            ours.registration.node == node
                && half::equal(proof, &half::activation_proof(&*ours.secret, &node.0, challenge))
        })?;
        waiting.remove(index).map(|ours| ours.registration)
    }

    fn fresh(&self) -> MutexGuard<'_, VecDeque<Challenge>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        // All live equally long: the oldest are in front.
        while waiting.front().is_some_and(|oldest| oldest.until <= now) {
            waiting.pop_front();
        }
        waiting
    }
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
