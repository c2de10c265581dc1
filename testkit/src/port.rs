//! TCP ports of this host that are known before anybody listens there.

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, setsockopt, socket, sockopt,
};
use std::os::fd::{AsRawFd, OwnedFd};

/// A port of 127.0.0.1 that nobody is given while this lives, and where a program of a test can listen.
///
/// A socket holds it that is bound and does not listen. Who connects is refused; who binds to any free port gets another; and who
/// binds to this one with `SO_REUSEADDR`, as servers do, may.
#[derive(Debug)]
pub struct HeldPort {
    port: u16,
    _holder: OwnedFd,
}

impl Default for HeldPort {
    fn default() -> Self {
        Self::new()
    }
}

impl HeldPort {
    /// A free one.
    pub fn new() -> Self {
        let holder =
            socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
        setsockopt(&holder, sockopt::ReuseAddr, &true).expect("SO_REUSEADDR");
        bind(holder.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).expect("a free port");
        let bound: SockaddrIn = getsockname(holder.as_raw_fd()).expect("bound");
        Self { port: bound.port(), _holder: holder }
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.port
    }
}
