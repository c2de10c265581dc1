//! IMA, the kernel's list of the files that were used (`binary_runtime_measurements`), and the PCR that it is measured into.
//!
//! With the evidence of a boot the list comes along, is bounded like each log, and is stored. There its PCR is compared with nothing: a
//! boot is decided before the root is mounted, and what IMA measures in the initramfs differs from one boot to the next by who was
//! first. What is here, and `[ima]` of a policy, is for the running system.
//!
//! | module | what |
//! | --- | --- |
//! | [`parse`], [`entry`], [`field`] | a list, its entries, their fields; nothing of it is proven |
//! | [`replay`], [`state`], [`ahead`], `search` | following a list to the PCR that was quoted, from where it was left |
//! | [`digest_list`] | digests that may be used, for as many machines as have them |
//! | [`signature`], [`signers`] | signatures of files, and a keyring |
//! | [`rules`], [`path_pattern`] | what a machine may use while it runs |
//! | [`boot_aggregate`], [`appraise`] | the rules against the entries that were proven |
//!
//! ```
//! use halfkey_evidence::ima::{Budget, Increment, Outcome, QuotedPcr, Rules, State, Unverifiable, advance, appraise};
//! use halfkey_protocol::tpm::bank::PcrBank;
//!
//! // Kept for a node, until it is started anew.
//! let state = State::new(PcrBank::Sha256);
//! // QuotedPcr::of(&quote), where there is a quote; what came is all that the kernel has.
//! let quoted = QuotedPcr::assumed(PcrBank::Sha256, &[0; 32]).unwrap();
//! let advanced = advance(&state, &Increment { first: 0, bytes: &[], complete: true }, &quoted)?;
//!
//! // An empty list of a new boot proves nothing: a kernel that measures has the entry boot_aggregate. Behind entries that were
//! // proven before, it says that nothing is new.
//! assert_eq!(*advanced.outcome(), Outcome::Unverifiable(Unverifiable::NoEntries));
//! let result = appraise(&Rules::default(), &[], &advanced, &mut Budget::default());
//! assert!(!result.accepted());
//! let kept = advanced.state().to_bytes();
//! assert_eq!(State::from_bytes(&kept), Some(advanced.state()));
//! # Ok::<_, halfkey_evidence::Rejection>(())
//! ```

pub mod ahead;
pub mod appraise;
pub mod boot_aggregate;
pub mod digest_list;
pub mod entry;
pub mod field;
pub mod parse;
pub mod path_pattern;
pub mod replay;
pub mod rules;
mod search;
pub mod signature;
pub mod signers;
pub mod state;

use crate::eventlog::text::{clean_bytes, line};

pub use ahead::Ahead;
pub use appraise::{ListAppraisal, Refusal, Verdict, appraise, describe, judge};
pub use boot_aggregate::{BootAggregate, BootPcrs};
pub use digest_list::DigestList;
pub use entry::{DigestKind, Entry, FileDigest};
pub use field::{Field, Layout};
pub use parse::Reader;
pub use path_pattern::PathPattern;
pub use replay::{Advance, Increment, Outcome, QuotedPcr, Unverifiable, advance, assume};
pub use rules::{BufferContent, BufferRule, NamedList, Rules, Violations};
pub use signature::{ImaSignature, SignatureFault, SignatureKind};
pub use signers::{Budget, Signer, Signers};
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
