//! A build without the feature `tpm`.

use super::Object;
use crate::Failure;
use zeroize::Zeroizing;

/// There is none.
pub enum Tpm {}

/// There is none.
pub enum Signer {}

impl Tpm {
    /// There is no TPM for this build.
    ///
    /// # Errors
    /// Always.
    pub fn open(_: &str) -> Result<Self, Failure> {
        Err(Failure::new("expected a build that can use a TPM, found one without the feature `tpm`")
            .hint("build halfkey-verifier with its default features, beside libtss2-dev"))
    }

    /// Never.
    pub fn seal(&mut self, _: &[u8], _: &[u8]) -> Result<Object, Failure> {
        match *self {}
    }

    /// Never.
    pub fn unseal(&mut self, _: &Object) -> Result<Zeroizing<Vec<u8>>, Failure> {
        match *self {}
    }

    /// Never.
    pub fn import(&mut self, _: &[u8; 32], _: (&[u8; 32], &[u8; 32])) -> Result<Object, Failure> {
        match *self {}
    }

    /// Never.
    pub fn signer(self, _: &str, _: &Object) -> Result<Signer, Failure> {
        match self {}
    }
}

impl Signer {
    /// Never.
    pub fn sign(&self, _: &[u8; 32]) -> Result<[u8; 64], Failure> {
        match *self {}
    }

    /// Never.
    pub fn rate(&self) -> Result<f64, Failure> {
        match *self {}
    }
}
