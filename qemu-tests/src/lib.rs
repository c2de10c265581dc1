//! Boots real images under OVMF with swtpm and LUKS2, and judges what happened by what the guest wrote to a disk and by
//! the verifier's records; the console only drives.
//!
//! | module | what |
//! | --- | --- |
//! | [`scenarios`] | the stories |
//! | [`story`], [`report`], [`demo`] | what a run tells while it goes on, and at its end |
//! | [`matrix`] | every scenario on every distribution, as a page of documentation |
//! | [`record`] | what boots measure, as files for other tests |
//! | [`lab`] | enrolled machines with their servers, workstations and networks |
//! | [`test_env`] | what all scenarios of a run share |
//! | [`image`] | disks from Debian packages, cached |
//! | [`lab::machine`] | disk, TPM and firmware variables that survive boots; a boot |
//! | [`marker`] | what the guest left on its second disk |
//! | [`qemu`], [`variables`] | virtual hardware |
//! | [`wire`] | the guest's serial lines |
//! | [`watch`], [`terminal`] | a person who watches a run, or sits at a machine |
//! | [`jobs`] | work at the same time |
//! | [`paths`] | where things are |
//!
//! TPMs, the programs under test as processes, and errors are those of `halfkey-testkit`.

pub mod demo;
pub mod image;
pub mod jobs;
pub mod lab;
pub mod marker;
pub mod matrix;
pub mod paths;
pub mod qemu;
pub mod record;
pub mod report;
pub mod scenarios;
pub mod story;
pub mod terminal;
pub mod test_env;
pub mod variables;
pub mod watch;
pub mod wire;

pub use error::{Error, Result};
pub use halfkey_testkit::{ensure, error, local_lab, process, reaper, swtpm, tenant, verifier};
