//! What the tests of all crates share. Nothing of it is part of a program that is shipped.
//!
//! | module | what |
//! | --- | --- |
//! | [`log`] | firmware event logs that a test writes |
//! | [`recorded`] | boots of real machines, and what an attacker makes of them |

#![allow(clippy::unwrap_used, reason = "a test that fails here should say where")]

pub mod log;
pub mod recorded;

/// Lower case.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
