//! What the tests of all crates share. Nothing of it is part of a program that is shipped.
//!
//! | module | what |
//! | --- | --- |
//! | [`swtpm`] | a TPM with an identity and EK certificates of its own: power, banks, PCRs, tpm2-tools |
//! | [`tpm`] | a TPM with the keys of a node, and what an agent has it do: register, quote, activate |
//! | [`soft_tpm`] | a TPM that is a few keys in memory, for as many machines as one likes |
//! | [`node`] | a node without an agent: what it says to registrar and verifier |
//! | [`log`] | firmware event logs that a test writes, reads or changes |
//! | [`ima`] | IMA lists, and what PCR 10 becomes by them |
//! | [`software`] | a boot that a test writes: its log, the policy that allows it, the proposal that announces it |
//! | [`secure_boot`] | keys of Secure Boot: certificates, files, variables |
//! | [`recorded`] | boots of real machines, as files |
//! | [`uki`], [`pe`] | unified kernel images with a real stub; images with what a test puts into them |
//! | [`replay`] | a machine that boots without a VM, about a dozen kinds of boots, and what an attacker makes of them |
//! | [`local_lab`] | what is below it: the real agent with TPM, volumes in files and a mount namespace, verifier and workstation |
//! | [`golden`] | files that hold what a person sees |
//! | [`programs`], [`process`], [`reaper`] | the programs under test; child processes that never outlive a test, not even one that is killed |
//! | [`verifier`], [`tenant`] | the server and the operator's workstation, as processes |
//! | [`workstation`] | what a tenant signs, without the operator's command |
//! | [`postgres`] | a database server, from the distribution's package |
//! | [`pki`], [`port`], [`clock`] | certificates; ports that are known before anybody listens there; a clock that tests turn |
//!
//! # How to write a test
//! What a policy, a proposal or an explanation makes of a boot, with all programs, in a few seconds
//! (`cargo test -p halfkey-testkit` builds them; `HALFKEY_AGENT`, `HALFKEY_VERIFIER` and `HALFKEY_TENANT` name others):
//!
//! ```no_run
//! use halfkey_testkit::replay::{self, Machine};
//!
//! // Enrolled; this boot was learned, and is unlocked with nobody there.
//! let mut machine = Machine::that_learned(&replay::uki(), &[]);
//! // Another image is denied for this reason, and the finding says this.
//! machine.denied(&replay::uki().with_other_image(), "policy_mismatch", &["pcr 4"]);
//! ```
//!
//! What one crate makes of a TPM, without the other programs:
//!
//! ```no_run
//! use halfkey_testkit::tpm::{RSA_2048, Tpm};
//!
//! let tpm = Tpm::new(RSA_2048);
//! tpm.measure(4, b"a boot loader");
//! let (attest, signature) = tpm.quote(halfkey_protocol::tpm::bank::PcrBank::Sha256, &[7; 32]);
//! tpm.reset();
//! ```
//!
//! What registrar and verifier make of a node, without an agent: [`node::SimulatedNode`] makes its messages and reads the answers,
//! and the test carries them with the client that it has. Where time decides, a server in the test's own process takes it from a
//! [`clock::TurnedClock`]: see `verifier/tests/common/turned.rs`. No test sleeps; it waits for the thing that it waits for.
//!
//! It depends on nothing but `halfkey-protocol`, because the crates under test use it: what they make of a log or a quote stays
//! in their own tests.

#![allow(clippy::unwrap_used, reason = "a test that fails here should say where")]

pub mod clock;
pub mod error;
pub mod golden;
pub mod ima;
pub mod local_lab;
pub mod log;
pub mod node;
pub mod pe;
pub mod pki;
pub mod port;
pub mod postgres;
pub mod process;
pub mod programs;
pub mod reaper;
pub mod recorded;
pub mod replay;
pub mod secure_boot;
pub mod soft_tpm;
pub mod software;
pub mod swtpm;
pub mod tenant;
pub mod tpm;
pub mod uki;
pub mod verifier;
pub mod workstation;

pub use error::{Error, Result};

/// Lower case.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
