//! What can go wrong with a TPM, in words.

use std::fmt;

/// What went wrong. Displayed without the hint; see [`Error::hint`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The device or socket can't be opened.
    Open(String),
    /// Transport failure.
    Io(&'static str, std::io::Error),
    /// No answer within the deadline.
    Timeout(&'static str),
    /// The TPM refused a command.
    Refused(&'static str, u32),
    /// An answer that no TPM gives.
    Malformed(&'static str),
    /// An answer whose HMAC is wrong: somebody sits between.
    Hmac(&'static str),
    /// PCRs kept changing while the half was unsealed: begin again.
    PcrChanged,
    /// PCR 15 is not zero: the boot window is over.
    FenceExtended,
    /// The SRK is not the key that the half was sealed to.
    WrongSrk,
    /// Something else, in words.
    Other(String),
}

impl Error {
    /// What the operator can do, if something.
    pub fn hint(&self) -> Option<&'static str> {
        None
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for Error {}
