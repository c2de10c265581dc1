//! Event logs: what firmware, boot loader and systemd say that they measured.
//!
//! A log is hearsay until it replays to quoted PCRs. Even then only its **digests** are proven; what an
//! event says is proven only if its digest was recomputed from it ([`Event::content`], [`Standing`]). All
//! else has `claimed` in its name.
//!
//! | module | what |
//! | --- | --- |
//! | [`parse`](fn@parse) | firmware log, SHA-1 (TPM 1.2 format) or crypto-agile |
//! | [`replay`], [`replay_all`] | one bank of a firmware log, or all |
//! | [`ReplayedLog::explain`] | comparison with a quote |
//! | [`Event`] | one event in one bank |
//! | [`content`] | what events say, typed |
//! | [`variable`], [`signatures`] | UEFI variables and signature databases |
//! | [`signature_file`] | files with entries of these |
//! | [`device_path`], [`partitions`] | where an image came from |
//! | [`kind`] | event types |
//! | [`quirks`] | where logs depart from the specification |
//! | [`systemd_log`] | systemd's log and the boot phases that it measures |

pub mod content;
pub(crate) mod cursor;
pub mod device_path;
mod event;
mod explain;
pub mod guid;
pub mod kind;
mod parse;
pub mod partitions;
pub mod quirks;
mod replay;
pub mod signature_file;
pub mod signatures;
pub mod systemd_log;
pub(crate) mod text;
pub mod variable;

pub use content::{Claim, Content, Standing};
pub use event::{Event, PCRS};
pub use explain::{AssumedLog, Coverage, EXPLAINED, ExplainedLog, ProvenLog};
pub use parse::{FirmwareEvent, FirmwareLog, Format, MAX_EVENTS, MAX_FILE, parse};
pub use replay::{AllBanks, ReplayedLog, replay, replay_all};
pub use text::Utf16;
