//! How a run is watched: its consoles, how long the phases of a boot take, and a machine that its scenario has left.

use crate::qemu::Qemu;
use crate::wire::Tap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What the console shows of a boot's progress: the text, the phase that ends with it, and the same in words.
pub const MILESTONES: &[(&str, &str, &str)] = &[
    ("BdsDxe: starting Boot", "firmware", "firmware starts the unified kernel image"),
    ("EFI stub: Measured initrd", "loader", "command line and initramfs are measured into the TPM"),
    ("Starting halfkey-unlock", "kernel, initramfs", "initramfs: the agent starts"),
    ("Starting initrd-switch-root", "unlocking", "the root is mounted: the initramfs hands over"),
    ("Reached target multi-user", "system", "the system is up"),
];

/// Who and what watches.
#[derive(Clone, Default)]
pub struct Watch {
    /// Hears the lines of all consoles.
    pub tap: Option<Tap>,
    /// Where a machine is put that a scenario leaves switched on because it has failed; without it, its plug is pulled.
    pub left: Option<Arc<Mutex<Option<Qemu>>>>,
    /// Of all boots.
    pub phases: Phases,
}

impl Watch {
    /// For a boot that begins now.
    pub fn tap(&self) -> Tap {
        let (phases, tap) = (self.phases.clone(), self.tap.clone());
        let seen = Mutex::new((Instant::now(), 0));
        Arc::new(move |line: &str| {
            phases.hear(line, &mut seen.lock().unwrap_or_else(PoisonError::into_inner));
            if let Some(tap) = &tap {
                tap(line);
            }
        })
    }

    /// The machine that was left.
    pub fn left(&self) -> Option<Qemu> {
        self.left.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Takes a machine; gives it back if nobody wants it.
    pub fn leave(&self, machine: Qemu) -> Option<Qemu> {
        let Some(left) = &self.left else { return Some(machine) };
        left.lock().unwrap_or_else(PoisonError::into_inner).replace(machine)
    }
}

/// How long the phases of boots took, and how many of each there were.
#[derive(Clone, Default)]
pub struct Phases(Arc<Mutex<[(Duration, u32); MILESTONES.len()]>>);

impl Phases {
    /// `seen`: when the last milestone of the boot was reached, and which is the next.
    fn hear(&self, line: &str, (last, next): &mut (Instant, usize)) {
        let reached = (*next..MILESTONES.len()).find(|which| line.contains(MILESTONES[*which].0));
        let Some(which) = reached else { return };
        // What came of milestones that were missed is no phase.
        if which == *next {
            let (total, count) = &mut self.0.lock().unwrap_or_else(PoisonError::into_inner)[which];
            *total += last.elapsed();
            *count += 1;
        }
        (*last, *next) = (Instant::now(), which + 1);
    }

    /// Means, in one line; none if nothing was booted.
    pub fn line(&self) -> Option<String> {
        let phases = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mean = |((total, count), (_, name, _)): (&(Duration, u32), &(&str, &str, &str))| {
            (*count > 0).then(|| format!("{name} {:.1} s", total.as_secs_f64() / f64::from(*count)))
        };
        let means: Vec<String> = phases.iter().zip(MILESTONES).filter_map(mean).collect();
        let boots = phases.first().map_or(0, |(_, count)| *count);
        (!means.is_empty()).then(|| format!("{boots} boots, on average: {}", means.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_end_with_their_milestones() {
        let watch = Watch::default();
        assert_eq!(watch.phases.line(), None);
        let tap = watch.tap();
        for line in ["x", "BdsDxe: starting Boot0000", "Starting halfkey-unlock", "Reached target multi-user"]
        {
            tap(line);
        }
        // The phases behind what was missed are not known.
        assert_eq!(watch.phases.line().unwrap(), "1 boots, on average: firmware 0.0 s");
    }
}
