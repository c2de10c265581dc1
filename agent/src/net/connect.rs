//! Name, TCP, TLS: each step timed, under the request's deadline, with an error that says which failed.

use super::{Error, Server};
use crate::timing::Timeline;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// A resolver thread needs little; with the memory locked, a default stack would count.
const RESOLVER_STACK: usize = 256 << 10;
/// More addresses of one name are not tried.
const ADDRESSES: usize = 8;
/// Unasked TLS messages on an idle connection are read this often. A server sends two tickets
/// or so; one that does not stop is not worth a second request.
const IDLE_READS: usize = 8;

/// A TLS connection to a server.
pub type Stream = StreamOwned<ClientConnection, Socket>;

/// Opens a connection, all of it by `until`.
///
/// # Errors
/// [`Error`] of the step that failed.
pub fn open(
    server: &Server,
    tls: Arc<ClientConfig>,
    until: Instant,
    timeline: &Timeline,
) -> Result<Stream, Error> {
    let name = ServerName::try_from(server.host.clone())
        .map_err(|_| Error::Tls(format!("'{}' is no name that a certificate can have", server.host)))?;
    let addresses = resolve(server, until, timeline)?;
    let tcp = timeline
        .time("network", "tcp", || connect_any(&addresses, until))
        .map_err(|e| Error::from_io(e, "connecting"))?;
    let handshake = |mut tls: ClientConnection| -> io::Result<Stream> {
        tcp.set_nodelay(true)?;
        let mut socket = Socket { tcp, until };
        while tls.is_handshaking() {
            tls.complete_io(&mut socket)?;
        }
        Ok(StreamOwned::new(tls, socket))
    };
    let tls = ClientConnection::new(tls, name).map_err(|e| Error::Tls(e.to_string()))?;
    timeline.time("network", "tls", || handshake(tls)).map_err(|e| Error::from_io(e, "agreeing on TLS"))
}

/// The addresses of a server. Names go to the C library, which can block for long: in a
/// thread, so that the deadline holds.
fn resolve(server: &Server, until: Instant, timeline: &Timeline) -> Result<Vec<SocketAddr>, Error> {
    if let Ok(address) = server.host.parse() {
        return Ok(vec![SocketAddr::new(address, server.port)]);
    }
    let (host, port) = (server.host.clone(), server.port);
    let (sender, receiver) = mpsc::sync_channel(1);
    let lookup = move || drop(sender.send((host.as_str(), port).to_socket_addrs()));
    let found = timeline.time("network", "name", || {
        thread::Builder::new().stack_size(RESOLVER_STACK).spawn(lookup)?;
        let left = until.saturating_duration_since(Instant::now());
        receiver.recv_timeout(left).map_err(|_| io::Error::other("no answer of the resolver in time"))?
    });
    let addresses: Vec<_> = found.map_err(|e| Error::Name(e.to_string()))?.take(ADDRESSES).collect();
    if addresses.is_empty() { Err(Error::Name("it has no address".into())) } else { Ok(addresses) }
}

/// Tries one address after the other. Each but the last gets half of what is left: an
/// IPv6 address that swallows packets must not eat the time of the IPv4 address behind it.
fn connect_any(addresses: &[SocketAddr], until: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for (i, address) in addresses.iter().enumerate() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let share = if i + 1 == addresses.len() { left } else { left / 2 };
        match has_source(address).and_then(|()| TcpStream::connect_timeout(address, share)) {
            Ok(tcp) => return Ok(tcp),
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// Refuses an IPv4 address to which there is a route, and of this machine none to come from: what configures the network may add
/// the one before the other, as NetworkManager does while it probes whether a static address is free. A connection that is begun
/// then comes from 0.0.0.0 until its time is over. (For IPv6 the kernel itself says so.)
///
/// # Errors
/// [`io::ErrorKind::AddrNotAvailable`]: the address will be an event of the network.
fn has_source(to: &SocketAddr) -> io::Result<()> {
    if to.is_ipv4() {
        // It asks the kernel for the route, and sends nothing.
        let route = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        route.connect(to)?;
        if route.local_addr()?.ip().is_unspecified() {
            return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, "no address of this machine yet"));
        }
    }
    Ok(())
}

/// Whether an idle connection can carry another request. Session tickets arrive unasked; an
/// alert, data that nobody asked for, or an end of file says no.
pub fn is_open(stream: &mut Stream) -> bool {
    let StreamOwned { conn, sock: Socket { tcp, .. } } = stream;
    if tcp.set_nonblocking(true).is_err() {
        return false;
    }
    for _ in 0..IDLE_READS {
        match conn.process_new_packets() {
            Ok(state) if !state.peer_has_closed() && state.plaintext_bytes_to_read() == 0 => {}
            _ => return false,
        }
        match conn.read_tls(tcp) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(e) => return e.kind() == io::ErrorKind::WouldBlock && tcp.set_nonblocking(false).is_ok(),
        }
    }
    false
}

/// A TCP stream whose every read and write ends by `until`: a peer that sends one
/// byte a second gets no more time than one that sends nothing.
pub struct Socket {
    tcp: TcpStream,
    /// When the current request must be over.
    pub until: Instant,
}

impl Socket {
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for Socket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.tcp.set_read_timeout(self.left()?)?;
        self.tcp.read(buf).map_err(timed_out)
    }
}

impl Write for Socket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.tcp.set_write_timeout(self.left()?)?;
        self.tcp.write(buf).map_err(timed_out)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Linux reports SO_RCVTIMEO and SO_SNDTIMEO as EAGAIN.
fn timed_out(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { io::ErrorKind::TimedOut.into() } else { error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_comes_from_an_address_of_this_machine() {
        for address in ["127.0.0.1:9", "[::1]:9"] {
            assert!(has_source(&address.parse().unwrap()).is_ok(), "{address}");
        }
    }
}
