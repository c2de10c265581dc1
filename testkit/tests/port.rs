//! Alone in its process: a program that another test starts would have the listener too, from its fork to its exec.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use halfkey_testkit::port::HeldPort;
use std::net::{Ipv4Addr, TcpListener, TcpStream};

#[test]
fn it_is_refused_until_somebody_listens_there() {
    let held = HeldPort::new();
    let address = (Ipv4Addr::LOCALHOST, held.number());
    assert!(TcpStream::connect(address).is_err());
    for _ in 0..2 {
        let listener = TcpListener::bind(address).unwrap();
        TcpStream::connect(address).unwrap();
        drop(listener);
        assert!(TcpStream::connect(address).is_err());
    }
}
