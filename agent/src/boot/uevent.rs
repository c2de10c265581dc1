//! Kernel events (netlink, NETLINK_KOBJECT_UEVENT): a block device or a TPM appeared.

use crate::deadline::Deadline;
use crate::net::wait::{any_readable, readable};
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, socket,
};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// The kernel's own multicast group; udev sends in group 2.
const KERNEL: u32 = 1;

/// A subscription. Opened before the first scan, so that no event falls in between.
pub struct Uevents(OwnedFd);

/// What of an event matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uevent {
    /// `add`, `change`, `remove`, ...
    pub action: String,
    /// `block`, `tpmrm`, ...
    pub subsystem: String,
    /// Name below /dev.
    pub devname: String,
}

impl Uevents {
    /// Subscribes.
    ///
    /// # Errors
    /// When the kernel has no netlink for us.
    pub fn open() -> nix::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd =
            socket(AddressFamily::Netlink, SockType::Datagram, flags, SockProtocol::NetlinkKObjectUEvent)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, KERNEL))?;
        Ok(Self(fd))
    }

    /// Sleeps until something of `subsystem` appeared or changed. False at `until`.
    pub fn wait(&self, subsystem: &str, until: Deadline) -> bool {
        self.wait_beside(None, subsystem, until)
    }

    /// The same, or until `other` can be read.
    pub fn wait_beside(&self, other: Option<BorrowedFd<'_>>, subsystem: &str, until: Deadline) -> bool {
        let fds: Vec<_> = other.into_iter().chain([self.0.as_fd()]).collect();
        loop {
            if self.drain(subsystem) {
                return true;
            }
            if until.is_over() || !any_readable(&fds, until) {
                return false;
            }
            if other.is_some_and(|other| readable(&other, Deadline::after(Duration::ZERO))) {
                return true;
            }
        }
    }

    /// Reads all that is there; true if something in it is about `subsystem`.
    pub fn drain(&self, subsystem: &str) -> bool {
        let mut news = false;
        let mut buffer = [0; 8192];
        // Bounded: a flood of events must not keep us from looking.
        for _ in 0..1024 {
            match recvfrom::<NetlinkAddr>(self.0.as_raw_fd(), &mut buffer) {
                Ok((len, sender)) => {
                    // Anybody with CAP_NET_ADMIN could send; only the kernel has port 0.
                    let from_kernel = sender.is_some_and(|address| address.pid() == 0);
                    let event = parse(&buffer[..len.min(buffer.len())]);
                    news |= from_kernel
                        && event.is_some_and(|e| e.subsystem == subsystem && e.action != "remove");
                }
                // Events were lost: look again.
                Err(Errno::ENOBUFS) => news = true,
                Err(Errno::EINTR) => {}
                Err(_) => break,
            }
        }
        news
    }
}

impl AsFd for Uevents {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Reads an event: `ACTION@DEVPATH`, NUL, then `KEY=VALUE` lines, each with a NUL behind it.
pub fn parse(bytes: &[u8]) -> Option<Uevent> {
    let mut event = Uevent { action: String::new(), subsystem: String::new(), devname: String::new() };
    let mut lines = bytes.split(|byte| *byte == 0);
    lines.next().filter(|first| first.contains(&b'@'))?;
    for line in lines {
        let Some((key, value)) = std::str::from_utf8(line).ok().and_then(|line| line.split_once('=')) else {
            continue;
        };
        match key {
            "ACTION" => event.action = value.to_owned(),
            "SUBSYSTEM" => event.subsystem = value.to_owned(),
            "DEVNAME" => event.devname = value.to_owned(),
            _ => {}
        }
    }
    (!event.action.is_empty() && !event.subsystem.is_empty()).then_some(event)
}

/// udev's mark that it has events to work through (`udevadm settle` waits for the same).
const UDEV_QUEUE: &str = "/run/udev/queue";

/// Sleeps until udev has worked through its events; at once where there is no udev.
pub fn wait_until_settled(until: Deadline) {
    let queue = Path::new(UDEV_QUEUE);
    if !queue.exists() {
        return;
    }
    let Ok(inotify) = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK) else { return };
    if inotify.add_watch("/run/udev", AddWatchFlags::IN_DELETE).is_err() {
        return;
    }
    // Looked at after the watch stands, so that its end can't be missed.
    while queue.exists() && readable(&inotify, until) {
        let _ = inotify.read_events();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_the_kernel_sends() {
        let bytes = b"add@/devices/virtual/block/dm-0\0ACTION=add\0DEVPATH=/devices/x\0SUBSYSTEM=block\0DEVNAME=dm-0\0SEQNUM=1\0";
        let event = parse(bytes).unwrap();
        assert_eq!(
            (event.action.as_str(), event.subsystem.as_str(), event.devname.as_str()),
            ("add", "block", "dm-0")
        );
        // udev's own messages have another beginning.
        assert_eq!(parse(b"libudev\0\xfe\xed\xca\xfe"), None);
    }

    proptest! {
        #[test]
        fn any_datagram_is_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            parse(&bytes);
        }
    }
}
