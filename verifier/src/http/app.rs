//! What handlers need.

use super::begun::BegunNodes;
use super::refusal::Refusal;
use crate::client::Client;
use crate::config::{Config, Role, StateDir};
use crate::current::Current;
use crate::domain::{Db, Error, Records};
use crate::events::{Announcement, Event};
use crate::keys::{self, ClusterKey, ReleaseKey};
use crate::limit::{Pool, Rate, SourceRate, Turns};
use crate::long_poll::LongPolls;
use crate::metrics::Metrics;
use crate::policies::Library;
use crate::registrar::{Local, Registering, Registrar, Remote};
use crate::tls::Peer;
use crate::webhooks::{self, endpoint::Endpoint};
use crate::{Clock, Failure};
use halfkey_protocol::document::Deployment;
use halfkey_protocol::{NodeId, Reason};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, Notify};

/// How long the answer of `/readyz` is good for: each probe is a durable write.
const PROBE: Duration = Duration::from_secs(2);

/// All that handlers need.
pub struct App {
    config: Current<Config>,
    /// The time.
    pub clock: Clock,
    /// The database, for who has a certificate and for the server itself.
    pub db: Db,
    /// The same for what anybody may ask: it leaves threads for the others.
    pub public_db: Db,
    /// Who waits.
    pub long_polls: Arc<LongPolls>,
    /// There is something to be looked at in the database.
    pub look: Arc<Notify>,
    /// If this process has that role.
    pub registrar: Option<Registering>,
    /// If this process has that role.
    pub verifier: Option<Arc<Verifier>>,
    /// Memory for bodies.
    pub bodies: Arc<Pool>,
    /// Memory for the bodies of clients with a listed certificate.
    pub client_bodies: Arc<Pool>,
    /// What is counted and measured.
    pub metrics: Metrics,
    /// Who is told what has happened.
    pub webhooks: Vec<Arc<Endpoint>>,
    probed: Arc<Mutex<Option<Instant>>>,
    stopping: AtomicBool,
}

/// What the verifier role has.
pub struct Verifier {
    /// Which deployment this is.
    pub deployment: Deployment,
    /// Authenticates nonces.
    pub cluster: Arc<ClusterKey>,
    /// Signs releases.
    pub release: ReleaseKey,
    /// Policies, ready to judge.
    pub library: Arc<Library>,
    /// Turns of operators at the sequence.
    pub turns: Arc<Turns>,
    /// Nodes whose evidence is about to come.
    pub begun: BegunNodes,
    /// Here or elsewhere.
    pub registrar: Arc<dyn Registrar>,
    /// The CA that nodes pin, PEM.
    pub ca: String,
    /// Evidence that a node signed, with or without a proposal.
    pub evidence_rate: Rate<NodeId>,
    /// Evidence in a node's name that is not its own.
    pub forged_rate: Rate<NodeId>,
    /// The same by source, whatever node is named.
    pub forged_by_source: SourceRate,
}

impl App {
    /// Reads keys and opens the database of a state folder.
    ///
    /// # Errors
    /// When something of it is missing, open to others, or can't be used.
    pub fn open(state: &StateDir, config: Config, clock: Clock) -> Result<Arc<Self>, Failure> {
        let records = crate::init::open_records(state)?;
        Self::with_records(state, config, Arc::new(records), clock)
    }

    /// The same over records that are open already.
    ///
    /// # Errors
    /// When something is missing, open to others, or can't be used.
    pub fn with_records(
        state: &StateDir,
        config: Config,
        records: Arc<Records>,
        clock: Clock,
    ) -> Result<Arc<Self>, Failure> {
        let long_polls = LongPolls::new(config.limits.waiters);
        let waiting = long_polls.clone();
        records.events().subscribe(move |events| waiting.notify(events));
        let look = Arc::new(Notify::new());
        let (waiting, documents) = (long_polls.clone(), look.clone());
        records.join(move |said| match said {
            Announcement::Node(node) => waiting.notify(&[Event::NodeChanged(node)]),
            Announcement::Documents => documents.notify_one(),
        });
        let webhooks = if config.role.verifies() { webhooks::open(&config)? } else { Vec::new() };
        if !webhooks.is_empty() {
            records.subscriptions().set(webhooks::subscriptions(&config));
        }
        let metrics = Metrics::new(&records, clock.now());
        // A TPM that sealed it takes its time: once is enough.
        let cluster = records.cluster_key();
        let db = Db::new(records);
        let public_db = db.for_anybody();
        let registering = || Registering::new(&config, cluster.clone(), clock.clone());
        let registrar = config.role.registers().then(registering).transpose()?;
        let opened = || Verifier::open(state, &config, cluster.clone(), &db, &public_db);
        let verifier = config.role.verifies().then(opened).transpose()?;
        Ok(Arc::new(Self {
            bodies: Pool::new(config.limits.body_bytes),
            client_bodies: Pool::new(config.limits.body_bytes),
            metrics,
            webhooks,
            probed: Arc::default(),
            stopping: AtomicBool::new(false),
            verifier: verifier.map(Arc::new),
            registrar,
            long_polls,
            look,
            public_db,
            db,
            clock,
            config: Current::new(config),
        }))
    }

    /// The settings, as they are now.
    pub fn config(&self) -> Arc<Config> {
        self.config.get()
    }

    /// Other settings from now on.
    pub fn take(&self, config: Config) {
        self.config.set(config);
    }

    /// The verifier role.
    ///
    /// # Errors
    /// `WrongRole`; the routes don't let it come to that.
    pub fn verifier(&self) -> Result<&Arc<Verifier>, Refusal> {
        self.verifier.as_ref().ok_or_else(|| Refusal::new(Reason::WrongRole, "not a verifier"))
    }

    /// The registrar role.
    ///
    /// # Errors
    /// `WrongRole`; the routes don't let it come to that.
    pub fn registrar(&self) -> Result<&Registering, Refusal> {
        self.registrar.as_ref().ok_or_else(|| Refusal::new(Reason::WrongRole, "not a registrar"))
    }

    /// What this server is, for people.
    pub fn role_name(&self) -> &'static str {
        match self.config().role {
            Role::All => "registrar and verifier",
            Role::Registrar => "registrar",
            Role::Verifier => "verifier",
        }
    }

    /// Where the other role is.
    pub fn other_role_hint(&self) -> String {
        let config = self.config();
        match &config.registrar {
            Some(url) => format!("the registrar is at {url}"),
            None => format!("the verifier is at {}", config.urls.join(", ")),
        }
    }

    /// The server was told to stop: it is not ready any more.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Whether it was.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Whether a machine that asks now would be served: the server is not about to stop, the database is the one that it has
    /// answered with, and can be written. Keys and schema were looked at when it started.
    ///
    /// # Errors
    /// Why not.
    pub async fn ready(&self) -> Result<(), Error> {
        if self.is_stopping() {
            return Err(Error::Refused(Reason::Unavailable, "it stops".to_owned()));
        }
        // Held while probing, also when who asked has gone away: many questions are one probe, whoever asks.
        let mut probed = self.probed.clone().lock_owned().await;
        if probed.is_some_and(|at| at.elapsed() < PROBE) {
            return Ok(());
        }
        *probed = None;
        let (now, verifies) = (self.clock.now(), self.verifier.is_some());
        let probe = move |records: &Records| {
            if verifies {
                records.require_here()?;
            }
            records.probe(now)
        };
        let db = self.db.clone();
        let looking = tokio::spawn(async move {
            db.run(probe).await?;
            *probed = Some(Instant::now());
            Ok(())
        });
        looking.await.unwrap_or_else(|e| Err(Error::unavailable(format!("the probe ended early: {e}"))))
    }
}

impl Verifier {
    /// Counts a piece of evidence. Only what the node signed counts against it: anybody can name it.
    ///
    /// # Errors
    /// Why it is too much.
    pub fn admit(&self, node: NodeId, authentic: bool, peer: &Peer) -> Result<(), Error> {
        let limited = |what: String| Err(Error::Refused(Reason::RateLimited, what));
        if authentic {
            if !self.evidence_rate.take(node) {
                return limited(format!("too much evidence of node {node}"));
            }
        } else if !self.forged_by_source.take(peer.source) {
            return limited("too much evidence from this address that is not a node's".to_owned());
        } else if !self.forged_rate.take(node) {
            return limited("too much evidence that is not this node's".to_owned());
        }
        Ok(())
    }

    /// Whether nodes are told to pin the CA that a state folder has now.
    pub fn is_of(&self, state: &StateDir) -> bool {
        std::fs::read_to_string(state.ca()).is_ok_and(|ca| ca == self.ca)
    }

    fn open(
        state: &StateDir,
        config: &Config,
        cluster: Arc<ClusterKey>,
        db: &Db,
        public_db: &Db,
    ) -> Result<Self, Failure> {
        let registrar: Arc<dyn Registrar> = match (config.role, &config.registrar) {
            (Role::Verifier, Some(url)) => {
                // A boot does not wait long for it: the copy of the enrollment serves as well.
                Arc::new(Remote::new(Client::from_state(state, "peer", url)?.within(Duration::from_secs(2))))
            }
            (Role::Verifier, None) => {
                return Err(Failure::new("role verifier: expected `registrar` in the settings, found none")
                    .hint(
                        "`halfkey-verifier certificate --role registrar` makes the other host's state folder",
                    ));
            }
            _ => Arc::new(Local { db: db.clone(), public_db: public_db.clone() }),
        };
        let ca = std::fs::read_to_string(state.ca())
            .map_err(|e| Failure::new(format!("{}: {e}", state.ca().display())))?;
        Ok(Self {
            deployment: keys::load_deployment(&state.deployment())?,
            cluster,
            release: ReleaseKey::load(state)?,
            library: Arc::default(),
            turns: Arc::default(),
            begun: BegunNodes::default(),
            registrar,
            ca,
            evidence_rate: Rate::per_minute(config.limits.evidence_per_minute),
            forged_rate: Rate::per_minute(config.limits.forged_per_minute),
            forged_by_source: SourceRate::per_minute(config.limits.forged_per_source),
        })
    }
}
