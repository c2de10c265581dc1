//! What the agent says to people: one line at a time, and never a panic because nobody listens.

use crate::deadline::Deadline;
use crate::error::Error;
use nix::libc::O_NONBLOCK;
use nix::poll::{PollFd, PollFlags, poll};
use std::fs::File;
use std::io::{ErrorKind, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

static CONSOLE: OnceLock<Option<File>> = OnceLock::new();
/// Somebody has stopped the console, with Ctrl-S: it is not waited for a second time.
static STOPPED: AtomicBool = AtomicBool::new(false);
/// How long a line may take: a slow one is a serial line of 9600 bit/s, whose buffer is full.
const SLOWEST: Duration = Duration::from_secs(2);

/// Says a line on standard error and, in the initramfs, where standard error
/// is the journal's, on the console as well: the person in front of the machine has no journal.
pub fn say(line: &str) {
    let text = format!("halfkey: {line}\n");
    let _ = std::io::stderr().write_all(text.as_bytes());
    if let Some(console) = CONSOLE.get_or_init(open_console) {
        // A serial console in raw mode wants the carriage return.
        let wait = if STOPPED.load(Ordering::Relaxed) { Duration::ZERO } else { SLOWEST };
        let whole = show(console, text.replace('\n', "\r\n").as_bytes(), Deadline::after(wait));
        STOPPED.store(!whole, Ordering::Relaxed);
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

fn open_console() -> Option<File> {
    if !in_initramfs() || std::io::stderr().is_terminal() {
        return None;
    }
    File::options().write(true).custom_flags(O_NONBLOCK).open("/dev/console").ok()
}

/// Whether this runs in an initramfs (systemd's and dracut's own mark).
pub fn in_initramfs() -> bool {
    std::path::Path::new("/etc/initrd-release").exists()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::pipe2;

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
