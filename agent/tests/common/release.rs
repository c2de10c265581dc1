//! A release key, as the verifier holds it.
#![allow(dead_code)] // each test file uses a part

use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::tpm::name::object_name;
use halfkey_protocol::tpm::seal_policy::seal_policy;
use halfkey_protocol::tpm::template;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};

pub struct ReleaseKey(EcdsaKeyPair);

impl ReleaseKey {
    pub fn new() -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        Self(EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap())
    }

    /// `TPMT_PUBLIC`
    pub fn public(&self) -> Vec<u8> {
        let point = self.0.public_key().as_ref();
        template::RELEASE.public(point[1..33].try_into().unwrap(), point[33..].try_into().unwrap())
    }

    /// r || s over the release digest of this session and node.
    pub fn sign(&self, nonce_tpm: &[u8], node: &[u8; 16]) -> [u8; 64] {
        // ring hashes itself: this is what `policy::release_digest` hashes.
        let message = [nonce_tpm, &[0; 4], node].concat();
        self.0.sign(&SystemRandom::new(), &message).unwrap().as_ref().try_into().unwrap()
    }

    /// The policy under which U is sealed for this node.
    pub fn policy(&self, bank: PcrBank, node: &[u8; 16]) -> [u8; 32] {
        seal_policy(bank, &object_name(&self.public()).unwrap(), node)
    }
}
