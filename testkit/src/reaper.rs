//! Ends what this program started when this program ends, in whatever way: what is killed runs no destructors.
//!
//! A shell waits for the end of a pipe that only this program writes to, and that the kernel closes for whoever dies. Then it kills
//! all processes that have this program's mark in their environment, and removes the folders that it was told. Whoever is started
//! by a process with the mark has it too, so it finds TPMs that went to the background, and what a script under test started.
//!
//! `PR_SET_PDEATHSIG` (`setpriv --pdeathsig`) would be shorter, and is wrong here: it fires when the *thread* ends that spawned.
//! Each test is a thread, and what tests share outlives the one that asked for it first. It is also lost over a fork, as swtpm
//! does one with `--daemon`.

use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// `$0` is the mark, a line is a folder. A signal for the whole terminal must not reach it before its work is done.
///
/// Who was between fork and exec when it looked has no mark yet: after it found nobody it looks once more.
const SCRIPT: &str = r#"trap '' HUP INT TERM
while IFS= read -r folder; do set -- "$@" "$folder"; done
found() { grep -slz "^$0\$" /proc/[0-9]*/environ; }
again=1
for round in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    files=$(found)
    if [ -z "$files" ]; then
        [ "$again" ] || break
        again=
    fi
    for file in $files; do
        file=${file#/proc/}
        kill -KILL "${file%/environ}"
    done
    sleep 0.2
done
[ $# = 0 ] || rm -rf -- "$@"
"#;

struct Reaper {
    /// Name and value of a variable; the name is another one for each program, so that programs can start each other.
    mark: (String, String),
    /// None if there is no shell; then things are as without a reaper.
    shell: Option<(u32, Mutex<ChildStdin>)>,
}

static REAPER: LazyLock<Reaper> = LazyLock::new(|| {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mark = (format!("HALFKEY_RIG_{}", std::process::id()), now.as_nanos().to_string());
    let mut shell = Command::new("sh");
    shell.args(["-c", SCRIPT, &format!("{}={}", mark.0, mark.1)]).process_group(0);
    // Whoever reads this program's output must not wait for it.
    let shell = shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let shell = shell.ok().and_then(|mut shell| Some((shell.id(), Mutex::new(shell.stdin.take()?))));
    Reaper { mark, shell }
});

/// From its start on this command, and what it starts, does not outlive this program.
pub fn mark(command: &mut Command) -> &mut Command {
    let (name, value) = &REAPER.mark;
    command.env(name, value)
}

/// This folder does not outlive this program either.
pub fn remove_with_me(folder: &Path) {
    if let Some((_, pipe)) = &REAPER.shell {
        let line = [folder.as_os_str().as_bytes(), b"\n"].concat();
        // Without it a folder is left over, and that is all.
        let _ = pipe.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line);
    }
}

/// The process that does it, for those who wait until it is done.
pub fn process() -> Option<u32> {
    REAPER.shell.as_ref().map(|(pid, _)| *pid)
}
