//! A person at a machine: the terminal of this program becomes the machine's serial console.

use crate::error::Result;
use crate::wire::Wire;
use std::io::{IsTerminal, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether somebody is at a machine.
static VISITED: AtomicBool = AtomicBool::new(false);

/// Whether somebody is at a machine, and so sees what it says.
pub fn is_used() -> bool {
    VISITED.load(Ordering::SeqCst)
}

/// Ctrl-], as with telnet.
const LEAVE: u8 = 0x1d;

/// Until the person leaves, logs out, or the machine goes off.
///
/// # Errors
/// If what is typed can't be sent.
pub fn visit(console: &mut Wire) -> Result<()> {
    println!("\nyou are at the machine's console; `exit` of a login leaves it, and Ctrl-]");
    let _raw = Raw::set();
    VISITED.store(true, Ordering::SeqCst);
    // For a new prompt.
    console.send(b"\n")?;
    let result = console.converse(std::io::stdin(), LEAVE, &mut std::io::stdout());
    VISITED.store(false, Ordering::SeqCst);
    println!("\r\nyou have left the console\r");
    result
}

/// The terminal hands each key on at once; this puts it back.
struct Raw(Option<String>);

impl Raw {
    fn set() -> Self {
        if !std::io::stdin().is_terminal() {
            return Self(None);
        }
        let before = stty(&["-g"]);
        stty(&["raw", "-echo"]);
        Self(before.map(|text| text.trim().to_owned()))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            stty(&[before]);
        }
        let _ = std::io::stdout().flush();
    }
}

/// Without it the terminal is line by line, and still works.
fn stty(args: &[&str]) -> Option<String> {
    let output =
        Command::new("stty").args(args).stdin(Stdio::inherit()).stderr(Stdio::null()).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}
