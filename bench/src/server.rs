//! A server that is measured: a process of its own, over SQLite or over a PostgreSQL server that is its own as well.

use crate::Result;
use crate::cpu;
use crate::https::{Bundle, Client, Target};
use halfkey_testkit::postgres::Postgres;
use halfkey_testkit::programs::{Programs, target};
use halfkey_testkit::verifier::Verifier;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// One host boots more machines than a site has: what is allowed to one is raised, and nothing else.
const LIMITS: &str = "evidence_per_minute = 1000000\nregistrations_per_minute = 1000000\n\
                      registrations_per_source = 1000000\nunenrolled = 1000000\n";

/// Where its records are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    /// A file in its state folder.
    Sqlite,
    /// A server that flushes what it commits.
    Postgres,
}

/// One.
pub struct Server {
    verifier: Verifier,
    postgres: Option<Postgres>,
    bundle: Bundle,
    // Dropped last.
    dir: TempDir,
}

impl Server {
    /// A new one that runs. Its folder is where cargo builds: /tmp is memory on many hosts, and a commit there costs nothing.
    ///
    /// # Errors
    /// If a program is missing or does not start.
    pub fn start(database: Database) -> Result<Self> {
        Self::start_in(&target(), database)
    }

    /// One over SQLite that commits to memory: a fleet is enrolled there before [`Server::on_disk`] is measured.
    ///
    /// # Errors
    /// If a program is missing or does not start.
    pub fn start_in_memory() -> Result<Self> {
        Self::start_in(Path::new("/dev/shm"), Database::Sqlite)
    }

    fn start_in(folder: &Path, database: Database) -> Result<Self> {
        let dir = tempfile::tempdir_in(folder)?;
        let state = dir.path().join("state");
        let program = Programs::released().verifier;
        let postgres = match database {
            Database::Sqlite => None,
            Database::Postgres => Some(Postgres::start(&["fsync=on", "shared_buffers=128MB"])?),
        };
        let url = postgres.as_ref().map(Postgres::database);
        let flags: Vec<&str> = url.iter().flat_map(|url| ["--database", url]).collect();
        let mut verifier = Verifier::init_with(&program, &state, "127.0.0.1", "admin", &flags)?;
        verifier.settings(LIMITS)?;
        verifier.start()?;
        let bundle = Bundle::read(&verifier.bundle()?)?;
        Ok(Self { verifier, postgres, bundle, dir })
    }

    /// A copy of it that runs, where a commit is one to the disk; `change` is what is done to its database before. This one is stopped
    /// until [`Server::restart`].
    ///
    /// # Errors
    /// If it can't be copied, or does not start.
    pub fn on_disk(&mut self, change: impl FnOnce(&Path) -> Result<()>) -> Result<Self> {
        self.verifier.stop()?;
        let dir = tempfile::tempdir_in(target())?;
        let mut verifier = self.verifier.fork(&dir.path().join("state"))?;
        change(&verifier.database())?;
        verifier.start()?;
        let bundle = Bundle::read(&verifier.bundle()?)?;
        Ok(Self { verifier, postgres: None, bundle, dir })
    }

    /// As this client sees it.
    ///
    /// # Errors
    /// If its certificates can't be used.
    pub fn target(&self, client: Client) -> Result<Arc<Target>> {
        Ok(Arc::new(Target::new(&self.verifier.local_url(), &self.bundle, client)?))
    }

    /// Its process.
    ///
    /// # Errors
    /// If it does not run.
    pub fn pid(&self) -> Result<u32> {
        self.verifier.pid().ok_or_else(|| "the server does not run".into())
    }

    /// The file of its database.
    pub fn file(&self) -> PathBuf {
        self.verifier.database()
    }

    /// CPU time so far: its own, and that of its PostgreSQL server.
    ///
    /// # Errors
    /// If it does not run.
    pub fn cpu(&self) -> Result<(Duration, Duration)> {
        let database = match &self.postgres {
            Some(postgres) => {
                let pid = std::fs::read_to_string(postgres.folder().join("data/postmaster.pid"))?;
                cpu::of_family(pid.lines().next().unwrap_or_default().parse()?)?
            }
            None => Duration::ZERO,
        };
        Ok((cpu::of_process(self.pid()?)?, database))
    }

    /// Ends it as an administrator would, and starts it again: how long it took until it listened.
    ///
    /// # Errors
    /// If it does not end, or start.
    pub fn restart(&mut self) -> Result<Duration> {
        self.verifier.stop()?;
        let start = Instant::now();
        self.verifier.start()?;
        Ok(start.elapsed())
    }

    /// Its folder, for what belongs to it.
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }
}
