//! A rig to be killed: a TPM in the background, a guarded shell, and what that started. It says which processes these are and which
//! will end them, then which folder they use, one a line, and waits until its input ends.

use halfkey_testkit::error::{Context as _, Result};
use halfkey_testkit::process::Guard;
use halfkey_testkit::reaper;
use halfkey_testkit::swtpm::Swtpm;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

fn main() -> Result<()> {
    let tpm = Swtpm::start();
    let mut shell = Command::new("sh");
    shell.args(["-c", "sleep infinity & echo $!; wait"]).stdin(Stdio::null());
    let (guard, stdout) = Guard::piped("sh", &mut shell)?;
    let mut sleeps = String::new();
    BufReader::new(stdout).read_line(&mut sleeps).context("can't read what the shell says")?;
    let server = tpm.read("pid");
    let server = String::from_utf8_lossy(&server);
    let reaper = reaper::process().context("there is no reaper")?;
    println!("{}\n{}\n{}\n{reaper}", server.trim(), guard.pid(), sleeps.trim());
    println!("{}", tpm.path("").display());
    // It ends with its input, or never gets that far.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    Ok(())
}
