//! The TPM, over /dev/tpmrm0 and without a C library.
//!
//! | module | what |
//! | --- | --- |
//! | [`location`] | where the TPM is |
//! | `transport` | one command out, one answer back, within a deadline |
//! | `codec` | big-endian fields, sized buffers |
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
mod codec;
mod command;
mod credential;
pub mod error;
mod keys;
pub mod location;
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
pub use error::Error;
pub use keys::{Ek, Persistent};
pub use location::Location;
pub use nv::split_certificates;
pub use object::{Hierarchy, Object};
pub use pcr::{FenceState, Quote, quoted_digest};
pub use seal::{SealedBlob, UnsealSession};

use std::time::Duration;
use transport::Transport;
use zeroize::Zeroizing;

/// An open TPM. Dropping it flushes the transient objects and sessions it made.
pub struct Tpm {
    transport: Transport,
    timings: Vec<Timing>,
    /// Transient objects and sessions that are still there.
    made: Vec<u32>,
    /// Of the owner and the endorsement hierarchy; empty if none was supplied.
    passwords: [Zeroizing<Vec<u8>>; 2],
}

/// How long one command took.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Its name, as in TPM 2.0 Part 3, without `TPM2_`.
    pub name: &'static str,
    /// From the first write to the checked answer, retries included.
    pub duration: Duration,
}

impl Tpm {
    /// Opens the TPM. Sends nothing yet.
    ///
    /// # Errors
    /// [`Error::Open`]
    pub fn open(location: &Location) -> Result<Self, Error> {
        let transport = Transport::open(location)?;
        Ok(Self { transport, timings: Vec::new(), made: Vec::new(), passwords: Default::default() })
    }

    /// Every command so far, in order.
    pub fn timings(&self) -> &[Timing] {
        &self.timings
    }

    /// Supplies the password of a hierarchy that has one. It is never on the bus
    /// (HMAC session), and forgotten on drop.
    pub fn set_hierarchy_auth(&mut self, hierarchy: Hierarchy, mut password: Zeroizing<Vec<u8>>) {
        // The TPM drops trailing zeros before it uses a value (TPM 2.0 Part 1, section 19.6.4.3).
        let length = password.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        password.truncate(length);
        self.passwords[hierarchy as usize] = password;
    }
}

impl Drop for Tpm {
    fn drop(&mut self) {
        while let Some(handle) = self.made.pop() {
            if !self.transport.leaks() {
                return;
            }
            // Nothing to be done about a TPM that refuses: it forgets them at the next reset.
            let _ = self.flush_handle(handle);
        }
    }
}
