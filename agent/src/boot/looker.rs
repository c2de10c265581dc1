//! Opens block devices in another process.
//!
//! One that does not answer (a stick whose host has stopped, a disk that dies) holds whoever opens it in the kernel, where no signal
//! reaches, and a process does not end before its last thread: the service manager would wait for the agent, and somebody for
//! the prompt. So `halfkey-agent look` opens them, each in a thread of its own, reads where a header is, and hands the open file
//! over. When all that is needed was found it is killed, and left where it hangs.

use crate::console;
use crate::deadline::Deadline;
use crate::luks::Header;
use crate::net::wait::readable;
use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recv, recvmsg, send,
    sendmsg, socketpair,
};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

/// More devices that have not answered are not asked for at once.
const AT_ONCE: usize = 256;
/// The longest path.
const PATH: usize = 4096;

/// The other process, and what it was asked for.
pub struct Looker {
    socket: OwnedFd,
    child: Child,
    /// Which devices have not answered, and by when they should have.
    asked: Vec<(PathBuf, Deadline)>,
}

/// What became of one device.
pub struct Answer {
    /// Its path.
    pub path: PathBuf,
    /// Open for reading; none if it can't be opened.
    pub file: Option<File>,
}

impl Looker {
    /// Starts it: `program` is the agent.
    ///
    /// # Errors
    /// When that can't be started.
    pub fn start(program: &Path) -> io::Result<Self> {
        let (socket, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        let child = Command::new(program)
            .arg("look")
            .env_clear()
            .stdin(theirs)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { socket, child, asked: Vec::new() })
    }

    /// Asks for a device, which should answer by `until`; one that was asked for and has not answered is not asked for again. False
    /// if there is no room.
    ///
    /// # Errors
    /// When the other process is gone.
    pub fn ask(&mut self, path: &Path, until: Deadline) -> io::Result<bool> {
        if self.asked.iter().any(|(asked, _)| asked == path) {
            return Ok(true);
        }
        if self.asked.len() >= AT_ONCE {
            return Ok(false);
        }
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        match send(self.socket.as_raw_fd(), path.as_os_str().as_bytes(), flags) {
            Ok(_) => self.asked.push((path.to_owned(), until)),
            Err(Errno::EAGAIN) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        }
        Ok(true)
    }

    /// The next answer. None when all have answered or should have.
    ///
    /// # Errors
    /// When the other process is gone.
    pub fn answer(&mut self) -> io::Result<Option<Answer>> {
        let Some(until) = self.asked.iter().map(|(_, until)| *until).max() else { return Ok(None) };
        if !readable(&self.socket, until) {
            return Ok(None);
        }
        let answer = receive(&self.socket)?;
        self.asked.retain(|(asked, _)| *asked != answer.path);
        Ok(Some(answer))
    }

    /// Devices that should have answered.
    pub fn late(&self) -> impl Iterator<Item = &Path> {
        self.asked.iter().filter(|(_, until)| until.is_over()).map(|(path, _)| path.as_path())
    }
}

impl AsFd for Looker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Looker {
    /// Not waited for: it may hang for ever.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.try_wait();
    }
}

fn receive(socket: &OwnedFd) -> io::Result<Answer> {
    let mut path = [0; PATH];
    let mut space = cmsg_space!([std::os::fd::RawFd; 1]);
    let mut parts = [IoSliceMut::new(&mut path)];
    let message =
        recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut file = None;
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = part {
            // SAFETY: the kernel has just made this descriptor for this process, and nobody else here knows of it.
            file = fds.first().map(|fd| unsafe { File::from_raw_fd(*fd) });
        }
    }
    let length = message.bytes;
    if length == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Answer { path: PathBuf::from(OsStr::from_bytes(&path[..length.min(PATH)])), file })
}

/// `look`: what the other process does, until whoever asks is gone.
pub fn serve() {
    leave_unit();
    let mut path = [0; PATH];
    loop {
        match recv(io::stdin().as_raw_fd(), &mut path, MsgFlags::empty()) {
            Ok(0) => return,
            Ok(length) => {
                let path = PathBuf::from(OsStr::from_bytes(&path[..length.min(PATH)]));
                // Without one more thread that device does not answer.
                let _ = thread::Builder::new().name("look".into()).spawn(move || answer(&path));
            }
            Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

fn answer(path: &Path) {
    let file = File::open(path).ok();
    // What was read here, the other process finds in memory.
    drop(file.as_ref().map(Header::read));
    say(path, file.as_ref());
}

fn say(path: &Path, file: Option<&File>) {
    let fds: Vec<_> = file.iter().map(|file| file.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let rights = if fds.is_empty() { &[][..] } else { &rights[..] };
    let parts = [IoSlice::new(path.as_os_str().as_bytes())];
    // Nobody may be there any more.
    let _ = sendmsg::<()>(io::stdin().as_raw_fd(), &parts, rights, MsgFlags::MSG_NOSIGNAL, None);
}

/// The service manager waits until no process is in the unit's control group any more, so this one goes to that of the service
/// manager itself. Where that fails, TimeoutStopSec= bounds it.
fn leave_unit() {
    if !console::in_initramfs() {
        return;
    }
    for hierarchy in ["/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"] {
        let _ = std::fs::write(Path::new(hierarchy).join("init.scope/cgroup.procs"), "0");
    }
}
