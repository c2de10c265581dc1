//! One command out, one answer back, within a deadline.

use super::{Error, Location};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// No TPM sends more in one answer.
pub(super) const MAX_FRAME: usize = 4096;
pub(super) const HEADER: usize = 10;

/// swtpm is on this machine: it is there or it is not.
const CONNECT: Duration = Duration::from_secs(5);

pub(super) struct Transport {
    stream: Stream,
    /// After a timeout or half an answer nobody knows what comes next.
    broken: bool,
    /// The kernel flushes what this handle left behind.
    managed: bool,
}

enum Stream {
    Device(File),
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Transport {
    pub fn open(location: &Location) -> Result<Self, Error> {
        let opened = match location {
            // Who has the choice makes it before.
            Location::Machine => return Self::open(&location.each()[0]),
            Location::Device(path) => OpenOptions::new()
                .read(true)
                .write(true)
                // Else write() blocks until the TPM has answered, without a deadline.
                .custom_flags(nix::libc::O_NONBLOCK)
                .open(path)
                .map(Stream::Device),
            Location::Tcp(address) => TcpStream::connect_timeout(address, CONNECT).and_then(|stream| {
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }),
            Location::Unix(path) => UnixStream::connect(path).map(Stream::Unix),
        };
        let stream = opened.map_err(|error| Error::Open(location.to_string(), error))?;
        let managed = matches!(location, Location::Device(path) | Location::Unix(path)
            if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"tpmrm")));
        Ok(Self { stream, broken: false, managed })
    }

    /// Whether objects and sessions must be flushed by hand, and still can be.
    pub fn leaks(&self) -> bool {
        !self.managed && !self.broken
    }

    /// Sends `command` and returns the answer, whole: its size field is right.
    pub fn exchange(&mut self, name: &'static str, command: &[u8], wait: Duration) -> Result<Vec<u8>, Error> {
        if self.broken {
            return Err(Error::Io(name, ErrorKind::BrokenPipe.into()));
        }
        // Anything but a whole answer leaves the stream in a state nobody knows.
        self.broken = true;
        let deadline = Instant::now() + wait;
        let answer = match &mut self.stream {
            Stream::Device(device) => device_exchange(device, command, deadline),
            Stream::Tcp(stream) => {
                stream.set_write_timeout(Some(wait)).map_err(|e| Error::Io(name, e))?;
                stream_exchange(stream, command, |s| s.set_read_timeout(Some(remaining(deadline))))
            }
            Stream::Unix(stream) => {
                stream.set_write_timeout(Some(wait)).map_err(|e| Error::Io(name, e))?;
                stream_exchange(stream, command, |s| s.set_read_timeout(Some(remaining(deadline))))
            }
        };
        let answer = answer.map_err(|error| match error.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Error::Timeout(name, wait),
            ErrorKind::InvalidData => Error::Malformed(name),
            _ => Error::Io(name, error),
        })?;
        self.broken = false;
        Ok(answer)
    }
}

/// Never zero: that would mean "for ever" to a socket.
fn remaining(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

/// One write, one read: the interface of the kernel's TPM devices.
fn device_exchange(device: &mut File, command: &[u8], deadline: Instant) -> std::io::Result<Vec<u8>> {
    if device.write(command)? != command.len() {
        return Err(ErrorKind::WriteZero.into());
    }
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).as_millis();
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(device.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) => return Err(ErrorKind::TimedOut.into()),
            Ok(_) => break,
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    let mut answer = vec![0; MAX_FRAME];
    let length = device.read(&mut answer)?;
    answer.truncate(length);
    let size = answer.get(2..6).and_then(|size| size.try_into().ok()).map(u32::from_be_bytes);
    if length < HEADER || size != Some(length as u32) {
        return Err(ErrorKind::InvalidData.into());
    }
    Ok(answer)
}

fn stream_exchange<S: Read + Write>(
    stream: &mut S,
    command: &[u8],
    arm: impl Fn(&S) -> std::io::Result<()>,
) -> std::io::Result<Vec<u8>> {
    stream.write_all(command)?;
    let mut answer = vec![0; HEADER];
    let mut filled = 0;
    while filled < answer.len() {
        // Each time anew: a peer that sends one byte a second must not stretch the deadline.
        arm(stream)?;
        match stream.read(&mut answer[filled..]) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if filled == HEADER && answer.len() == HEADER {
            let size = u32::from_be_bytes([answer[2], answer[3], answer[4], answer[5]]) as usize;
            if !(HEADER..=MAX_FRAME).contains(&size) {
                return Err(ErrorKind::InvalidData.into());
            }
            answer.resize(size, 0);
        }
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixDatagram;

    fn pair() -> (Transport, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Transport { stream: Stream::Unix(ours), broken: false, managed: false }, theirs)
    }

    #[test]
    fn a_silent_tpm_is_given_up_and_not_asked_again() {
        let (mut transport, _silent) = pair();
        let wait = Duration::from_millis(20);
        let error = transport.exchange("Quote", &[0; 10], wait).unwrap_err();
        assert!(matches!(error, Error::Timeout("Quote", _)), "{error}");
        assert!(matches!(transport.exchange("Quote", &[0; 10], wait), Err(Error::Io(..))));
        assert!(!transport.leaks());
    }

    #[test]
    fn half_an_answer_does_not_stretch_the_deadline() {
        let (mut transport, mut peer) = pair();
        peer.write_all(&[0x80, 1, 0, 0, 0, 12, 0, 0, 0, 0, 1]).unwrap();
        let error = transport.exchange("Quote", &[0; 10], Duration::from_millis(20)).unwrap_err();
        assert!(matches!(error, Error::Timeout("Quote", _)), "{error}");
    }

    #[test]
    fn what_is_behind_an_answer_stays_for_the_next() {
        let (mut transport, mut peer) = pair();
        let answer = [0x80, 1, 0, 0, 0, 11, 0, 0, 0, 0, 7];
        peer.write_all(&[answer, answer].concat()).unwrap();
        for _ in 0..2 {
            assert_eq!(transport.exchange("Quote", &[0; 10], CONNECT).unwrap(), answer);
        }
    }

    /// A datagram socket is like the kernel's device: one write, one read.
    #[test]
    fn a_device_answers_whole_or_not_at_all() {
        let exchange = |answer: Option<&[u8]>| {
            let (ours, theirs) = UnixDatagram::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            if let Some(answer) = answer {
                theirs.send(answer).unwrap();
            }
            let stream = Stream::Device(File::from(OwnedFd::from(ours)));
            let mut transport = Transport { stream, broken: false, managed: true };
            transport.exchange("Quote", &[0; 10], Duration::from_millis(20))
        };
        let answer = [0x80, 1, 0, 0, 0, 11, 0, 0, 0, 0, 7];
        assert_eq!(exchange(Some(&answer)).unwrap(), answer);
        assert!(matches!(exchange(None), Err(Error::Timeout("Quote", _))));
        for bad in [&answer[..10], &answer[..3], &[]] {
            assert!(matches!(exchange(Some(bad)), Err(Error::Malformed("Quote"))));
        }
    }
}
