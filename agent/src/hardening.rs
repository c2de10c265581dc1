//! What the process does about its own memory before it holds a secret.

use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::resource::{Resource, setrlimit};

/// MCL_ONFAULT (mlockall(2), Linux 4.4), which nix does not name: lock what is touched
/// instead of filling every mapping at once.
const MCL_ONFAULT: i32 = 4;

/// No core dump, no ptrace by equals, nothing in swap. Returns what could not
/// be had, as lines for the console; only the memory lock is worth one.
pub fn harden() -> Option<String> {
    let _ = nix::sys::prctl::set_dumpable(false);
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    let all = MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE;
    let lazily = MlockAllFlags::from_bits_retain(all.bits() | MCL_ONFAULT);
    match mlockall(lazily) {
        Ok(()) => None,
        Err(errno) => {
            Some(format!("warning: memory could not be locked ({}): secrets might reach swap", errno.desc()))
        }
    }
}
