//! No answer from the registrar.

/// The registrar did not answer, and why.
#[derive(Debug)]
pub struct Unreachable(pub String);
