//! Before somebody gets a shell or is asked for a passphrase: the fence is extended, and nothing that attestation opened
//! in this boot is open any more. The caller powers off if either can't be had.

use super::cmdline::Settings;
use super::state::{State, mapping_uuid};
use super::{processes, stack, sysrq, teardown};
use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::fence::{self, Ensured, Meaning};
use crate::tpm::{Location, Tpm};
use crate::words;
use crate::{console, logs};
use halfkey_protocol::keys::label;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// What must be done first; of several TPMs, the last of these that one says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum First {
    /// The fence is extended, and nothing is open that attestation opened.
    Nothing,
    /// Extending the fence.
    Close,
    /// Closing what was opened.
    TearDown,
}

/// What the agent left about this boot: it writes its state before it opens anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Record {
    /// There is none: the agent has opened nothing, or somebody removed it.
    Missing,
    /// By it, something may be open; or it can't be read.
    MayBeOpen,
    /// By it, all that was opened is closed again.
    AllClosed,
}

impl Record {
    fn of(state: &Result<Option<State>>) -> Self {
        match state {
            Ok(None) => Self::Missing,
            Ok(Some(state)) if !state.opening && state.mappings().all.is_empty() => Self::AllClosed,
            Ok(Some(_)) | Err(_) => Self::MayBeOpen,
        }
    }
}

/// What is about to come over the volumes of this boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// A root shell.
    Shell,
    /// A prompt for a passphrase.
    Prompt,
}

/// Whether it is known that nothing was opened, by how the fence was found.
fn opened_nothing(ensured: Ensured, record: Record, in_running_system: bool) -> bool {
    match ensured {
        // A TPM that was reset after the opening has a fence that is zero as well: what is on record then is closed.
        Ensured::Closed => in_running_system || record != Record::MayBeOpen,
        // A TPM that went away after the opening is not found any more.
        Ensured::NoTpm => record == Record::Missing,
        Ensured::Already | Ensured::Mixed => in_running_system,
    }
}

/// By what PCR 15 says, and where that is not known, by what is on record. `over_open`: a shell comes, and a LUKS mapping
/// is there.
fn first(meaning: Meaning, record: Record, over_open: bool) -> First {
    match (meaning, record) {
        (Meaning::Open, _) => First::Close,
        // After the last two everything was closed: whatever is open now, a passphrase opened.
        (Meaning::Closed | Meaning::Shell | Meaning::Passphrase, _) => First::Nothing,
        (Meaning::Opened | Meaning::Rogue, _) => First::TearDown,
        // Others extend PCR 15 as well, on machines that are not enrolled too. And a TPM with neither bank says
        // nothing but this: there, what a prompt has opened since must stay open at the next one.
        (Meaning::Unknown, Record::MayBeOpen) => First::TearDown,
        // A shell can have the key of whatever is open, and without a record nobody knows who opened it.
        (Meaning::Unknown, Record::Missing) if over_open => First::TearDown,
        (Meaning::Unknown, Record::Missing | Record::AllClosed) => First::Nothing,
    }
}

/// Longer than a teardown, and shorter than the 60 s of the units that look at the root.
const OTHERS: Duration = Duration::from_secs(30);
/// A lock has no event that could be waited for with a deadline.
const PAUSE: Duration = Duration::from_millis(50);

/// One at a time: prompts for several volumes come at once, and each event is extended once. A udevd that another one
/// stopped, and was killed before it could continue it, is continued.
pub fn alone() -> Option<Flock<File>> {
    let lock = lock(Path::new("/run/halfkey"), Deadline::after(OTHERS));
    if let Err(error) = &lock {
        // Worse than two at a time would be none.
        console::complain(
            &Error::system("/run/halfkey/way-out.lock", error).context("going on beside another"),
        );
    }
    // Who holds the lock continues it himself.
    if !matches!(&lock, Err(error) if error.kind() == ErrorKind::WouldBlock) {
        processes::continue_udevd();
    }
    lock.ok()
}

fn lock(folder: &Path, until: Deadline) -> std::io::Result<Flock<File>> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(folder.join("way-out.lock"))?;
    let mut said = false;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Err((again, Errno::EWOULDBLOCK)) if !until.is_over() => {
                if !said {
                    console::say(&words::waiting_for_another(until.seconds()));
                    said = true;
                }
                file = again;
                std::thread::sleep(PAUSE);
            }
            other => return other.map_err(|(_, errno)| errno.into()),
        }
    }
}

/// A root shell is about to be had at the console. In the running system there is nothing to close for it.
///
/// # Errors
/// When the fence could not be confirmed, or something may still be open.
pub fn before_shell(location: &Location, settings: &Settings) -> Result<()> {
    if let Some(closed) = close(location, settings, Next::Shell)? {
        console::say(words::SHELL);
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
    if let Some(closed) = close(location, settings, Next::Prompt)? {
        console::say(&words::asks_beside(mapping));
        console::say(&format!("hint: {}", words::ENROLL_IT));
        units("try-restart", &closed);
    }
    Ok(())
}

/// The names of the mappings if there was something to tear down; then the fence says what comes next.
fn close(location: &Location, settings: &Settings, next: Next) -> Result<Option<Vec<String>>> {
    let _alone = alone();
    let ensured = fence::ensure_closed(location)?;
    let state = State::load();
    let record = Record::of(&state);
    // Switched off, the agent has opened nothing.
    if opened_nothing(ensured, record, settings.off || !console::in_initramfs()) {
        return Ok(None);
    }
    let open = stack::luks_mappings(Path::new("/sys"));
    // When that can't be seen, there is one.
    let over_open = next == Next::Shell && open.as_ref().map_or(true, |open| !open.is_empty());
    let on_record = state.as_ref().ok().and_then(Option::as_ref);
    let each = fence::on_record(location, on_record);
    let mut to_do = First::Nothing;
    for one in &each {
        let meaning = match (ensured, &state) {
            // What it says since a moment ago is no word of what came before.
            (Ensured::Closed | Ensured::Mixed, _) => Meaning::Unknown,
            // A state that can't be read: what PCR 15 means is not known.
            (_, Err(_)) => Meaning::Unknown,
            (_, Ok(_)) => fence::meaning(&Tpm::open(one)?.fence_state()?, on_record, &logs::systemd()),
        };
        to_do = to_do.max(first(meaning, record, over_open));
    }
    if to_do != First::TearDown {
        return Ok(None);
    }
    // What closes it must not be killed.
    if let Err(error) = sysrq::stays_off() {
        console::complain(&error);
    }
    teardown::close_all(Deadline::after(teardown::LIMIT)).map_err(words::still_open)?;
    // systemd takes these for open, whoever has opened them. A boot without a record can be one that a passphrase opened.
    let mut names = open.unwrap_or_default();
    if let Ok(Some(mut state)) = state {
        names.clear();
        names.extend(state.volumes.iter().map(|volume| volume.name.clone()));
        state.volumes.iter_mut().for_each(|volume| volume.mapping = None);
        state.opening = false;
        state.save()?;
    }
    let event = match next {
        Next::Shell => label::FENCE_SHELL,
        Next::Prompt => label::FENCE_PASSPHRASE,
    };
    for one in &each {
        fence::extend(&mut Tpm::open(one)?, event)?;
    }
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
    use crate::boot::state::tests::state;

    #[test]
    fn only_after_an_opening_something_is_closed() {
        for over_open in [false, true] {
            for record in [Record::Missing, Record::MayBeOpen, Record::AllClosed] {
                assert_eq!(first(Meaning::Open, record, over_open), First::Close);
                assert_eq!(first(Meaning::Closed, record, over_open), First::Nothing);
                assert_eq!(first(Meaning::Shell, record, over_open), First::Nothing);
                assert_eq!(first(Meaning::Passphrase, record, over_open), First::Nothing);
                assert_eq!(first(Meaning::Opened, record, over_open), First::TearDown);
                assert_eq!(first(Meaning::Rogue, record, over_open), First::TearDown);
            }
            assert_eq!(first(Meaning::Unknown, Record::MayBeOpen, over_open), First::TearDown);
            // Closed for the first prompt of this boot; the second must not close what the first has opened.
            assert_eq!(first(Meaning::Unknown, Record::AllClosed, over_open), First::Nothing);
        }
        assert_eq!(first(Meaning::Unknown, Record::Missing, false), First::Nothing);
        // Whoever made the record disappear gets no shell over what is open.
        assert_eq!(first(Meaning::Unknown, Record::Missing, true), First::TearDown);
    }

    #[test]
    fn a_fence_that_was_zero_does_not_outweigh_the_record() {
        let decided = |ensured, record| {
            if opened_nothing(ensured, record, false) {
                return First::Nothing;
            }
            first(Meaning::Unknown, record, false)
        };
        assert_eq!(decided(Ensured::Closed, Record::MayBeOpen), First::TearDown);
        assert_eq!(decided(Ensured::Closed, Record::Missing), First::Nothing);
        assert_eq!(decided(Ensured::Closed, Record::AllClosed), First::Nothing);
        for record in [Record::MayBeOpen, Record::AllClosed] {
            assert!(!opened_nothing(Ensured::NoTpm, record, false));
        }
        assert!(opened_nothing(Ensured::NoTpm, Record::Missing, false));
        for record in [Record::Missing, Record::MayBeOpen, Record::AllClosed] {
            for ensured in [Ensured::Closed, Ensured::Already, Ensured::Mixed] {
                assert!(opened_nothing(ensured, record, true));
            }
            assert!(!opened_nothing(Ensured::Already, record, false));
            // The one that attested can be the one that is zero.
            assert!(!opened_nothing(Ensured::Mixed, record, false));
        }
    }

    #[test]
    fn what_may_be_open_by_the_record() {
        let opened = state();
        let closed = |opening| {
            let mut state = state();
            state.volumes[0].mapping = None;
            state.opening = opening;
            Ok(Some(state))
        };
        assert_eq!(Record::of(&Ok(None)), Record::Missing);
        assert_eq!(Record::of(&Ok(Some(opened))), Record::MayBeOpen);
        assert_eq!(Record::of(&closed(true)), Record::MayBeOpen);
        assert_eq!(Record::of(&closed(false)), Record::AllClosed);
        assert_eq!(Record::of(&Err(Error::system("state", "damaged"))), Record::MayBeOpen);
    }

    #[test]
    fn one_at_a_time() {
        let run = tempfile::tempdir().unwrap();
        let folder = run.path().join("halfkey");
        let at_once = || Deadline::after(Duration::ZERO);
        let held = lock(&folder, at_once()).unwrap();
        let other = || {
            let file = File::options().write(true).open(folder.join("way-out.lock")).unwrap();
            Flock::lock(file, FlockArg::LockExclusiveNonblock).map(drop).map_err(|(_, errno)| errno)
        };
        assert_eq!(other(), Err(Errno::EWOULDBLOCK));
        // One that does not end keeps nobody for ever.
        assert_eq!(lock(&folder, at_once()).unwrap_err().kind(), ErrorKind::WouldBlock);
        let begin = Deadline::after(Duration::from_millis(200));
        assert_eq!(lock(&folder, begin).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert!(begin.is_over(), "and is waited for");
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| lock(&folder, Deadline::after(OTHERS)).map(drop));
            drop(held);
            waits.join().unwrap().unwrap();
        });
        assert_eq!(other(), Ok(()));
        assert!(lock(&folder.join("way-out.lock"), at_once()).is_err());
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
