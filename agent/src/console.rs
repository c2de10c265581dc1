//! What the agent says to people: one line at a time, and never a panic because nobody listens.

use crate::deadline::Deadline;
use crate::error::Error;
use nix::libc::{O_NOCTTY, O_NONBLOCK};
use nix::poll::{PollFd, PollFlags, poll};
use std::fs::File;
use std::io::{ErrorKind, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

static CONSOLE: OnceLock<Console> = OnceLock::new();
/// Somebody has stopped the console, with Ctrl-S: it is not waited for a second time.
static STOPPED: AtomicBool = AtomicBool::new(false);
/// How long a line may take: a slow one is a serial line of 9600 bit/s, whose buffer is full.
const SLOWEST: Duration = Duration::from_secs(2);

/// Says a line on standard error and, in the initramfs, where standard error
/// is the journal's, on the console as well: the person in front of the machine has no journal.
pub fn say(line: &str) {
    let text = format!("halfkey: {line}\n");
    let Console { file, by_stderr } = CONSOLE.get_or_init(Console::open);
    if !by_stderr {
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
    if let Some(console) = file {
        // A serial console in raw mode wants the carriage return.
        let wait = if STOPPED.load(Ordering::Relaxed) { Duration::ZERO } else { SLOWEST };
        let whole = show(console, text.replace('\n', "\r\n").as_bytes(), Deadline::after(wait));
        STOPPED.store(!whole, Ordering::Relaxed);
    }
}

/// In the initramfs, the person in front of the machine.
struct Console {
    file: Option<File>,
    /// Standard error is a terminal, and this is it.
    by_stderr: bool,
}

impl Console {
    /// Opened anew, so that nobody else's writing waits or fails because this does not wait.
    fn open() -> Self {
        let by_stderr = std::io::stderr().is_terminal();
        let path = if by_stderr { "/proc/self/fd/2" } else { "/dev/console" };
        let open = || File::options().write(true).custom_flags(O_NONBLOCK | O_NOCTTY).open(path).ok();
        let file = if in_initramfs() { open() } else { None };
        Self { by_stderr: by_stderr && file.is_some(), file }
    }
}

/// Whether all of it was taken in time. Whoever holds the console can stop it, and must not stop the boot by that.
fn show(mut console: &File, mut text: &[u8], deadline: Deadline) -> bool {
    while !text.is_empty() {
        match console.write(text) {
            Ok(0) => return false,
            Ok(count) => text = &text[count..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let ready =
                    poll(&mut [PollFd::new(console.as_fd(), PollFlags::POLLOUT)], deadline.poll_timeout());
                if ready.is_ok_and(|count| count == 0) || deadline.is_over() {
                    return false;
                }
            }
            Err(_) => return false,
        }
    }
    true
}

/// Says an error and its hint.
pub fn complain(error: &Error) {
    lines(error).iter().for_each(|line| say(line));
}

/// The lines of an error: itself, and what to do.
pub fn lines(error: &Error) -> Vec<String> {
    let hint = error.hint.iter().map(|hint| format!("hint: {hint}"));
    [format!("error: {error}")].into_iter().chain(hint).collect()
}

/// Data for programs and people, on standard output. A closed pipe is not our problem.
pub fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Whether this runs in an initramfs (systemd's and dracut's own mark).
pub fn in_initramfs() -> bool {
    std::path::Path::new("/etc/initrd-release").exists()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::termios::{FlowArg, tcflow};
    use nix::unistd::pipe2;
    use std::os::fd::AsRawFd;

    #[test]
    fn a_terminal_that_is_stopped_holds_nobody() {
        let pty = nix::pty::openpty(None, None).unwrap();
        let path = format!("/proc/self/fd/{}", pty.slave.as_raw_fd());
        let slave = File::options().write(true).custom_flags(O_NONBLOCK | O_NOCTTY).open(path).unwrap();
        assert!(show(&slave, b"halfkey: x\r\n", Deadline::after(SLOWEST)));
        tcflow(&pty.slave, FlowArg::TCOOFF).unwrap();
        assert!(!show(&slave, b"halfkey: y\r\n", Deadline::after(Duration::from_millis(1))));
        tcflow(&pty.slave, FlowArg::TCOON).unwrap();
        assert!(show(&slave, b"halfkey: z\r\n", Deadline::after(SLOWEST)));
    }

    #[test]
    fn a_console_that_is_stopped_holds_nobody() {
        let (reader, writer) = pipe2(nix::fcntl::OFlag::O_NONBLOCK).unwrap();
        let writer = File::from(writer);
        assert!(show(&writer, b"halfkey: x\r\n", Deadline::after(SLOWEST)));
        let much = vec![b'x'; 1 << 20];
        assert!(!show(&writer, &much, Deadline::after(Duration::from_millis(1))));
        drop(reader);
        assert!(!show(&writer, b"x", Deadline::after(SLOWEST)), "nobody is there");
    }
}
