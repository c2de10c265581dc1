//! LUKS2: what the agent reads itself, and what it lets cryptsetup do.
//!
//! | module | what |
//! | --- | --- |
//! | [`header`] | reads a header: checksum, UUID, tokens, keyslots |
//! | [`check`] | the strict allow-list, and the copy that cryptsetup opens |
//! | [`fields`] | what was understood of a header: for cryptsetup and for the seal |
//! | [`json`] | fields of JSON with words for what is wrong |
//! | [`token`] | the token of type `halfkey` |
//! | [`cryptsetup`] | runs `cryptsetup`; keys go through pipes |

pub mod check;
pub mod cryptsetup;
pub mod fields;
pub mod header;
pub mod json;
pub mod token;

pub use check::{Checked, HeaderCopy};
pub use header::Header;
pub use token::Token;
