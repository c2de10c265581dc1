//! The TPM, over /dev/tpmrm0 and without a C library.
//!
//! | module | what |
//! | --- | --- |
//! | [`location`] | where the TPM is |
//! | `transport` | one command out, one answer back, within a deadline |
//! | `codec` | big-endian fields, sized buffers |
//! | `command` | frames, authorization area, retries, timing |
//! | `session` | salted HMAC and policy sessions, parameter encryption |
//! | `rc`, [`error`] | response codes in words, with hints |
//! | `capability` | banks, properties, handles, clock |
//! | `object` | creating, loading, reading and flushing objects |
//! | `nv` | EK certificates |
//! | `keys` | EK, AK, SRK: which, where, how |
//! | `pcr` | PCRs, the fence, quotes |
//! | `credential` | certification, activation |
//! | `seal` | the sealed half |
//!
//! Nothing in here is thread-safe, asynchronous, or aware of Halfkey's protocol
//! beyond its key templates and its sealing policy.

pub mod error;
pub mod location;

pub use error::Error;
pub use location::Location;

use halfkey_protocol::kdf::Hash;
use halfkey_protocol::wire::Credential;
use std::time::Duration;
use zeroize::Zeroizing;

/// An open TPM. Dropping it flushes the transient objects and sessions it made.
pub struct Tpm {
    _private: (),
}

/// How long one command took.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Its name, as in TPM 2.0 Part 3, without `TPM2_`.
    pub name: &'static str,
    /// From the first write to the answer, retries included.
    pub duration: Duration,
}

/// A loaded object.
pub struct Object {
    /// Transient (0x80...) or persistent (0x81...).
    pub handle: u32,
    /// `TPMT_PUBLIC`.
    pub public: Vec<u8>,
    /// nameAlg and digest of the public area.
    pub name: Vec<u8>,
}

/// The endorsement key.
pub struct Ek {
    /// The key.
    pub object: Object,
    /// Its certificate, DER, if the TPM has one.
    pub certificate: Option<Vec<u8>>,
    /// Intermediate certificates in the TPM, DER each.
    pub chain: Vec<Vec<u8>>,
}

/// The SRK certified by the AK.
pub struct Certification {
    /// `TPMS_ATTEST`.
    pub info: Vec<u8>,
    /// `TPMT_SIGNATURE`.
    pub signature: Vec<u8>,
}

/// A quote and the PCR values that it covers.
pub struct Quote {
    /// `TPMS_ATTEST`, as signed.
    pub attest: Vec<u8>,
    /// `TPMT_SIGNATURE`.
    pub signature: Vec<u8>,
    /// PCR 0 to 15, in order.
    pub pcrs: Vec<Vec<u8>>,
}

/// The sealed half, as the token keeps it.
pub struct SealedBlob {
    /// `TPMT_PUBLIC`.
    pub public: Vec<u8>,
    /// Contents of `TPM2B_PRIVATE`, without its size.
    pub private: Vec<u8>,
}

/// A policy session that waits for the release key's signature. [`Tpm::unseal`]
/// consumes it; dropping it leaves the session to [`Tpm`]'s drop.
pub struct UnsealSession {
    /// What the release key must sign.
    pub nonce_tpm: Vec<u8>,
}

/// PCR 15 in every active bank.
pub struct FenceState {
    /// Algorithm of the bank and value.
    pub values: Vec<(u16, Vec<u8>)>,
}

impl FenceState {
    /// Whether the boot window is open: zero in every bank.
    pub fn is_open(&self) -> bool {
        todo!()
    }
    /// Whether it is closed: extended in every bank. Neither open nor closed
    /// means that somebody extended single banks: extend again.
    pub fn is_closed(&self) -> bool {
        todo!()
    }
    /// The value of the SHA-256 bank, if that is active.
    pub fn sha256(&self) -> Option<[u8; 32]> {
        todo!()
    }
}

/// Which authorization values are set, and the state of the lockout.
#[derive(Clone, Copy, Debug)]
pub struct Permanent {
    /// The owner hierarchy has an authorization value.
    pub owner_auth: bool,
    /// The endorsement hierarchy has one.
    pub endorsement_auth: bool,
    /// The lockout hierarchy has one.
    pub lockout_auth: bool,
    /// The dictionary attack protection has locked the TPM.
    pub in_lockout: bool,
}

/// What the TPM says about itself, for `status`.
#[derive(Clone, Debug)]
pub struct Description {
    /// Four characters, such as `IFX`, `INTC`, `IBM`.
    pub manufacturer: String,
    /// The vendor's text.
    pub vendor: String,
    /// Firmware version.
    pub firmware: u64,
}

/// TPM2_ReadClock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Milliseconds.
    pub clock: u64,
    /// Resets of the TPM.
    pub reset_count: u32,
    /// Restarts and resumes since the last reset.
    pub restart_count: u32,
    /// Whether the clock can be trusted not to have run backwards.
    pub safe: bool,
}

/// A hierarchy whose authorization value a caller may supply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hierarchy {
    /// `TPM_RH_OWNER`
    Owner,
    /// `TPM_RH_ENDORSEMENT`
    Endorsement,
}

/// A key that [`Tpm::persist`] can keep, at its fixed handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistent {
    /// The AK, at 0x81018001.
    Ak,
    /// The SRK, at 0x81000001.
    Srk,
}

#[allow(missing_docs, unused_variables)] // placeholder
impl Tpm {
    pub fn open(location: &Location) -> Result<Self, Error> {
        todo!()
    }
    pub fn timings(&self) -> &[Timing] {
        todo!()
    }
    /// For a hierarchy that has an authorization value; kept until drop.
    pub fn set_hierarchy_auth(&mut self, hierarchy: Hierarchy, auth: Zeroizing<Vec<u8>>) {
        todo!()
    }
    pub fn permanent(&mut self) -> Result<Permanent, Error> {
        todo!()
    }
    pub fn description(&mut self) -> Result<Description, Error> {
        todo!()
    }
    pub fn read_clock(&mut self) -> Result<Clock, Error> {
        todo!()
    }
    /// TPM_ALG_IDs of the banks that have PCR 15 (SHA-1 is 4).
    pub fn active_banks(&mut self) -> Result<Vec<u16>, Error> {
        todo!()
    }
    pub fn pcr_read(&mut self, bank: u16, pcrs: u32) -> Result<Vec<Vec<u8>>, Error> {
        todo!()
    }
    pub fn pcr_event(&mut self, pcr: u8, data: &[u8]) -> Result<(), Error> {
        todo!()
    }
    pub fn fence_state(&mut self) -> Result<FenceState, Error> {
        todo!()
    }
    pub fn endorsement_key(&mut self) -> Result<Ek, Error> {
        todo!()
    }
    pub fn endorsement_key_named(&mut self, name: &[u8]) -> Result<Ek, Error> {
        todo!()
    }
    pub fn attestation_key(&mut self) -> Result<Object, Error> {
        todo!()
    }
    pub fn storage_key(&mut self, expected_name: Option<&[u8]>) -> Result<Object, Error> {
        todo!()
    }
    pub fn persist(&mut self, key: Persistent, object: &Object) -> Result<Object, Error> {
        todo!()
    }
    pub fn certify_storage_key(&mut self, srk: &Object, ak: &Object) -> Result<Certification, Error> {
        todo!()
    }
    /// Sessions that carry secrets are salted to the SRK.
    pub fn activate_with_ek(&mut self, srk: &Object, ek: &Ek, ak: &Object, credential: &Credential) -> Result<Zeroizing<Vec<u8>>, Error> {
        todo!()
    }
    pub fn activate_with_srk(&mut self, srk: &Object, ak: &Object, credential: &Credential) -> Result<Zeroizing<Vec<u8>>, Error> {
        todo!()
    }
    pub fn seal(&mut self, srk: &Object, secret: &[u8], policy: &[u8; 32]) -> Result<SealedBlob, Error> {
        todo!()
    }
    pub fn load(&mut self, srk: &Object, blob: &SealedBlob) -> Result<Object, Error> {
        todo!()
    }
    pub fn start_unseal(&mut self, srk: &Object) -> Result<UnsealSession, Error> {
        todo!()
    }
    pub fn unseal(
        &mut self, session: UnsealSession, sealed: &Object, bank: Hash, release_public: &[u8], signature: &[u8; 64], node: &[u8; 16],
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        todo!()
    }
    pub fn quote(&mut self, ak: &Object, qualifying: &[u8; 32], bank: Hash) -> Result<Quote, Error> {
        todo!()
    }
    /// Flushes a transient object; a persistent one stays.
    pub fn flush(&mut self, object: Object) -> Result<(), Error> {
        todo!()
    }
}
