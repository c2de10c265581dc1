//! Programs of the host that take their time: run to their end, or to a deadline, or to a signal that ends this one.

use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// For a program that is to end, to take away what it has made so far.
const GRACE: Duration = Duration::from_secs(10);
/// Of each output, in bytes; the largest that is asked for is the agent in an image. What comes beyond is read and not kept.
const MAX_SAID: usize = 128 << 20;
/// What a terminal, a session that ends, or an init system ends this program with.
const ENDS_US: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Runs a program to its end, and gives what it said. `from`: which package has it.
///
/// # Errors
/// When it can't be started; when it takes longer than `limit`, or this program is to end: then it is ended, with all that it has started.
pub fn run(command: Command, limit: Duration, from: &str) -> Result<Output> {
    run_with(command, limit, GRACE, from)
}

fn run_with(command: Command, limit: Duration, grace: Duration, from: &str) -> Result<Output> {
    let name = command.get_program().to_string_lossy().into_owned();
    let failed = |e: io::Error| Error::system(&name, e);
    let mut running = Running::start(command).map_err(|e| failed(e).hint(from))?;
    // It is in a group of its own, so that nothing else ends it.
    let signals = Signals::held().map_err(failed)?;
    let why = match running.said.until_closed(Deadline::after(limit), Some(&signals.0)).map_err(failed)? {
        Until::Closed => return running.output().map_err(failed),
        Until::Deadline => {
            let minutes = limit.as_secs() / 60;
            Error::system(&name, format!("expected it to end within {minutes} minutes, and ended it"))
                .hint(format!("run {name} by itself to see what it waits for"))
        }
        Until::Signal => Error::new(Kind::System, format!("{name} was ended by a signal")),
    };
    running.end(grace);
    Err(why)
}

/// A program, and all that it starts: they have a process group of their own.
struct Running {
    child: Child,
    said: Said,
}

impl Running {
    fn start(mut command: Command) -> io::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn()?;
        let pipes = [child.stdout.take().map(OwnedFd::from), child.stderr.take().map(OwnedFd::from)];
        Ok(Self { child, said: Said(pipes.map(|pipe| (pipe.map(File::from), Vec::new()))) })
    }

    /// They may have files to remove; whoever does not end by themselves then has no choice.
    fn end(mut self, grace: Duration) {
        self.signal(Signal::SIGTERM);
        let _ = self.said.until_closed(Deadline::after(grace), None);
        // Before it is waited for: until then the number of the group is of nobody else.
        self.signal(Signal::SIGKILL);
        let _ = self.child.wait();
        // The others are init's to wait for. Nothing to be seen of them is left with their ends of the pipes, and a disk that does not
        // answer is not waited for.
        let _ = self.said.until_closed(Deadline::after(GRACE), None);
    }

    fn signal(&self, signal: Signal) {
        if let Ok(id) = i32::try_from(self.child.id()) {
            let _ = killpg(Pid::from_raw(id), signal);
        }
    }

    fn output(mut self) -> io::Result<Output> {
        let status = self.child.wait()?;
        let [stdout, stderr] = self.said.0.map(|(_, bytes)| bytes);
        Ok(Output { status, stdout, stderr })
    }
}

/// Signals that would end this program, held back as long as this value is there.
struct Signals(SignalFd, SigSet);

impl Signals {
    fn held() -> io::Result<Self> {
        let held = SigSet::from_iter(ENDS_US);
        let file = SignalFd::with_flags(&held, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Self(file, held.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK)?))
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // One that has come since then ends this program after all. The one that was seen became an error.
        let _ = self.1.thread_set_mask();
    }
}

/// What came first.
#[derive(Debug, PartialEq, Eq)]
enum Until {
    Closed,
    Deadline,
    Signal,
}

/// Its two outputs, until each is closed, and what came of them.
struct Said([(Option<File>, Vec<u8>); 2]);

impl Said {
    /// Reads on until both are closed, or something else comes first.
    fn until_closed(&mut self, deadline: Deadline, signals: Option<&SignalFd>) -> io::Result<Until> {
        loop {
            let open: Vec<_> = self.0.iter().filter_map(|(pipe, _)| pipe.as_ref()).collect();
            if open.is_empty() {
                return Ok(Until::Closed);
            }
            let files = open.iter().map(|pipe| pipe.as_fd()).chain(signals.map(AsFd::as_fd));
            let mut fds: Vec<_> = files.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            match poll(&mut fds, deadline.poll_timeout()) {
                Ok(0) if deadline.is_over() => return Ok(Until::Deadline),
                Ok(0) | Err(Errno::EINTR) => continue,
                Ok(_) => {}
                Err(e) => return Err(e.into()),
            }
            let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();
            if let Some(signals) = signals
                && ready.last() == Some(&true)
                && signals.read_signal()?.is_some()
            {
                return Ok(Until::Signal);
            }
            let pipes = self.0.iter_mut().filter(|(pipe, _)| pipe.is_some());
            for ((pipe, bytes), _) in pipes.zip(ready).filter(|(_, ready)| *ready) {
                read_some(pipe, bytes, MAX_SAID)?;
            }
        }
    }
}

fn read_some(pipe: &mut Option<File>, bytes: &mut Vec<u8>, max: usize) -> io::Result<()> {
    let mut buffer = [0; 64 << 10];
    let Some(open) = pipe else { return Ok(()) };
    match open.read(&mut buffer) {
        Ok(0) => *pipe = None,
        Ok(n) => bytes.extend_from_slice(&buffer[..n.min(max.saturating_sub(bytes.len()))]),
        Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
        Err(e) => return Err(e),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::OFlag;
    use nix::poll::PollTimeout;
    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;
    use std::os::unix::fs::OpenOptionsExt;

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
    }

    #[test]
    fn nothing_that_it_started_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let alive = folder.path().join("alive");
        mkfifo(&alive, Mode::S_IRWXU).unwrap();
        // As long as one of them is there, somebody has it open for writing.
        let mut seen =
            File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(&alive).unwrap();
        let script = "exec 9>FILE; trap '' TERM; (echo child; while :; do :; done >/dev/null 2>&1) & \
            sh -c '(trap \"\" TERM; echo grandchild; while :; do :; done) & wait' & echo ready; wait; wait"
            .replace("FILE", alive.to_str().unwrap());
        let mut running = Running::start(shell(&script)).unwrap();
        while running.said.0[0].1.iter().filter(|byte| **byte == b'\n').count() < 3 {
            let [(stdout, said), _] = &mut running.said.0;
            read_some(stdout, said, MAX_SAID).unwrap();
            assert!(stdout.is_some(), "it has ended: {said:?}");
        }
        running.end(Duration::ZERO);
        let mut fds = [PollFd::new(seen.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::from(60_000u16)).unwrap(), 1, "somebody is left");
        assert_eq!(seen.read(&mut [0; 1]).unwrap(), 0);
    }

    #[test]
    fn it_is_ended_when_this_program_is_to_end() {
        let before = SigSet::thread_get_mask().unwrap();
        SigSet::from_iter(ENDS_US).thread_block().unwrap();
        nix::sys::signal::raise(Signal::SIGINT).unwrap();
        let error = run_with(shell("while :; do :; done"), Duration::MAX, Duration::ZERO, "").unwrap_err();
        before.thread_set_mask().unwrap();
        assert_eq!(error.message, "sh was ended by a signal");
    }

    #[test]
    fn what_it_says_without_end_is_not_kept() {
        let mut ran = shell("head -c 300000 /dev/zero; echo end").stdout(Stdio::piped()).spawn().unwrap();
        let (mut pipe, mut said) = (ran.stdout.take().map(OwnedFd::from).map(File::from), Vec::new());
        while pipe.is_some() {
            read_some(&mut pipe, &mut said, 1000).unwrap();
        }
        assert!(ran.wait().unwrap().success());
        assert_eq!(said, [0; 1000]);
    }
}
