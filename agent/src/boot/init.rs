//! Whether PID 1 can start the system of the mounted root.
//!
//! systemd executes its own path in the new root, then /sbin/init. If that is not there it executes /bin/sh: as PID 1, at the
//! console, over the open volumes, and no unit and no drop-in is involved any more. A program whose ELF interpreter is not
//! there counts as not there itself, so one damaged block in a file on the disk is enough. Nothing but the kernel knows
//! better whether it will execute a program than the kernel: it is asked to, in the root as it is mounted now.
//!
//! Before that it takes /sys, /dev, /run and /proc along. One that has no folder to go to ends the switch-root half-way, in
//! the initramfs, without those that were moved already.

use crate::apart;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::libc;
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::geteuid;
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A disk that does not answer must not hold the gate.
const LIMIT: Duration = Duration::from_secs(10);
/// What systemd executes first: one of them, by how it was built. Where /usr is merged they are one file.
const SYSTEMD: [&str; 2] = ["/usr/lib/systemd/systemd", "/lib/systemd/systemd"];
/// What it executes then.
const INIT: &str = "/sbin/init";
/// What it moves into the new root before, or binds there.
const TAKEN_ALONG: [&str; 4] = ["sys", "dev", "run", "proc"];

/// Whether PID 1 could take its mounts along to `root`, and would find something to execute there, whichever of the two
/// paths it was built with.
///
/// # Errors
/// Which folder is not there, which program can't be executed and why, or that there was no answer within 10 s.
pub fn check(root: &Path) -> Result<(), String> {
    let root = root.to_owned();
    let checked = apart::run("init", LIMIT, move || folders(&root).and_then(|()| any_starts(&root)));
    checked
        .map_err(|e| format!("thread: {e}"))?
        .ok_or_else(|| format!("no answer within {} s", LIMIT.as_secs()))?
}

/// One that is missing is made here, as PID 1 would: where that fails it fails there, too.
fn folders(root: &Path) -> Result<(), String> {
    let path = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let open = |from: &_, name: &str| {
        openat2(from, name, OpenHow::new().flags(path).resolve(ResolveFlag::RESOLVE_IN_ROOT))
    };
    let root = nix::fcntl::open(root, path, Mode::empty()).map_err(|e| e.desc().to_owned())?;
    for name in TAKEN_ALONG {
        let found = match open(&root, name) {
            Err(Errno::ENOENT) => {
                mkdirat(&root, name, Mode::from_bits_truncate(0o755)).and_then(|()| open(&root, name))
            }
            found => found,
        };
        found.map_err(|e| format!("/{name}: expected a folder, found: {}", e.desc()))?;
    }
    Ok(())
}

fn any_starts(root: &Path) -> Result<(), String> {
    let start = |program: &str| starts(root, program).map_err(|e| format!("{program}: {e}"));
    // Whatever fails before it, this is what keeps PID 1 from a shell.
    let init = start(INIT);
    if init.is_ok() { Ok(()) } else { SYSTEMD.into_iter().try_for_each(start).or(init) }
}

/// Whether the kernel executes this program below `root`. It is ended as soon as it was started.
fn starts(root: &Path, program: &str) -> io::Result<()> {
    let text = |bytes: &[u8]| CString::new(bytes).map_err(|_| io::Error::from(Errno::EINVAL));
    let (root, path) = (text(root.as_os_str().as_bytes())?, text(program.as_bytes())?);
    // Without a network; only root may change the root, and tests that are not are root among themselves.
    let apart = libc::CLONE_NEWNET | if geteuid().is_root() { 0 } else { libc::CLONE_NEWUSER };
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let in_child = move || {
        let argv = [path.as_ptr(), c"--version".as_ptr(), std::ptr::null()];
        let environment = [std::ptr::null()];
        // SAFETY: all strings and both lists, which end with a null pointer, live until the calls return; the kernel only
        // reads them. If the last call does not return, nothing of this process is left.
        unsafe {
            // A kernel without network namespaces has none to hide.
            libc::unshare(apart);
            Errno::result(libc::chroot(root.as_ptr()))?;
            Errno::result(libc::chdir(c"/".as_ptr()))?;
            libc::execve(path.as_ptr(), argv.as_ptr(), environment.as_ptr());
        }
        Err(io::Error::last_os_error())
    };
    // SAFETY: between fork and exec there are system calls only, on what was made before; nothing is allocated.
    unsafe { command.pre_exec(in_child) };
    // Returns when the program was executed, by the end of a pipe, or with the error of the exec.
    let mut child = command.spawn()?;
    let _ = child.kill();
    child.wait().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::PathBuf;

    /// A root with merged /usr, whose systemd is /bin/true, with the interpreter that it names.
    struct Root(tempfile::TempDir);

    impl Root {
        fn new() -> Self {
            let root = Self(tempfile::tempdir().unwrap());
            for folder in ["usr/lib/systemd", "usr/lib64", "usr/sbin"] {
                fs::create_dir_all(root.at(folder)).unwrap();
            }
            for link in ["lib", "lib64", "sbin"] {
                symlink(format!("usr/{link}"), root.at(link)).unwrap();
            }
            let program = fs::read("/bin/true").unwrap();
            let interpreter = interpreter(&program);
            root.put(&interpreter[1..], &fs::read(&interpreter).unwrap());
            root.put("usr/lib/systemd/systemd", &program);
            root
        }

        fn at(&self, path: &str) -> PathBuf {
            self.0.path().join(path)
        }

        /// By cp(1): a file that this process writes can be open in the child of another test, and is then not executed.
        fn put(&self, path: &str, content: &[u8]) {
            let new = self.at("new");
            fs::write(&new, content).unwrap();
            let _ = fs::remove_file(self.at(path));
            assert!(Command::new("cp").arg(&new).arg(self.at(path)).status().unwrap().success());
            fs::set_permissions(self.at(path), Permissions::from_mode(0o755)).unwrap();
        }

        /// 16 bytes, as one block of AES-XTS that was changed on the disk.
        fn damage(&self, path: &str, at: usize) {
            let mut content = fs::read(self.at(path)).unwrap();
            content[at..at + 16].fill(0xa5);
            self.put(path, &content);
        }

        fn check(&self) -> Result<(), String> {
            check(self.0.path())
        }
    }

    fn find(program: &[u8]) -> usize {
        program.windows(4).position(|found| found == b"/lib").unwrap()
    }

    fn interpreter(program: &[u8]) -> String {
        let path = program[find(program)..].split(|byte| *byte == 0).next().unwrap();
        String::from_utf8(path.to_vec()).unwrap()
    }

    #[test]
    fn a_root_that_can_be_started() {
        let root = Root::new();
        assert_eq!(root.check(), Ok(()));
        symlink("../lib/systemd/systemd", root.at("usr/sbin/init")).unwrap();
        assert_eq!(root.check(), Ok(()));
    }

    #[test]
    fn one_damaged_block_in_the_path_of_the_interpreter() {
        let root = Root::new();
        symlink("../lib/systemd/systemd", root.at("usr/sbin/init")).unwrap();
        root.damage("usr/lib/systemd/systemd", find(&fs::read("/bin/true").unwrap()));
        // The file is there, and the kernel says that it is not: just that is what makes PID 1 start a shell.
        let error = starts(root.0.path(), SYSTEMD[0]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
        assert!(root.check().is_err());
    }

    #[test]
    fn damaged_links_folders_and_interpreters() {
        let root = Root::new();
        let interpreter = interpreter(&fs::read("/bin/true").unwrap());
        root.damage(&interpreter[1..], 0);
        assert!(root.check().is_err(), "the interpreter is no program");
        fs::remove_file(root.at(&interpreter[1..])).unwrap();
        assert!(root.check().is_err(), "there is no interpreter");

        let root = Root::new();
        symlink("nowhere", root.at("usr/sbin/init")).unwrap();
        assert_eq!(root.check(), Ok(()), "systemd itself is there");
        fs::remove_file(root.at("lib")).unwrap();
        let why = root.check().unwrap_err();
        assert!(why.starts_with("/sbin/init: "), "one of the two paths is not there: {why}");

        let root = Root::new();
        root.damage("usr/lib/systemd/systemd", 0);
        assert!(root.check().is_err(), "no ELF file");
        fs::set_permissions(root.at("usr/lib/systemd/systemd"), Permissions::from_mode(0o644)).unwrap();
        assert!(root.check().is_err(), "not executable");
        assert!(check(Path::new("/nowhere")).is_err());
    }

    #[test]
    fn another_init_and_paths_that_lead_out() {
        let root = Root::new();
        fs::rename(root.at("usr/lib/systemd/systemd"), root.at("usr/sbin/init")).unwrap();
        assert_eq!(root.check(), Ok(()), "a root with another init");
        root.put("usr/sbin/init", b"#!/bin/true\n");
        assert!(root.check().is_err(), "its interpreter is outside of the root");
        fs::remove_file(root.at("usr/sbin/init")).unwrap();
        symlink("/bin/true", root.at("usr/sbin/init")).unwrap();
        assert!(root.check().is_err(), "a link counts from the root");
    }

    #[test]
    fn each_mount_of_the_initramfs_has_a_folder_to_go_to() {
        let missing = Root::new();
        assert_eq!(missing.check(), Ok(()));
        for name in TAKEN_ALONG {
            // PID 1 would have made it.
            assert!(missing.at(name).is_dir());

            let root = Root::new();
            fs::write(root.at(name), "").unwrap();
            let why = root.check().unwrap_err();
            assert!(why.starts_with(&format!("/{name}: expected a folder")), "{why}");

            // Links count from the root.
            fs::remove_file(root.at(name)).unwrap();
            symlink("/usr/elsewhere", root.at(name)).unwrap();
            assert!(root.check().is_err(), "it leads nowhere");
            fs::create_dir(root.at("usr/elsewhere")).unwrap();
            assert_eq!(root.check(), Ok(()));
            fs::remove_file(root.at(name)).unwrap();
            symlink(name, root.at(name)).unwrap();
            assert!(root.check().is_err(), "it leads to itself");
        }
    }
}
