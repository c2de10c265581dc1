//! Before somebody gets a shell or is asked for a passphrase: the fence is extended, and nothing that attestation opened
//! in this boot is open any more. The caller powers off if either can't be had.

use super::cmdline::Settings;
use super::state::{State, mapping_uuid};
use super::teardown;
use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::fence::{self, Ensured, Meaning};
use crate::tpm::{Location, Tpm};
use crate::{console, logs, userspace_log};
use halfkey_protocol::{FENCE_PCR, label};
use std::process::{Command, Stdio};

/// What must be done first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    /// The fence is extended, and nothing is open that attestation opened.
    Nothing,
    /// Extending the fence.
    Close,
    /// Closing what was opened.
    TearDown,
}

/// By what PCR 15 says, and whether the agent left a state: it writes one before it opens anything.
fn first(meaning: Meaning, has_state: bool) -> First {
    match meaning {
        Meaning::Open => First::Close,
        // After the last two everything was closed: whatever is open now, a passphrase opened.
        Meaning::Closed | Meaning::Shell | Meaning::Passphrase => First::Nothing,
        Meaning::Opened | Meaning::Rogue => First::TearDown,
        // Others extend PCR 15 as well, on machines that are not enrolled too.
        Meaning::Unknown if has_state => First::TearDown,
        Meaning::Unknown => First::Nothing,
    }
}

/// A root shell is about to be had at the console. In the running system there is nothing to close for it.
///
/// # Errors
/// When the fence could not be confirmed, or something may still be open.
pub fn before_shell(location: &Location, settings: &Settings) -> Result<()> {
    if let Some(closed) = close(location, settings, label::FENCE_SHELL)? {
        console::say("what attestation opened is closed; this boot counts as attested no more");
        // When the shell ends they are started again, and ask.
        units("stop", &closed);
    }
    Ok(())
}

/// A passphrase is about to be asked for `mapping`. A no-op if that mapping is active already (systemd-cryptsetup then
/// asks nothing).
///
/// # Errors
/// As [`before_shell`].
pub fn before_passphrase(location: &Location, settings: &Settings, mapping: &str) -> Result<()> {
    if mapping_uuid(mapping).is_some() {
        return Ok(());
    }
    if let Some(closed) = close(location, settings, label::FENCE_PASSPHRASE)? {
        console::say(&format!(
            "'{mapping}' is not enrolled and asks for its passphrase after the others were opened: they are closed again"
        ));
        console::say("hint: enroll that volume as well, or open it from the running system");
        units("try-restart", &closed);
    }
    Ok(())
}

/// The names of the mappings if there was something to tear down; then `event` is extended.
fn close(location: &Location, settings: &Settings, event: &[u8]) -> Result<Option<Vec<String>>> {
    let ensured = fence::ensure_closed(location)?;
    let state = State::load();
    let nothing_opened = match ensured {
        Ensured::Closed => true,
        // A TPM that went away after the opening is not found below.
        Ensured::NoTpm => matches!(state, Ok(None)),
        // Switched off, the agent has opened nothing.
        Ensured::Already => settings.off || !console::in_initramfs(),
    };
    if nothing_opened {
        return Ok(None);
    }
    let mut tpm = Tpm::open(location)?;
    let later = userspace_log::sha256_digests(&logs::userspace(), FENCE_PCR);
    let meaning = match (tpm.fence_state()?.sha256(), &state) {
        (Some(value), Ok(state)) => fence::meaning(&value, state.as_ref(), &later),
        // No such bank, or a state that can't be read: what PCR 15 means is not known.
        (None, _) | (_, Err(_)) => Meaning::Unknown,
    };
    if first(meaning, !matches!(state, Ok(None))) != First::TearDown {
        return Ok(None);
    }
    teardown::close_all(Deadline::after(teardown::LIMIT)).map_err(|error| {
        error.context("no shell and no prompt may come over an open volume").hint(
            "for a boot with the disk closed, a passphrase and a shell: halfkey hold NODE, at the operator's desk",
        )
    })?;
    let mut names = Vec::new();
    if let Ok(Some(mut state)) = state {
        names.extend(state.volumes.iter().map(|volume| volume.name.clone()));
        state.volumes.iter_mut().for_each(|volume| volume.mapping = None);
        state.opening = false;
        state.save()?;
    }
    fence::extend(&mut tpm, event)?;
    Ok(Some(names))
}

/// systemd still takes these mappings for open. Only that they are asked for later depends on it.
fn units(verb: &str, mappings: &[String]) {
    if mappings.is_empty() {
        return;
    }
    let names = mappings.iter().map(|name| format!("systemd-cryptsetup@{}.service", escaped(name)));
    let done = Command::new("/usr/bin/systemctl")
        .args(["--no-block", "--no-ask-password", verb])
        .args(names)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if let Err(error) = done {
        console::complain(&Error::system("systemctl", error));
    }
}

/// As systemd.unit(5) writes a name that is not a path.
fn escaped(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for (i, byte) in name.bytes().enumerate() {
        match byte {
            b'/' => out.push('-'),
            b'.' if i > 0 => out.push('.'),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b':' | b'_' => out.push(char::from(byte)),
            other => out.push_str(&format!("\\x{other:02x}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_after_an_opening_something_is_closed() {
        for has_state in [false, true] {
            assert_eq!(first(Meaning::Open, has_state), First::Close);
            assert_eq!(first(Meaning::Closed, has_state), First::Nothing);
            assert_eq!(first(Meaning::Shell, has_state), First::Nothing);
            assert_eq!(first(Meaning::Passphrase, has_state), First::Nothing);
            assert_eq!(first(Meaning::Opened, has_state), First::TearDown);
            assert_eq!(first(Meaning::Rogue, has_state), First::TearDown);
        }
        assert_eq!(first(Meaning::Unknown, true), First::TearDown);
        assert_eq!(first(Meaning::Unknown, false), First::Nothing);
    }

    #[test]
    fn names_are_escaped_as_systemd_does() {
        let escape = |name: &str| {
            let out = Command::new("systemd-escape").arg("--").arg(name).output().unwrap();
            String::from_utf8(out.stdout).unwrap().trim().to_owned()
        };
        for name in ["root", "luks-0b5f4c0e-6d1b", ".hidden", "a.b:c_d+e", "data/x y", "\u{e9}"] {
            assert_eq!(escaped(name), escape(name), "{name}");
        }
    }
}
