//! Child processes: short ones that must succeed, and long ones that never outlive their guard.

use crate::error::{Context, Error, Result};
use crate::reaper;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

/// Runs a command to its end and returns what it printed.
///
/// # Errors
/// If it can't be started or fails: the error holds the command and the end of its stderr.
pub fn run(command: &mut Command) -> Result<String> {
    let output = reaper::mark(command).stdin(Stdio::null()).output();
    let output = output.context(format_args!("can't run {}", line(command)))?;
    finish(command, output)
}

/// The same, with `input` on its standard input.
///
/// # Errors
/// As [`run`].
pub fn run_with_input(command: &mut Command, input: &[u8]) -> Result<String> {
    use std::io::Write;
    let mut child = reaper::mark(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context(format_args!("can't run {}", line(command)))?;
    let mut stdin = child.stdin.take().expect("stdin is piped");
    // A program that ends without reading all of it says so by its status.
    let _ = stdin.write_all(input);
    drop(stdin);
    let output = child.wait_with_output().context(line(command))?;
    finish(command, output)
}

fn finish(command: &Command, output: std::process::Output) -> Result<String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let stdout = String::from_utf8_lossy(&output.stdout);
    let said = if stderr.trim().is_empty() { stdout } else { stderr };
    Err(Error::new(format!("{} failed ({}):\n{}", line(command), output.status, tail(&said, 15))))
}

/// The command as one would type it.
fn line(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}

/// The last `lines` lines of a text, indented.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.trim_end().lines().collect();
    let from = all.len().saturating_sub(lines);
    all[from..].iter().map(|line| format!("    {line}\n")).collect()
}

/// The last `lines` lines of a file; empty if there is none.
pub fn tail_of(path: &Path, lines: usize) -> String {
    tail(&String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()), lines)
}

/// Readable as soon as this process has ended.
fn pidfd(pid: u32) -> Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0);
    let fd = fd.ok_or_else(std::io::Error::last_os_error).context("can't watch a process")?;
    // SAFETY: the kernel just gave this descriptor to us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Waits for the end of a process that may be anybody's.
///
/// # Errors
/// If it is still running at the deadline.
pub fn gone(pid: u32, deadline: Duration) -> Result<()> {
    // One that can't be watched has gone already.
    let Ok(process) = pidfd(pid) else { return Ok(()) };
    let within = PollTimeout::try_from(deadline).unwrap_or(PollTimeout::MAX);
    let ended = poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], within);
    crate::ensure!(
        ended.context("can't wait for a process")? > 0,
        "process {pid} was expected to end within {deadline:?}"
    );
    Ok(())
}

/// A process that is killed when its guard goes out of scope, and when this program ends without that.
pub struct Guard {
    child: Child,
    name: &'static str,
}

impl Guard {
    /// Starts it with stdout and stderr appended to a log.
    ///
    /// # Errors
    /// If the log can't be opened or the program can't be started.
    pub fn start(name: &'static str, command: &mut Command, log: &Path) -> Result<Self> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(log)
            .context(format_args!("can't open {}", log.display()))?;
        let err = log.try_clone().context("can't duplicate a log")?;
        let child = reaper::mark(command)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(err)
            .spawn()
            .context(format_args!("can't start {}", line(command)))?;
        Ok(Self { child, name })
    }

    /// Starts it with a pipe as its stdout.
    ///
    /// # Errors
    /// If the program can't be started.
    pub fn piped(name: &'static str, command: &mut Command) -> Result<(Self, ChildStdout)> {
        let child = reaper::mark(command).stdout(Stdio::piped()).spawn();
        let mut child = child.context(format_args!("can't start {}", line(command)))?;
        let stdout = child.stdout.take().expect("stdout is piped");
        Ok((Self { child, name }, stdout))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its exit status, if it has ended.
    ///
    /// # Errors
    /// If the operating system can't say.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context(format_args!("can't wait for {}", self.name))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If it is still running at the deadline.
    pub fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        if self.exited()?.is_none() {
            gone(self.child.id(), deadline).context(self.name)?;
        }
        let name = self.name;
        self.exited()?.ok_or_else(|| Error::new(format!("{name} was expected to end within {deadline:?}")))
    }

    /// Asks it to end (SIGTERM), then waits.
    ///
    /// # Errors
    /// If it does not end in time; it is killed when the guard goes.
    pub fn terminate(&mut self, deadline: Duration) -> Result<ExitStatus> {
        if self.exited()?.is_none() {
            let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid is an i32"));
            kill(pid, Signal::SIGTERM).context(format_args!("can't signal {}", self.name))?;
        }
        self.wait(deadline)
    }

    /// Ends it at once (SIGKILL).
    pub fn kill(&mut self) {
        // It may have ended already: both calls then have nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.kill();
    }
}
