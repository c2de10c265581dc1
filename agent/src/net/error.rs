//! What can go wrong between the agent and a server, and when another attempt makes sense.

use crate::error::{self, Kind};
use halfkey_protocol::Reason;
use std::{fmt, io};

/// What went wrong with one request.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The name could not be resolved.
    Name(String),
    /// No way to the address: no link, no address, no route.
    Unreachable(String),
    /// The machine is there, the server is not (yet).
    Refused(String),
    /// No answer in time, while doing this.
    Timeout(&'static str),
    /// TLS failed, with what rustls says.
    Tls(String),
    /// The connection broke.
    Broken(String),
    /// An HTTP error without a body that says more.
    Http(u16),
    /// The answer is larger than [`halfkey_protocol::MAX_ANSWER`].
    TooLarge,
    /// The answer is not what the protocol says.
    Malformed(String),
    /// The server says why not.
    Problem {
        /// HTTP status.
        status: u16,
        /// A [`Reason`] code, perhaps one that this agent does not know.
        code: String,
        /// What was expected and found.
        message: String,
        /// What to do next.
        hint: Option<String>,
    },
}

/// When another attempt makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// When the kernel reports a change of addresses or routes, or some seconds later.
    OnNetworkChange,
    /// After a pause, or when the network changes.
    AfterPause,
    /// At once, with a new exchange.
    AtOnce,
    /// Not with this server.
    Never,
}

impl Error {
    /// What the connection says, while `doing` this.
    pub fn from_io(error: io::Error, doing: &'static str) -> Self {
        use io::ErrorKind as K;
        if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return Self::Tls(tls_words(tls));
        }
        match error.kind() {
            K::TimedOut | K::WouldBlock => Self::Timeout(doing),
            K::ConnectionRefused => Self::Refused(error.to_string()),
            K::NetworkUnreachable | K::HostUnreachable | K::AddrNotAvailable | K::NetworkDown => {
                Self::Unreachable(error.to_string())
            }
            K::UnexpectedEof => Self::Broken(format!("the other side closed it while {doing}")),
            _ => Self::Broken(format!("{error}, while {doing}")),
        }
    }

    /// When another attempt makes sense.
    pub fn again(&self) -> Again {
        match self {
            Self::Unreachable(_) => Again::OnNetworkChange,
            Self::Name(_) | Self::Refused(_) | Self::Timeout(_) | Self::Broken(_) => Again::AfterPause,
            Self::Http(status) if *status >= 500 || *status == 429 => Again::AfterPause,
            Self::Problem { code, status, .. } => match Reason::from_code(code) {
                Some(Reason::RateLimited | Reason::Unavailable) => Again::AfterPause,
                Some(reason) if reason.retry() => Again::AtOnce,
                None if *status >= 500 => Again::AfterPause,
                _ => Again::Never,
            },
            Self::Tls(_) | Self::Http(_) | Self::TooLarge | Self::Malformed(_) => Again::Never,
        }
    }

    /// The reason, if the server gave one that this agent knows.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Problem { code, .. } => Reason::from_code(code),
            _ => None,
        }
    }

    /// For the console, with the server that it happened with.
    pub fn at(self, server: &str) -> error::Error {
        let kind = match &self {
            Self::Problem { .. } if self.again() != Again::AfterPause => Kind::Refused,
            _ => Kind::Network,
        };
        let hint = match &self {
            Self::Problem { hint, .. } => hint.clone(),
            Self::Name(_) => Some("the name of the server must be known to the network's DNS; an address in the URL works without".into()),
            Self::Unreachable(_) => Some("is the cable in, and does the initramfs bring the network up (DHCP, or ip= on the command line)?".into()),
            Self::Tls(_) => Some("nothing was sent; the pinned CA (--ca of the enrollment) must be the verifier's, ca.pem of its state folder: enroll again if it changed".into()),
            Self::Refused(_) => Some("is halfkey-verifier running there, and on this port?".into()),
            _ => None,
        };
        let code = match &self {
            Self::Problem { code, .. } => Some(code.clone()),
            _ => None,
        };
        error::Error { kind, message: format!("{server}: {self}"), hint, code }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(what) => write!(f, "name not resolved: {what}"),
            Self::Unreachable(what) => write!(f, "no network: {what}"),
            Self::Refused(what) => write!(f, "not listening: {what}"),
            Self::Timeout(doing) => write!(f, "no answer in time while {doing}"),
            Self::Tls(what) => write!(f, "tls: {what}"),
            Self::Broken(what) => write!(f, "connection broke: {what}"),
            Self::Http(status) => write!(f, "expected an answer of the verifier, found http status {status}"),
            Self::TooLarge => {
                write!(f, "expected an answer of at most {} bytes, found more", halfkey_protocol::MAX_ANSWER)
            }
            Self::Malformed(what) => write!(f, "answer not understood: {what}"),
            Self::Problem { code, message, .. } => write!(f, "{message} [{code}]"),
        }
    }
}

fn tls_words(error: &rustls::Error) -> String {
    use rustls::CertificateError as C;
    match error {
        // Two CAs of ours have the same name: then it is the signature that is wrong.
        rustls::Error::InvalidCertificate(C::UnknownIssuer | C::BadSignature) => {
            "the server's certificate is not from the CA that this machine pins".into()
        }
        rustls::Error::InvalidCertificate(C::NotValidForName | C::NotValidForNameContext { .. }) => {
            format!("the server's certificate is for another name: {error}")
        }
        rustls::Error::InvalidCertificate(C::Expired | C::ExpiredContext { .. }) => {
            format!("the server's certificate has expired: {error}")
        }
        other => other.to_string(),
    }
}
