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
mod document;
mod enrollment;
#[cfg(feature = "serde")]
pub mod operator;
#[cfg(feature = "serde")]
pub mod policies;
mod proposal;
mod register;

pub use attest::*;
pub use document::*;
pub use enrollment::*;
pub use proposal::*;
pub use register::*;

/// Declares wire types once, for `miniserde` and `serde`.
macro_rules! wire {
    ($($(#[$meta:meta])* pub struct $name:ident { $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)* })+) => {
        $(
            $(#[$meta])*
            #[derive(Clone, Debug, PartialEq, Eq)]
            #[cfg_attr(feature = "miniserde", derive(miniserde::Serialize, miniserde::Deserialize))]
            #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
            pub struct $name { $($(#[$field_meta])* pub $field: $type,)* }
        )+
    };
}
pub(crate) use wire;

wire! {
    /// A TPM credential: what TPM2_MakeCredential gives and TPM2_ActivateCredential takes.
    pub struct Credential {
        /// Contents of `TPM2B_ID_OBJECT`, without its size.
        pub id_object: crate::Bytes,
        /// Contents of `TPM2B_ENCRYPTED_SECRET`, without its size.
        pub secret: crate::Bytes,
    }

    /// An HPKE ciphertext.
    pub struct Sealed {
        /// Encapsulated key, 32 bytes.
        pub enc: crate::Bytes,
        /// Ciphertext and tag.
        pub ciphertext: crate::Bytes,
    }

    /// Why a request was refused.
    pub struct Problem {
        /// A [`crate::Reason`] code.
        pub code: String,
        /// What was expected and what was found, for people.
        pub message: String,
        /// What to do next.
        pub hint: Option<String>,
    }
}
