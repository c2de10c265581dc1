//! The fence, PCR 15: zero while the boot window is open, extended on every way out of it.
//!
//! Nothing here trusts the disk, and nothing counts as done before it has been read back.

use crate::boot::cmdline::Settings;
use crate::boot::state::{BankValue, State};
use crate::boot::sysrq;
use crate::boot::uevent::Uevents;
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result};
use crate::tpm::machine::firmware_shows_tpm;
use crate::tpm::{FenceState, Location, Tpm};
use crate::words;
use crate::{console, logs};
use halfkey_protocol::FENCE_PCR;
use halfkey_protocol::keys::label;
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::tpm::fence;
pub use halfkey_protocol::tpm::fence::Meaning;
use nix::sys::reboot::{RebootMode, reboot};
use std::time::Duration;

/// How long a TPM whose driver is a module may take to appear. It was there when the firmware ran.
const DRIVER: Duration = Duration::from_secs(15);

/// How long a TPM that does not do what it is asked for is asked again: no honest machine is powered off for a moment.
const AGAIN: Duration = Duration::from_secs(20);
/// How long what extended PCR 15 may take to write its log.
const LOGGING: Duration = Duration::from_secs(3);
/// Between two questions. Neither the TPM nor that log has an event for it.
const PAUSE: Duration = Duration::from_millis(200);

/// How long the disks may take to write what they have, before the machine is switched off.
const SYNC: Duration = Duration::from_secs(3);

/// What PCR 15 becomes when an event with this data opens the boot window, for the record of this boot.
pub fn opened_with(data: &[u8]) -> Vec<BankValue> {
    let value =
        |bank: PcrBank| BankValue { bank: bank.name().into(), value: fence::opened(bank, data).into() };
    PcrBank::ALL.map(value).into()
}

/// What PCR 15 means, given what the agent remembers of this boot and systemd's log of what it measured later. Each active
/// bank whose hash the agent has must say the same: single banks are not extended by anything that is known.
pub fn meaning(found: &FenceState, record: Option<&State>, log: &[u8]) -> Meaning {
    if found.is_open() {
        return Meaning::Open;
    }
    let mut meanings = found.known().map(|(bank, value)| {
        let opened = record.and_then(|state| state.fence.iter().find(|one| one.bank == bank.name()));
        let later = logs::systemd_digests(log, FENCE_PCR, bank);
        fence::meaning(bank, value, opened.map(|opened| &*opened.value.0), &later)
    });
    match meanings.next() {
        Some(meaning) if meanings.all(|other| other == meaning) => meaning,
        _ => Meaning::Unknown,
    }
}

/// Extends the fence as closed, unless it is extended already. Confirmed by reading it back.
///
/// # Errors
/// When the TPM does not answer, or does not show what was extended.
pub fn close(tpm: &mut Tpm) -> Result<FenceState> {
    let state = tpm.fence_state()?;
    if state.is_closed() { Ok(state) } else { extend(tpm, label::FENCE_CLOSED) }
}

/// [`close`] of each TPM, without waiting for one that is not there yet, or asking again one that does not answer.
pub fn close_at_once(location: &Location) {
    for one in location.each() {
        let _ = Tpm::open(&one).map_err(Error::from).and_then(|mut tpm| close(&mut tpm));
    }
}

/// Extends the fence with `data` and reads it back: each bank must have become what the data makes of it.
///
/// # Errors
/// [`Kind::Fence`] if a bank shows another value.
pub fn extend(tpm: &mut Tpm, data: &[u8]) -> Result<FenceState> {
    let before = tpm.fence_state()?;
    extend_from(tpm, &before, data)
}

/// A fence that was zero in every bank when it was looked at.
pub struct Window(FenceState);

/// Looks whether the boot window is open. In the initramfs there is no SysRq from here on.
///
/// # Errors
/// [`Kind::Fence`] if a bank is not zero, [`Kind::System`] if SysRq can't be switched off; nothing may be opened then.
pub fn window(tpm: &mut Tpm) -> Result<Window> {
    let before = tpm.fence_state()?;
    if !before.is_open() {
        return Err(words::closed_meanwhile());
    }
    if console::in_initramfs() {
        sysrq::switch_off()?;
    }
    Ok(Window(before))
}

/// Extends what opens it into a fence that was open: what was closed meanwhile, by whatever path, stays closed.
///
/// # Errors
/// [`Kind::Fence`] if a bank shows another value afterwards; nothing may be opened then.
pub fn extend_open(tpm: &mut Tpm, window: Window, data: &[u8]) -> Result<FenceState> {
    extend_from(tpm, &window.0, data)
}

fn extend_from(tpm: &mut Tpm, before: &FenceState, data: &[u8]) -> Result<FenceState> {
    tpm.pcr_event(FENCE_PCR, data)?;
    let after = tpm.fence_state()?;
    let confirmed = before.values.len() == after.values.len()
        && before.values.iter().zip(&after.values).all(|((bank, old), (same, new))| {
            bank == same
                && match PcrBank::from_alg(*bank) {
                    Some(hash) => *new == fence::after(hash, old, data),
                    // A bank whose hash we do not have (SHA-1): that it moved must do.
                    None => new != old && new.iter().any(|byte| *byte != 0),
                }
        });
    if confirmed && after.is_closed() { Ok(after) } else { Err(words::not_confirmed()) }
}

/// Where each TPM is. Waits for the driver of one that the kernel or firmware shows, and whose device is not there yet.
pub fn locate(location: &Location, deadline: Deadline) -> Vec<Location> {
    let events = Uevents::open();
    let until = deadline.within(DRIVER);
    loop {
        let each = location.each();
        match &events {
            Ok(events)
                if each.iter().any(Location::is_absent) && firmware_shows_tpm() && !until.is_over() =>
            {
                console::say(&words::waiting_for_driver(until.seconds()));
                // The class of the device with the kernel's resource manager.
                events.wait("tpmrm", until);
            }
            _ => return each,
        }
    }
}

/// What became of [`ensure_closed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ensured {
    /// It was open and is closed now.
    Closed,
    /// It was extended before.
    Already,
    /// Of several TPMs, one was open and is closed now, and another was extended before.
    Mixed,
    /// This machine has no TPM: there is nothing to close and nothing sealed.
    NoTpm,
}

impl Ensured {
    /// Of this TPM and another.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::NoTpm, one) | (one, Self::NoTpm) => one,
            (one, other) if one == other => one,
            _ => Self::Mixed,
        }
    }
}

/// Closes the fence of every TPM, on a machine that may or may not have one: which of them could release is not known here.
///
/// # Errors
/// When there is a TPM whose fence could not be confirmed. In the initramfs the caller then
/// calls [`power_off`]; see [`must_power_off`].
pub fn ensure_closed(location: &Location) -> Result<Ensured> {
    ensure_each_closed(&locate(location, Deadline::after(DRIVER)))
}

/// The same for the TPMs at these places. One that fails keeps no other one open.
///
/// # Errors
/// As there.
pub fn ensure_each_closed(each: &[Location]) -> Result<Ensured> {
    let mut all = Ok(Ensured::NoTpm);
    for one in each {
        match (ensure_one_closed(one), &mut all) {
            (Ok(one), Ok(all)) => *all = all.and(one),
            (Err(error), Ok(_)) => all = Err(error),
            (_, Err(_)) => {}
        }
    }
    all
}

fn ensure_one_closed(location: &Location) -> Result<Ensured> {
    let tpm = match Tpm::open(location) {
        Ok(tpm) => tpm,
        Err(_) if location.is_absent() && !firmware_shows_tpm() => return Ok(Ensured::NoTpm),
        Err(error) => return Err(error.into()),
    };
    insist(location, Some(tpm), |tpm| {
        if tpm.fence_state()?.is_closed() {
            return Ok(Ensured::Already);
        }
        close(tpm).map(|_| Ensured::Closed)
    })
}

/// Where the TPM is that attested in this boot, by its record; where none says it, every TPM.
pub fn on_record(location: &Location, record: Option<&State>) -> Vec<Location> {
    match (location, record.and_then(|state| state.tpm.as_ref())) {
        (Location::Machine, Some(path)) => vec![Location::Device(path.into())],
        _ => location.each(),
    }
}

/// Asks the TPM until it has done it, on a new handle each time: after a command that was not answered nothing is on the old one.
fn insist<T>(
    location: &Location,
    mut handle: Option<Tpm>,
    mut ask: impl FnMut(&mut Tpm) -> Result<T>,
) -> Result<T> {
    let until = Deadline::after(AGAIN);
    let mut said = false;
    loop {
        let tpm = handle.take().map_or_else(|| Tpm::open(location).map_err(Error::from), Ok);
        match tpm.and_then(|mut tpm| ask(&mut tpm)) {
            // Another value than the one that was extended is none that it would change.
            Err(error) if error.kind == Kind::Tpm && !until.is_over() => {
                if !said {
                    console::say(&words::asking_again(&error, until.seconds()));
                    said = true;
                }
                std::thread::sleep(PAUSE);
            }
            other => return other,
        }
    }
}

/// Whether PCR 15 proves that r was never extended in this boot: the agent failed after it had written its state, and nothing was
/// opened. `log` gives systemd's log of what it has measured: it extends PCR 15 for volumes that a passphrase opened, and writes
/// down what only afterwards. What that says leads from `closed` to this value or to another; none leads there from r.
///
/// # Errors
/// When the TPM can't be asked.
pub fn proves_closed(location: &Location, state: &State, log: impl Fn() -> Vec<u8>) -> Result<bool> {
    let until = Deadline::after(LOGGING);
    for one in on_record(location, Some(state)) {
        loop {
            let found = insist(&one, None, |tpm| Ok(tpm.fence_state()?))?;
            match meaning(&found, Some(state), &log()) {
                Meaning::Unknown if !until.is_over() => std::thread::sleep(PAUSE),
                Meaning::Closed => break,
                _ => return Ok(false),
            }
        }
    }
    Ok(true)
}

/// Whether an unconfirmed fence, or something that can't be closed, ends this boot: only in the
/// initramfs, and not if the (measured) command line says `rd.halfkey=off`. Where attestation opened
/// something there is a TPM, whatever the firmware shows.
pub fn must_power_off(settings: &Settings) -> bool {
    console::in_initramfs() && !settings.off && (firmware_shows_tpm() || !matches!(State::load(), Ok(None)))
}

/// What follows when the fence could not be confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unconfirmed {
    /// The boot ends here.
    PowerOff,
    /// It is said, and the boot goes on.
    GoOn,
    /// It is an error of the command.
    Fail,
}

impl Unconfirmed {
    /// For this boot; `must_power_off` is what [`must_power_off`] says, `shell` whether somebody
    /// needs a program that comes afterwards. `rd.halfkey=off` is the way out that [`power_off`]
    /// promises: nothing of ours may stop that boot.
    pub fn of(settings: &Settings, must_power_off: bool, shell: bool) -> Self {
        if settings.off || (shell && !must_power_off) {
            Self::GoOn
        } else if must_power_off {
            Self::PowerOff
        } else {
            Self::Fail
        }
    }
}

/// Says why, and powers the machine off. Returns only if the kernel refuses.
pub fn power_off(why: &Error) -> Error {
    console::complain(why);
    console::say(words::POWERING_OFF);
    if why.hint.is_none() {
        console::say(&format!("hint: {}", words::POWER_OFF_HINT));
    }
    // A disk that does not answer any more must not keep the machine on.
    let (done, synced) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        nix::unistd::sync();
        done.send(())
    });
    let _ = synced.recv_timeout(SYNC);
    match reboot(RebootMode::RB_POWER_OFF) {
        Ok(never) => match never {},
        Err(errno) => Error::system("power off", errno.desc()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::state::tests::state;

    #[test]
    fn switched_off_nothing_stops_the_boot() {
        let on = Settings::parse("quiet", "");
        let off = Settings::parse("rd.halfkey=off", "");
        for (must_power_off, shell) in [(false, false), (false, true), (true, false), (true, true)] {
            assert_eq!(Unconfirmed::of(&off, must_power_off, shell), Unconfirmed::GoOn);
        }
        assert_eq!(Unconfirmed::of(&on, true, true), Unconfirmed::PowerOff);
        assert_eq!(Unconfirmed::of(&on, true, false), Unconfirmed::PowerOff);
        assert_eq!(Unconfirmed::of(&on, false, true), Unconfirmed::GoOn);
        assert_eq!(Unconfirmed::of(&on, false, false), Unconfirmed::Fail);
    }

    const R: &[u8] = b"r of this boot";

    /// PCR 15 in these banks, with SHA-1 beside them, after these events.
    fn fence(banks: &[PcrBank], events: &[&[u8]]) -> FenceState {
        let value = |bank: &PcrBank| {
            let zero = fence::zero(*bank);
            (bank.alg(), events.iter().fold(zero, |value, event| fence::after(*bank, &value, event)))
        };
        let sha1 = (4, vec![u8::from(!events.is_empty()); 20]);
        FenceState { values: std::iter::once(sha1).chain(banks.iter().map(value)).collect() }
    }

    #[test]
    fn every_way_through_a_boot_has_its_meaning_in_each_bank() {
        let state = state();
        let record = |bank: PcrBank, data: &[u8]| {
            let hex: String = bank.digest(&[data]).iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{{\"hashAlg\":\"{}\",\"digest\":\"{hex}\"}}", bank.name())
        };
        let both = PcrBank::ALL.map(|bank| record(bank, b"machine-id:...")).join(",");
        let log = format!("\u{1e}{{\"pcr\":15,\"digests\":[{both}]}}\n");
        for banks in [&[PcrBank::Sha256][..], &[PcrBank::Sha384], &PcrBank::ALL] {
            let of =
                |events: &[&[u8]], log: &str| meaning(&fence(banks, events), Some(&state), log.as_bytes());
            assert_eq!(of(&[], ""), Meaning::Open);
            assert_eq!(of(&[R], ""), Meaning::Opened);
            assert_eq!(of(&[label::FENCE_CLOSED], ""), Meaning::Closed);
            assert_eq!(of(&[R, label::FENCE_PASSPHRASE], ""), Meaning::Passphrase);
            assert_eq!(of(&[R, label::FENCE_PASSPHRASE, label::FENCE_ROGUE], ""), Meaning::Rogue);
            assert_eq!(of(&[R, label::FENCE_ROGUE], ""), Meaning::Rogue);
            assert_eq!(of(&[R, label::FENCE_SHELL], ""), Meaning::Shell);
            assert_eq!(of(&[b"r of another boot"], ""), Meaning::Unknown);
            assert_eq!(of(&[R, b"machine-id:..."], ""), Meaning::Unknown);
            assert_eq!(of(&[R, b"machine-id:..."], &log), Meaning::Opened);
            assert_eq!(meaning(&fence(banks, &[R]), None, b""), Meaning::Unknown);
        }
        assert_eq!(meaning(&fence(&[], &[R]), Some(&state), b""), Meaning::Unknown);
    }

    #[test]
    fn banks_that_disagree_mean_nothing() {
        let state = state();
        let mixed = |one: &[&[u8]], other: &[&[u8]]| {
            let mut found = fence(&[PcrBank::Sha256], one);
            found.values.extend(fence(&[PcrBank::Sha384], other).values.into_iter().skip(1));
            meaning(&found, Some(&state), b"")
        };
        assert_eq!(mixed(&[R], &[R]), Meaning::Opened);
        for (one, other) in [(R, label::FENCE_CLOSED), (label::FENCE_CLOSED, R), (R, &b"x"[..])] {
            assert_eq!(mixed(&[one], &[other]), Meaning::Unknown);
        }
        assert_eq!(mixed(&[R], &[]), Meaning::Unknown);
        assert_eq!(mixed(&[], &[label::FENCE_CLOSED]), Meaning::Unknown);
    }
}
