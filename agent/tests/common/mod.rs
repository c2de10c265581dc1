//! What several test files share.

pub mod interposer;
pub mod release;
pub mod swtpm;
