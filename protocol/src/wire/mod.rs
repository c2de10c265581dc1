//! JSON messages, version 1. docs/protocol.md tells the dialogue.
//!
//! | request | answer | path |
//! | --- | --- | --- |
//! | [`Register`] | [`Registered`] | `POST /v1/register` |
//! | [`Activate`] | [`Activated`] | `POST /v1/activate` |
//! | [`Begin`] | [`Begun`] | `POST /v1/begin` |
//! | [`Evidence`] | [`Verdict`] | `POST /v1/finish` |
//! | [`Wait`] | [`Waited`] | `POST /v1/wait` |
//! | [`Prove`] | [`Proved`] | `POST /v1/prove` |
//! | [`Propose`] | [`Proposed`] | `POST /v1/propose` |
//!
//! Any of them may be answered by a [`Problem`] with an HTTP status of 400 or above.
//! Missing optional fields and `null` mean the same.

mod attest;
mod declare;
mod document;
mod enrollment;
#[cfg(feature = "serde")]
pub mod operator;
#[cfg(feature = "serde")]
pub mod policies;
mod problem;
mod proposal;
mod register;
mod sealed;

pub use attest::*;
pub use document::*;
pub use enrollment::*;
pub use problem::*;
pub use proposal::*;
pub use register::*;
pub use sealed::*;
