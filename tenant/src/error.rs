//! What went wrong, what the caller's program can tell from the exit code, and what to do about it.

use crate::render::text::clean;
use halfkey_evidence::Rejection;
use halfkey_protocol::Reason;
use halfkey_protocol::wire::Problem;
use std::fmt;

/// Short for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// The exit codes, as `halfkey --help` documents them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exit {
    /// Nothing is wrong: the reader of standard output went away.
    Done = 0,
    /// The server refused, the operator said no, or something on this machine failed.
    Failed = 1,
    /// The command line can't be used as it is.
    Usage = 2,
    /// There is no such node or record, or several nodes fit.
    NotFound = 3,
    /// No server answered in time, or it can't work at the moment.
    Unreachable = 4,
    /// No boot of this node waits for an operator.
    NothingPending = 5,
    /// Something did not pass a check made here: the server, its record of a node, a TPM, a key.
    Untrusted = 6,
}

/// One message for people: what was expected and found, and what to do next.
#[derive(Debug)]
pub struct Error {
    /// What the process exits with.
    pub exit: Exit,
    /// Lower case, no full stop. May have several lines.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
    /// What a server refused with.
    pub reason: Option<Reason>,
}

impl Error {
    /// An error without a hint.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None, reason: None }
    }

    /// Something on this machine failed.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    /// The command line can't be used as it is.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// A check made here failed.
    pub fn untrusted(message: impl Into<String>) -> Self {
        Self::new(Exit::Untrusted, message)
    }

    /// Adds what to do next.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds what was being done, before the message.
    pub fn context(mut self, doing: impl fmt::Display) -> Self {
        self.message = format!("{doing}: {}", self.message);
        self
    }

    /// From what a server said. Its text is hostile until cleaned.
    pub fn from_problem(problem: &Problem) -> Self {
        let reason = Reason::from_code(&problem.code);
        let exit = match reason {
            Some(Reason::NotFound | Reason::UnknownNode) => Exit::NotFound,
            Some(Reason::RateLimited | Reason::Unavailable) => Exit::Unreachable,
            _ => Exit::Failed,
        };
        Self {
            exit,
            message: format!("the server refused: {} ({})", clean(&problem.message), clean(&problem.code)),
            hint: problem
                .hint
                .as_deref()
                .map(clean)
                .or_else(|| reason.and_then(Reason::hint).map(str::to_owned)),
            reason,
        }
    }
}

impl From<Rejection> for Error {
    fn from(rejection: Rejection) -> Self {
        let hint = rejection.advice().map(clean);
        Self { exit: Exit::Untrusted, message: clean(&rejection.to_string()), hint, reason: None }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
