//! Making state folders, operators and certificates.

use crate::client::host_and_port;
use crate::config::{self, Config, DatabaseUrl, Lifetimes, Limits, LogFormat, Role, StateDir};
use crate::domain::state_file::Kept;
use crate::domain::{Client, ClientKind, Error, Records};
use crate::key_files::KeyForm;
use crate::keys::{self, ClusterKey, write_new, write_secret};
use crate::pki::{self, Ca};
use crate::standbys::StandbyMode;
use crate::store::{Location, StoreError};
use crate::{Failure, unix_now};
use halfkey_protocol::document::Place;
use serde::Serialize;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// What `init` is told.
pub struct Init {
    /// URLs at which nodes and operators reach the verifier, best first.
    pub urls: Vec<String>,
    /// More names and addresses for the server certificate.
    pub sans: Vec<String>,
    /// The first operator.
    pub operator: String,
    /// A folder of EK root certificates.
    pub ek_roots: Option<PathBuf>,
    /// A PostgreSQL database that nobody uses yet.
    pub database: Option<DatabaseUrl>,
}

/// What an operator imports with `halfkey login`.
#[derive(Serialize)]
struct Bundle<'a> {
    version: u32,
    name: &'a str,
    servers: &'a [String],
    ca: &'a str,
    certificate: &'a str,
    key: &'a str,
}

/// Makes a state folder, and gives the path of the first operator's bundle.
///
/// # Errors
/// When it exists already or can't be written; then nothing of it is left.
pub fn init(state: &StateDir, init: &Init) -> Result<PathBuf, Failure> {
    let config = Config {
        listen: listen_address(&init.urls)?,
        operator_listen: None,
        metrics_listen: None,
        operators_only_there: false,
        proxy_from: Vec::new(),
        role: Role::All,
        database: init.database.clone(),
        standbys: StandbyMode::default(),
        release_key: KeyForm::File,
        tpm: None,
        min_rate: config::min_rate(),
        urls: init.urls.clone(),
        registrar: None,
        ek_roots: init.ek_roots.as_deref().map(absolute).transpose()?,
        log_format: LogFormat::Text,
        lifetimes: Lifetimes::default(),
        limits: Limits::default(),
        webhooks: Vec::new(),
    };
    check_name(&init.operator)?;
    if let Some(url) = &init.database {
        url.require_no_password()?;
        url.address()?;
    }
    let sans = subject_names(&init.urls, &init.sans)?;
    fresh_folder(state)?;
    let made = || {
        let ca = pki::create_ca(state.path())?;
        ca.server(&sans)?.write(state.path(), "server")?;
        ClusterKey::create(state, &state.cluster_key())?;
        let release = rcgen::KeyPair::generate().map_err(|e| Failure::new(format!("release key: {e}")))?;
        let release = Zeroizing::new(release.serialize_pem());
        write_secret(&state.release_key(), release.as_bytes())?;
        let deployment = keys::create_deployment(&state.deployment())?;
        Kept::create(&state.sequence(), deployment, &Place::default(), &Place::default())
            .map_err(|e| Failure::new(format!("{}: {e}", state.sequence().display())))?;
        write_new(&state.config_file(), config.render().as_bytes(), 0o644)?;
        require_new(&open_records(state)?, &state.database()?)?;
        add_operator(state, &ca, &config, &init.operator, None)
    };
    made().inspect_err(|_| clear_folder(state))
}

/// One that has records is another deployment's, or the same one's that this folder would have to be a copy of.
///
/// # Errors
/// When it has some, or can't be read.
pub fn require_new(records: &Records, at: &Location) -> Result<(), Failure> {
    if records.is_new().map_err(|e| Failure::new(e.to_string()))? {
        return Ok(());
    }
    Err(Failure::new(format!("{at}: expected an empty database, found records"))
        .hint("a second server for them needs a copy of the state folder of the first: docs/service.md"))
}

/// The server may be started in another folder.
fn absolute(dir: &Path) -> Result<PathBuf, Failure> {
    std::fs::canonicalize(dir).map_err(|e| Failure::new(format!("ek_roots {}: {e}", dir.display())))
}

/// Lists a new operator and writes their bundle, by default into the state folder.
///
/// # Errors
/// When the name is taken or something can't be written; while a command is at work that needs the server stopped.
pub fn add_operator(
    state: &StateDir,
    ca: &Ca,
    config: &Config,
    name: &str,
    out: Option<&Path>,
) -> Result<PathBuf, Failure> {
    let _serving = state.lock_serving()?;
    check_name(name)?;
    let issued = ca.client(name)?;
    let pem = std::fs::read_to_string(state.ca())
        .map_err(|e| Failure::new(format!("{}: {e}", state.ca().display())))?;
    let bundle = Bundle {
        version: 1,
        name,
        servers: &config.urls,
        ca: &pem,
        certificate: &issued.certificate,
        key: &issued.key,
    };
    let text = Zeroizing::new(
        serde_json::to_string_pretty(&bundle).map_err(|e| Failure::new(format!("bundle: {e}")))?,
    );
    let path = out.map_or_else(|| state.file(&format!("operator-{name}.bundle")), Path::to_path_buf);
    write_secret(&path, text.as_bytes())?;
    let client = Client {
        fingerprint: issued.fingerprint(),
        name: name.to_owned(),
        kind: ClientKind::Operator,
        added_at: unix_now(),
    };
    let listed = open_records(state)
        .and_then(|records| records.add_client(&client).map_err(|e| Failure::new(e.to_string())));
    if let Err(e) = listed {
        // A bundle that nobody accepts helps nobody.
        let _ = std::fs::remove_file(&path);
        return Err(e);
    }
    Ok(path)
}

/// Stops accepting an operator's certificate.
///
/// # Errors
/// When there is none of that name, or the database can't be written; while a command is at work that needs the server stopped.
pub fn remove_operator(state: &StateDir, name: &str) -> Result<(), Failure> {
    // Who moves the database somewhere else would leave it listed there.
    let _serving = state.lock_serving()?;
    let removed = open_records(state)?.remove_client(name, ClientKind::Operator, unix_now());
    removed.map_err(|e| Failure::new(e.to_string()))
}

/// Makes a new server certificate in a state folder.
///
/// # Errors
/// When `ca.key` is not there or something can't be written.
pub fn renew(state: &StateDir, sans: &[String]) -> Result<(), Failure> {
    let config = Config::load(state)?;
    let issued = Ca::load(state.path())?.server(&subject_names(&config.urls, sans)?)?;
    replace(state, &issued, "server")
}

/// Makes the state folder of a registrar on another host, which accepts this verifier.
///
/// # Errors
/// When `ca.key` is not there, the folder is in use, or something can't be written.
pub fn split_registrar(state: &StateDir, out: &StateDir, url: &str, sans: &[String]) -> Result<(), Failure> {
    let config = Config::load(state)?;
    let ca = Ca::load(state.path())?;
    let urls = [url.to_owned()];
    let theirs = Config {
        listen: listen_address(&urls)?,
        operator_listen: None,
        operators_only_there: false,
        proxy_from: Vec::new(),
        role: Role::Registrar,
        database: None,
        standbys: StandbyMode::default(),
        // That host has another TPM, or none.
        release_key: KeyForm::File,
        tpm: None,
        registrar: None,
        webhooks: Vec::new(),
        ..config
    };
    let names = subject_names(&urls, sans)?;
    fresh_folder(out)?;
    let made = || {
        let pem =
            std::fs::read(state.ca()).map_err(|e| Failure::new(format!("{}: {e}", state.ca().display())))?;
        write_new(&out.ca(), &pem, 0o644)?;
        ca.server(&names)?.write(out.path(), "server")?;
        write_new(&out.config_file(), theirs.render().as_bytes(), 0o644)?;
        // Another one than the verifier's: it says which rows are this registrar's, and nothing else.
        ClusterKey::create(out, &out.cluster_key())?;
        let peer = ca.client("verifier")?;
        let client = Client {
            fingerprint: peer.fingerprint(),
            name: "verifier".to_owned(),
            kind: ClientKind::Verifier,
            added_at: unix_now(),
        };
        open_records(out)?.add_client(&client).map_err(|e| Failure::new(e.to_string()))?;
        replace(state, &peer, "peer")
    };
    made().inspect_err(|_| clear_folder(out))
}

/// Takes the database as it is, after a restore. Gives why it was not accepted before, and what it is now. `restored`: also if the
/// state file fits, because it was restored as well.
///
/// # Errors
/// When there is no verifier here, or a document of the sequence is wrong; while a command is at work that needs the server stopped;
/// with `restored` when a server runs here: it goes by what it read at its start, and writes the state file.
pub fn accept_rollback(state: &StateDir, restored: bool) -> Result<Option<(String, String)>, Failure> {
    keys::load_deployment(&state.deployment())?;
    let _lock = if restored { state.lock_stopped()? } else { state.lock_serving()? };
    open_records(state)?.accept_rollback(state, restored, unix_now()).map_err(|e| Failure::new(e.to_string()))
}

/// The database of a state folder.
///
/// # Errors
/// When it can't be opened.
pub fn open_records(state: &StateDir) -> Result<Records, Failure> {
    let at = state.database()?;
    Records::open_in(state).map_err(|e| match at {
        // It is there, and one of this version can do nothing about it.
        _ if matches!(e, Error::Store(StoreError::Newer { .. })) => Failure::new(e.to_string())
            .hint("nothing was changed: install the version of the other servers here as well"),
        Location::File(path) => Failure::new(format!("{}: {e}", path.display())),
        // It says itself where that is.
        Location::Server(_) => Failure::new(e.to_string()).hint(format!(
            "`database` in {}: is the server there, and does it let this host in?",
            state.config_file().display()
        )),
    })
}

/// Replaces `NAME.key` and `NAME.pem`. A server that starts in between finds a
/// pair that does not match and says so.
fn replace(state: &StateDir, issued: &pki::Issued, name: &str) -> Result<(), Failure> {
    let new = format!("{name}.new");
    for ending in ["key", "pem"] {
        let _ = std::fs::remove_file(state.file(&format!("{new}.{ending}")));
    }
    issued.write(state.path(), &new)?;
    for ending in ["key", "pem"] {
        let (from, to) = (state.file(&format!("{new}.{ending}")), state.file(&format!("{name}.{ending}")));
        std::fs::rename(&from, &to).map_err(|e| Failure::new(format!("{}: {e}", to.display())))?;
    }
    Ok(())
}

/// Names and addresses of the URLs, and more.
fn subject_names(urls: &[String], more: &[String]) -> Result<Vec<String>, Failure> {
    let mut sans = Vec::new();
    for url in urls {
        sans.push(host_and_port(url)?.0);
    }
    sans.extend(more.iter().cloned());
    let mut seen = std::collections::BTreeSet::new();
    sans.retain(|san| seen.insert(san.clone()));
    Ok(sans)
}

/// All addresses, at the port of the first URL.
fn listen_address(urls: &[String]) -> Result<SocketAddr, Failure> {
    let first = urls.first().ok_or_else(|| Failure::new("expected at least one --url, found none"))?;
    Ok((Ipv6Addr::UNSPECIFIED, host_and_port(first)?.1).into())
}

fn check_name(name: &str) -> Result<(), Failure> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
    if name.is_empty() || name.len() > 64 || name.starts_with(['-', '.']) || !name.chars().all(plain) {
        return Err(Failure::new(format!("expected a name of letters, digits and - _ . @, found {name:?}")));
    }
    Ok(())
}

/// What a state folder has.
pub const FILES: &[&str] = &[
    "ca.key",
    "ca.pem",
    "server.key",
    "server.pem",
    "cluster.key",
    "release.key",
    "deployment.id",
    "sequence.state",
    "halfkey-verifier.toml",
    "halfkey.db",
    "halfkey.db-wal",
    "halfkey.db-shm",
];

/// A folder that only its owner may enter and that holds none of our files.
///
/// # Errors
/// When it has some, or can't be made.
pub fn fresh_folder(state: &StateDir) -> Result<(), Failure> {
    let dir = state.path();
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|e| Failure::new(format!("{}: {e}", dir.display())))?;
    match FILES.iter().find(|name| state.file(name).exists()) {
        Some(name) => Err(Failure::new(format!("{}: expected no {name}, found one", dir.display()))
            .hint("this folder is in use; choose another one, or move it away")),
        None => Ok(()),
    }
}

/// After a failure: [`fresh_folder`] saw that none of these were there before.
pub fn clear_folder(state: &StateDir) {
    for name in FILES {
        let _ = std::fs::remove_file(state.file(name));
    }
}
