//! Why evidence was refused.

use halfkey_protocol::Reason;
use std::fmt;

/// A check failed: which one, and what was expected and found.
///
/// [`Reason::fault`] says whose turn it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rejection {
    /// The code for the verdict and the audit trail.
    pub reason: Reason,
    /// What was expected and what was found: for people, lower case, no full stop.
    pub detail: String,
    /// What to do next, where that takes more than the reason to know.
    pub hint: Option<String>,
}

impl Rejection {
    /// A rejection with its detail.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), hint: None }
    }

    /// Says what to do, instead of what the reason's row says ([`Reason::hint`]).
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What to do next: its own hint, else that of its reason.
    pub fn advice(&self) -> Option<&str> {
        self.hint.as_deref().or(self.reason.hint())
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.detail)
    }
}

impl std::error::Error for Rejection {}

/// For `return refuse!(Reason, "expected {}, found {}", ...)`.
macro_rules! refuse {
    ($reason:ident, $($detail:tt)+) => {
        Err($crate::Rejection::new(::halfkey_protocol::Reason::$reason, format!($($detail)+)))
    };
}
pub(crate) use refuse;
