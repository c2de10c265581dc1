//! How volumes are found among devices of which some do not answer. Those are FIFOs that nobody writes to: to open one takes for ever.

#![allow(clippy::unwrap_used, reason = "a test that fails here should say where")]

#[path = "common/volume.rs"]
mod volume;

use halfkey_agent::boot::devices::Search;
use halfkey_agent::boot::looker::Looker;
use halfkey_agent::deadline::Deadline;
use halfkey_agent::enroll::bind;
use halfkey_agent::luks::cryptsetup::Existing;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use std::fs::{create_dir_all, write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;
use volume::{Volume, key, token};

const AGENT: &str = env!("CARGO_BIN_EXE_halfkey-agent");
/// No test waits for its end.
const LONG: Duration = Duration::from_secs(600);

/// Stands for /sys/class/block and /dev.
struct Host(tempfile::TempDir);

impl Host {
    fn new() -> Self {
        let host = Self(tempfile::tempdir().unwrap());
        create_dir_all(host.dev("")).unwrap();
        host
    }

    fn block(&self) -> PathBuf {
        self.0.path().join("block")
    }

    fn dev(&self, name: &str) -> PathBuf {
        self.0.path().join("dev").join(name)
    }

    fn add(&self, name: &str) {
        create_dir_all(self.block().join(name)).unwrap();
        write(self.block().join(name).join("size"), "2048\n").unwrap();
    }

    fn add_volume(&self, name: &str, volume: &Volume) {
        self.add(name);
        symlink(volume.path(), self.dev(name)).unwrap();
    }

    fn add_silent(&self, name: &str) {
        self.add(name);
        mkfifo(&self.dev(name), Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    }

    fn search(&self, program: &str) -> Search {
        Search::new(&self.block(), &self.dev(""), Path::new(program), Duration::from_millis(200))
    }
}

fn enrolled() -> Volume {
    let volume = Volume::new();
    bind::bind(volume.path(), &token(1), &key(), &Existing::File(volume.key_file())).unwrap();
    volume
}

#[test]
fn a_device_that_does_not_answer_holds_nobody() {
    let (host, volume) = (Host::new(), enrolled());
    for silent in ["sda", "sdy", "sdz"] {
        host.add_silent(silent);
    }
    host.add_volume("sdb", &volume);
    let mut search = host.search(AGENT);
    search.scan(Deadline::after(LONG));
    // Another look asks nobody again that has not answered.
    search.scan(Deadline::after(LONG));
    let found = search.found().unwrap();
    assert_eq!(found.volumes.len(), 1);
    assert_eq!((&found.volumes[0].path, found.volumes[0].size), (&host.dev("sdb"), volume.size()));
    assert!(found.others.is_empty());
}

#[test]
fn one_that_answers_late_is_taken_then() {
    let host = Host::new();
    host.add_silent("sda");
    let mut looker = Looker::start(Path::new(AGENT)).unwrap();
    let path = host.dev("sda");
    assert!(looker.ask(&path, Deadline::after(Duration::ZERO)).unwrap());
    assert!(looker.answer().unwrap().is_none());
    assert_eq!(looker.late().collect::<Vec<_>>(), [path.as_path()]);
    // Somebody writes to it, and nobody to another one that may take its time.
    drop(std::fs::File::options().write(true).open(&path).unwrap());
    host.add_silent("sdb");
    assert!(looker.ask(&host.dev("sdb"), Deadline::after(LONG)).unwrap());
    let answer = looker.answer().unwrap().unwrap();
    assert!(answer.path == path && answer.file.is_some());
    assert_eq!(looker.late().count(), 0);
}

#[test]
fn without_another_process_devices_are_opened_here() {
    let (host, volume) = (Host::new(), enrolled());
    host.add_volume("sdb", &volume);
    // What is not there; and what ends at once.
    for program in ["/nonexistent/agent", "/bin/true"] {
        let mut search = host.search(program);
        for _ in 0..2 {
            search.scan(Deadline::after(LONG));
        }
        assert_eq!(search.found().unwrap().volumes.len(), 1, "{program}");
    }
}

#[test]
fn what_can_not_be_opened_is_asked_for_again() {
    let (host, volume) = (Host::new(), enrolled());
    host.add("dm-0");
    host.add("cciss!c0d0");
    let mut search = host.search(AGENT);
    search.scan(Deadline::after(LONG));
    create_dir_all(host.dev("cciss")).unwrap();
    symlink(volume.path(), host.dev("cciss/c0d0")).unwrap();
    search.scan(Deadline::after(LONG));
    let found = search.found().unwrap();
    assert_eq!(found.volumes.len(), 1);
    assert_eq!(found.volumes[0].path, host.dev("cciss/c0d0"));
}
