//! The one error of the agent: whose turn it is, what was expected and found, what to do.

use halfkey_protocol::Reason;
use std::fmt;

/// Result of most functions here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whose turn it is; decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// The command line can't be understood.
    Usage,
    /// No volume here carries a usable token, or the named one does not.
    NotEnrolled,
    /// The TPM is missing, refuses, or answers what no TPM answers.
    Tpm,
    /// This is not the TPM that the volume was enrolled with.
    OtherTpm,
    /// No server could be reached, or none answered sensibly, before the deadline.
    Network,
    /// The verifier (or the tenant's document) says no.
    Refused,
    /// The verifier waits for an operator; the deadline came first.
    Pending,
    /// A LUKS2 volume: header outside the allow-list, wrong key, cryptsetup failed.
    Volume,
    /// The fence could not be extended and confirmed, or says that the boot window is over.
    Fence,
    /// The operating system refused something.
    System,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Usage,
        Self::NotEnrolled,
        Self::Tpm,
        Self::OtherTpm,
        Self::Network,
        Self::Refused,
        Self::Pending,
        Self::Volume,
        Self::Fence,
        Self::System,
    ];

    /// The exit code of the process; [`crate::cli::defs::EXIT_CODES`] says in words what each means.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::System => 1,
            Self::Usage => 2,
            Self::NotEnrolled => 3,
            Self::Tpm | Self::OtherTpm => 4,
            Self::Network => 5,
            Self::Refused => 6,
            Self::Pending => 7,
            Self::Volume => 8,
            Self::Fence => 9,
        }
    }
}

/// What went wrong. Displayed in lower case, without the hint.
#[derive(Clone, Debug)]
pub struct Error {
    /// Whose turn it is; decides the exit code.
    pub kind: Kind,
    /// What was expected and what was found.
    pub message: String,
    /// What to do next, if there is something to do.
    pub hint: Option<String>,
    /// A [`Reason`] code, if a server gave one, or what was found here has one.
    pub code: Option<String>,
}

impl Error {
    /// An error without a hint.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, code: None }
    }

    /// The operating system refused `what`.
    pub fn system(what: impl fmt::Display, cause: impl fmt::Display) -> Self {
        Self::new(Kind::System, format!("{what}: {cause}"))
    }

    /// The command line can't be understood.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message).hint("halfkey-agent --help")
    }

    /// A volume can't be used.
    pub fn volume(message: impl Into<String>) -> Self {
        Self::new(Kind::Volume, message)
    }

    /// Adds what to do next.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says what was being done when this happened.
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<crate::tpm::Error> for Error {
    fn from(error: crate::tpm::Error) -> Self {
        // The same as a verifier calls it, which sees it in the quote.
        let reason = matches!(error, crate::tpm::Error::BankInactive(_) | crate::tpm::Error::NoActiveBank)
            .then_some(Reason::Bank);
        let code = reason.map(|reason| reason.code().to_owned());
        Self { kind: Kind::Tpm, message: format!("tpm: {error}"), hint: error.hint(), code }
    }
}

impl From<lexopt::Error> for Error {
    fn from(error: lexopt::Error) -> Self {
        Self::usage(error.to_string())
    }
}
