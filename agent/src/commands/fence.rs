//! `fence` and `fence-exec`: on every way out of the boot window.

use super::{exec_into, or_power_off};
use crate::boot::cmdline::Settings;
use crate::boot::way_out;
use crate::error::Result;
use crate::fence;
use crate::sd_notify;
use crate::tpm::Location;
use std::ffi::OsString;
use std::time::Duration;

/// Another agent is waited for (30 s), then a TPM that is not there yet (15 s) and one that does not answer (20 s); and the machine is
/// switched off.
const LONGEST: Duration = Duration::from_secs(90);

/// Closes the fence, and what was opened if somebody is about to get a prompt or, as `exec`, a shell;
/// then becomes `exec`. A machine without a TPM has nothing to close, and a shell that someone needs
/// must come.
///
/// # Errors
/// When that could not be confirmed, or `exec` is not there.
pub fn run(tpm: &Location, passphrase: Option<&str>, exec: &[OsString]) -> Result<()> {
    let settings = Settings::of_this_boot();
    let closed = match passphrase {
        Some(mapping) => way_out::before_passphrase(tpm, &settings, mapping),
        None if exec.is_empty() => {
            // As ExecStopPost of halfkey-unlock.service.
            sd_notify::extend(LONGEST);
            let _alone = way_out::alone();
            fence::ensure_closed(tpm).map(drop)
        }
        None => way_out::before_shell(tpm, &settings),
    };
    or_power_off(closed, &settings, !exec.is_empty())?;
    exec_into(exec)
}
