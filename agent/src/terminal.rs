//! Asks for a passphrase on the terminal, with the echo off.

use crate::error::{Error, Result};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use std::fs::File;
use std::io::{Read, Write};
use zeroize::Zeroizing;

/// The longest passphrase that cryptsetup takes from a terminal.
const MAX: usize = 512;
const CONTROL_C: u8 = 3;

/// Asks once. The line end is not part of the answer.
///
/// # Errors
/// When there is no terminal, or the answer is Control-C.
pub fn ask_passphrase(prompt: &str) -> Result<Zeroizing<Vec<u8>>> {
    let no_terminal =
        |e| Error::system("asking for a passphrase: /dev/tty", e).hint("give a key file with --key-file");
    let tty = File::options().read(true).write(true).open("/dev/tty").map_err(no_terminal)?;
    let mut quiet = Quiet::new(tty).map_err(|e| no_terminal(e.into()))?;
    quiet.tty.write_all(prompt.as_bytes()).map_err(no_terminal)?;
    // The full capacity at once: growing would leave copies behind.
    let mut line = Zeroizing::new(Vec::with_capacity(MAX));
    let mut byte = Zeroizing::new([0]);
    while quiet.tty.read(&mut *byte).map_err(no_terminal)? == 1 && byte[0] != b'\n' {
        match byte[0] {
            CONTROL_C => return Err(Error::usage("interrupted")),
            other if line.len() < MAX => line.push(other),
            _ => return Err(Error::usage(format!("expected a passphrase of at most {MAX} bytes"))),
        }
    }
    Ok(line)
}

/// The echo is off as long as this lives. Control-C arrives as a byte, so that it comes back on.
struct Quiet {
    tty: File,
    before: Termios,
}

impl Quiet {
    fn new(tty: File) -> nix::Result<Self> {
        let before = tcgetattr(&tty)?;
        let mut quiet = before.clone();
        quiet.local_flags.remove(LocalFlags::ECHO | LocalFlags::ISIG);
        tcsetattr(&tty, SetArg::TCSAFLUSH, &quiet)?;
        Ok(Self { tty, before })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.tty, SetArg::TCSAFLUSH, &self.before);
        let _ = self.tty.write_all(b"\n");
    }
}
