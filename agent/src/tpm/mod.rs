//! The TPM, over /dev/tpmrm0 and without a C library.
//!
//! | module | what |
//! | --- | --- |
//! | [`location`] | where the TPM is |
//! | [`machine`] | which TPMs there are, and what firmware shows of them |
//! | [`choice`] | which of them an enrollment is of |
//! | `transport` | one command out, one answer back, within a deadline |
//! | `codec` | big-endian fields, sized buffers |
//! | `device` | the open TPM |
//! | `entity` | objects and hierarchies, and their handles |
//! | `codes` | names and codes of commands |
//! | `command` | frames, authorization area, retries, timing |
//! | `session` | salted HMAC and policy sessions, parameter encryption |
//! | [`error`], `rc` | what went wrong, response codes in words, hints |
//! | `capability` | banks, properties, handles, clock |
//! | `object` | creating, loading, reading, persisting and flushing objects |
//! | `nv` | certificates |
//! | `keys` | EK, AK, SRK: which, where, how |
//! | `pcr` | PCRs, the fence, quotes |
//! | `credential` | certification of the SRK, activation of credentials |
//! | `seal` | the sealed half |
//!
//! `tpm2-protocol` gives the command codes and names the response codes; sessions,
//! HMACs and parameter encryption work on bytes, so commands are put together from
//! bytes. Every answer is hostile until its lengths are checked.

mod capability;
pub mod choice;
mod codec;
mod codes;
mod command;
mod credential;
mod device;
mod entity;
pub mod error;
mod keys;
pub mod location;
pub mod machine;
mod nv;
mod object;
mod pcr;
mod rc;
mod seal;
mod session;
mod transport;

pub use capability::{Clock, Description, Permanent};
pub use command::parse_answer;
pub use credential::Certification;
pub use device::{Timing, Tpm};
pub use entity::{Hierarchy, Object};
pub use error::Error;
pub use keys::{Ek, Persistent};
pub use location::Location;
pub use nv::split_certificates;
pub use pcr::{FenceState, Quote, quoted_digest};
pub use seal::{Release, SealedBlob, UnsealSession};
