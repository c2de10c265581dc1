//! The checks of Halfkey. Every input is hostile; every function is pure: no
//! I/O, no clock, no state (credentials draw randomness; a policy remembers digests that it has seen, which changes
//! nothing but its speed).
//!
//! | module | what |
//! | --- | --- |
//! | [`appraise`] | the appraisal of evidence: quote, logs and policy, for whoever looks at a boot |
//! | [`rejection`] | the one error type: a reason code and what was expected and found |
//! | [`public`] | public areas: EK, AK, SRK |
//! | [`registration`] | all that a node sends when it registers |
//! | [`ek`] | EK certificate chain, or a pinned fingerprint |
//! | [`credential`] | TPM2_MakeCredential |
//! | [`signature`] | `TPMT_SIGNATURE` by the AK |
//! | [`tpms_attest`] | `TPMS_ATTEST` |
//! | [`quote`] | the quote, in a fixed order of checks |
//! | [`ticket`] | the name of a boot |
//! | [`signed_document`] | what a tenant signed: signatures and envelope |
//! | [`digest`] | digests of PCR banks |
//! | [`eventlog`] | firmware event log and systemd's log, replayed against the quote |
//! | [`ima`] | the kernel's list of used files, and its PCR |
//! | [`policy`] | what may be booted, in terms of the events of a log |
//!
//! Proof types can't be built outside their check: [`registration::CheckedRegistration`],
//! [`ek::TrustedEk`], [`quote::VerifiedQuote`], [`eventlog::ReplayedLog`], [`eventlog::ProvenLog`],
//! [`appraise::Appraisal`], [`appraise::AttestedBoot`].

pub mod appraise;
pub mod credential;
pub mod digest;
pub mod ek;
pub mod eventlog;
pub mod ima;
pub mod policy;
pub mod public;
pub mod quote;
pub mod registration;
pub mod rejection;
pub mod signature;
pub mod signed_document;
pub mod ticket;
mod tpm;
pub mod tpms_attest;

pub use rejection::Rejection;
