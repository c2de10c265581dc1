//! Programs of the host that take their time: run to their end, or to a deadline.

use crate::deadline::Deadline;
use crate::error::{Error, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// For a program that is to end, to take away what it has made so far.
const GRACE: Duration = Duration::from_secs(10);

/// Runs a program to its end, and gives what it said. `from`: which package has it.
///
/// # Errors
/// When it can't be started; when it takes longer than `limit`: then it is ended.
pub fn run(command: Command, limit: Duration, from: &str) -> Result<Output> {
    run_with(command, limit, GRACE, from)
}

fn run_with(mut command: Command, limit: Duration, grace: Duration, from: &str) -> Result<Output> {
    let name = command.get_program().to_string_lossy().into_owned();
    let failed = |e: io::Error| Error::system(&name, e);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| failed(e).hint(from))?;
    let pipes = [child.stdout.take().map(OwnedFd::from), child.stderr.take().map(OwnedFd::from)];
    let mut said = Said(pipes.map(Said::of));
    if !said.until_closed(Deadline::after(limit)).map_err(failed)? {
        end(&mut child, &mut said, grace);
        let minutes = limit.as_secs() / 60;
        return Err(Error::system(
            &name,
            format!("expected it to end within {minutes} minutes, and ended it"),
        )
        .hint(format!("run {name} by itself to see what it waits for")));
    }
    let status = child.wait().map_err(failed)?;
    let [stdout, stderr] = said.0.map(|(_, bytes)| bytes);
    Ok(Output { status, stdout, stderr })
}

/// It may have files to remove; if it does not end by itself then, it has no choice.
fn end(child: &mut Child, said: &mut Said, grace: Duration) {
    if let Ok(id) = i32::try_from(child.id()) {
        let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
    }
    let _ = said.until_closed(Deadline::after(grace));
    let _ = child.kill();
    let _ = child.wait();
}

/// Its two outputs, until each is closed, and what came of them.
struct Said([(Option<File>, Vec<u8>); 2]);

impl Said {
    fn of(pipe: Option<OwnedFd>) -> (Option<File>, Vec<u8>) {
        (pipe.map(File::from), Vec::new())
    }

    /// Whether both were closed in time.
    fn until_closed(&mut self, deadline: Deadline) -> io::Result<bool> {
        loop {
            let open: Vec<_> = self.0.iter().filter_map(|(pipe, _)| pipe.as_ref()).collect();
            if open.is_empty() {
                return Ok(true);
            }
            let mut fds: Vec<_> =
                open.iter().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)).collect();
            match poll(&mut fds, deadline.poll_timeout()) {
                Ok(0) if deadline.is_over() => return Ok(false),
                Ok(0) | Err(Errno::EINTR) => continue,
                Ok(_) => {}
                Err(e) => return Err(e.into()),
            }
            let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();
            let pipes = self.0.iter_mut().filter(|(pipe, _)| pipe.is_some());
            for ((pipe, bytes), _) in pipes.zip(ready).filter(|(_, ready)| *ready) {
                read_some(pipe, bytes)?;
            }
        }
    }
}

fn read_some(pipe: &mut Option<File>, bytes: &mut Vec<u8>) -> io::Result<()> {
    let mut buffer = [0; 64 << 10];
    let Some(open) = pipe else { return Ok(()) };
    match open.read(&mut buffer) {
        Ok(0) => *pipe = None,
        Ok(n) => bytes.extend_from_slice(&buffer[..n]),
        Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
        Err(e) => return Err(e),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn what_it_says_and_how_it_ends() {
        let ran = run(shell("echo out; echo err >&2; exit 3"), Duration::MAX, "").unwrap();
        assert_eq!(
            (ran.status.code(), &ran.stdout[..], &ran.stderr[..]),
            (Some(3), &b"out\n"[..], &b"err\n"[..])
        );
        // More than a pipe holds, of both.
        let ran =
            run(shell("head -c 300000 /dev/zero >&2; head -c 300000 /dev/zero"), Duration::MAX, "").unwrap();
        assert_eq!((ran.stdout.len(), ran.stderr.len()), (300_000, 300_000));
        assert!(run(Command::new("/nonexistent"), Duration::MAX, "").is_err());
    }

    #[test]
    fn one_that_does_not_end_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let left = folder.path().join("left");
        let named = |script: &str| shell(&script.replace("FILE", left.to_str().unwrap()));
        // It takes away what it made.
        let error = run_with(
            named("trap 'rm FILE; exit 1' TERM; : >FILE; while :; do :; done"),
            Duration::from_millis(100),
            Duration::MAX,
            "",
        );
        assert!(error.unwrap_err().message.contains("expected it to end within"), "it is said");
        assert!(!left.exists());
        // It would rather not.
        let deaf = run_with(named("trap '' TERM; while :; do :; done"), Duration::ZERO, Duration::ZERO, "");
        assert!(deaf.is_err());
    }
}
