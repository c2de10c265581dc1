//! What a scenario says of itself.

use super::{Context, Group};
use crate::error::Result;

/// A story with an end.
pub struct Scenario {
    /// A new one takes the next that is free. It stands nowhere else: documents and code say the name.
    pub number: u32,
    /// What `run` is told.
    pub name: &'static str,
    /// What it asks for.
    pub needs: Needs,
    /// What happens.
    pub title: &'static str,
    /// What must come of it.
    pub expects: &'static str,
    /// Which mechanism would be unguarded without it.
    pub guards: &'static str,
    /// When it is run.
    pub tier: Tier,
    /// Tells it.
    pub run: fn(&mut Context) -> Result<()>,
}

/// What a scenario asks for.
#[derive(Clone, Copy, Debug)]
pub struct Needs {
    /// How the machine boots, and with whom it is shared.
    pub group: Group,
    /// Whether the machine must be enrolled; it is, by `enroll`, before the first scenario of a group that wants it.
    pub enrolled: bool,
    /// What the machine can run.
    pub on: On,
}

/// Distributions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// Each that there is.
    Every,
    /// Those with these names.
    Only(&'static [&'static str]),
}

impl On {
    /// Whether it claims the one with this name.
    pub fn has(self, distribution: &str) -> bool {
        match self {
            Self::Every => true,
            Self::Only(names) => names.contains(&distribution),
        }
    }
}

/// When a scenario is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// By `make test`, and whenever all are run: nothing else guards its mechanism.
    Test,
    /// Only when all are run. In `make test` its mechanism is guarded by these: a scenario of that tier, or a test as
    /// `file::function`. A replayed boot has the real agent, TPM and verifier, but no firmware, init or console.
    Matrix(&'static [&'static str]),
}
