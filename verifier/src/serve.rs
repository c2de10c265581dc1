//! What `serve` puts together.

use crate::config::{Config, StateDir};
use crate::current::Current;
use crate::domain::Db;
use crate::http::{self, app::App};
use crate::limit::ConnectionTable;
use crate::metrics::listener;
use crate::pulse::Pulse;
use crate::reload::{Read, Reload};
use crate::tls::{Door, Terms};
use crate::{Clock, Failure, cluster_key, pki, standbys, tls, utc, webhooks};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout_at;
use tracing::{error, info, warn};

/// How often what is over is forgotten.
const SWEEP: Duration = Duration::from_secs(3600);
/// How often the length of the audit trail is written down.
const SIZE: Duration = Duration::from_secs(1);
/// How often it is said that it can't be.
const SAY_AGAIN: Duration = Duration::from_secs(60);
/// How often the database is asked what its standbys are.
const STANDBYS: Duration = Duration::from_secs(60);
/// Open files besides connections: the database, the listeners, the log.
const OTHER_FILES: usize = 64;
/// Warn when the server certificate ends within so many days.
const EXPIRY_WARNING_DAYS: i64 = 60;

/// Forgets what is over.
async fn sweep(app: &App) {
    loop {
        let now = app.clock.now();
        let before = now.saturating_sub(app.config().lifetimes.registration);
        match app.db.run(move |records| records.expire(before, now)).await {
            Ok(0) => {}
            Ok(expired) => info!(expired, "registrations that no tenant enrolled expired"),
            Err(e) => warn!(error = %e, "what is over could not be forgotten"),
        }
        tokio::time::sleep(SWEEP).await;
    }
}

/// A database that is put back is noticed by another audit trail: at most a second of it is missed. What other servers were told is
/// seen here as well: at once if they say that there is something to see.
async fn note_sizes(app: &App) {
    let mut said: Option<Instant> = None;
    loop {
        match app.db.run(|records| records.note_size()).await {
            Ok(()) => said = None,
            Err(e) if said.is_none_or(|at| at.elapsed() >= SAY_AGAIN) => {
                error!(error = %e, "the length of the audit trail could not be written down: a database that is put back is not noticed by it");
                said = Some(Instant::now());
            }
            Err(_) => {}
        }
        tokio::select! {
            () = app.look.notified() => {}
            () = tokio::time::sleep(SIZE) => {}
        }
    }
}

/// Somebody may change them, and after a failover it is another server.
async fn watch_standbys(db: Db, mut watch: standbys::Watch) {
    loop {
        tokio::time::sleep(STANDBYS).await;
        watch.look(&db).await;
    }
}

/// Serves until SIGTERM or SIGINT; at SIGHUP settings and certificates are read again. Prints one line on standard output for each
/// listener when ready.
///
/// # Errors
/// When it can't start.
pub async fn run(state: &StateDir, config: Config, read: Read) -> Result<(), Failure> {
    // Before anything is announced: a signal from now on means a graceful end.
    let told = signals()?;
    let mut server = Listening::open(state, config, Clock::system()).await?;
    server.reload.read = read;
    announce(&server)?;
    server.serve(told).await;
    Ok(())
}

/// What somebody outside wants of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// To stop, for this reason. Once more: at once.
    Stop(&'static str),
    /// To read settings and certificates again.
    Reload,
}

/// A server whose listeners are bound: who connects from now on is answered as soon as it serves.
pub struct Listening {
    app: Arc<App>,
    doors: Vec<Door>,
    standbys: standbys::Watch,
    metrics: Option<TcpListener>,
    reload: Reload,
}

impl Listening {
    /// Opens a state folder and binds what the settings name.
    ///
    /// # Errors
    /// When something of it is missing, open to others, or can't be used.
    pub async fn open(state: &StateDir, config: Config, clock: Clock) -> Result<Self, Failure> {
        config.check()?;
        let terms = Terms::of(state, &config, false)?;
        let mut standbys = standbys::Watch::new(config.standbys);
        let used = cluster_key::in_use(state)?;
        let app = App::open(state, config, clock)?;
        standbys.require(&app.db).await?;
        note_expiry(state, &app);
        let doors = doors(state, &app, terms).await?;
        let metrics = match app.config().metrics_listen {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        if app.verifier.is_some()
            && let Err(e) = app.db.run(|records| records.require_here()).await
        {
            error!(error = %e, "nothing is enrolled or unlocked: the database is not the one that this server has answered with");
        }
        // Machines are unlocked all the same.
        if let Some(used) = used
            && let Err(e) = cluster_key::note_use(state, &used)
        {
            warn!(error = %e, "it could not be written down that the new cluster key is used: `cluster-key drop` will refuse");
        }
        let again = state.clone();
        let reload = Reload {
            state: state.clone(),
            read: Box::new(move || Config::load(&again)),
            app: app.clone(),
            doors: doors.iter().map(|door| (door.for_operators, door.terms.clone())).collect(),
        };
        Ok(Self { app, doors, metrics, standbys, reload })
    }

    /// Where it listens: for everybody, then for operators if they have a listener of their own.
    ///
    /// # Errors
    /// When the operating system can't say.
    pub fn addresses(&self) -> std::io::Result<Vec<SocketAddr>> {
        self.doors.iter().map(|door| door.listener.local_addr()).collect()
    }

    /// Serves until it is told to stop, or nobody is left who could tell it; requests in flight are finished.
    pub async fn serve(self, mut told: mpsc::Receiver<Told>) {
        let Self { app, doors, metrics, standbys, reload } = self;
        let _pulse = Pulse::start();
        let watched =
            metrics.map(|at| tokio::spawn(listener::serve(at, http::observe::watcher_routes(app.clone()))));
        let sweeper = tokio::spawn({
            let app = app.clone();
            async move { sweep(&app).await }
        });
        let standbys = tokio::spawn(watch_standbys(app.db.clone(), standbys));
        let delivering = tokio::spawn(webhooks::deliver::deliver(app.clone()));
        let sizes = tokio::spawn({
            let app = app.clone();
            async move { note_sizes(&app).await }
        });
        let long_polls = app.long_polls.clone();
        let (stopping, stopped) = tokio::sync::watch::channel(false);
        let serving: Vec<_> = doors
            .into_iter()
            .map(|door| {
                let mut stopped = stopped.clone();
                tokio::spawn(tls::serve(door, async move {
                    drop(stopped.wait_for(|stopped| *stopped).await);
                }))
            })
            .collect();
        let signal = loop {
            match told.recv().await {
                Some(Told::Stop(why)) => break why,
                Some(Told::Reload) => reload.run(),
                None => break "nobody can tell",
            }
        };
        app.stop();
        drain(&app, signal, &mut told).await;
        info!(signal, "stopping: requests in flight are finished");
        let deadline =
            tokio::time::Instant::now() + Duration::from_secs(app.config().limits.shutdown_seconds);
        long_polls.stop();
        let _ = stopping.send(true);
        for door in serving {
            if let Err(e) = door.await {
                warn!(error = %e, "a listener ended early");
            }
        }
        // What is asked by who has hung up ends as well: the runtime waits for threads, and not for tasks.
        if timeout_at(deadline, app.public_db.ended()).await.is_err() {
            warn!("what was asked by peers that have hung up did not end in time");
        }
        sweeper.abort();
        delivering.abort();
        standbys.abort();
        sizes.abort();
        if let Err(e) = app.db.run(|records| records.note_size()).await {
            warn!(error = %e, "the length of the audit trail could not be written down");
        }
        // Until the end: that it stops is worth knowing.
        if let Some(watched) = watched {
            watched.abort();
        }
        info!("stopped");
    }
}

/// Gives load balancers time to send no more.
async fn drain(app: &App, signal: &str, told: &mut mpsc::Receiver<Told>) {
    let seconds = app.config().limits.drain_seconds;
    if seconds == 0 {
        return;
    }
    info!(signal, seconds, "not ready any more: who comes is served until load balancers know");
    let again = async { while told.recv().await == Some(Told::Reload) {} };
    tokio::select! {
        () = again => {}
        () = tokio::time::sleep(Duration::from_secs(seconds)) => {}
    }
}

/// What is served, and where.
async fn doors(state: &StateDir, app: &Arc<App>, terms: Terms) -> Result<Vec<Door>, Failure> {
    let config = app.config();
    let limits = &config.limits;
    let files = raise_open_files();
    let of_operators = config.operator_listen.map_or(0, |_| limits.operator_connections);
    let needed = (limits.connections + of_operators + OTHER_FILES) as u64;
    if files < needed {
        return Err(Failure::new(format!(
            "expected at least {needed} open files to be allowed, found {files}"
        ))
        .hint("raise LimitNOFILE= of the service, or lower `connections` in the settings"));
    }
    let table =
        ConnectionTable::new(limits.connections, limits.reserved_for_nodes, limits.reserved_for_clients);
    app.metrics.watch("everybody", table.clone());
    let listener = bind(config.listen).await?;
    let router = http::router(app.clone(), http::Served::Everything);
    let terms = Arc::new(Current::new(terms));
    let mut doors = vec![Door { listener, terms, table, router, for_operators: false }];
    if let Some(address) = config.operator_listen {
        let table = ConnectionTable::new(limits.operator_connections, 0, limits.operator_connections / 2);
        app.metrics.watch("operators", table.clone());
        doors.push(Door {
            listener: bind(address).await?,
            terms: Arc::new(Current::new(Terms::of(state, &config, true)?)),
            table,
            router: http::router(app.clone(), http::Served::Operators),
            for_operators: true,
        });
    }
    Ok(doors)
}

/// One line on standard output for each listener, in one write: who reads only the first may close the pipe.
fn announce(server: &Listening) -> Result<(), Failure> {
    let Listening { app, doors, metrics, .. } = server;
    let unknown = |e: std::io::Error| Failure::new(format!("listening: {e}"));
    let mut lines = String::new();
    for door in doors {
        let address = door.listener.local_addr().map_err(unknown)?;
        let whom = if door.for_operators { "for operators " } else { "" };
        lines.push_str(&format!("listening {whom}on https://{address}\n"));
        info!(%address, role = app.role_name(), operators = door.for_operators, version = env!("CARGO_PKG_VERSION"), "ready");
    }
    if let Some(metrics) = metrics {
        let address = metrics.local_addr().map_err(unknown)?;
        lines.push_str(&format!("listening for metrics on http://{address}\n"));
        info!(%address, "metrics");
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

/// What signals tell. From now on none of them ends the process by itself.
fn signals() -> Result<mpsc::Receiver<Told>, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed = |e: std::io::Error| Failure::new(format!("signals: {e}"));
    let mut term = signal(SignalKind::terminate()).map_err(failed)?;
    let mut int = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut hup = signal(SignalKind::hangup()).map_err(failed)?;
    let (tell, told) = mpsc::channel(4);
    tokio::spawn(async move {
        loop {
            let what = tokio::select! {
                _ = term.recv() => Told::Stop("SIGTERM"),
                _ = int.recv() => Told::Stop("SIGINT"),
                _ = hup.recv() => Told::Reload,
            };
            if tell.send(what).await.is_err() {
                return;
            }
        }
    });
    Ok(told)
}

/// When certificates end: for metrics, and for the log if that is soon.
pub fn note_expiry(state: &StateDir, app: &App) {
    for (file, path) in [("server.pem", state.file("server.pem")), ("ca.pem", state.ca())] {
        if let Some(not_after) = std::fs::read(path).ok().and_then(|pem| pki::not_after(&pem)) {
            app.metrics.certificate(file, not_after);
        }
    }
    let pem = std::fs::read(state.file("server.pem")).ok();
    let now = app.clock.now();
    let hint = "halfkey-verifier certificate --state DIR";
    match pem.as_deref().and_then(|pem| Some((pki::not_after(pem)?, pki::days_left(pem, now)?))) {
        Some((end, _)) if end < now as i64 => {
            error!(since = %utc(end as u64), hint, "the server certificate has ended: no machine unlocks");
        }
        Some((_, days)) if days < EXPIRY_WARNING_DAYS => {
            warn!(days, hint, "the server certificate ends soon: no machine will unlock then");
        }
        _ => {}
    }
}
