//! What a rig started ends with it, however it ends.

use halfkey_testkit::process::{Guard, gone};
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// For a busy host; it takes a moment.
const DEADLINE: Duration = Duration::from_secs(120);

#[test]
fn nothing_outlives_a_rig_that_is_killed() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_halfkey-rig"));
    let (mut rig, stdout) = Guard::piped("halfkey-rig", command.stdin(Stdio::piped())).unwrap();
    let mut lines = BufReader::new(stdout).lines().map(Result::unwrap);
    let processes: Vec<u32> = lines.by_ref().take(4).map(|pid| pid.parse().unwrap()).collect();
    let folder = PathBuf::from(lines.next().unwrap());
    let running = |pid: &u32| PathBuf::from(format!("/proc/{pid}")).exists();
    assert!(processes.iter().all(running) && folder.exists());
    rig.kill();
    for process in processes {
        gone(process, DEADLINE).unwrap();
    }
    assert!(!folder.exists(), "{} is still there", folder.display());
}
