//! Writes IMA lists as the kernel does, with what its PCR becomes by them, and signatures of files as `evmctl` does.

use aws_lc_rs::digest::{Algorithm, SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA384, digest};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use halfkey_protocol::tpm::bank::PcrBank;

/// How a kernel extends the banks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// Each with the data's digest in it (5.8 and later).
    OwnHash,
    /// All with SHA-1 and zeros behind it (before).
    PaddedSha1,
    /// The same, but a violation fills the bank: one whose hash this kernel was built without.
    PaddedSha1FullViolation,
}

/// A list that grows, and its PCR.
#[derive(Clone, Debug)]
pub struct ImaList {
    /// `binary_runtime_measurements`
    pub bytes: Vec<u8>,
    /// The PCR before the first entry and after each.
    pub values: Vec<Vec<u8>>,
    /// Where each entry begins, and where the last one ends.
    pub starts: Vec<usize>,
    bank: PcrBank,
    kernel: Kernel,
}

/// A field with its length before it.
pub fn field(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_le_bytes()[..], bytes].concat()
}

/// The bytes of a field `d-ng`: `sha256:`, a NUL, the digest.
pub fn d_ng(algorithm: &str, digest: &[u8]) -> Vec<u8> {
    [algorithm.as_bytes(), b":\0", digest].concat()
}

/// The bytes of a field `n-ng`.
pub fn n_ng(name: &str) -> Vec<u8> {
    [&name.replace(' ', "_").into_bytes()[..], &[0]].concat()
}

/// SHA-256.
pub fn sha256(content: &[u8]) -> Vec<u8> {
    hash(&SHA256, content)
}

/// SHA-1.
pub fn sha1(content: &[u8]) -> Vec<u8> {
    hash(&SHA1_FOR_LEGACY_USE_ONLY, content)
}

fn hash(algorithm: &'static Algorithm, bytes: &[u8]) -> Vec<u8> {
    digest(algorithm, bytes).as_ref().to_vec()
}

impl ImaList {
    /// Of a machine that was just started.
    pub fn new(bank: PcrBank, kernel: Kernel) -> Self {
        Self { bytes: Vec::new(), values: vec![vec![0; bank.digest_len()]], starts: vec![0], bank, kernel }
    }

    /// With what a kernel measures first: SHA-256 of these PCRs.
    pub fn booted(bank: PcrBank, pcrs: &[u8]) -> Self {
        let mut list = Self::new(bank, Kernel::OwnHash);
        list.file("boot_aggregate", &sha256(pcrs));
        list
    }

    /// The PCR.
    pub fn value(&self) -> &[u8] {
        self.values.last().unwrap()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entries from this one on.
    pub fn from(&self, first: usize) -> &[u8] {
        &self.bytes[self.starts[first]..]
    }

    /// An entry of `ima-ng`, with a SHA-256 digest.
    pub fn file(&mut self, name: &str, digest: &[u8]) {
        self.entry("ima-ng", &[&d_ng("sha256", digest), &n_ng(name)]);
    }

    /// An entry of `ima-sig`.
    pub fn signed(&mut self, name: &str, digest: &[u8], signature: &[u8]) {
        self.entry("ima-sig", &[&d_ng("sha256", digest), &n_ng(name), signature]);
    }

    /// An entry of `ima-buf`, with a SHA-256 digest.
    pub fn buffer(&mut self, name: &str, content: &[u8]) {
        self.entry("ima-buf", &[&d_ng("sha256", &sha256(content)), &n_ng(name), content]);
    }

    /// An entry of any template but `ima`.
    pub fn entry(&mut self, template: &str, fields: &[&[u8]]) {
        let data: Vec<u8> = fields.iter().flat_map(|bytes| field(bytes)).collect();
        self.write(10, &sha1(&data), template, &field(&data));
        self.extend(&data);
    }

    /// An entry of the template `ima`.
    pub fn fixed(&mut self, name: &str, digest: &[u8; 20]) {
        let mut hashed = digest.to_vec();
        hashed.extend(name.as_bytes());
        hashed.resize(20 + 256, 0);
        let data = [&digest[..], &field(name.as_bytes())].concat();
        self.write(10, &sha1(&hashed), "ima", &data);
        self.extend(&hashed);
    }

    /// A violation, in `ima-ng`.
    pub fn violation(&mut self, name: &str) {
        let data = [field(&d_ng("sha256", &[0; 20])), field(&n_ng(name))].concat();
        self.write(10, &[0; 20], "ima-ng", &field(&data));
        let length = self.bank.digest_len();
        let ones = match self.kernel {
            Kernel::OwnHash | Kernel::PaddedSha1FullViolation => length,
            Kernel::PaddedSha1 => 20,
        };
        let mut extended = vec![0xff; ones];
        extended.resize(length, 0);
        self.extend_with(&extended);
    }

    /// An entry of `ima-ng` that the TPM refused: it is in the list only.
    pub fn lost(&mut self, name: &str, digest: &[u8]) {
        let value = self.value().to_vec();
        self.file(name, digest);
        *self.values.last_mut().unwrap() = value;
    }

    /// An entry as it is given; the PCR is not extended.
    pub fn write(&mut self, pcr: u32, template_hash: &[u8], template: &str, data: &[u8]) {
        self.bytes.extend(pcr.to_le_bytes());
        self.bytes.extend(template_hash);
        self.bytes.extend(field(template.as_bytes()));
        self.bytes.extend(data);
        self.starts.push(self.bytes.len());
        self.values.push(self.value().to_vec());
    }

    fn extend(&mut self, data: &[u8]) {
        let mut extended = match (self.kernel, self.bank) {
            (Kernel::OwnHash, PcrBank::Sha256) => hash(&SHA256, data),
            (Kernel::OwnHash, PcrBank::Sha384) => hash(&SHA384, data),
            (Kernel::PaddedSha1 | Kernel::PaddedSha1FullViolation, _) => sha1(data),
        };
        extended.resize(self.bank.digest_len(), 0);
        self.extend_with(&extended);
    }

    fn extend_with(&mut self, extended: &[u8]) {
        let value = self.bank.digest(&[self.value(), extended]);
        *self.values.last_mut().unwrap() = value;
    }
}

/// A key that signs files, as `evmctl` does.
pub struct FileKey {
    pair: Pair,
}

enum Pair {
    Rsa(RsaKeyPair),
    Ecdsa(EcdsaKeyPair),
}

/// Types of `security.ima`.
pub mod attribute {
    /// A signature over the digest of a file.
    pub const FILE: u8 = 3;
    /// EVM's, over attributes.
    pub const PORTABLE: u8 = 5;
    /// A signature over what fs-verity says of a file.
    pub const VERITY: u8 = 6;
}

/// SHA-256 in `enum hash_algo`.
pub const HASH_SHA256: u8 = 4;

impl FileKey {
    /// RSA, 2048 bits.
    pub fn rsa() -> Self {
        Self { pair: Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()) }
    }

    /// P-256.
    pub fn ecdsa() -> Self {
        Self { pair: Pair::Ecdsa(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap()) }
    }

    /// `SubjectPublicKeyInfo`, DER.
    pub fn public_key(&self) -> Vec<u8> {
        match &self.pair {
            Pair::Rsa(pair) => {
                AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).unwrap().as_ref().to_vec()
            }
            Pair::Ecdsa(pair) => {
                AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).unwrap().as_ref().to_vec()
            }
        }
    }

    /// What a signature calls it: the end of the SHA-1 of its bits.
    pub fn id(&self) -> [u8; 4] {
        let bits = match &self.pair {
            Pair::Rsa(pair) => pair.public_key().as_ref(),
            Pair::Ecdsa(pair) => pair.public_key().as_ref(),
        };
        *sha1(bits).last_chunk().unwrap()
    }

    /// Version 2, over the digest of this content.
    pub fn sign(&self, content: &[u8]) -> Vec<u8> {
        self.attribute(attribute::FILE, 2, HASH_SHA256, content)
    }

    /// Version 3, over a digest and what it is of.
    pub fn sign_id(&self, kind: u8, digest: &[u8]) -> Vec<u8> {
        self.attribute(kind, 3, HASH_SHA256, &[&[kind, HASH_SHA256], digest].concat())
    }

    /// Any head before a signature over this message.
    pub fn attribute(&self, kind: u8, version: u8, hash: u8, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        let signature = match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
                signature
            }
            Pair::Ecdsa(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
        };
        let length = (signature.len() as u16).to_be_bytes();
        [&[kind, version, hash][..], &self.id(), &length, &signature].concat()
    }
}
