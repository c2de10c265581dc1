//! Kernel events that say when another attempt is worth it: instead of polling, the
//! agent sleeps until an address or a route appears (rtnetlink(7)).

use crate::deadline::Deadline;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, socket,
};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE
/// (linux/rtnetlink.h).
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

/// Message types: RTM_NEWLINK, RTM_NEWADDR, RTM_NEWROUTE.
const NEW: [u16; 3] = [16, 20, 24];

/// A subscription. Opened before the first attempt, so that no event falls in between.
pub struct NetworkEvents(OwnedFd);

impl NetworkEvents {
    /// Subscribes.
    ///
    /// # Errors
    /// When the kernel has no netlink for us.
    pub fn open() -> nix::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))?;
        Ok(Self(fd))
    }

    /// Sleeps until the network changed or `until`. Returns whether it changed.
    pub fn wait(&self, until: Deadline) -> bool {
        loop {
            if self.drain() {
                return true;
            }
            if until.is_over() || !readable(&self.0, until) {
                return false;
            }
        }
    }

    /// Reads all that is there; true if something in it says "new".
    fn drain(&self) -> bool {
        let mut changed = false;
        let mut buffer = [0; 8192];
        // Bounded: a flood of messages must not keep us from trying.
        for _ in 0..256 {
            match recvfrom::<NetlinkAddr>(self.0.as_raw_fd(), &mut buffer) {
                Ok((len, sender)) => {
                    let from_kernel = sender.is_some_and(|address| address.pid() == 0);
                    changed |= from_kernel && says_new(&buffer[..len.min(buffer.len())]);
                }
                // Messages were lost: something did change.
                Err(Errno::ENOBUFS) => changed = true,
                Err(Errno::EINTR) => {}
                Err(_) => break,
            }
        }
        changed
    }
}

/// Sleeps until `fd` can be read (true) or `until` (false).
pub(crate) fn readable(fd: &impl AsFd, until: Deadline) -> bool {
    any_readable(&[fd.as_fd()], until)
}

/// The same for one of several.
pub(crate) fn any_readable(fds: &[BorrowedFd<'_>], until: Deadline) -> bool {
    loop {
        let mut fds: Vec<_> = fds.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
        match poll(&mut fds, until.poll_timeout()) {
            Ok(0) if until.is_over() => return false,
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return true,
            Err(_) => return false,
        }
    }
}

/// Whether a datagram of rtnetlink holds a message about a new link, address or route.
pub fn says_new(mut bytes: &[u8]) -> bool {
    // struct nlmsghdr: length, type, flags, sequence, port; messages are aligned to 4 bytes.
    while let Some((header, _)) = bytes.split_first_chunk::<16>() {
        let len = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        if len < 16 || len > bytes.len() {
            return false;
        }
        if NEW.contains(&kind) {
            return true;
        }
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn message(kind: u16, body: usize) -> Vec<u8> {
        let mut out = ((16 + body) as u32).to_ne_bytes().to_vec();
        out.extend(kind.to_ne_bytes());
        out.resize((16 + body).next_multiple_of(4), 0);
        out
    }

    #[test]
    fn only_news_counts() {
        assert!(says_new(&message(20, 8)));
        assert!(says_new(&[message(21, 5), message(24, 0)].concat()));
        assert!(!says_new(&[message(21, 5), message(25, 0)].concat()));
        assert!(!says_new(&[255; 16]));
    }

    #[test]
    fn a_wait_without_news_ends_in_time() {
        let Ok(events) = NetworkEvents::open() else { return };
        let until = Deadline::after(Duration::from_millis(50));
        while events.wait(until) {}
        assert!(until.is_over());
    }

    proptest! {
        #[test]
        fn any_datagram_is_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            says_new(&bytes);
        }
    }
}
