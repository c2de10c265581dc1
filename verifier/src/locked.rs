//! Memory that is never written to a disk.

use crate::Failure;
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use std::fs::read_to_string;

/// MCL_ONFAULT (mlockall(2)), which nix does not name: lock what is touched.
const MCL_ONFAULT: i32 = 4;
/// The bit of CAP_IPC_LOCK in `/proc/self/status`.
const CAP_IPC_LOCK: u64 = 1 << 14;

/// Keeps all memory of this process out of swap, from now on.
///
/// # Errors
/// When it can't be locked and there may be swap.
pub fn lock() -> Result<(), Failure> {
    let (_, most) = getrlimit(Resource::RLIMIT_MEMLOCK).unwrap_or((0, 0));
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, most, most);
    let all = MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE;
    let lazily = MlockAllFlags::from_bits_retain(all.bits() | MCL_ONFAULT);
    // With a limit the memory that comes later could not be had.
    if (most == RLIM_INFINITY || may_lock()) && mlockall(lazily).is_ok() {
        return Ok(());
    }
    // One line is the heading.
    if read_to_string("/proc/swaps").is_ok_and(|swaps| swaps.lines().count() < 2) {
        return Ok(());
    }
    Err(Failure::new(
        "expected memory that can be locked, found a limit: keys that a TPM seals could be written to swap",
    )
    .hint("LimitMEMLOCK=infinity in the service, `ulimit -l unlimited`, or a host without swap"))
}

fn may_lock() -> bool {
    let status = read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|caps| u64::from_str_radix(caps.trim(), 16).ok())
        .is_some_and(|caps| caps & CAP_IPC_LOCK != 0)
}
