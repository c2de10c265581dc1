//! `halfkey-verifier` on this host's loopback, where guests reach it through QEMU's user network.

use crate::error::{Context, Error, Result};
use crate::process::{Guard, run, tail_of};
use crate::programs::Programs;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// A verifier with its state; it may run or not.
pub struct Verifier {
    program: PathBuf,
    state: PathBuf,
    host: String,
    port: u16,
    running: Option<Guard>,
}

impl Verifier {
    /// Makes a state folder with CA, keys and the bundle of operator `admin`. The port is one that is free now.
    ///
    /// # Errors
    /// If `init` fails.
    pub fn init(programs: &Programs, state: &Path) -> Result<Self> {
        Self::init_at(programs, state, "10.0.2.2")
    }

    /// The same with the address at which nodes reach it.
    ///
    /// # Errors
    /// If `init` fails.
    pub fn init_at(programs: &Programs, state: &Path, host: &str) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = port.context("no free port")?.port();
        let verifier = Self {
            program: programs.verifier.clone(),
            state: state.to_path_buf(),
            host: host.into(),
            port,
            running: None,
        };
        run(Command::new(&verifier.program)
            .args(["init", "--operator", "admin", "--san", "127.0.0.1", "--san", "10.0.2.2"])
            .args(["--url", &verifier.url(), "--state"])
            .arg(state))?;
        Ok(verifier)
    }

    /// Another one with the same CA, keys and records, as of now.
    ///
    /// # Errors
    /// If the state can't be copied. This verifier must not run.
    pub fn fork(&self, state: &Path) -> Result<Self> {
        crate::ensure!(self.running.is_none(), "a running verifier can't be copied");
        run(Command::new("cp").arg("-a").arg(&self.state).arg(state))?;
        let (program, host) = (self.program.clone(), self.host.clone());
        Ok(Self { program, state: state.to_path_buf(), host, port: self.port, running: None })
    }

    /// Where guests reach it.
    pub fn url(&self) -> String {
        format!("https://{}:{}", self.host, self.port)
    }

    /// Where this host reaches it.
    pub fn local_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
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
        let path = self.state.join("operator-admin.bundle");
        let text = fs::read(&path).context(format_args!("can't read {}", path.display()))?;
        let mut bundle: serde_json::Value = serde_json::from_slice(&text).context("the operator's bundle")?;
        bundle["servers"] = serde_json::json!([self.local_url()]);
        let here = self.state.with_extension("bundle");
        fs::write(&here, bundle.to_string()).context(format_args!("can't write {}", here.display()))?;
        Ok(here)
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
        let mut child = Command::new(&self.program)
            .args(["serve", "--listen", &format!("127.0.0.1:{}", self.port), "--state"])
            .arg(&self.state)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context(format_args!("can't start {}", self.program.display()))?;
        let stdout = child.stdout.take().expect("stdout is piped");
        let mut guard = Guard::adopt("halfkey-verifier", child);
        let mut line = String::new();
        // It says one line, or ends.
        BufReader::new(stdout).read_line(&mut line).context("can't read what the verifier says")?;
        if !line.starts_with("listening on ") {
            guard.kill();
            let tail = tail_of(&self.log(), 10);
            return Err(Error::new(format!("the verifier said {line:?} instead of `listening on`:\n{tail}")));
        }
        self.running = Some(guard);
        Ok(())
    }

    /// Stops it as an administrator would.
    ///
    /// # Errors
    /// If it does not end.
    pub fn stop(&mut self) -> Result<()> {
        match self.running.take() {
            Some(mut guard) => guard.terminate(Duration::from_secs(60)).map(drop),
            None => Ok(()),
        }
    }
}
