//! What `serve` puts together.

use crate::api::{self, Refusal};
use crate::client::Client;
use crate::config::{Config, Role, StateDir};
use crate::domain::{Db, Error, Records};
use crate::keys::{self, ClusterKey, ReleaseKey};
use crate::limit::{Pool, Rate, SourceRate, Standing, Table};
use crate::policies::Library;
use crate::registrar::{Local, Registering, Registrar, Remote};
use crate::tls::{Door, Peer};
use crate::wake::Hub;
use crate::{Clock, Failure, pki, tls};
use halfkey_protocol::document::Deployment;
use halfkey_protocol::{NodeId, Reason};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tracing::{error, info, warn};

/// How often what is over is forgotten.
const SWEEP: Duration = Duration::from_secs(3600);
/// How often the length of the audit trail is written down.
const SIZE: Duration = Duration::from_secs(1);
/// How long the answer of `/healthz` is good for: each probe is a durable write.
const PROBE: Duration = Duration::from_secs(2);
/// Open files besides connections: the database, the listeners, the log.
const OTHER_FILES: usize = 64;
/// Warn when the server certificate ends within so many days.
const EXPIRY_WARNING_DAYS: i64 = 60;

/// All that handlers need.
pub struct App {
    /// The settings.
    pub config: Config,
    /// The time.
    pub clock: Clock,
    /// The database.
    pub db: Db,
    /// Who waits.
    pub hub: Arc<Hub>,
    /// If this process has that role.
    pub registrar: Option<Registering>,
    /// If this process has that role.
    pub verifier: Option<Arc<Verifier>>,
    /// Memory for bodies.
    pub bodies: Arc<Pool>,
    /// Memory for the bodies of clients with a listed certificate.
    pub client_bodies: Arc<Pool>,
    probed: Mutex<Option<Instant>>,
}

/// What the verifier role has.
pub struct Verifier {
    /// Which deployment this is.
    pub deployment: Deployment,
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
    pub forged_by_source: SourceRate,
}

impl App {
    /// Reads keys and opens the database of a state folder.
    ///
    /// # Errors
    /// When something of it is missing, open to others, or can't be used.
    pub fn open(state: &StateDir, config: Config, clock: Clock) -> Result<Arc<Self>, Failure> {
        let records = Records::open_in(state)
            .map_err(|e| Failure::new(format!("{}: {e}", state.database().display())))?;
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
        let hub = Hub::new(config.limits.waiters);
        let waiting = hub.clone();
        records.events().subscribe(move |events| waiting.notify(events));
        let db = Db::new(records);
        let registering =
            || Registering::new(&config, ClusterKey::load(&state.cluster_key())?, clock.clone());
        let registrar = config.role.registers().then(registering).transpose()?;
        let verifier = config.role.verifies().then(|| Verifier::open(state, &config, &db)).transpose()?;
        Ok(Arc::new(Self {
            bodies: Pool::new(config.limits.body_bytes),
            client_bodies: Pool::new(config.limits.body_bytes),
            probed: Mutex::default(),
            verifier: verifier.map(Arc::new),
            registrar,
            hub,
            db,
            clock,
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
    pub fn registrar(&self) -> Result<&Registering, Refusal> {
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

    /// Whether the database can be written.
    ///
    /// # Errors
    /// When it can't.
    pub async fn healthy(&self) -> Result<(), Error> {
        // Held while probing: many questions are one probe.
        let mut probed = self.probed.lock().await;
        if probed.is_some_and(|at| at.elapsed() < PROBE) {
            return Ok(());
        }
        *probed = None;
        let now = self.clock.now();
        self.db.run(move |records| records.probe(now)).await?;
        *probed = Some(Instant::now());
        Ok(())
    }

    async fn sweep(&self) {
        loop {
            let now = self.clock.now();
            let before = now.saturating_sub(self.config.lifetimes.registration);
            match self.db.run(move |records| records.expire(before, now)).await {
                Ok(0) => {}
                Ok(expired) => info!(expired, "registrations that no tenant enrolled expired"),
                Err(e) => warn!(error = %e, "what is over could not be forgotten"),
            }
            tokio::time::sleep(SWEEP).await;
        }
    }
}

/// A database that is put back is noticed by another audit trail: at most a second of it is missed.
async fn note_sizes(db: Db) {
    let mut said = false;
    loop {
        match db.run(|records| records.note_size()).await {
            Ok(()) => said = false,
            Err(e) if !said => {
                warn!(error = %e, "the length of the audit trail could not be written down");
                said = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(SIZE).await;
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
            peer.prove(Standing::Node);
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

    fn open(state: &StateDir, config: &Config, db: &Db) -> Result<Self, Failure> {
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
            _ => Arc::new(Local(db.clone())),
        };
        let ca = std::fs::read_to_string(state.ca())
            .map_err(|e| Failure::new(format!("{}: {e}", state.ca().display())))?;
        Ok(Self {
            deployment: keys::load_deployment(&state.deployment())?,
            cluster: ClusterKey::load(&state.cluster_key())?,
            release: ReleaseKey::load(&state.file("release.key"))?,
            library: Arc::default(),
            registrar,
            ca,
            evidence_rate: Rate::per_minute(config.limits.evidence_per_minute),
            forged_rate: Rate::per_minute(config.limits.forged_per_minute),
            forged_by_source: SourceRate::per_minute(config.limits.forged_per_source),
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
    let server = Listening::open(state, config, Clock::system()).await?;
    announce(&server.app, &server.doors)?;
    server.serve(stop).await;
    Ok(())
}

/// A server whose listeners are bound: who connects from now on is answered as soon as it serves.
pub struct Listening {
    app: Arc<App>,
    doors: Vec<Door>,
}

impl Listening {
    /// Opens a state folder and binds what the settings name.
    ///
    /// # Errors
    /// When something of it is missing, open to others, or can't be used.
    pub async fn open(state: &StateDir, config: Config, clock: Clock) -> Result<Self, Failure> {
        let tls = tls::server_config(state)?;
        warn_of_expiry(state, clock.now());
        let app = App::open(state, config, clock)?;
        let doors = doors(state, &app, tls).await?;
        if app.verifier.is_some()
            && let Err(e) = app.db.run(|records| records.require_here()).await
        {
            error!(error = %e, "nothing is enrolled or unlocked: the database is not the one that this server has answered with");
        }
        Ok(Self { app, doors })
    }

    /// Where it listens: for everybody, then for operators if they have a listener of their own.
    ///
    /// # Errors
    /// When the operating system can't say.
    pub fn addresses(&self) -> std::io::Result<Vec<SocketAddr>> {
        self.doors.iter().map(|door| door.listener.local_addr()).collect()
    }

    /// Serves until `stop` says why not any longer; requests in flight are finished.
    pub async fn serve(self, stop: impl Future<Output = &'static str>) {
        let Self { app, doors } = self;
        let sweeper = tokio::spawn({
            let app = app.clone();
            async move { app.sweep().await }
        });
        let sizes = tokio::spawn(note_sizes(app.db.clone()));
        let hub = app.hub.clone();
        let (stopping, stopped) = tokio::sync::watch::channel(false);
        let serving: Vec<_> = doors
            .into_iter()
            .map(|door| {
                let (app, mut stopped) = (app.clone(), stopped.clone());
                tokio::spawn(async move {
                    let stop = async move { drop(stopped.wait_for(|stopped| *stopped).await) };
                    tls::serve(door, &app.config.limits, stop).await;
                })
            })
            .collect();
        let signal = stop.await;
        info!(signal, "stopping: requests in flight are finished");
        hub.stop();
        let _ = stopping.send(true);
        for door in serving {
            if let Err(e) = door.await {
                warn!(error = %e, "a listener ended early");
            }
        }
        sweeper.abort();
        sizes.abort();
        if let Err(e) = app.db.run(|records| records.note_size()).await {
            warn!(error = %e, "the length of the audit trail could not be written down");
        }
        info!("stopped");
    }
}

/// What is served, and where.
async fn doors(
    state: &StateDir,
    app: &Arc<App>,
    tls: Arc<rustls::ServerConfig>,
) -> Result<Vec<Door>, Failure> {
    let limits = &app.config.limits;
    let files = raise_open_files();
    let of_operators = app.config.operator_listen.map_or(0, |_| limits.operator_connections);
    let needed = (limits.connections + of_operators + OTHER_FILES) as u64;
    if files < needed {
        return Err(Failure::new(format!(
            "expected at least {needed} open files to be allowed, found {files}"
        ))
        .hint("raise LimitNOFILE= of the service, or lower `connections` in the settings"));
    }
    let table = Table::new(limits.connections, limits.reserved_for_nodes, limits.reserved_for_clients);
    let listener = bind(app.config.listen).await?;
    let router = api::router(app.clone(), api::Served::Everything);
    // As the kernel gives them when IPv4 comes in at an IPv6 socket, too.
    let proxies: Arc<[_]> = app.config.proxy_from.iter().map(|proxy| proxy.to_canonical()).collect();
    let mut doors =
        vec![Door { listener, tls, table, router, proxies: proxies.clone(), for_operators: false }];
    if let Some(address) = app.config.operator_listen {
        doors.push(Door {
            listener: bind(address).await?,
            tls: tls::operator_config(state)?,
            table: Table::new(limits.operator_connections, 0, limits.operator_connections / 2),
            router: api::router(app.clone(), api::Served::Operators),
            proxies,
            for_operators: true,
        });
    } else if app.config.operators_only_there {
        return Err(Failure::new("operators_only_there: expected `operator_listen` as well, found none"));
    }
    Ok(doors)
}

/// One line on standard output for each listener, in one write: who reads only the first may close the pipe.
fn announce(app: &App, doors: &[Door]) -> Result<(), Failure> {
    let mut lines = String::new();
    for door in doors {
        let address = door.listener.local_addr().map_err(|e| Failure::new(format!("listening: {e}")))?;
        let whom = if door.for_operators { "for operators " } else { "" };
        lines.push_str(&format!("listening {whom}on https://{address}\n"));
        info!(%address, role = app.role_name(), operators = door.for_operators, version = env!("CARGO_PKG_VERSION"), "ready");
    }
    std::io::stdout().write_all(lines.as_bytes()).map_err(|e| Failure::new(format!("standard output: {e}")))
}

/// As many open files as the system allows: service managers start programs with 1024, which is less
/// than the connections of the default settings. Gives the new limit.
pub fn raise_open_files() -> u64 {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 1024 };
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    }
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

fn warn_of_expiry(state: &StateDir, now: u64) {
    let days = std::fs::read(state.file("server.pem")).ok().and_then(|pem| pki::days_left(&pem, now));
    if let Some(days) = days.filter(|days| *days < EXPIRY_WARNING_DAYS) {
        warn!(
            days,
            hint = "halfkey-verifier certificate --state DIR",
            "the server certificate ends soon: no machine will unlock then"
        );
    }
}
