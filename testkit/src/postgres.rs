//! PostgreSQL, from the distribution's package: a server of the test's own, that ends with it.
//!
//! It has a folder and a socket of its own and no network, unless a test wants that. What it keeps is not flushed: a test that ends
//! its server loses nothing by it, as nobody cuts the power.

use crate::error::{Context, Error, Result};
use crate::process::run;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use tempfile::TempDir;

/// The superuser of the server.
const OWNER: &str = "halfkey";

/// Waits for a word, or for the end of its input, which is that of the test; then ends the server as its administrator would who is
/// in a hurry: one that is killed leaves a segment of shared memory behind. Without a word it removes the folder, too. A signal for
/// the whole terminal must not come before.
const KEEPER: &str = r#"trap '' HUP INT TERM
folder=$1; shift
"$@" </dev/null & server=$!
read -r word
kill -QUIT "$server" 2>/dev/null
wait "$server"
[ "$word" ] || rm -rf -- "$folder"
"#;

/// A server.
pub struct Postgres {
    // Dropped before its folder.
    running: Option<Running>,
    programs: PathBuf,
    folder: TempDir,
    settings: Vec<String>,
    /// MiB of a disk for tables.
    small_disk: Option<u32>,
}

struct Running {
    keeper: Child,
    input: ChildStdin,
}

static SHARED: LazyLock<Postgres> = LazyLock::new(|| Postgres::start(&[]).unwrap());
static DATABASES: AtomicU32 = AtomicU32::new(0);

impl Postgres {
    /// The one that the tests of this program share; each takes a database of its own.
    ///
    /// # Panics
    /// If there is none, or it does not start.
    pub fn shared() -> &'static Self {
        &SHARED
    }

    /// One more, with settings as `name=value`.
    ///
    /// # Errors
    /// If there is none, or it does not start.
    pub fn start(settings: &[&str]) -> Result<Self> {
        Self::in_new_folder(settings)?.begun()
    }

    /// One with a disk of so many MiB, which it has while it runs and nobody else sees, for the database of [`Postgres::small_database`]
    /// alone. Only root can make one.
    ///
    /// # Errors
    /// If this is not root, or it does not start.
    pub fn with_small_disk(mebibytes: u32) -> Result<Self> {
        let mut server = Self::in_new_folder(&[])?;
        let disk = server.small_disk_folder();
        std::fs::create_dir(&disk).context(format_args!("can't make {}", disk.display()))?;
        server.small_disk = Some(mebibytes);
        server.begun()
    }

    fn begun(self) -> Result<Self> {
        let mut server = self;
        let data = server.data();
        let initdb = server.unprivileged("initdb");
        run(Command::new(&initdb[0])
            .args(&initdb[1..])
            .args([
                "--no-sync",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "--username",
                OWNER,
                "-D",
            ])
            .arg(&data))?;
        server.resume()?;
        Ok(server)
    }

    /// A copy that follows it, with more settings, and can take its place: [`Postgres::promote`].
    ///
    /// # Errors
    /// If it does not start.
    pub fn standby(&self, settings: &[&str]) -> Result<Self> {
        let mut server = Self::in_new_folder(settings)?;
        server.settings.push("wal_retrieve_retry_interval=100ms".to_owned());
        let data = server.data();
        let copy = server.unprivileged("pg_basebackup");
        run(Command::new(&copy[0])
            .args(&copy[1..])
            .args(["--no-sync", "--checkpoint=fast", "--write-recovery-conf", "--username", OWNER, "--host"])
            .arg(self.folder())
            .arg("-D")
            .arg(&data))?;
        server.resume()?;
        Ok(server)
    }

    fn in_new_folder(settings: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir().context("can't make a folder")?;
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let server = Self { running: None, programs: programs()?, folder, settings, small_disk: None };
        let open = run(Command::new("chmod").arg("755").arg(server.folder()));
        open.context("the folder of the server")?;
        let data = server.data();
        std::fs::DirBuilder::new().mode(0o700).create(&data).context("the folder of the server")?;
        if let Some(user) = user() {
            run(Command::new("chown").arg(format!("{user}:")).arg(server.folder()).arg(&data))?;
        }
        Ok(server)
    }

    /// One more setting, as `name=value`, from its next start on.
    pub fn set(&mut self, setting: &str) {
        self.settings.push(setting.to_owned());
    }

    /// A standby takes over: it can be written to when this returns.
    ///
    /// # Panics
    /// If it is none.
    pub fn promote(&self) {
        assert_eq!(self.sql("postgres", "SELECT pg_promote()"), "t\n");
    }

    /// Where its socket is.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn data(&self) -> PathBuf {
        self.folder().join("data")
    }

    /// A program of the server, which refuses to be run by root.
    fn unprivileged(&self, program: &str) -> Vec<String> {
        let program = self.programs.join(program).display().to_string();
        match user() {
            Some(user) => [
                "setpriv",
                &format!("--reuid={user}"),
                &format!("--regid={}", group(user)),
                "--clear-groups",
                &program,
            ]
            .map(str::to_owned)
            .to_vec(),
            None => vec![program],
        }
    }

    /// Starts it again after [`Postgres::stop`].
    ///
    /// # Errors
    /// If it does not say that it is ready.
    pub fn resume(&mut self) -> Result<()> {
        let mut keeper = match self.small_disk {
            // Gone with its last process.
            Some(mebibytes) => {
                let owner = user().ok_or_else(|| Error::new("only root can make a disk"))?;
                let options = format!("size={mebibytes}m,mode=0700,uid={},gid={}", id(owner), group(owner));
                let mut keeper = Command::new("unshare");
                keeper.args(["--mount", "--propagation", "private", "sh", "-c"]);
                keeper.arg("mount -t tmpfs -o \"$1\" none \"$2\" && shift 2 && exec \"$@\"");
                keeper.arg("disk").arg(options).arg(self.small_disk_folder()).arg("sh");
                keeper
            }
            None => Command::new("sh"),
        };
        keeper.args(["-c", KEEPER, "keeper"]).arg(self.folder()).args(self.unprivileged("postgres"));
        keeper.arg("-D").arg(self.data());
        keeper.arg("-k").arg(self.folder());
        for setting in ["listen_addresses=", "fsync=off", "max_connections=200", "shared_buffers=32MB"] {
            keeper.args(["-c", setting]);
        }
        for setting in &self.settings {
            keeper.args(["-c", setting]);
        }
        let keeper = keeper
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut keeper = keeper.spawn().context("can't start a server")?;
        let input = keeper.stdin.take().expect("stdin is piped");
        let mut log = BufReader::new(keeper.stderr.take().expect("stderr is piped")).lines();
        let mut said = String::new();
        let ready = log.by_ref().map_while(std::result::Result::ok).any(|line| {
            said = format!("{said}{line}\n");
            // A standby says what it accepts.
            line.contains("database system is ready to accept ") && line.ends_with("connections")
        });
        self.running = Some(Running { keeper, input });
        if !ready {
            return Err(Error::new(format!("PostgreSQL did not start:\n{said}")));
        }
        // It would wait for who reads what it says.
        std::thread::spawn(move || log.for_each(drop));
        Ok(())
    }

    /// From its next start on it can be reached at this port of 127.0.0.1 too, by TLS with this certificate, with a password.
    ///
    /// # Errors
    /// If its files can't be written.
    pub fn listen(&mut self, port: u16, certificate: &str, key: &str) -> Result<()> {
        let hba = "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n";
        for (name, text) in [("pg_hba.conf", hba), ("server.crt", certificate), ("server.key", key)] {
            let path = self.data().join(name);
            std::fs::write(&path, text).context(name)?;
            run(Command::new("chmod").arg("600").arg(&path))?;
            if let Some(user) = user() {
                run(Command::new("chown").arg(user).arg(&path))?;
            }
        }
        let settings = ["listen_addresses=127.0.0.1".to_owned(), format!("port={port}"), "ssl=on".to_owned()];
        self.settings.extend(settings);
        Ok(())
    }

    /// Ends it at once, with all connections.
    pub fn stop(&mut self) {
        self.running = None;
    }

    /// A new database: its URL.
    ///
    /// # Panics
    /// If the server makes none.
    pub fn database(&self) -> String {
        let name = format!("t{}", DATABASES.fetch_add(1, Ordering::SeqCst));
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        format!("postgres://{OWNER}@/{name}?host={}", self.folder().display())
    }

    /// The same on its small disk.
    ///
    /// # Panics
    /// If it has none.
    pub fn small_database(&self) -> String {
        let disk = self.small_disk_folder();
        self.sql("postgres", &format!("CREATE TABLESPACE small LOCATION '{}'", disk.display()));
        let url = self.database();
        self.sql("postgres", &format!("ALTER DATABASE {} SET TABLESPACE small", name_of(&url)));
        url
    }

    fn small_disk_folder(&self) -> PathBuf {
        self.folder().join("small")
    }

    /// The same database, at this server or at that one, whichever can be written to.
    pub fn or_at(&self, url: &str) -> String {
        format!("{url}&host={}", self.folder().display())
    }

    /// Copies a database into a file, by the server's own means.
    ///
    /// # Panics
    /// If it can't.
    pub fn dump(&self, database: &str, file: &Path) {
        let mut dump = self.client("pg_dump");
        run(dump.arg("--format=custom").arg("--file").arg(file).arg(name_of(database))).unwrap();
    }

    /// Puts such a copy in the place of the database, for whose servers it must be gone.
    ///
    /// # Panics
    /// If it can't.
    pub fn put_back(&self, database: &str, file: &Path) {
        let name = name_of(database);
        self.sql("postgres", &format!("DROP DATABASE {name}"));
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        run(self.client("pg_restore").args(["--exit-on-error", "--dbname", name]).arg(file)).unwrap();
    }

    /// A program that asks it.
    fn client(&self, program: &str) -> Command {
        let mut client = Command::new(self.programs.join(program));
        client.args(["-U", OWNER, "-h"]).arg(self.folder());
        client
    }

    /// What this SQL gives, as lines with `|` between columns. `database` is a name or a URL of [`Postgres::database`].
    ///
    /// # Panics
    /// If the server refuses it.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        let mut psql = self.client("psql");
        psql.args(["--no-psqlrc", "-qAt", "-v", "ON_ERROR_STOP=1"]);
        run(psql.args(["-d", name_of(database), "-c", sql])).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.input.write_all(b"stop\n");
        let _ = self.keeper.wait();
    }
}

/// Of a URL of [`Postgres::database`], or of a name.
fn name_of(database: &str) -> &str {
    let name = database.rsplit('/').find(|part| part.starts_with('t') && part.contains('?'));
    name.and_then(|part| part.split('?').next()).unwrap_or(database)
}

/// Where the newest one has its programs.
fn programs() -> Result<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let version = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = versions.map(|entry| entry.path()).filter(|path| path.join("bin/initdb").exists());
    match newest.max_by_key(|path| version(path)) {
        Some(newest) => Ok(newest.join("bin")),
        None if Path::new("/usr/bin/initdb").exists() => Ok("/usr/bin".into()),
        None => Err(Error::new("there is no PostgreSQL server: .ci/deps unit")),
    }
}

/// Whom to be instead of root, if this is root.
fn user() -> Option<&'static str> {
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    let known = |name: &&str| matches!(nix::unistd::User::from_name(name), Ok(Some(_)));
    ["postgres", "nobody"].into_iter().find(known)
}

fn id(user: &str) -> u32 {
    nix::unistd::User::from_name(user).ok().flatten().map_or(65534, |user| user.uid.as_raw())
}

fn group(user: &str) -> u32 {
    nix::unistd::User::from_name(user).ok().flatten().map_or(65534, |user| user.gid.as_raw())
}
