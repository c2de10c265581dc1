//! Boots real images under OVMF with swtpm and LUKS2, and judges what happened.
//!
//! | module | what |
//! | --- | --- |
//! | [`image`] | disks from Debian packages, cached |
//! | [`process`] | child processes |
//! | [`paths`] | the work tree, the cache, the programs under test |
//! | [`error`] | what the rig was doing, and what it saw |

pub mod error;
pub mod image;
pub mod paths;
pub mod process;

pub use error::{Error, Result};
