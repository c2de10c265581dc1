//! Runs `cryptsetup`. Keys go through pipes: never on a command line, in the environment or in a file.

use super::HeaderCopy;
use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::net::client::printable;
use crate::net::wait::readable;
use crate::{apart, console, words};
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use zeroize::Zeroizing;

/// What fits into a pipe without a reader (pipe(7)).
const PIPE: usize = 60 << 10;
/// How long it may take to end when it was killed.
const KILLED: Duration = Duration::from_secs(2);
/// What is kept of the words of a failure.
const WORDS: usize = 4 << 10;

/// A way into a volume that the operator has: at enrollment only.
pub enum Existing {
    /// A key file.
    File(PathBuf),
    /// What was typed.
    Typed(Zeroizing<Vec<u8>>),
}

/// How a run ended.
struct Ended {
    code: i32,
    words: String,
}

/// Whether `key` opens the one keyslot of this checked header. Nothing is mapped, and the disk is not touched: one that does not answer would
/// hold the child in the kernel, with the key still in its pipe.
///
/// # Errors
/// When cryptsetup fails for another reason than a wrong key.
pub fn test(device: &Path, header: &HeaderCopy, key: &[u8], deadline: Deadline) -> Result<bool> {
    let (slot, copy) = (header.slot.to_string(), header.path());
    let args =
        ["open", "--type", "luks2", "--test-passphrase", "--key-slot", &slot, "--key-file", "-", &copy];
    let ended = run(&args, Some(key), None, deadline)?;
    match ended.code {
        0 => Ok(true),
        2 => Ok(false),
        _ => Err(failed("testing the key", device, ended)),
    }
}

/// Opens the volume as /dev/mapper/`name`, with the header that was checked.
///
/// # Errors
/// When cryptsetup does not.
pub fn open(
    device: &Path,
    name: &str,
    header: &HeaderCopy,
    key: &[u8],
    options: &[&str],
    deadline: Deadline,
) -> Result<()> {
    let slot = header.slot.to_string();
    let header_path = header.path();
    let mut args =
        vec!["open", "--type", "luks2", "--key-slot", &slot, "--header", &header_path, "--key-file", "-"];
    args.extend(options);
    args.extend([path(device)?, name]);
    expect("opening", device, run(&args, Some(key), None, deadline)?)
}

/// Closes a mapping.
///
/// # Errors
/// When cryptsetup does not: it is in use.
pub fn close(name: &str, deadline: Deadline) -> Result<()> {
    expect("closing", Path::new(name), run(&["close", name], None, None, deadline)?)
}

/// Whether `existing` opens any keyslot of the volume.
///
/// # Errors
/// When cryptsetup fails for another reason than a wrong key.
pub fn opens(device: &Path, existing: &Existing, deadline: Deadline) -> Result<bool> {
    let (file, typed) = existing.parts()?;
    let args = ["open", "--type", "luks2", "--test-passphrase", "--key-file", file, path(device)?];
    let ended = run(&args, typed, None, deadline)?;
    match ended.code {
        0 => Ok(true),
        2 => Ok(false),
        _ => Err(failed("testing the passphrase", device, ended)),
    }
}

/// Adds `key` in keyslot `slot`. PBKDF2 with its minimum: the key has 256 bits, stretching
/// it would only cost time at every boot.
///
/// # Errors
/// When cryptsetup does not.
pub fn add_key(device: &Path, existing: &Existing, slot: u32, key: &[u8], deadline: Deadline) -> Result<()> {
    let (file, typed) = existing.parts()?;
    let slot = slot.to_string();
    let new = pipe_with(key)?;
    let new_path = format!("/proc/self/fd/{}", new.as_raw_fd());
    let args = [
        "luksAddKey",
        "--batch-mode",
        "--type",
        "luks2",
        "--pbkdf",
        "pbkdf2",
        "--pbkdf-force-iterations",
        "1000",
        "--hash",
        "sha256",
        "--key-slot",
        &slot,
        "--key-file",
        file,
        path(device)?,
        &new_path,
    ];
    expect("adding a keyslot", device, run(&args, typed, Some(&new), deadline)?)
}

/// Removes keyslot `slot`; `existing` must open another one, which cryptsetup checks.
///
/// # Errors
/// When cryptsetup does not.
pub fn remove_key(device: &Path, existing: &Existing, slot: u32, deadline: Deadline) -> Result<()> {
    let (file, typed) = existing.parts()?;
    let slot = slot.to_string();
    let args = ["luksKillSlot", "--type", "luks2", "--key-file", file, path(device)?, &slot];
    expect("removing a keyslot", device, run(&args, typed, None, deadline)?)
}

/// Writes token `number`, in place of an older one if `replace`.
///
/// # Errors
/// When cryptsetup does not.
pub fn import_token(device: &Path, number: u32, json: &str, replace: bool, deadline: Deadline) -> Result<()> {
    let number = number.to_string();
    let mut args = vec!["token", "import", "--token-id", &number, "--json-file", "-"];
    if replace {
        args.push("--token-replace");
    }
    args.push(path(device)?);
    expect("writing the token", device, run(&args, Some(json.as_bytes()), None, deadline)?)
}

/// Removes token `number`.
///
/// # Errors
/// When cryptsetup does not.
pub fn remove_token(device: &Path, number: u32, deadline: Deadline) -> Result<()> {
    let args = ["token", "remove", "--token-id", &number.to_string(), path(device)?];
    expect("removing the token", device, run(&args, None, None, deadline)?)
}

impl Existing {
    /// The argument of `--key-file`, and what standard input carries.
    fn parts(&self) -> Result<(&str, Option<&[u8]>)> {
        match self {
            Self::File(file) => Ok((path(file)?, None)),
            Self::Typed(text) => Ok(("-", Some(text))),
        }
    }
}

fn path(path: &Path) -> Result<&str> {
    let text = path.to_str().filter(|text| !text.starts_with('-'));
    text.ok_or_else(|| Error::usage(format!("expected a path in plain text, found {}", path.display())))
}

/// A pipe that already holds `content`, for a child to read to its end.
fn pipe_with(content: &[u8]) -> Result<OwnedFd> {
    if content.len() > PIPE {
        return Err(Error::volume(format!(
            "expected at most {PIPE} bytes for cryptsetup, found {}",
            content.len()
        )));
    }
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|e| Error::system("pipe", e))?;
    File::from(writer).write_all(content).map_err(|e| Error::system("pipe", e))?;
    Ok(reader)
}

/// Runs cryptsetup to its end or to the deadline, when it is killed.
fn run(args: &[&str], input: Option<&[u8]>, inherit: Option<&OwnedFd>, deadline: Deadline) -> Result<Ended> {
    let cannot = |e| {
        Error::system("cryptsetup", e)
            .hint("is the package cryptsetup (cryptsetup-bin) installed, and in the initramfs?")
    };
    let unread = input.map(pipe_with).transpose()?;
    let stdin = match &unread {
        Some(pipe) => Stdio::from(pipe.try_clone().map_err(cannot)?),
        None => Stdio::null(),
    };
    if let Some(fd) = inherit {
        // Read by its number in the child. Only one child is made at a time, and this is closed after it.
        fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())).map_err(|e| Error::system("pipe", e))?;
    }
    let mut child = Command::new("cryptsetup")
        .args(args)
        .env_clear()
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .env("LC_ALL", "C")
        .stdin(stdin)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(cannot)?;
    let mut said = Vec::new();
    // Its end of the pipe closes when it exits: that is the event to wait for.
    if let Some(mut stderr) = child.stderr.take() {
        let mut buffer = [0; 1024];
        loop {
            if !readable(&stderr, deadline) {
                let _ = child.kill();
                // What it has not read anybody could who gets a shell later. Nobody writes any more: it ends.
                let (mut pipe, mut rest) = (unread.map(File::from), Zeroizing::new([0; 256]));
                while pipe.as_mut().is_some_and(|pipe| matches!(pipe.read(&mut *rest), Ok(1..))) {}
                // One that a disk holds in the kernel does not end by it.
                let ended = apart::run("cryptsetup", KILLED, move || child.wait());
                if !matches!(ended, Ok(Some(_))) {
                    console::say(&words::does_not_end(args[0]));
                }
                return Err(Error::volume(format!("cryptsetup {} took longer than there was time", args[0])));
            }
            match stderr.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(n) => said.extend_from_slice(&buffer[..n.min(WORDS.saturating_sub(said.len()))]),
            }
        }
    }
    let status = child.wait().map_err(cannot)?;
    let said = String::from_utf8_lossy(&said);
    let mut lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.dedup();
    lines.truncate(3);
    let said = if lines.is_empty() { "no message".into() } else { lines.join(" ") };
    Ok(Ended { code: status.code().unwrap_or(-1), words: printable(&said, 300) })
}

fn expect(what: &str, device: &Path, ended: Ended) -> Result<()> {
    if ended.code == 0 { Ok(()) } else { Err(failed(what, device, ended)) }
}

fn failed(what: &str, device: &Path, ended: Ended) -> Error {
    Error::volume(format!(
        "{}: {what} failed: cryptsetup: {} (exit code {})",
        device.display(),
        ended.words,
        ended.code
    ))
}
