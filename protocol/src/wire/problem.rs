//! The answer to a request that is refused.

use super::declare::wire;

wire! {
    /// Why a request was refused.
    pub struct Problem {
        /// A [`crate::Reason`] code.
        pub code: String,
        /// What was expected and what was found, for people.
        pub message: String,
        /// What to do next.
        pub hint: Option<String>,
    }
}
