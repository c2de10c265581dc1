//! The TPM of the server's own host, by the distribution's tpm2-tss: it seals the keys of a state folder, or signs with one.
//!
//! Objects are below the storage key of the TCG's template. The one at 0x81000001 is used if it is that one; else it is made anew, and
//! is the same. Every session that a secret crosses is salted to it, and encrypts both ways: who only listens on the bus sees
//! nothing. Without the feature `tpm` of this crate nothing of this is there, and says so.

#[cfg(not(feature = "tpm"))]
mod absent;
#[cfg(feature = "tpm")]
mod esys;
#[cfg(feature = "tpm")]
mod signer;

#[cfg(not(feature = "tpm"))]
pub use absent::{Signer, Tpm};
#[cfg(feature = "tpm")]
pub use esys::Tpm;
use halfkey_protocol::Bytes;
use halfkey_protocol::tpm::template::{self, Ecc};
use serde::{Deserialize, Serialize};
#[cfg(feature = "tpm")]
pub use signer::Signer;

/// Where it is if nothing is said: the kernel's resource manager lets several programs use it.
pub const DEFAULT: &str = "device:/dev/tpmrm0";

/// A release key inside a TPM. It came from outside, so that others have it as well, and no failed authorization of another key locks it.
pub const SIGNING: Ecc = Ecc {
    // noDA | userWithAuth | sign
    attributes: 0x0004_0440,
    ..template::RELEASE
};

/// A secret, or a key, that only one TPM opens.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Object {
    /// Name of the storage key, 34 bytes: which TPM.
    pub srk: Bytes,
    /// PCRs of the SHA-256 bank that have to be what they were.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pcrs: Vec<u8>,
    /// `TPMT_PUBLIC`.
    pub public: Bytes,
    /// What a `TPM2B_PRIVATE` holds.
    pub private: Bytes,
}
