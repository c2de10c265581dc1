//! IMA, the kernel's list of the files that were used (`binary_runtime_measurements`), and the PCR that it is measured into.
//!
//! With the evidence of a boot the list comes along, is bounded like each log, and is stored. No rule of a policy is about it and its
//! PCR is compared with nothing: a boot is decided before the root is mounted, and what IMA measures in the initramfs differs from
//! one boot to the next by who was first. What is here is for the running system.
//!
//! | module | what |
//! | --- | --- |
//! | [`parse`], [`entry`], [`field`] | a list, its entries, their fields; nothing of it is proven |
//! | [`replay`], [`state`], `search` | following a list to the PCR that was quoted, from where it was left |

pub mod entry;
pub mod field;
pub mod parse;
pub mod replay;
mod search;
pub mod state;

use crate::eventlog::text::{clean_bytes, line};

pub use entry::{DigestKind, Entry, FileDigest};
pub use field::{Field, Layout};
pub use parse::Reader;
pub use replay::{Advance, Increment, Outcome, QuotedPcr, Unverifiable, advance};
pub use state::{Extension, State};

/// The PCR that IMA extends (`CONFIG_IMA_MEASURE_PCR_IDX`, 10 unless a kernel was built otherwise). Each file that is used for the
/// first time moves it: two quotes of one boot differ in it.
pub const IMA_PCR: u8 = 10;

/// Longest name that is shown, in bytes.
const MAX_SHOWN: usize = 200;

/// A name for people.
fn shown(name: Option<&[u8]>) -> String {
    match name {
        Some(name) => line(MAX_SHOWN, |f| clean_bytes(f, name)),
        None => "without a name".to_owned(),
    }
}
