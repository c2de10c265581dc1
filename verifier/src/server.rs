//! What `serve` puts together.

use crate::api::{self, Refusal};
use crate::client::Client;
use crate::config::{Config, Role, StateDir};
use crate::keys::{ClusterKey, ReleaseKey};
use crate::limit::{Rate, Turns};
use crate::policies::Library;
use crate::registrar::{Desk, Local, Registrar, Remote};
use crate::store::sqlite::Sqlite;
use crate::store::{Db, Store, StoreError};
use crate::wake::Hub;
use crate::{Failure, pki, tls, unix_now};
use halfkey_protocol::{NodeId, Reason};
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tracing::{info, warn};

/// How often what is over is forgotten.
const SWEEP: Duration = Duration::from_secs(3600);
/// How long the answer of `/healthz` is good for: each probe is a durable write.
const PROBE: Duration = Duration::from_secs(2);
/// Large bodies that one source may have in memory at a time; its others wait.
const LARGE_BODIES: usize = 2;
/// Warn when the server certificate ends within so many days.
const EXPIRY_WARNING_DAYS: i64 = 60;

/// All that handlers need.
pub struct App {
    /// The settings.
    pub config: Config,
    /// The database.
    pub db: Db,
    /// Who waits.
    pub hub: Arc<Hub>,
    /// If this process has that role.
    pub registrar: Option<Desk>,
    /// If this process has that role.
    pub verifier: Option<Arc<Verifier>>,
    body_memory: Arc<Semaphore>,
    large_bodies: Turns,
    probed: Mutex<Option<Instant>>,
}

/// A large body's share of the memory for bodies; given back on drop.
pub struct BodyShare {
    _memory: OwnedSemaphorePermit,
    _turn: OwnedSemaphorePermit,
}

/// What the verifier role has.
pub struct Verifier {
    /// Authenticates nonces.
    pub cluster: ClusterKey,
    /// Signs releases.
    pub release: ReleaseKey,
    /// Policies, ready to judge.
    pub library: Arc<Library>,
    /// Here or elsewhere.
    pub registrar: Arc<dyn Registrar>,
    /// The CA that nodes pin, PEM.
    pub ca: String,
    /// Evidence that a node signed, with or without a proposal.
    pub evidence_rate: Rate<NodeId>,
    /// Evidence in a node's name that is not its own.
    pub forged_rate: Rate<NodeId>,
    /// The same by source, whatever node is named.
    pub forged_by_source: Rate<IpAddr>,
}

impl App {
    /// Reads keys and opens the database of a state folder.
    ///
    /// # Errors
    /// When something of it is missing, open to others, or can't be used.
    pub fn open(state: &StateDir, config: Config) -> Result<Arc<Self>, Failure> {
        let store = Sqlite::open(&state.database())
            .map_err(|e| Failure::new(format!("{}: {e}", state.database().display())))?;
        Self::with_store(state, config, Arc::new(store))
    }

    /// The same over a store that is open already.
    ///
    /// # Errors
    /// When something is missing, open to others, or can't be used.
    pub fn with_store(state: &StateDir, config: Config, store: Arc<dyn Store>) -> Result<Arc<Self>, Failure> {
        let hub = Hub::new(config.limits.waiters);
        let db = Db::new(store, hub.clone());
        let registrar = config.role.registers().then(|| Desk::new(&config)).transpose()?;
        let verifier = config.role.verifies().then(|| Verifier::open(state, &config, &db)).transpose()?;
        Ok(Arc::new(Self {
            body_memory: Arc::new(Semaphore::new(
                kib(config.limits.body_bytes.max(halfkey_protocol::MAX_BODY)) as usize,
            )),
            large_bodies: Turns::new(LARGE_BODIES),
            probed: Mutex::default(),
            verifier: verifier.map(Arc::new),
            registrar,
            hub,
            db,
            config,
        }))
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
    pub fn registrar(&self) -> Result<&Desk, Refusal> {
        self.registrar.as_ref().ok_or_else(|| Refusal::new(Reason::WrongRole, "not a registrar"))
    }

    /// What this server is, for people.
    pub fn role_name(&self) -> &'static str {
        match self.config.role {
            Role::All => "registrar and verifier",
            Role::Registrar => "registrar",
            Role::Verifier => "verifier",
        }
    }

    /// Where the other role is.
    pub fn other_role_hint(&self) -> String {
        match &self.config.registrar {
            Some(url) => format!("the registrar is at {url}"),
            None => format!("the verifier is at {}", self.config.urls.join(", ")),
        }
    }

    /// Waits for room for a large body of `len` bytes, which is at most [`halfkey_protocol::MAX_BODY`].
    /// First for the source's turn: a source that has its share does not stand in the way of others.
    pub async fn body_memory(&self, source: IpAddr, len: usize) -> BodyShare {
        let turn = self.large_bodies.turn(source).await;
        let memory = self.body_memory.clone().acquire_many_owned(kib(len)).await;
        BodyShare { _memory: memory.expect("the semaphore is never closed"), _turn: turn }
    }

    /// Whether the database can be written.
    ///
    /// # Errors
    /// When it can't.
    pub async fn healthy(&self) -> Result<(), StoreError> {
        // Held while probing: many questions are one probe.
        let mut probed = self.probed.lock().await;
        if probed.is_some_and(|at| at.elapsed() < PROBE) {
            return Ok(());
        }
        *probed = None;
        self.db.read(|store| store.probe(unix_now())).await?;
        *probed = Some(Instant::now());
        Ok(())
    }

    async fn sweep(&self) {
        loop {
            let before = unix_now().saturating_sub(self.config.lifetimes.registration);
            match self.db.read(move |store| store.expire(before, unix_now())).await {
                Ok(0) => {}
                Ok(expired) => info!(expired, "registrations that no tenant enrolled expired"),
                Err(e) => warn!(error = %e, "what is over could not be forgotten"),
            }
            tokio::time::sleep(SWEEP).await;
        }
    }
}

impl Verifier {
    /// Counts a piece of evidence. Only what the node signed counts against it: anybody can name it.
    ///
    /// # Errors
    /// Why it is too much.
    pub fn admit(&self, node: NodeId, authentic: bool, source: IpAddr) -> Result<(), StoreError> {
        let limited = |what: String| Err(StoreError::Refused(Reason::RateLimited, what));
        if authentic {
            if !self.evidence_rate.take(node) {
                return limited(format!("too much evidence of node {node}"));
            }
        } else if !self.forged_by_source.take(source) {
            return limited("too much evidence from this address that is not a node's".to_owned());
        } else if !self.forged_rate.take(node) {
            return limited("too much evidence that is not this node's".to_owned());
        }
        Ok(())
    }

    fn open(state: &StateDir, config: &Config, db: &Db) -> Result<Self, Failure> {
        let registrar: Arc<dyn Registrar> = match (config.role, &config.registrar) {
            (Role::Verifier, Some(url)) => {
                // A boot does not wait long for it: the copy of the enrollment serves as well.
                Arc::new(Remote(Client::from_state(state, "peer", url)?.within(Duration::from_secs(2))))
            }
            (Role::Verifier, None) => {
                return Err(Failure::new("role verifier: expected `registrar` in the settings, found none")
                    .hint(
                        "`halfkey-verifier certificate --role registrar` makes the other host's state folder",
                    ));
            }
            _ => Arc::new(Local(db.clone())),
        };
        let ca = std::fs::read_to_string(state.ca())
            .map_err(|e| Failure::new(format!("{}: {e}", state.ca().display())))?;
        Ok(Self {
            cluster: ClusterKey::load(&state.file("cluster.key"))?,
            release: ReleaseKey::load(&state.file("release.key"))?,
            library: Arc::default(),
            registrar,
            ca,
            evidence_rate: Rate::per_minute(config.limits.evidence_per_minute),
            forged_rate: Rate::per_minute(config.limits.forged_per_minute),
            forged_by_source: Rate::per_minute(config.limits.forged_per_source),
        })
    }
}

/// Serves until SIGTERM or SIGINT. Prints one line on standard output when ready.
///
/// # Errors
/// When it can't start.
pub async fn run(state: &StateDir, config: Config) -> Result<(), Failure> {
    // Before anything is announced: a signal from now on means a graceful end.
    let stop = stop_signal()?;
    let tls = tls::server_config(state)?;
    warn_of_expiry(state);
    let app = App::open(state, config)?;
    let listener = bind(app.config.listen).await?;
    let address = listener
        .local_addr()
        .map_err(|e| Failure::new(format!("listening on {}: {e}", app.config.listen)))?;
    let sweeper = tokio::spawn({
        let app = app.clone();
        async move { app.sweep().await }
    });
    writeln!(std::io::stdout(), "listening on https://{address}")
        .map_err(|e| Failure::new(format!("standard output: {e}")))?;
    info!(%address, role = app.role_name(), version = env!("CARGO_PKG_VERSION"), "ready");
    let hub = app.hub.clone();
    let stop = async move {
        let signal = stop.await;
        info!(signal, "stopping: requests in flight are finished");
        hub.stop();
    };
    tls::serve(listener, tls, api::router(app.clone()), &app.config.limits, stop).await;
    sweeper.abort();
    info!("stopped");
    Ok(())
}

async fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    let bound = match TcpListener::bind(address).await {
        // A host without IPv6 (EAFNOSUPPORT, EADDRNOTAVAIL): the unspecified address means all there is.
        Err(e)
            if address.is_ipv6()
                && address.ip().is_unspecified()
                && matches!(e.raw_os_error(), Some(97 | 99)) =>
        {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    };
    bound.map_err(|e| Failure::new(format!("listening on {address}: {e}")))
}

fn stop_signal() -> Result<impl Future<Output = &'static str>, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed = |e: std::io::Error| Failure::new(format!("signals: {e}"));
    let mut term = signal(SignalKind::terminate()).map_err(failed)?;
    let mut int = signal(SignalKind::interrupt()).map_err(failed)?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => "SIGTERM",
            _ = int.recv() => "SIGINT",
        }
    })
}

fn warn_of_expiry(state: &StateDir) {
    let days = std::fs::read(state.file("server.pem")).ok().and_then(|pem| pki::days_left(&pem, unix_now()));
    if let Some(days) = days.filter(|days| *days < EXPIRY_WARNING_DAYS) {
        warn!(
            days,
            hint = "halfkey-verifier certificate --state DIR",
            "the server certificate ends soon: no machine will unlock then"
        );
    }
}

fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}
