//! Processes that hold on to what is being taken away.

use super::dm::{Number, number_of};
use super::mountinfo;
use crate::bounded;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid};
use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Programs that open mappings: none of them may finish its work behind the back of the teardown. The kernel cuts names
/// at 15 bytes.
const OPENERS: &[&str] = &["cryptsetup", "systemd-cryptse"];

/// systemd-udevd, stopped until this goes out of scope: it must neither look into devices that are being removed nor
/// assemble new ones from them. Its workers are killed, it starts others afterwards.
pub struct Frozen(Vec<Pid>);

/// Stops it.
pub fn freeze_udevd() -> Frozen {
    let all: Vec<_> = running()
        .into_iter()
        .filter(|process| ["systemd-udevd", "(udev-worker)"].contains(&&*process.name))
        .collect();
    let is_main = |process: &&Process| !all.iter().any(|other| other.pid == process.parent);
    let mains: Vec<Pid> = all.iter().filter(is_main).map(|process| process.pid).collect();
    for pid in &mains {
        let _ = kill(*pid, Signal::SIGSTOP);
    }
    for worker in all.iter().filter(|process| !mains.contains(&process.pid)) {
        let _ = kill(worker.pid, Signal::SIGKILL);
    }
    Frozen(mains)
}

/// Continues a udevd that somebody stopped and was killed before he could continue it: without udevd the boot hangs.
pub fn continue_udevd() {
    for process in running().into_iter().filter(|process| process.name == "systemd-udevd" && process.stopped)
    {
        let _ = kill(process.pid, Signal::SIGCONT);
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for pid in &self.0 {
            let _ = kill(*pid, Signal::SIGCONT);
        }
    }
}

/// Kills what opens mappings: cryptsetup, and another agent that unlocks.
pub fn kill_openers() {
    for process in running().into_iter().filter(opens_mappings) {
        let _ = kill(process.pid, Signal::SIGKILL);
    }
}

/// Whether one of them is still there.
pub fn has_openers() -> bool {
    running().iter().any(opens_mappings)
}

fn opens_mappings(process: &Process) -> bool {
    OPENERS.contains(&&*process.name) || (process.name == "halfkey-agent" && process.command() == "unlock")
}

/// Kills whoever has one of these devices or a file on one of them open, or has it mounted for himself.
pub fn kill_users(numbers: &[Number]) {
    for process in running() {
        if process.uses(numbers) {
            let _ = kill(process.pid, Signal::SIGKILL);
        }
    }
}

struct Process {
    pid: Pid,
    parent: Pid,
    name: String,
    stopped: bool,
}

/// All processes but the first, this one, and those of the kernel, which have no parent but kthreadd.
fn running() -> Vec<Process> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?);
        let stat = bounded::read_text(entry.path().join("stat"), 4096).ok()?;
        let (name, state, parent) = parse(&stat)?;
        let kernel = parent == 2 || pid.as_raw() == 2;
        (pid.as_raw() != 1 && pid != getpid() && !kernel).then(|| Process {
            pid,
            parent: Pid::from_raw(parent),
            name: name.to_owned(),
            stopped: state == "T",
        })
    });
    processes.collect()
}

/// `PID (NAME) STATE PARENT ...`, where a name may hold parentheses. One that has ended and was not waited for yet
/// holds nothing any more.
fn parse(stat: &str) -> Option<(&str, &str, i32)> {
    let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
    let mut rest = rest.split_ascii_whitespace();
    let state = rest.next()?;
    let parent = rest.next()?.parse().ok()?;
    (!["Z", "X", "x"].contains(&state)).then_some((name, state, parent))
}

impl Process {
    fn folder(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}", self.pid))
    }

    /// The first word behind the program's name.
    fn command(&self) -> String {
        let line = bounded::read(self.folder().join("cmdline"), 64 << 10).unwrap_or_default();
        line.split(|byte| *byte == 0)
            .nth(1)
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .unwrap_or_default()
    }

    fn uses(&self, numbers: &[Number]) -> bool {
        let folder = self.folder();
        let on = |path: &Path| path.metadata().is_ok_and(|found| is_on(&found, numbers));
        let open = std::fs::read_dir(folder.join("fd")).into_iter().flatten().flatten();
        ["cwd", "root", "exe"].iter().any(|link| on(&folder.join(link)))
            || open.into_iter().any(|file| on(&file.path()))
            || self.has_mounted(numbers)
    }

    /// In a mount namespace of its own: in ours it is unmounted.
    fn has_mounted(&self, numbers: &[Number]) -> bool {
        let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
        if namespace(&self.pid.to_string()) == namespace("self") {
            return false;
        }
        mountinfo::of(&self.folder()).iter().any(|mount| numbers.contains(&mount.device))
    }
}

fn is_on(file: &Metadata, numbers: &[Number]) -> bool {
    numbers.contains(&number_of(file.dev()))
        || (file.file_type().is_block_device() && numbers.contains(&number_of(file.rdev())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
    use std::process::{Child, Command, Stdio};

    /// Killed even if the test fails.
    struct Sleeping(Child);

    impl Drop for Sleeping {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn names_may_hold_parentheses() {
        assert_eq!(parse("42 (a) b (c)) S 7 42 42 0 -1"), Some(("a) b (c)", "S", 7)));
        assert_eq!(parse("42 (dead) Z 7 42"), None);
        assert_eq!(parse("42"), None);
    }

    #[test]
    fn a_udevd_that_was_left_stopped_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        // By its name only.
        let program = folder.path().join("systemd-udevd");
        std::os::unix::fs::symlink("/bin/cat", &program).unwrap();
        let child = Command::new(&program).stdin(Stdio::piped()).spawn().map(Sleeping).unwrap();
        let pid = Pid::from_raw(i32::try_from(child.0.id()).unwrap());
        let wait = |stopped: bool| {
            let flags = if stopped { WaitPidFlag::WSTOPPED } else { WaitPidFlag::WCONTINUED };
            waitid(Id::Pid(pid), flags).unwrap()
        };
        kill(pid, Signal::SIGSTOP).unwrap();
        assert_eq!(wait(true), WaitStatus::Stopped(pid, Signal::SIGSTOP));
        continue_udevd();
        assert_eq!(wait(false), WaitStatus::Continued(pid));
    }

    #[test]
    fn a_process_with_an_open_file_uses_its_device() {
        // A device of its own would take root: what counts is that the number decides.
        let folder = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(folder.path().join("file")).unwrap();
        let here = number_of(file.metadata().unwrap().dev());
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(file).spawn().map(Sleeping).unwrap();
        let pid = Pid::from_raw(i32::try_from(child.0.id()).unwrap());
        let process = running().into_iter().find(|process| process.pid == pid).unwrap();
        assert_eq!(process.parent, getpid());
        assert!(process.uses(&[here]));
        assert!(!process.uses(&[(253, 0)]));
        assert!(!opens_mappings(&process));
        child.0.kill().unwrap();
        child.0.wait().unwrap();
        assert!(!running().iter().any(|process| process.pid == pid));
    }
}
