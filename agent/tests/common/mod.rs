//! What several test files share.

pub mod release;
pub mod swtpm;
