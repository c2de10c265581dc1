//! An open TPM.

use super::entity::Hierarchy;
use super::error::Error;
use super::location::Location;
use super::transport::Transport;
use halfkey_protocol::tpm::bank::PcrBank;
use std::time::Duration;
use zeroize::Zeroizing;

/// An open TPM. Dropping it flushes the transient objects and sessions it made.
pub struct Tpm {
    pub(super) transport: Transport,
    pub(super) timings: Vec<Timing>,
    /// Transient objects and sessions that are still there.
    pub(super) made: Vec<u32>,
    /// Banks with the fence PCR: they change at a reset only.
    pub(super) banks: Option<Vec<u16>>,
    /// PCR 0 to 15 of a bank, as they were read last.
    pub(super) pcrs: Option<(PcrBank, Vec<Vec<u8>>)>,
    /// Of the owner and the endorsement hierarchy; empty if none was supplied.
    pub(super) passwords: [Zeroizing<Vec<u8>>; 2],
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
        Ok(Self {
            transport,
            timings: Vec::new(),
            made: Vec::new(),
            banks: None,
            pcrs: None,
            passwords: Default::default(),
        })
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
