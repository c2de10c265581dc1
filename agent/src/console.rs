//! What the agent says to people: one line at a time, and never a panic because nobody listens.

use crate::error::Error;
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::sync::OnceLock;

static CONSOLE: OnceLock<Option<File>> = OnceLock::new();

/// Says a line on standard error and, in the initramfs, where standard error
/// is the journal's, on the console as well: the person in front of the machine has no journal.
pub fn say(line: &str) {
    let text = format!("halfkey: {line}\n");
    let _ = std::io::stderr().write_all(text.as_bytes());
    if let Some(console) = CONSOLE.get_or_init(open_console) {
        let mut console = console;
        // A serial console in raw mode wants the carriage return.
        let _ = console.write_all(text.replace('\n', "\r\n").as_bytes());
    }
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
    File::options().write(true).open("/dev/console").ok()
}

/// Whether this runs in an initramfs (systemd's and dracut's own mark).
pub fn in_initramfs() -> bool {
    std::path::Path::new("/etc/initrd-release").exists()
}
