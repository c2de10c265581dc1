//! How the keys of a state folder are kept in their files: as they are, or sealed by the TPM of this host. Each is 32 bytes.

use crate::config::{Config, StateDir};
use crate::keys::{ClusterKey, read_secret, write_secret};
use crate::tpm::{self, Object, Signer, Tpm};
use crate::{Failure, locked};
use aws_lc_rs::encoding::{AsBigEndian as _, EcPrivateKeyBin};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use halfkey_protocol::Bytes;
use halfkey_protocol::identity::sha256;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// A key. Not to be shown.
pub type Secret = Zeroizing<[u8; 32]>;

/// `release_key` in the settings: how all key files of the folder are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyForm {
    /// As they are: who reads them has the keys.
    #[default]
    File,
    /// Sealed by the TPM, and in locked memory while the server runs.
    Tpm,
    /// The same, but for the release key: it is in the TPM, and signs there.
    TpmSign,
}

impl KeyForm {
    /// Whether it is what is taken when nothing is said.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// As the settings have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Tpm => "tpm",
            Self::TpmSign => "tpm-sign",
        }
    }
}

/// Which key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `release.key`.
    Release,
    /// `cluster.key`, and those beside it.
    Cluster,
}

impl Kind {
    /// What is sealed with it: a file can't be put in the place of another one.
    fn label(self) -> &'static [u8] {
        match self {
            Self::Release => b"halfkey v1 sealed release key\0",
            Self::Cluster => b"halfkey v1 sealed cluster key\0",
        }
    }
}

/// How a file that is no key as it is begins.
const MARK: &[u8] = b"{\"halfkey_sealed_key\":";

/// The text of such a file, JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SealedFile {
    /// 1.
    halfkey_sealed_key: u32,
    /// Whether it is a key that signs in the TPM, and not one that comes out.
    #[serde(default)]
    signs: bool,
    /// Which key it is: [`identity`]. Nothing is opened by it; another key is told from it without the TPM.
    key: Bytes,
    object: Object,
}

impl SealedFile {
    /// None of a file with a key as it is.
    fn parse(bytes: &[u8]) -> Result<Option<Self>, Failure> {
        if !bytes.starts_with(MARK) {
            return Ok(None);
        }
        let bad = |e: serde_json::Error| Failure::new(format!("expected a sealed key, found {e}"));
        serde_json::from_slice(bytes).map(Some).map_err(bad)
    }
}

/// Which key it is, 32 bytes: SHA-256 over it and what it is for. A key is 32 random bytes, which its hash does not give away.
pub fn identity(kind: Kind, key: &Secret) -> [u8; 32] {
    sha256(&Zeroizing::new([b"halfkey v1 identity of a key\0", kind.label(), &key[..]].concat()))
}

/// That of the key in a file, without the TPM.
///
/// # Errors
/// As [`Content::read`].
pub fn identity_in(kind: Kind, path: &Path) -> Result<Vec<u8>, Failure> {
    let bytes = read_secret(path)?;
    let found = || match SealedFile::parse(&bytes)? {
        Some(file) => Ok(file.key.0),
        None => match Content::parse(kind, &bytes)? {
            Content::Plain(key) => Ok(identity(kind, &key).into()),
            Content::Sealed(_) | Content::Signs(_) => Err(Failure::new("our bug: sealed, and not sealed")),
        },
    };
    found().map_err(|e| e.at(path))
}

/// What is in a key file.
pub enum Content {
    /// The key.
    Plain(Secret),
    /// One that the TPM unseals.
    Sealed(Object),
    /// The release key, for a TPM that signs by it.
    Signs(Object),
}

impl Content {
    /// Reads a file.
    ///
    /// # Errors
    /// When it can't be read, is open to others, or holds neither.
    pub fn read(kind: Kind, path: &Path) -> Result<Self, Failure> {
        let bytes = read_secret(path)?;
        Self::parse(kind, &bytes).map_err(|e| e.at(path))
    }

    fn parse(kind: Kind, bytes: &[u8]) -> Result<Self, Failure> {
        if let Some(file) = SealedFile::parse(bytes)? {
            let bad =
                |what: &dyn std::fmt::Display| Failure::new(format!("expected a sealed key, found {what}"));
            return match (file.halfkey_sealed_key, file.signs, kind) {
                (1, false, _) => Ok(Self::Sealed(file.object)),
                (1, true, Kind::Release) => Ok(Self::Signs(file.object)),
                (1, true, Kind::Cluster) => Err(bad(&"one that only signs")),
                (version, _, _) => Err(bad(&format_args!("one of version {version}"))),
            };
        }
        match kind {
            Kind::Release => release_key(bytes).map(Self::Plain),
            Kind::Cluster => match bytes.try_into() {
                Ok(key) => Ok(Self::Plain(Secret::new(key))),
                Err(_) => Err(Failure::new(format!(
                    "expected {} bytes, found {}",
                    size_of::<Secret>(),
                    bytes.len()
                ))),
            },
        }
    }

    /// How it is kept.
    pub fn form(&self) -> KeyForm {
        match self {
            Self::Plain(_) => KeyForm::File,
            Self::Sealed(_) => KeyForm::Tpm,
            Self::Signs(_) => KeyForm::TpmSign,
        }
    }

    /// The key itself, by the TPM that `at` names.
    ///
    /// # Errors
    /// When it is in the TPM to stay, or the TPM refuses.
    pub fn open(self, kind: Kind, at: &str) -> Result<Secret, Failure> {
        match self {
            Self::Plain(key) => Ok(key),
            Self::Sealed(object) => {
                let opened = Tpm::open(at)?.unseal(&object)?;
                let key = opened.strip_prefix(kind.label()).and_then(|key| key.try_into().ok());
                key.map(Secret::new)
                    .ok_or_else(|| Failure::new("expected this key to be sealed, found another one"))
            }
            Self::Signs(_) => Err(Failure::new("the release key is in the TPM, and does not come out of it")
                .hint("the recovery copy has it; seal-keys --sign leaves it there")),
        }
    }
}

/// The text of a file with this key, sealed; with these PCRs of the SHA-256 bank as they are now.
///
/// # Errors
/// When the TPM refuses.
pub fn sealed(tpm: &mut Tpm, kind: Kind, key: &Secret, pcrs: &[u8]) -> Result<Vec<u8>, Failure> {
    let secret = Zeroizing::new([kind.label(), &key[..]].concat());
    Ok(text(false, identity(kind, key), tpm.seal(&secret, pcrs)?))
}

/// The text of a file with the release key, for a TPM that signs by it.
///
/// # Errors
/// When the TPM refuses.
pub fn signing(tpm: &mut Tpm, key: &Secret) -> Result<Vec<u8>, Failure> {
    let (x, y) = point(&pair(key)?)?;
    Ok(text(true, identity(Kind::Release, key), tpm.import(key, (&x, &y))?))
}

fn text(signs: bool, key: [u8; 32], object: Object) -> Vec<u8> {
    let file = SealedFile { halfkey_sealed_key: 1, signs, key: Bytes(key.into()), object };
    serde_json::to_vec(&file).expect("numbers, text and lists of them")
}

/// The text of a file with this key as it is.
pub fn plain(kind: Kind, key: &Secret) -> Zeroizing<Vec<u8>> {
    match kind {
        Kind::Cluster => Zeroizing::new(key.to_vec()),
        Kind::Release => {
            use base64ct::{Base64, Encoding as _};
            let der = der(key);
            let body = Zeroizing::new(Base64::encode_string(&der[..]));
            let lines = [
                "-----BEGIN PRIVATE KEY-----\n",
                &body[..64],
                "\n",
                &body[64..],
                "\n-----END PRIVATE KEY-----\n",
            ];
            Zeroizing::new(lines.concat().into_bytes())
        }
    }
}

/// PKCS#8 (RFC 5208) of a P-256 key, without the public one.
fn der(key: &Secret) -> Zeroizing<[u8; 67]> {
    /// PrivateKeyInfo, version 0, id-ecPublicKey on prime256v1, ECPrivateKey of version 1 (RFC 5915), its 32 bytes.
    const HEAD: [u8; 35] = [
        0x30, 0x41, 0x02, 0x01, 0x00, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06,
        0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x04, 0x27, 0x30, 0x25, 0x02, 0x01, 0x01, 0x04,
        0x20,
    ];
    let mut der = Zeroizing::new([0; 67]);
    der[..HEAD.len()].copy_from_slice(&HEAD);
    der[HEAD.len()..].copy_from_slice(&key[..]);
    der
}

/// The key of a PKCS#8 file, PEM.
fn release_key(text: &[u8]) -> Result<Secret, Failure> {
    use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
    let bad = |what: &dyn std::fmt::Display| {
        Failure::new(format!("expected a P-256 private key (PKCS#8, PEM): {what}"))
    };
    let key = PrivatePkcs8KeyDer::from_pem_slice(text).map_err(|e| bad(&e))?;
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.secret_pkcs8_der());
    let pair = pair.map_err(|e| bad(&e))?;
    let key: EcPrivateKeyBin<'_> = pair.private_key().as_be_bytes().map_err(|e| bad(&e))?;
    key.as_ref().try_into().map(Secret::new).map_err(|_| bad(&"another curve"))
}

/// What signs by a key.
///
/// # Errors
/// When it is none of P-256.
pub fn pair(key: &Secret) -> Result<EcdsaKeyPair, Failure> {
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der(key)[..]);
    pair.map_err(|e| Failure::new(format!("expected a P-256 private key: {e}")))
}

/// Its public key: x and y.
///
/// # Errors
/// When it is of another curve.
pub fn point(pair: &EcdsaKeyPair) -> Result<([u8; 32], [u8; 32]), Failure> {
    use aws_lc_rs::signature::KeyPair as _;
    let point = pair.public_key().as_ref();
    let coordinate = |from: usize| -> Option<[u8; 32]> { point.get(from..from + 32)?.try_into().ok() };
    coordinate(1).zip(coordinate(33)).ok_or_else(|| Failure::new("expected a P-256 key, found another curve"))
}

/// A release key that is ready to sign.
pub enum Ready {
    /// In memory.
    Here(Secret),
    /// In the TPM; its public key, and how many signatures a second it has to make.
    InTpm(Box<Signer>, ([u8; 32], [u8; 32]), u32),
}

/// How a state folder keeps its keys, by its settings.
pub struct KeyFiles {
    form: KeyForm,
    /// The TPM.
    at: String,
    min_rate: u32,
    /// The cluster key in use.
    cluster: PathBuf,
}

impl KeyFiles {
    /// Of this folder. If keys are sealed there, memory is locked from now on where it can be.
    ///
    /// # Errors
    /// When its settings can't be read.
    pub fn of(state: &StateDir) -> Result<Self, Failure> {
        let cluster = state.cluster_key();
        if !state.config_file().exists() {
            return Ok(Self { form: KeyForm::File, at: String::new(), min_rate: 0, cluster });
        }
        let config = Config::load(state)?;
        if config.release_key != KeyForm::File {
            // A server has made sure of it; a command lives for a moment.
            let _ = locked::lock();
        }
        let at = config.tpm.unwrap_or_else(|| tpm::DEFAULT.to_owned());
        Ok(Self { form: config.release_key, at, min_rate: config.min_rate, cluster })
    }

    /// A cluster key.
    ///
    /// # Errors
    /// When it can't be read, is open to others, is not kept as the settings say, or the TPM refuses.
    pub fn cluster(&self, path: &Path) -> Result<Secret, Failure> {
        let content = self.read(Kind::Cluster, path)?;
        content.open(Kind::Cluster, &self.at).map_err(|e| e.at(path))
    }

    /// Writes a cluster key into a new file, kept as the one in use.
    ///
    /// # Errors
    /// When it exists, can't be written, or the TPM refuses.
    pub fn put_cluster(&self, path: &Path, key: &Secret) -> Result<(), Failure> {
        if self.form == KeyForm::File {
            return write_secret(path, &key[..]);
        }
        let pcrs = match Content::read(Kind::Cluster, &self.cluster)? {
            Content::Sealed(object) | Content::Signs(object) => object.pcrs,
            Content::Plain(_) => Vec::new(),
        };
        write_secret(path, &sealed(&mut Tpm::open(&self.at)?, Kind::Cluster, key, &pcrs)?)
    }

    /// The release key.
    ///
    /// # Errors
    /// As [`KeyFiles::cluster`].
    pub fn release(&self, path: &Path) -> Result<Ready, Failure> {
        match self.read(Kind::Release, path)? {
            Content::Signs(object) => {
                let wrong = || Failure::new("expected a signing key of P-256, found another object").at(path);
                let point = tpm::SIGNING.point(&object.public).ok_or_else(wrong)?;
                let signer = Tpm::open(&self.at).and_then(|tpm| tpm.signer(&self.at, &object));
                Ok(Ready::InTpm(Box::new(signer.map_err(|e| e.at(path))?), point, self.min_rate))
            }
            content => content.open(Kind::Release, &self.at).map(Ready::Here).map_err(|e| e.at(path)),
        }
    }

    /// What is in a file, if that is kept as the settings say.
    fn read(&self, kind: Kind, path: &Path) -> Result<Content, Failure> {
        let content = Content::read(kind, path)?;
        let expected = match kind {
            Kind::Release => self.form,
            Kind::Cluster if self.form == KeyForm::TpmSign => KeyForm::Tpm,
            Kind::Cluster => self.form,
        };
        let left = left_over(path);
        if content.form() != expected {
            let what = format!(
                "expected a key for release_key = {:?} in the settings, found one for {:?}",
                self.form.as_str(),
                content.form().as_str()
            );
            return Err(Failure::new(what)
                .hint("halfkey-verifier seal-keys seals what is not, and says so in the settings")
                .at(path));
        }
        if self.form != KeyForm::File && left.exists() {
            return Err(Failure::new("expected no key as it is beside the sealed one, found one")
                .hint("sealing was interrupted: say halfkey-verifier seal-keys again")
                .at(&left));
        }
        Ok(content)
    }
}

/// Whether a cluster key is there, as it is or sealed. One that is cut short is none: its writing was interrupted.
///
/// # Errors
/// When it can't be read.
pub fn is_whole(path: &Path) -> Result<bool, Failure> {
    if !path.exists() {
        return Ok(false);
    }
    let bytes = read_secret(path)?;
    Ok(if bytes.starts_with(MARK) {
        Content::parse(Kind::Cluster, &bytes).is_ok()
    } else {
        bytes.len() >= size_of::<Secret>()
    })
}

/// What the file of a key is called between that it is sealed and that it is overwritten.
pub fn left_over(path: &Path) -> PathBuf {
    ClusterKey::beside(path, "plain")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_as_it_is_survives_being_written_again() {
        let pem = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let Content::Plain(key) = Content::parse(Kind::Release, pem.as_bytes()).unwrap() else { panic!() };
        let Content::Plain(again) = Content::parse(Kind::Release, &plain(Kind::Release, &key)).unwrap()
        else {
            panic!()
        };
        assert!(key == again);
        assert!(point(&pair(&key).unwrap()).unwrap() == point(&pair(&again).unwrap()).unwrap());
        let Content::Plain(cluster) = Content::parse(Kind::Cluster, &[7; 32]).unwrap() else { panic!() };
        assert!(plain(Kind::Cluster, &cluster)[..] == [7; 32]);
    }

    #[test]
    fn a_sealed_file_that_was_damaged_is_told() {
        let object = Object {
            srk: vec![1; 34].into(),
            pcrs: vec![7],
            public: vec![2; 50].into(),
            private: vec![3; 90].into(),
        };
        let whole = text(true, [4; 32], object);
        assert!(matches!(Content::parse(Kind::Release, &whole), Ok(Content::Signs(_))));
        let said = |kind, bytes: &[u8]| Content::parse(kind, bytes).err().unwrap().to_string();
        assert!(said(Kind::Cluster, &whole).contains("only signs"));
        assert!(said(Kind::Release, &whole[..whole.len() - 1]).contains("expected a sealed key"));
        let newer = String::from_utf8(whole).unwrap().replacen(":1", ":2", 1);
        assert!(said(Kind::Release, newer.as_bytes()).contains("version 2"));
    }
}
