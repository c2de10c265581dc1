//! A list that comes in parts.

use super::replay::{Advance, Increment, Outcome, QuotedPcr, advance};
use super::state::State;
use crate::Rejection;

/// How far a list was followed that did not reach the quoted value yet. All behind what was proven is the node's word alone, so this is
/// no [`State`]: nothing here can be kept as one. The hash chain proves the parts once the last of them gives the quoted value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ahead {
    proven: State,
    reached: State,
}

impl Ahead {
    pub(super) fn new(proven: State, reached: State) -> Self {
        Self { proven, reached }
    }

    /// How many entries were followed: the next part begins with the one of this number, from 0.
    pub fn count(&self) -> u64 {
        self.reached.count
    }

    /// Goes on with the next part. Unless that reaches the quoted value, [`Advance::state`] is what was proven before the first part.
    ///
    /// # Errors
    /// As [`advance`].
    pub fn follow<'a>(&self, list: &Increment<'a>, quoted: &QuotedPcr) -> Result<Advance<'a>, Rejection> {
        let mut advance = advance(&self.reached, list, quoted)?;
        match &mut advance.outcome {
            Outcome::Proven | Outcome::Restarted | Outcome::Broken { .. } => return Ok(advance),
            Outcome::Waiting { ahead } => ahead.proven = self.proven,
            Outcome::Differs { .. } | Outcome::Unverifiable(_) => {}
        }
        advance.state = self.proven;
        Ok(advance)
    }
}
