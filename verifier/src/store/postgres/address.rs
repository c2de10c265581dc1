//! Where the database is: the URL of the settings, as libpq has it, but for what would be less safe than it looks.

use super::tls::Tls;
use crate::Failure;
use crate::failure::with_causes;
use rustls::{ClientConfig, RootCertStore};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

/// Longest time to reach one host.
const CONNECT: Duration = Duration::from_secs(3);
/// When a connection is given up of which nothing comes back.
const SILENCE: Duration = Duration::from_secs(10);
/// What each session is told. Nothing waits for ever: neither for an answer, nor for what others hold, nor they for us. A server that
/// was paused, or cut off, in the middle of a request loses what it holds before they have waited too long for it.
const OPTIONS: &str =
    "-c statement_timeout=13s -c lock_timeout=12s -c idle_in_transaction_session_timeout=8s";

/// What a URL of this kind begins with.
const SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];

/// A database on a server, and how to get there.
#[derive(Clone)]
pub struct Address {
    pub(super) config: Config,
    pub(super) tls: Tls,
    /// Hosts and name, for people.
    pub(super) name: String,
}

/// Whether this is the URL of such a database.
pub fn is_url(text: &str) -> bool {
    SCHEMES.iter().any(|scheme| text.starts_with(scheme))
}

impl Address {
    /// Reads the URL of the settings, and the files that it names.
    ///
    /// # Errors
    /// What is wrong with it. It is not repeated: it may have the password.
    pub fn parse(url: &str) -> Result<Self, Failure> {
        let failed = |what: &str| Failure::new(format!("database: {what}")).hint(HINT);
        if !is_url(url) {
            return Err(failed("expected a URL that begins with postgres://"));
        }
        let (plain, ours) = split(url).ok_or_else(|| failed("expected NAME=VALUE after ? and between &"))?;
        let mut config: Config =
            plain.parse().map_err(|e: tokio_postgres::Error| failed(&with_causes(&e)))?;
        let [mode, roots, passfile] = ours;
        let tcp = hosts_of(&config).map_err(failed)?;
        let missing = |name: Option<&str>| name.is_none_or(str::is_empty);
        if missing(config.get_user()) || missing(config.get_dbname()) {
            return Err(failed("expected a user and a database in the URL"));
        }
        let tls = match (mode.as_deref(), tcp, roots) {
            (None | Some("disable"), false, None) | (Some("disable"), true, None) => Tls(None),
            (None | Some("verify-full"), true, Some(roots)) => Tls(Some(client(Path::new(&roots))?)),
            (None | Some("verify-full"), true, None) => {
                return Err(failed("expected sslrootcert=FILE, the CA of the database server"));
            }
            (_, false, _) => return Err(failed("expected no TLS over a socket of this host")),
            (Some("disable"), true, Some(_)) => {
                return Err(failed("expected no sslrootcert with sslmode=disable"));
            }
            (Some(_), true, _) => {
                return Err(failed(
                    "expected sslmode=verify-full, or disable: anything between is not checked",
                ));
            }
        };
        let options = format!("{OPTIONS} {}", config.get_options().unwrap_or_default());
        config
            .ssl_mode(if tls.0.is_some() { SslMode::Require } else { SslMode::Disable })
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .connect_timeout(CONNECT)
            .tcp_user_timeout(SILENCE)
            .keepalives_idle(SILENCE)
            .options(options);
        if config.get_application_name().is_none() {
            config.application_name("halfkey-verifier");
        }
        if let Some(file) = passfile {
            let password = from_passfile(Path::new(&file), &config)?;
            config.password(password);
        }
        let name = name(&config);
        Ok(Self { config, tls, name })
    }

    /// Hosts and name of the database, for people.
    pub fn name(&self) -> &str {
        &self.name
    }
}

const HINT: &str = "as in database = \"postgres://halfkey@db1,db2/halfkey?sslrootcert=/etc/halfkey/db-ca.pem&passfile=/etc/halfkey/db.pass\", \
                    or \"postgres://halfkey@/halfkey?host=/var/run/postgresql\"; @ : / ? & % in names and passwords are written as %40 and so on";

/// Whether a URL says a password itself: then who may read it has it.
pub fn has_password(url: &str) -> bool {
    let plain = split(url).map(|(plain, _)| plain).unwrap_or_default();
    plain.parse::<Config>().map_or(true, |config| config.get_password().is_some())
}

/// What the client of this build does not know, or knows less strictly: sslmode, sslrootcert, passfile. And the rest of the URL.
fn split(url: &str) -> Option<(String, [Option<String>; 3])> {
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let (mut rest, mut ours) = (Vec::new(), [const { None }; 3]);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=')?;
        match ["sslmode", "sslrootcert", "passfile"].iter().position(|known| *known == name) {
            Some(place) => ours[place] = Some(decoded(value)?),
            None => rest.push(pair),
        }
    }
    let question = if rest.is_empty() { "" } else { "?" };
    Some((format!("{base}{question}{}", rest.join("&")), ours))
}

/// %40 and so on.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut parts = text.split('%');
    bytes.extend_from_slice(parts.next()?.as_bytes());
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

/// Whether they are reached over the network. A host that is none may be a piece of a password.
fn hosts_of(config: &Config) -> Result<bool, &'static str> {
    let plain = |host: &str| host.chars().all(|c| c.is_ascii_alphanumeric() || "-._:[]".contains(c));
    let mut tcp = None;
    for host in config.get_hosts() {
        let this = match host {
            Host::Tcp(host) if !host.is_empty() && plain(host) => true,
            Host::Tcp(_) => return Err("expected names or addresses of hosts, found something else"),
            Host::Unix(_) => false,
        };
        if *tcp.get_or_insert(this) != this {
            return Err("expected hosts, or one socket of this host, found both");
        }
    }
    tcp.ok_or("expected a host, found none")
}

fn name(config: &Config) -> String {
    let hosts = config.get_hosts().iter().enumerate().map(|(place, host)| {
        let ports = config.get_ports();
        let port = ports.get(place).or_else(|| ports.first()).copied().unwrap_or(5432);
        match host {
            Host::Tcp(host) => format!("{host}:{port}"),
            Host::Unix(folder) => folder.display().to_string(),
        }
    });
    let hosts: Vec<_> = hosts.collect();
    format!("PostgreSQL database {} at {}", config.get_dbname().unwrap_or_default(), hosts.join(", "))
}

fn client(roots: &Path) -> Result<Arc<ClientConfig>, Failure> {
    let mut store = RootCertStore::empty();
    for certificate in crate::tls::certificates(roots)? {
        store.add(certificate).map_err(|e| Failure::new(format!("{}: {e}", roots.display())))?;
    }
    let builder = ClientConfig::builder_with_provider(crate::tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| Failure::new(format!("TLS: {e}")))?;
    let mut client = builder.with_root_certificates(store).with_no_client_auth();
    client.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(Arc::new(client))
}

/// The first line of a password file, as libpq has it, that is for one of the hosts.
fn from_passfile(path: &Path, config: &Config) -> Result<String, Failure> {
    let failed = |what: &str| Failure::new(format!("{}: {what}", path.display()));
    let text = crate::keys::read_secret(path)?;
    let text = std::str::from_utf8(&text).map_err(|_| failed("expected text"))?;
    let fits = |field: &str, value: &str| field == "*" || field == value;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let fields = fields(line);
        let [host, port, database, user, password] = fields.as_slice() else { continue };
        let here = config.get_hosts().iter().enumerate().any(|(place, found)| {
            let ports = config.get_ports();
            let found_port = ports.get(place).or_else(|| ports.first()).copied().unwrap_or(5432);
            let found = match found {
                Host::Tcp(found) => found.clone(),
                Host::Unix(_) => "localhost".to_owned(),
            };
            fits(host, &found) && fits(port, &found_port.to_string())
        });
        let of_user = fits(user, config.get_user().unwrap_or_default());
        if here && of_user && fits(database, config.get_dbname().unwrap_or_default()) {
            return Ok(password.clone());
        }
    }
    Err(failed("expected a line HOST:PORT:DATABASE:USER:PASSWORD for this database, found none"))
}

/// Fields between colons; a backslash makes the next character one of the field.
fn fields(line: &str) -> Vec<String> {
    let (mut fields, mut field) = (Vec::new(), String::new());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            ':' if fields.len() < 4 => fields.push(std::mem::take(&mut field)),
            '\\' => field.extend(chars.next()),
            c => field.push(c),
        }
    }
    fields.push(field);
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        Address::parse(url).err().unwrap_or_else(|| panic!("{url}")).to_string()
    }

    #[test]
    fn the_name_of_a_database_is_its_place() {
        let socket = Address::parse("postgres://halfkey@/half?host=/run/postgresql").unwrap();
        assert_eq!(socket.name(), "PostgreSQL database half at /run/postgresql");
        let plain = "postgres://halfkey:pa%40ss@db1,db2:5433/half?sslmode=disable";
        let plain = Address::parse(plain).unwrap();
        assert_eq!(plain.name(), "PostgreSQL database half at db1:5432, db2:5433");
        assert_eq!(plain.config.get_password(), Some(&b"pa@ss"[..]));
        assert!(plain.config.get_options().unwrap().contains("statement_timeout"));
    }

    #[test]
    fn what_is_not_checked_is_refused_and_no_password_is_repeated() {
        for (url, why) in [
            ("postgres://halfkey:secret@db1/half", "expected sslrootcert=FILE"),
            ("postgres://halfkey:secret@db1/half?sslmode=require", "verify-full"),
            ("postgres://halfkey:secret@db1/half?sslmode=disable&sslrootcert=/x", "no sslrootcert"),
            ("postgres://halfkey:sec@ret@db1/half?sslmode=disable", "names or addresses"),
            ("postgres://halfkey:secret@/half?host=/run&sslmode=verify-full", "no TLS over a socket"),
            ("postgres://halfkey:secret@/half", "expected a host"),
            ("postgres://:secret@db1/half?sslmode=disable", "a user"),
            ("postgres://halfkey:secret@db1/half?sslmode", "NAME=VALUE"),
            ("postgres://halfkey:secret@db1/half?colour=1", "colour"),
            ("mysql://halfkey:secret@db1/half", "begins with postgres://"),
        ] {
            let text = refused(url);
            assert!(text.contains(why), "{url}: {text}");
            assert!(!text.contains("secret") && !text.contains("ret@"), "{text}");
        }
        assert!(has_password("postgres://a:b@c/d?sslmode=disable") && !has_password("postgres://a@c/d"));
    }

    #[test]
    fn a_password_file_is_read_as_libpq_reads_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pass");
        let text = "# ours\ndb3:*:*:*:no\ndb2:5433:half:other:no\ndb2:5433:half:halfkey:a\\:b\\\\c:d\n*:*:*:*:last\n";
        std::fs::write(&file, text).unwrap();
        let url = format!("postgres://halfkey@db1,db2:5433/half?sslmode=disable&passfile={}", file.display());
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(refused(&url).contains("pass"), "open to others");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(Address::parse(&url).unwrap().config.get_password(), Some(&b"a:b\\c:d"[..]));
        std::fs::write(&file, "other:*:*:*:no\n").unwrap();
        assert!(refused(&url).contains("found none"));
    }
}
