//! A dozen kinds of machines boot, without a virtual machine: what becomes of policy, explanations and counters. Real TPM, real
//! agent, real verifier, real workstation; see `halfkey_testkit::replay`.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod attacks;
mod boundaries;
mod explained;
mod keys;
mod kinds;
mod logs;
mod proposals;
mod traced;
