//! Boots real images under OVMF with swtpm and LUKS2, and judges what happened by what the guest wrote to a disk and by
//! the verifier's records; the console only drives.
//!
//! | module | what |
//! | --- | --- |
//! | [`rig`] | what all scenarios of a run share |
//! | [`image`] | disks from Debian packages, cached |
//! | [`machine`] | disk, TPM and firmware variables that survive boots; a boot |
//! | [`marker`] | what the guest left on its second disk |
//! | [`qemu`], [`swtpm`] | virtual hardware |
//! | [`wire`] | the guest's serial lines |
//! | [`loopback`] | a node without a virtual machine, for the protocol tests and for measuring |
//! | [`verifier`], [`tenant`] | the server and the operator's desk, on this host |
//! | [`process`], [`paths`], [`error`] | child processes; where things are; what went wrong |

pub mod error;
pub mod image;
pub mod loopback;
pub mod machine;
pub mod marker;
pub mod paths;
pub mod process;
pub mod qemu;
pub mod rig;
pub mod swtpm;
pub mod tenant;
pub mod verifier;
pub mod wire;

pub use error::{Error, Result};
