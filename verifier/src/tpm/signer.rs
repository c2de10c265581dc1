//! A release key that never leaves the TPM.

use super::Object;
use super::esys::{Tpm, failed};
use crate::Failure;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use tss_esapi::Error;
use tss_esapi::constants::tss::{TPM2_RH_NULL, TPM2_ST_HASHCHECK};
use tss_esapi::handles::KeyHandle;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{Digest, EccSignature, HashcheckTicket, Signature, SignatureScheme};
use tss_esapi::tss2_esys::TPMT_TK_HASHCHECK;

/// How many signatures its rate is measured by.
const MEASURED: u32 = 16;

/// What these are of: no SHA-256 of what a node takes for a release, which has 36 to 52 bytes.
const MEASURING: &[u8] =
    b"halfkey v1: a signature that is made only to see how long it takes, and that no machine takes for a release";

/// Signs, one at a time.
pub struct Signer {
    loaded: Mutex<(Tpm, KeyHandle)>,
    at: String,
    object: Object,
}

impl Signer {
    pub(super) fn new(tpm: Tpm, at: &str, object: &Object) -> Result<Self, Failure> {
        let loaded = load(tpm, object)?;
        Ok(Self { loaded: Mutex::new(loaded), at: at.to_owned(), object: object.clone() })
    }

    /// ECDSA of a SHA-256, r and s, 64 bytes. A TPM that was gone meanwhile is opened once more.
    ///
    /// # Errors
    /// When it refuses.
    pub fn sign(&self, digest: &[u8; 32]) -> Result<[u8; 64], Failure> {
        // A half-done command leaves nothing here that counts.
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        match sign(&mut loaded, digest) {
            Ok(signature) => Ok(signature),
            Err(_) => {
                *loaded = load(Tpm::open(&self.at)?, &self.object)?;
                sign(&mut loaded, digest).map_err(|e| failed("signing a release", e))
            }
        }
    }

    /// Signatures a second, as they are made now.
    ///
    /// # Errors
    /// When it makes none.
    pub fn rate(&self) -> Result<f64, Failure> {
        let digest = halfkey_protocol::identity::sha256(MEASURING);
        let started = Instant::now();
        for _ in 0..MEASURED {
            self.sign(&digest)?;
        }
        Ok(f64::from(MEASURED) / started.elapsed().as_secs_f64())
    }
}

fn load(mut tpm: Tpm, object: &Object) -> Result<(Tpm, KeyHandle), Failure> {
    let key = tpm.load(object)?;
    Ok((tpm, key))
}

fn sign((tpm, key): &mut (Tpm, KeyHandle), digest: &[u8; 32]) -> Result<[u8; 64], Error> {
    // Nothing of it is secret: no session is needed.
    let none =
        TPMT_TK_HASHCHECK { tag: TPM2_ST_HASHCHECK, hierarchy: TPM2_RH_NULL, digest: Default::default() };
    let (digest, ticket) = (Digest::try_from(&digest[..])?, HashcheckTicket::try_from(none)?);
    let signature = tpm.context.execute_with_session(Some(AuthSession::Password), |context| {
        context.sign(*key, digest, SignatureScheme::Null, ticket)
    })?;
    let Signature::EcDsa(signature) = signature else { return Err(wrong()) };
    fixed(&signature).ok_or_else(wrong)
}

fn wrong() -> Error {
    Error::WrapperError(tss_esapi::WrapperErrorKind::WrongValueFromTpm)
}

/// A TPM may leave out zeros in front.
fn fixed(signature: &EccSignature) -> Option<[u8; 64]> {
    let mut fixed = [0; 64];
    for (number, end) in [(signature.signature_r(), 32), (signature.signature_s(), 64)] {
        let from = end - Some(number.value().len()).filter(|len| *len <= 32)?;
        fixed.get_mut(from..end)?.copy_from_slice(number.value());
    }
    Some(fixed)
}
