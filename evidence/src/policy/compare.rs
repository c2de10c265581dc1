//! Two policies, rule by rule.

use super::Policy;
use serde::Serialize;

/// A rule that is not the same in two policies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// `secure_boot.db`, `boot "6.1.0-56".image 1`.
    pub path: String,
    /// None: it is new.
    pub before: Option<String>,
    /// None: it is gone.
    pub after: Option<String>,
}

/// What changes from one policy to another, in the order of the schema.
pub fn diff(_before: &Policy, _after: &Policy) -> Vec<Change> {
    Vec::new()
}
