//! Running programs and timing them.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub use halfkey_bench::Result;

/// Standard output of a command that must succeed.
pub fn output(command: &mut Command) -> Result<Vec<u8>> {
    let name = format!("{:?}", command.get_program());
    let output = command.stderr(Stdio::piped()).output().map_err(|e| format!("{name}: {e}"))?;
    if !output.status.success() {
        return Err(format!("{name}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(output.stdout)
}

/// Runs a command that must succeed, for its effect.
pub fn quiet(command: &mut Command) -> Result<()> {
    output(command.stdin(Stdio::null())).map(drop)
}

/// Wall time and number of processes of one kind of run.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Median wall time.
    pub median: Duration,
    /// Programs and forks, the first included.
    pub processes: usize,
}

/// Rounds per figure: enough that one slow round does not matter.
pub const ROUNDS: usize = 25;

/// A name, and what makes the command anew for each round.
pub type Candidate<'a> = (&'a str, Box<dyn FnMut() -> Command + 'a>);

/// Runs several commands in turn, round by round, so that what else the machine does hits
/// all of them alike. Each must succeed each time.
pub fn compare(commands: &mut [Candidate<'_>]) -> Result<Vec<Cost>> {
    let mut times = vec![Vec::with_capacity(ROUNDS); commands.len()];
    // One round more than is counted: the first one reads programs from disk.
    for round in 0..=ROUNDS {
        for ((name, command), times) in commands.iter_mut().zip(&mut times) {
            let mut command = command();
            let start = Instant::now();
            quiet(&mut command).map_err(|e| format!("{name}: {e}"))?;
            if round > 0 {
                times.push(start.elapsed());
            }
        }
    }
    commands
        .iter_mut()
        .zip(&mut times)
        .map(|((name, command), times)| {
            times.sort();
            let processes = processes(&mut command()).map_err(|e| format!("{name}: {e}"))?;
            Ok(Cost { median: times[times.len() / 2], processes })
        })
        .collect()
}

/// Counts the processes of one run, with strace.
fn processes(command: &mut Command) -> Result<usize> {
    let log = tempfile::NamedTempFile::new()?;
    let mut traced = Command::new("strace");
    traced.args(["-f", "-qq", "-e", "trace=execve", "-e", "signal=none", "-o"]).arg(log.path());
    traced.arg("--").arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => traced.env(key, value),
            None => traced.env_remove(key),
        };
    }
    quiet(&mut traced)?;
    let mut pids: Vec<_> = std::fs::read_to_string(log.path())?
        .lines()
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect();
    pids.sort();
    pids.dedup();
    Ok(pids.len())
}
