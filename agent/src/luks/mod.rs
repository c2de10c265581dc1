//! LUKS2: what the agent reads itself, and what it lets cryptsetup do.
//!
//! | module | what |
//! | --- | --- |
//! | [`header`] | reads a header: checksum, UUID, tokens, keyslots |
//! | [`names`] | names of volumes, mappings and flags |
//! | [`check`] | the strict allow-list |
//! | [`copy`] | the copy that cryptsetup opens |
//! | [`fields`] | what was understood of a header: for cryptsetup and for the seal |
//! | [`json`] | fields of JSON with words for what is wrong |
//! | [`token`] | the token of type `halfkey` |
//! | [`seal`] | what K seals of a header |
//! | [`cryptsetup`] | runs `cryptsetup`; keys go through pipes |

pub mod check;
pub mod copy;
pub mod cryptsetup;
pub mod fields;
pub mod header;
pub mod json;
pub mod names;
pub mod seal;
pub mod token;

pub use check::Checked;
pub use copy::HeaderCopy;
pub use header::Header;
pub use token::Token;
