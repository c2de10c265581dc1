//! LUKS2: what the agent reads itself, and what it lets cryptsetup do.
//!
//! | module | what |
//! | --- | --- |
//! | [`header`] | reads a header: checksum, UUID, tokens, keyslots |
//! | [`check`] | the strict allow-list, and the copy that cryptsetup opens |
//! | [`json`] | fields of JSON with words for what is wrong |
//! | [`token`] | the token of type `halfkey` |
//! | [`cryptsetup`] | runs `cryptsetup`; keys go through pipes |

pub mod check;
pub mod cryptsetup;
pub mod header;
pub mod json;
pub mod token;

pub use check::{Checked, HeaderCopy};
pub use header::Header;
pub use token::Token;
