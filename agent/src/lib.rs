//! The node's side of Halfkey, as a library so that tests can drive it.
//!
//! | module | what |
//! | --- | --- |
//! | [`tpm`] | commands, sessions and keys of the TPM |

pub mod tpm;
