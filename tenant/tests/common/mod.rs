//! What the tests share. Not every test uses all of it.
#![allow(dead_code)]

pub mod golden;
pub mod lying;
pub mod node;
pub mod record;
pub mod server;
pub mod setup;
pub mod shown;
pub mod verifier;

use halfkey_protocol::Bytes;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A workstation: a home folder and a way to run the program there.
pub struct Workstation {
    pub dir: tempfile::TempDir,
}

/// How a run ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Workstation {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// A workstation that is logged in with this bundle.
    pub fn logged_in(bundle: &str) -> Self {
        let workstation = Self::new();
        let ran = workstation.login(bundle, &[]);
        assert_eq!(ran.code, 0, "{ran:?}");
        workstation
    }

    pub fn login(&self, bundle: &str, more: &[&str]) -> Ran {
        let path = self.dir.path().join("operator-test.bundle");
        std::fs::write(&path, bundle).unwrap();
        self.run(&[&["login", path.to_str().unwrap()], more].concat())
    }

    pub fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The program, with an environment in which nothing of this machine's counts.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_halfkey"));
        command.env_clear().env("HALFKEY_HOME", self.home()).env("HOME", "/nonexistent");
        command.args(args).stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::from(self.command(args).output().unwrap())
    }

    /// Runs and expects success.
    pub fn ok(&self, args: &[&str]) -> Ran {
        let ran = self.run(args);
        assert_eq!(ran.code, 0, "{args:?}: {ran:?}");
        ran
    }

    /// With a terminal as standard input on which this was typed.
    pub fn typing(&self, args: &[&str], typed: &str) -> Ran {
        let pty = nix::pty::openpty(None, None).unwrap();
        File::from(pty.master.try_clone().unwrap()).write_all(typed.as_bytes()).unwrap();
        let mut command = self.command(args);
        command.stdin(pty.slave).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ran::from(command.output().unwrap())
    }

    /// Runs on a terminal. `meanwhile` happens while its question is on the screen; then it is answered with yes.
    pub fn answered_after(&self, args: &[&str], meanwhile: impl FnOnce()) -> Ran {
        let quoted: Vec<_> = args.iter().map(|arg| format!("'{arg}'")).collect();
        let line = format!("'{}' {}", env!("CARGO_BIN_EXE_halfkey"), quoted.join(" "));
        let mut terminal = Command::new("script");
        terminal
            .env_clear()
            .env("HALFKEY_HOME", self.home())
            .env("HOME", "/nonexistent")
            .env("SHELL", "/bin/sh");
        terminal.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
        let mut child = terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (mut stdout, mut shown) = (child.stdout.take().unwrap(), Vec::new());
        let mut byte = [0];
        while !shown.ends_with(b"[y/N] ") {
            assert_eq!(
                stdout.read(&mut byte).unwrap(),
                1,
                "no question: {}",
                String::from_utf8_lossy(&shown)
            );
            shown.extend(byte);
        }
        meanwhile();
        child.stdin.as_mut().unwrap().write_all(b"y\n").unwrap();
        stdout.read_to_end(&mut shown).unwrap();
        let status = child.wait().unwrap();
        // A terminal has one stream.
        Ran {
            code: status.code().unwrap_or(-1),
            stdout: String::new(),
            stderr: String::from_utf8_lossy(&shown).into_owned(),
        }
    }

    /// What an error says, without the parts that differ from run to run.
    pub fn error(&self, args: &[&str], port: u16) -> (i32, String) {
        let ran = self.run(args);
        let dir = self.dir.path().to_str().unwrap();
        (ran.code, ran.stderr.replace(dir, "DIR").replace(&format!(":{port}"), ":PORT"))
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

pub fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// A changed copy.
pub fn flipped(bytes: &Bytes, at: usize) -> Bytes {
    let mut bytes = bytes.clone();
    bytes.0[at] ^= 1;
    bytes
}
