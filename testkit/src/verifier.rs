//! `halfkey-verifier` on this host's loopback, where guests of QEMU's user network reach it as well.

use crate::error::{Context, Error, Result};
use crate::port::HeldPort;
use crate::process::{Guard, run, tail_of};
use crate::programs::Programs;
use crate::reaper;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// A verifier with its state; it may run or not. Its address is its own from the beginning, and stays the same.
pub struct Verifier {
    program: PathBuf,
    state: PathBuf,
    host: String,
    port: Arc<HeldPort>,
    flags: Vec<String>,
    operator_url: Option<String>,
    metrics_url: Option<String>,
    running: Option<Guard>,
}

/// The operator whose bundle `init` makes.
const OPERATOR: &str = "admin";

impl Verifier {
    /// Makes a state folder with CA, keys and the bundle of operator `admin`, for guests of QEMU's user network.
    ///
    /// # Errors
    /// If `init` fails.
    pub fn init(programs: &Programs, state: &Path) -> Result<Self> {
        Self::init_at(&programs.verifier, state, "10.0.2.2", OPERATOR)
    }

    /// The same for nodes on this host.
    ///
    /// # Errors
    /// If `init` fails.
    pub fn init_here(programs: &Programs, state: &Path) -> Result<Self> {
        Self::init_at(&programs.verifier, state, "127.0.0.1", OPERATOR)
    }

    /// The same with this program, the address at which nodes reach it, and the name of its first operator.
    ///
    /// # Errors
    /// If `init` fails.
    pub fn init_at(program: &Path, state: &Path, host: &str, operator: &str) -> Result<Self> {
        Self::init_with(program, state, host, operator, &[])
    }

    /// The same with more flags of `init`.
    ///
    /// # Errors
    /// If `init` fails.
    pub fn init_with(
        program: &Path,
        state: &Path,
        host: &str,
        operator: &str,
        flags: &[&str],
    ) -> Result<Self> {
        let verifier = Self { host: host.into(), ..Self::on(program, state) };
        run(Command::new(program)
            .args(["init", "--operator", operator, "--san", "127.0.0.1", "--san", "10.0.2.2"])
            .args(flags)
            .args(["--url", &verifier.url(), "--state"])
            .arg(state))?;
        Ok(verifier)
    }

    /// For a state folder that is there, or will be.
    pub fn on(program: &Path, state: &Path) -> Self {
        Self {
            program: program.to_path_buf(),
            state: state.to_path_buf(),
            host: "127.0.0.1".into(),
            port: Arc::new(HeldPort::new()),
            flags: Vec::new(),
            operator_url: None,
            metrics_url: None,
            running: None,
        }
    }

    /// With more flags of `serve`, each time it is started.
    #[must_use]
    pub fn with_flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    /// Replaces or adds values of the settings file: lines of `key = value`, for the next start.
    ///
    /// # Errors
    /// If there is no such file.
    pub fn settings(&self, lines: &str) -> Result<()> {
        let path = self.state.join("halfkey-verifier.toml");
        let mut text = fs::read_to_string(&path).context(format_args!("can't read {}", path.display()))?;
        for line in lines.lines().filter(|line| !line.is_empty()) {
            let key = line.split(" = ").next().unwrap_or(line);
            let old = text.lines().find(|old| old.starts_with(&format!("{key} = "))).map(str::to_owned);
            text = match old {
                Some(old) => text.replace(&old, line),
                // Before the first table.
                None => format!("{line}\n{text}"),
            };
        }
        fs::write(&path, text).context(format_args!("can't write {}", path.display()))
    }

    /// Another one with the same CA, keys and records, as of now.
    ///
    /// # Errors
    /// If the state can't be copied. This verifier must not run.
    pub fn fork(&self, state: &Path) -> Result<Self> {
        crate::ensure!(self.running.is_none(), "a running verifier can't be copied");
        run(Command::new("cp").arg("-a").arg(&self.state).arg(state))?;
        Ok(Self {
            host: self.host.clone(),
            port: self.port.clone(),
            flags: self.flags.clone(),
            ..Self::on(&self.program, state)
        })
    }

    /// Where guests reach it.
    pub fn url(&self) -> String {
        format!("https://{}:{}", self.host, self.port.number())
    }

    /// Where this host reaches it.
    pub fn local_url(&self) -> String {
        format!("https://{}", self.address())
    }

    /// The same without the scheme.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port.number())
    }

    /// Where operators reach it if it was started with `--operator-listen`.
    pub fn operator_url(&self) -> Option<&str> {
        self.operator_url.as_deref()
    }

    /// Where Prometheus reaches it if it was started with `--metrics-listen`, by plain HTTP.
    pub fn metrics_url(&self) -> Option<&str> {
        self.metrics_url.as_deref()
    }

    /// The CA that nodes pin, PEM.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn ca(&self) -> Result<Vec<u8>> {
        fs::read(self.state.join("ca.pem")).context("the verifier has no ca.pem")
    }

    /// Its state folder.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Its process, if it runs.
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(Guard::pid)
    }

    /// Its log.
    pub fn log(&self) -> PathBuf {
        self.state.with_extension("log")
    }

    /// The operator's bundle, with the address at which this host reaches the verifier.
    ///
    /// # Errors
    /// If `init` left none.
    pub fn bundle(&self) -> Result<PathBuf> {
        let path = self.state.join(format!("operator-{OPERATOR}.bundle"));
        let text = fs::read(&path).context(format_args!("can't read {}", path.display()))?;
        let mut bundle: serde_json::Value = serde_json::from_slice(&text).context("the operator's bundle")?;
        bundle["servers"] = serde_json::json!([self.local_url()]);
        let here = self.state.with_extension("bundle");
        fs::write(&here, bundle.to_string()).context(format_args!("can't write {}", here.display()))?;
        Ok(here)
    }

    /// Another command of the program, for this state folder.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        reaper::mark(&mut command).args(args).arg("--state").arg(&self.state);
        command
    }

    /// Starts it and waits until it listens.
    ///
    /// # Errors
    /// If it does not say so.
    pub fn start(&mut self) -> Result<()> {
        if self.running.is_some() {
            return Ok(());
        }
        let log = File::options().create(true).append(true).open(self.log()).context("can't open a log")?;
        // Writing beyond RLIMIT_FSIZE shall fail and not kill: a test plays a full disk.
        let mut command = Command::new("sh");
        command
            .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
            .arg(&self.program)
            .args(["serve", "--listen", &self.address(), "--state"])
            .arg(&self.state)
            .args(&self.flags)
            .stdin(Stdio::null())
            .stderr(log);
        let (mut guard, stdout) = Guard::piped("halfkey-verifier", &mut command)?;
        let mut lines = BufReader::new(stdout).lines();
        // It says one line for each listener, or ends.
        let mut url = |prefix: &str| -> Result<String> {
            let line =
                lines.next().transpose().context("can't read what the verifier says")?.unwrap_or_default();
            line.strip_prefix(prefix).map(str::to_owned).ok_or_else(|| {
                let tail = tail_of(&self.log(), 10);
                Error::new(format!("the verifier said {line:?} instead of {prefix:?}:\n{tail}"))
            })
        };
        let with = |wanted: &str| self.flags.iter().any(|flag| flag == wanted);
        let said = url("listening on ").and_then(|_| {
            let operators =
                with("--operator-listen").then(|| url("listening for operators on ")).transpose()?;
            let metrics = with("--metrics-listen").then(|| url("listening for metrics on ")).transpose()?;
            Ok((operators, metrics))
        });
        match said {
            Ok((operator_url, metrics_url)) => {
                (self.operator_url, self.metrics_url) = (operator_url, metrics_url);
            }
            Err(error) => {
                guard.kill();
                return Err(error);
            }
        }
        self.running = Some(guard);
        Ok(())
    }

    /// Stops it as an administrator would, if it runs; gives its exit code. It has less time for that than requests may be held
    /// open, which is 25 s.
    ///
    /// # Errors
    /// If it does not end.
    pub fn stop(&mut self) -> Result<Option<i32>> {
        match self.running.take() {
            Some(mut guard) => Ok(guard.terminate(Duration::from_secs(20))?.code()),
            None => Ok(None),
        }
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        self.running = None;
    }

    /// Its database, for who can write it.
    pub fn database(&self) -> PathBuf {
        self.state.join("halfkey.db")
    }
}
