//! What a run tells while it goes on.

use std::fmt::Display;

/// Where something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The machine under test.
    Machine,
    /// The operator at the workstation.
    Operator,
    /// The server.
    Verifier,
    /// Someone who must not succeed.
    Attacker,
}

impl Who {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Operator => "operator",
            Self::Verifier => "verifier",
            Self::Attacker => "attacker",
        }
    }
}

/// One sentence of the story.
#[derive(Clone, Debug)]
pub enum Told {
    /// Something is done or happens.
    Does(Who, String),
    /// What was just checked.
    Proves(String),
    /// Something takes time.
    Prepares(String),
}

/// Hears the story.
pub type Listener = Box<dyn Fn(Told)>;

/// Tells the story to whoever listens.
pub struct Story(Listener);

impl Story {
    /// To this listener.
    pub fn new(listener: Listener) -> Self {
        Self(listener)
    }

    /// Something is done or happens.
    pub fn does(&self, who: Who, what: impl Display) {
        self.0(Told::Does(who, what.to_string()));
    }

    /// What was just checked.
    pub fn proves(&self, what: impl Display) {
        self.0(Told::Proves(what.to_string()));
    }

    /// Something takes time.
    pub fn prepares(&self, what: impl Display) {
        self.0(Told::Prepares(what.to_string()));
    }
}
