//! What the tests of all crates share. Nothing of it is part of a program that is shipped.
//!
//! | module | what |
//! | --- | --- |
//! | [`log`] | firmware event logs that a test writes |
//! | [`recorded`] | boots of real machines, and what an attacker makes of them |
//! | [`swtpm`], [`tpm`] | TPMs; one with the keys of a node |
//! | [`programs`], [`process`] | the programs under test; child processes that never outlive a test |
//! | [`verifier`], [`tenant`] | the server, and the operator's desk |
//! | [`loopback`] | a node without a virtual machine |

#![allow(clippy::unwrap_used, reason = "a test that fails here should say where")]

pub mod error;
pub mod log;
pub mod loopback;
pub mod process;
pub mod programs;
pub mod recorded;
pub mod swtpm;
pub mod tenant;
pub mod tpm;
pub mod verifier;

pub use error::{Error, Result};

/// Lower case.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
