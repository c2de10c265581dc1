//! Name, TCP, TLS: each step timed, under the request's deadline, with an error that says which failed.
//!
//! ureq speaks HTTP over what this gives it. Its own TLS would bring TLS 1.2 into
//! the binary, and its own connector hides which step failed.

use crate::timing::Timeline;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use std::{fmt, thread};
use ureq::Error;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};

/// A resolver thread needs little; with the memory locked, a default stack would count.
const RESOLVER_STACK: usize = 256 << 10;

/// Resolves names with the C library, which can block: in a thread, so that the deadline holds.
#[derive(Debug)]
pub struct Names {
    /// Where the durations go.
    pub timeline: Timeline,
}

impl Resolver for Names {
    fn resolve(
        &self,
        uri: &Uri,
        _: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let authority = uri.authority().ok_or(Error::HostNotFound)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16().unwrap_or(443);
        let mut out = self.empty();
        if let Ok(address) = host.parse() {
            out.push(SocketAddr::new(address, port));
            return Ok(out);
        }
        let (sender, receiver) = mpsc::sync_channel(1);
        let found = self.timeline.time("network", "name", || {
            let lookup = move || drop(sender.send((host.as_str(), port).to_socket_addrs()));
            thread::Builder::new().stack_size(RESOLVER_STACK).spawn(lookup)?;
            receiver
                .recv_timeout(bounded(timeout))
                .map_err(|_| io::Error::other("no answer of the resolver in time"))?
        });
        let found = found.map_err(|e| Error::Other(Box::new(NameFailure(e.to_string()))))?;
        found.take(8).for_each(|address| out.push(address));
        if out.is_empty() {
            return Err(Error::HostNotFound);
        }
        Ok(out)
    }
}

/// A name that could not be resolved, with the C library's words.
#[derive(Debug)]
pub struct NameFailure(pub String);

impl fmt::Display for NameFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NameFailure {}

/// Opens TCP connections with TLS on them.
#[derive(Debug)]
pub struct Secure {
    /// Trusts the pinned CA.
    pub tls: Arc<ClientConfig>,
    /// Where the durations go.
    pub timeline: Timeline,
}

impl Connector<()> for Secure {
    type Out = SecureTransport;

    fn connect(&self, details: &ConnectionDetails, _: Option<()>) -> Result<Option<SecureTransport>, Error> {
        let until = Instant::now() + bounded(details.timeout);
        let host = details.uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| Error::Tls("no name that a certificate can have"))?;

        let tcp = self.timeline.time("network", "tcp", || connect_any(&details.addrs, until)).map_err(
            |e| match e.kind() {
                io::ErrorKind::TimedOut => Error::Timeout(ureq::Timeout::Connect),
                _ => Error::Io(e),
            },
        )?;
        tcp.set_nodelay(true)?;
        let mut socket = Socket { tcp, until };
        let mut tls = ClientConnection::new(self.tls.clone(), name).map_err(io::Error::other)?;
        self.timeline.time("network", "tls", || {
            while tls.is_handshaking() {
                tls.complete_io(&mut socket)?;
            }
            io::Result::Ok(())
        })?;
        let buffers =
            LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(SecureTransport { stream: StreamOwned::new(tls, socket), buffers }))
    }
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
        match TcpStream::connect_timeout(address, share) {
            Ok(tcp) => return Ok(tcp),
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// HTTP's view of a TLS connection.
pub struct SecureTransport {
    stream: StreamOwned<ClientConnection, Socket>,
    buffers: LazyBuffers,
}

impl Transport for SecureTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.stream.sock.until = Instant::now() + bounded(timeout);
        self.stream.write_all(&self.buffers.output()[..amount])?;
        Ok(self.stream.flush()?)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.stream.sock.until = Instant::now() + bounded(timeout);
        let amount = match self.stream.read(self.buffers.input_append_buf()) {
            // A peer that closes without close_notify: whether bytes are missing, HTTP knows.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => 0,
            other => other?,
        };
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    /// Whether an idle connection can carry another request: nothing may have come in meanwhile.
    fn is_open(&mut self) -> bool {
        let tcp = &self.stream.sock.tcp;
        if tcp.set_nonblocking(true).is_err() {
            return false;
        }
        // Session tickets arrive unasked, so bytes are no sign of trouble; an end of file is.
        let open = !matches!(tcp.peek(&mut [0]), Ok(0)) && tcp.take_error().is_ok_and(|e| e.is_none());
        tcp.set_nonblocking(false).is_ok() && open
    }

    fn is_tls(&self) -> bool {
        true
    }
}

impl fmt::Debug for SecureTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecureTransport")
    }
}

/// A TCP stream whose every read and write ends by `until`: a peer that sends one
/// byte a second gets no more time than one that sends nothing.
struct Socket {
    tcp: TcpStream,
    until: Instant,
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

/// ureq's timeout as a duration that can be added to an instant.
fn bounded(timeout: NextTimeout) -> Duration {
    (*timeout.after).min(Duration::from_secs(3600))
}
