//! `halfkey-verifier.toml` in the state folder. Flags of `serve` win over it.

use crate::Failure;
use crate::key_files::KeyForm;
use crate::standbys::StandbyMode;
use crate::store::Location;
use crate::store::postgres::{self, Address};
use crate::webhooks::settings::{self as webhooks, WebhookSettings};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, TryLockError};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Which work this process does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Both.
    #[default]
    All,
    /// Registers nodes; another host verifies.
    Registrar,
    /// Verifies; asks a registrar on another host about registrations.
    Verifier,
}

impl Role {
    /// Whether this process keeps registrations.
    pub fn registers(self) -> bool {
        self != Self::Verifier
    }

    /// Whether this process judges evidence and serves operators.
    pub fn verifies(self) -> bool {
        self != Self::Registrar
    }
}

/// Form of the log on standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// URL of a PostgreSQL database. It may have the password, so it is not shown.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// As it is written in the settings.
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// Whether who reads it can do what this server can.
    pub fn has_password(&self) -> bool {
        postgres::has_password(&self.0)
    }

    /// For one that comes from the command line.
    ///
    /// # Errors
    /// When it has a password.
    pub fn require_no_password(&self) -> Result<(), Failure> {
        if !self.has_password() {
            return Ok(());
        }
        Err(Failure::new("database: expected a URL without a password, found one with it").hint(
            "others on this host see it on the command line: passfile=FILE names a file that has it, as that of libpq",
        ))
    }

    /// What it says, with the files that it names.
    ///
    /// # Errors
    /// When it can't be used.
    pub fn address(&self) -> Result<Address, Failure> {
        Address::parse(&self.0)
    }
}

impl std::fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DatabaseUrl(..)")
    }
}

/// The settings of a state folder.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where to listen for operators alone, with places and memory that nobody else can take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator_listen: Option<SocketAddr>,
    /// With `operator_listen`: operators are served there and nowhere else.
    #[serde(default)]
    pub operators_only_there: bool,
    /// Addresses of load balancers: from these every connection begins with a PROXY protocol header (version 2) that
    /// says where it comes from, from all others none does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proxy_from: Vec<IpAddr>,
    /// Where to answer who watches the server, in plain HTTP: metrics, and whether it lives and serves. Nowhere if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_listen: Option<SocketAddr>,
    /// What to be.
    #[serde(default)]
    pub role: Role,
    /// A PostgreSQL database, for any number of servers. Without it there is an SQLite file in the state folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseUrl>,
    /// What is done about standbys of that database which commits don't wait for.
    #[serde(default, skip_serializing_if = "StandbyMode::is_default")]
    pub standbys: StandbyMode,
    /// How the key files of the state folder are kept.
    #[serde(default, skip_serializing_if = "KeyForm::is_default")]
    pub release_key: KeyForm,
    /// The TPM that they are sealed by, as tpm2-tss names it. [`crate::tpm::DEFAULT`] if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tpm: Option<String>,
    /// With `release_key = "tpm-sign"`: how many signatures a second the TPM has to make at least, else nothing is served.
    #[serde(default = "min_rate", skip_serializing_if = "is_min_rate")]
    pub min_rate: u32,
    /// URLs at which nodes and operators reach the verifier, best first.
    pub urls: Vec<String>,
    /// With `role = "verifier"`: URL of the registrar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registrar: Option<String>,
    /// A folder of EK root certificates. If set, the registrar refuses an EK
    /// whose certificate does not lead to one of them. Tenants check in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ek_roots: Option<PathBuf>,
    /// Form of the log.
    #[serde(default)]
    pub log_format: LogFormat,
    /// How long things live.
    #[serde(default)]
    pub lifetimes: Lifetimes,
    /// How much is accepted.
    #[serde(default)]
    pub limits: Limits,
    /// Who is told what has happened.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub webhooks: Vec<WebhookSettings>,
}

/// [`Config::min_rate`] where nothing is said: a thousand machines that boot at once have their release within two minutes.
pub fn min_rate() -> u32 {
    10
}

fn is_min_rate(rate: &u32) -> bool {
    *rate == min_rate()
}

/// How long things live, in seconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lifetimes {
    /// Between `begin` and `finish`.
    pub nonce: u64,
    /// The challenge of a registration.
    pub activation: u64,
    /// A registration that no tenant enrolled, since it was last seen.
    pub registration: u64,
    /// A boot that no operator decided on.
    pub pending: u64,
    /// An approval that was not used.
    pub approval: u64,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self { nonce: 120, activation: 300, registration: 7 * 86_400, pending: 7 * 86_400, approval: 900 }
    }
}

/// How much is accepted.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Open connections. When there are more, the longest idle one of the source that holds most is closed.
    pub connections: usize,
    /// Of these, kept for operators and verifiers whose certificate is listed.
    pub reserved_for_clients: usize,
    /// Of these, kept for nodes that sent evidence of their own, and for their addresses for a day.
    pub reserved_for_nodes: usize,
    /// Open connections where only operators are served.
    pub operator_connections: usize,
    /// Requests of nodes that are held open until something happens, at most 4 of one node. Who does not know the
    /// ticket of a boot has a quarter of these, and at most 64 from one address.
    pub waiters: usize,
    /// What arrived of bodies that are not complete or not answered yet, all together, in bytes. Those of operators
    /// have as much again.
    pub body_bytes: usize,
    /// Registrations per minute, all together.
    pub registrations_per_minute: u32,
    /// Registrations per minute from one address that were not activated; from an IPv6 /64 as many, from a /56 four
    /// times, from a /48 sixteen times as many.
    pub registrations_per_source: u32,
    /// Registrations that no tenant enrolled.
    pub unenrolled: u64,
    /// Evidence per node and minute that is signed by that node.
    pub evidence_per_minute: u32,
    /// Evidence per node and minute that is not signed by that node: anybody can send it, and each is recorded.
    pub forged_per_minute: u32,
    /// The same from one address, whatever nodes it names; with IPv6 as above.
    pub forged_per_source: u32,
    /// Records of evidence that are kept per node of each outcome; older ones are deleted.
    pub evidence_kept: u64,
    /// Seconds for a TLS handshake.
    pub handshake_seconds: u64,
    /// Seconds for the header of a request, and for an idle connection.
    pub header_seconds: u64,
    /// Seconds for the body of a request, and longer as long as it comes at `bytes_per_second`.
    pub body_seconds: u64,
    /// How fast a body has to come, on average, after `body_seconds`.
    pub bytes_per_second: u64,
    /// Seconds in which a server that was told to stop says so to load balancers (`/readyz`), and still serves who comes.
    pub drain_seconds: u64,
    /// Seconds for requests in flight after that.
    pub shutdown_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            reserved_for_clients: 64,
            reserved_for_nodes: 256,
            operator_connections: 128,
            waiters: 768,
            body_bytes: 32 << 20,
            registrations_per_minute: 6000,
            registrations_per_source: 240,
            unenrolled: 10_000,
            evidence_per_minute: 60,
            forged_per_minute: 30,
            forged_per_source: 60,
            evidence_kept: 200,
            handshake_seconds: 10,
            header_seconds: 30,
            body_seconds: 10,
            bytes_per_second: 4096,
            drain_seconds: 0,
            shutdown_seconds: 10,
        }
    }
}

impl Limits {
    /// For a TLS handshake.
    pub fn handshake(&self) -> Duration {
        Duration::from_secs(self.handshake_seconds)
    }

    /// For the header of a request.
    pub fn header(&self) -> Duration {
        Duration::from_secs(self.header_seconds)
    }

    /// When a body is late of which so many bytes came, after its start.
    pub fn body(&self, received: usize) -> Duration {
        let more = received as u64 / self.bytes_per_second.max(1);
        Duration::from_secs(self.body_seconds.saturating_add(more))
    }
}

/// The files of a state folder.
#[derive(Clone, Debug)]
pub struct StateDir(PathBuf);

impl StateDir {
    /// At this path.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Marks the folder as that of a running server, as long as the answer lives, or of a command that changes its database, which may
    /// run beside the server and beside others.
    ///
    /// # Errors
    /// When it can't be opened; while a command has it that needs the server stopped.
    pub fn lock_serving(&self) -> Result<File, Failure> {
        self.lock(
            File::try_lock_shared,
            "a command is at work that needs the server stopped: try again afterwards",
        )
    }

    /// Keeps servers away from the folder, as long as the answer lives.
    ///
    /// # Errors
    /// When it can't be opened; while a server runs.
    pub fn lock_stopped(&self) -> Result<File, Failure> {
        self.lock(File::try_lock, "stop the server first")
    }

    fn lock(
        &self,
        lock: impl FnOnce(&File) -> Result<(), TryLockError>,
        hint: &str,
    ) -> Result<File, Failure> {
        let failed = |e: &dyn std::fmt::Display| Failure::new(format!("{}: {e}", self.0.display()));
        let folder = File::open(&self.0).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => failed(&e).hint(NO_STATE),
            _ => failed(&e),
        })?;
        match lock(&folder) {
            Ok(()) => Ok(folder),
            Err(TryLockError::WouldBlock) => Err(failed(&"it is in use").hint(hint)),
            Err(TryLockError::Error(e)) => Err(failed(&e)),
        }
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The settings.
    pub fn config_file(&self) -> PathBuf {
        self.file("halfkey-verifier.toml")
    }

    /// Where its database is, by its settings. Without any it is the file.
    ///
    /// # Errors
    /// When they can't be read, or others can read a password in them.
    pub fn database(&self) -> Result<Location, Failure> {
        let config = self.config_file();
        let url = if config.exists() { Config::load(self)?.database } else { None };
        let Some(url) = url else { return Ok(Location::File(self.file("halfkey.db"))) };
        if url.has_password() {
            crate::keys::read_secret(&config)?;
        }
        let said = url.address().map_err(|e| Failure::new(format!("{}: {e}", config.display())))?;
        Ok(Location::Server(Box::new(said)))
    }

    /// Has the settings name a database. What else they say, comments and all, stays.
    ///
    /// # Errors
    /// When they can't be read or written.
    pub fn name_database(&self, url: &DatabaseUrl) -> Result<(), Failure> {
        self.set(&[("database", &url.0)])
    }

    /// Has the settings say these, instead of what they say of the same. All else, comments as well, stays.
    ///
    /// # Errors
    /// When they can't be read or written.
    pub fn set(&self, values: &[(&str, &str)]) -> Result<(), Failure> {
        let (path, new) = (self.config_file(), self.file("halfkey-verifier.toml.new"));
        let failed = |e: std::io::Error| Failure::new(format!("{}: {e}", path.display()));
        let mode = std::fs::metadata(&path).map_err(failed)?.mode();
        let before = std::fs::read_to_string(&path).map_err(failed)?;
        let said = |line: &str| {
            let key = line.split_once('=').map_or("", |(key, _)| key.trim());
            values.iter().any(|(name, _)| *name == key)
        };
        let tables = match before.starts_with('[') {
            true => 0,
            false => before.find("\n[").map_or(before.len(), |at| at + 1),
        };
        let (head, tables) = before.split_at(tables);
        // Before the first table.
        let lines = values.iter().map(|(key, value)| format!("{key} = {}\n", toml::Value::from(*value)));
        let kept = head.split_inclusive('\n').filter(|line| !said(line)).map(str::to_owned);
        let text = lines.chain(kept).chain([tables.to_owned()]).collect::<String>();
        Config::parse(&text)?;
        let _ = std::fs::remove_file(&new);
        crate::keys::write_new(&new, text.as_bytes(), mode & 0o777)?;
        std::fs::rename(&new, &path).map_err(failed)?;
        crate::keys::sync(self.path())
    }

    /// The cluster key ([`crate::keys::ClusterKey`]).
    pub fn cluster_key(&self) -> PathBuf {
        self.file("cluster.key")
    }

    /// The release key ([`crate::keys::ReleaseKey`]). Only where a verifier is.
    pub fn release_key(&self) -> PathBuf {
        self.file("release.key")
    }

    /// The id of the deployment, text. Only where a verifier is.
    pub fn deployment(&self) -> PathBuf {
        self.file("deployment.id")
    }

    /// The state file ([`crate::domain::kept`]).
    pub fn sequence(&self) -> PathBuf {
        self.file(crate::domain::state_file::FILE)
    }

    /// The certificate that nodes and operators pin, PEM.
    pub fn ca(&self) -> PathBuf {
        self.file("ca.pem")
    }
}

/// What to do where there is none.
const NO_STATE: &str = "make a state folder with `halfkey-verifier init`";

impl Config {
    /// Reads the settings of a state folder.
    ///
    /// # Errors
    /// When the file is missing or says something that is not understood.
    pub fn load(state: &StateDir) -> Result<Self, Failure> {
        let path = state.config_file();
        let text = std::fs::read_to_string(&path)
            .map_err(|e| Failure::new(format!("{}: {e}", path.display())).hint(NO_STATE))?;
        Self::parse(&text).map_err(|e| Failure::new(format!("{}: {e}", path.display())))
    }

    /// Reads the text of a settings file.
    ///
    /// # Errors
    /// When it says something that is not understood.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        // Not the line itself, as the error would show it: it may have the password of the database.
        toml::from_str(text).map_err(|e| {
            let at = e.span().and_then(|span| text.get(..span.start));
            let at = at.map_or_else(String::new, |before| {
                let line = before.rsplit('\n').next().unwrap_or_default();
                format!("line {}, column {}: ", before.split('\n').count(), line.chars().count() + 1)
            });
            Failure::new(format!("{at}{}", e.message().trim_end()))
        })
    }

    /// That its settings fit together.
    ///
    /// # Errors
    /// Which don't.
    pub fn check(&self) -> Result<(), Failure> {
        if self.operators_only_there && self.operator_listen.is_none() {
            return Err(Failure::new("operators_only_there: expected `operator_listen` as well, found none"));
        }
        webhooks::check(&self.webhooks)
    }

    /// These, with what a server that runs can take over of `new`. What is bound, made or sized at the start stays.
    #[must_use]
    pub fn taking(&self, new: &Self) -> Self {
        let (lifetimes, limits) = (&new.lifetimes, &new.limits);
        Self {
            operators_only_there: new.operators_only_there,
            proxy_from: new.proxy_from.clone(),
            urls: new.urls.clone(),
            lifetimes: Lifetimes { activation: self.lifetimes.activation, ..lifetimes.clone() },
            limits: Limits {
                evidence_kept: limits.evidence_kept,
                handshake_seconds: limits.handshake_seconds,
                header_seconds: limits.header_seconds,
                body_seconds: limits.body_seconds,
                bytes_per_second: limits.bytes_per_second,
                drain_seconds: limits.drain_seconds,
                shutdown_seconds: limits.shutdown_seconds,
                ..self.limits.clone()
            },
            ..self.clone()
        }
    }

    /// Names of the settings in which two differ, `limits.waiters`. What they say may be secret.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let [one, other] = [self, other].map(Self::values);
        let keys: BTreeSet<_> = one.keys().chain(other.keys()).collect();
        keys.into_iter().filter(|key| one.get(*key) != other.get(*key)).cloned().collect()
    }

    fn values(&self) -> BTreeMap<String, toml::Value> {
        let table = toml::Table::try_from(self).expect("plain tables of numbers and strings");
        let mut values = BTreeMap::new();
        for (key, value) in table {
            match value {
                toml::Value::Table(inner) => {
                    values.extend(inner.into_iter().map(|(name, value)| (format!("{key}.{name}"), value)));
                }
                value => drop(values.insert(key, value)),
            }
        }
        values
    }

    /// The text of a settings file.
    pub fn render(&self) -> String {
        toml::to_string(self).expect("plain tables of numbers and strings")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_running_server_takes_over_and_what_not() {
        let text = "listen = \"127.0.0.1:8420\"\nurls = [\"https://a:8420\"]\n";
        let before = Config::parse(text).unwrap();
        let new = "listen = \"127.0.0.1:1\"\nurls = [\"https://b:8420\"]\ndatabase = \"postgres://u:secret@/d\"\n\
                   [limits]\nwaiters = 3\ndrain_seconds = 5\n[lifetimes]\nactivation = 1\npending = 2\n";
        let new = Config::parse(new).unwrap();
        let taken = before.taking(&new);
        assert_eq!(before.differences(&taken), ["lifetimes.pending", "limits.drain_seconds", "urls"]);
        assert_eq!(taken.differences(&new), ["database", "lifetimes.activation", "limits.waiters", "listen"]);
        assert!(new.differences(&new).is_empty());
    }

    #[test]
    fn settings_survive_and_typos_are_refused() {
        let text = "listen = \"127.0.0.1:8420\"\nurls = [\"https://a:8420\"]\n[limits]\nwaiters = 3\n";
        let config = Config::parse(text).unwrap();
        assert_eq!((config.limits.waiters, config.limits.connections, config.role), (3, 1024, Role::All));
        assert_eq!(Config::parse(&config.render()).unwrap().limits.waiters, 3);
        let said = Config::parse(&text.replace("waiters", "waitres")).unwrap_err().to_string();
        assert!(said.starts_with("line 4, column 1: ") && said.contains("waitres"), "{said}");
    }

    #[test]
    fn a_typo_does_not_show_the_password_beside_it() {
        let text = "listen = \"127.0.0.1:8420\"\nurls = []\n";
        let url = "postgres://halfkey:secret@db/halfkey";
        for line in [
            format!("databse = \"{url}\""),
            format!("database = {url}"),
            format!("database = \"{url}"),
            format!("database = [\"{url}\"]"),
            format!("[limits]\ndatabase = \"{url}\""),
        ] {
            let said = Config::parse(&format!("{text}{line}\n")).unwrap_err().to_string();
            assert!(said.starts_with("line ") && !said.contains("secret"), "{said}");
        }
    }
}
