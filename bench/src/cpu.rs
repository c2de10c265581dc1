//! What the kernel says that something cost: CPU time does not mind what else the machine does.

use crate::Result;
use nix::time::{ClockId, clock_gettime};
use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

/// CPU time of this thread.
///
/// # Errors
/// If the kernel does not say.
pub fn of_thread() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// How long a round takes, of CPU time.
const ROUND: Duration = Duration::from_millis(150);

/// How often something is done per second of this thread's CPU time.
///
/// # Errors
/// Those of `what`.
pub fn rate(mut what: impl FnMut() -> Result<()>) -> Result<f64> {
    let (start, mut count) = (of_thread()?, 0u32);
    loop {
        for _ in 0..100 {
            what()?;
        }
        count += 100;
        let spent = of_thread()? - start;
        if spent >= ROUND {
            return Ok(f64::from(count) / spent.as_secs_f64());
        }
    }
}

/// The value in the middle.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Ticks per second in /proc: `USER_HZ`, which is the same on every Linux.
const TICKS: u64 = 100;

/// What /proc/PID/stat says, in ticks.
struct Stat {
    parent: u32,
    own: u64,
    /// Of children that have ended and were waited for.
    children: u64,
}

fn stat(pid: u32) -> Result<Stat> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
    // The name is in parentheses and may have some itself.
    let rest = text.rsplit_once(')').ok_or("a process without a name")?.1;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // Field 3 of proc_pid_stat(5) is the first here.
    let field = |number: usize| fields.get(number - 3).and_then(|field| field.parse::<u64>().ok());
    match (field(4), field(14), field(15), field(16), field(17)) {
        (Some(parent), Some(user), Some(system), Some(of_children), Some(in_children)) => {
            Ok(Stat { parent: parent as u32, own: user + system, children: of_children + in_children })
        }
        _ => Err(format!("{path}: expected numbers, found {rest:.80}").into()),
    }
}

fn time(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 1000 / TICKS)
}

/// CPU time of a process, all its threads together.
///
/// # Errors
/// If there is none.
pub fn of_process(pid: u32) -> Result<Duration> {
    Ok(time(stat(pid)?.own))
}

/// The same, with all processes that it has started and that still run, and all that have ended.
///
/// # Errors
/// If there is none.
pub fn of_family(pid: u32) -> Result<Duration> {
    let processes = fs::read_dir("/proc")?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    // One that ends meanwhile is its parent's from then on.
    let stats: BTreeMap<u32, Stat> = pids.filter_map(|pid| Some((pid, stat(pid).ok()?))).collect();
    let mut sum = 0;
    for (one, stat) in &stats {
        let mut ancestors = std::iter::successors(Some(*one), |pid| stats.get(pid).map(|stat| stat.parent));
        if ancestors.by_ref().take(64).any(|ancestor| ancestor == pid) {
            sum += stat.own + stat.children;
        }
    }
    Ok(time(sum))
}

/// A line of /proc/PID/status in KiB: `VmHWM`, what was resident at its highest; `VmRSS`, what is now.
///
/// # Errors
/// If there is no such process.
pub fn memory(pid: u32, which: &str) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(which)?.strip_prefix(':'));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| format!("{path}: expected {which}, found none").into())
}
