//! `gate`: before switch-root.

use super::{exec_into, or_power_off};
use crate::boot::cmdline::Settings;
use crate::boot::gate;
use crate::error::Result;
use crate::fence;
use crate::tpm::Location;
use std::ffi::OsString;

/// Looks at what is mounted of the root by now. Where it was mounted and nothing was opened, the boot window ends here.
///
/// # Errors
/// When it must not be used.
pub fn first_look(tpm: &Location) -> Result<()> {
    let settings = Settings::of_this_boot();
    gate::first_look(tpm, &settings)?;
    if gate::is_over() {
        if settings.off {
            // The way out of a TPM that does not answer: it is asked once, and not waited for.
            fence::close_at_once(tpm);
            return Ok(());
        }
        or_power_off(fence::ensure_closed(tpm).map(drop), &settings, true)?;
    }
    Ok(())
}

/// Checks the mounted root. With `exec`, the boot window ends here, also where nothing was enrolled.
///
/// # Errors
/// When it must not be booted, or `exec` is not there.
pub fn run(tpm: &Location, exec: &[OsString]) -> Result<()> {
    let settings = Settings::of_this_boot();
    if !exec.is_empty() {
        or_power_off(fence::ensure_closed(tpm).map(drop), &settings, true)?;
    }
    gate::run(tpm, &settings)?;
    exec_into(exec)
}
