//! The two key files of a verifier, and the id of its deployment: the cluster key, which authenticates
//! nonces, and the release key, which signs "this TPM session may unseal U now".
//!
//! Replicas share both keys. Neither is ever in the database: a stolen backup
//! of the database can't sign a release. How they are kept in their files: [`crate::key_files`].

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::EcdsaKeyPair;
use halfkey_protocol::document::Deployment;
use halfkey_protocol::identity::sha256;
use halfkey_protocol::keys::half;
use halfkey_protocol::tpm::template;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

use crate::Failure;
use crate::appraisal::ReleaseGrant;
use crate::config::StateDir;
use crate::key_files::{self, KeyFiles, Ready, Secret};
use crate::tpm::Signer;

/// Largest key file that is read, in bytes.
const MAX_KEY_FILE: u64 = 16 << 10;

/// What the file of a key is called that will be used, beside that of the one that is.
pub const NEW: &str = "new";
/// The same of the one that was used before.
pub const OLD: &str = "old";

/// Authenticates what this cluster hands out and wants back. While it is rotated there are two: with one everything is made, and what
/// either has made is accepted.
pub struct ClusterKey {
    used: hmac::Key,
    accepted: Vec<hmac::Key>,
}

impl ClusterKey {
    /// Reads `cluster.key` of a folder, and beside it those that are accepted as well.
    ///
    /// # Errors
    /// When a file can't be read, is open to others, or holds something else; when the TPM that sealed it is not there.
    pub fn load(state: &StateDir) -> Result<Self, Failure> {
        let (path, files) = (state.cluster_key(), KeyFiles::of(state)?);
        let mut key = Self::from_bytes(&files.cluster(&path)?[..]);
        for other in [NEW, OLD].map(|which| Self::beside(&path, which)) {
            if other.exists() {
                key.accepted.push(hmac::Key::new(hmac::HMAC_SHA256, &files.cluster(&other)?[..]));
            }
        }
        Ok(key)
    }

    /// The file of [`NEW`] or [`OLD`] beside that of the key in use.
    pub fn beside(path: &Path, which: &str) -> PathBuf {
        let mut name = path.as_os_str().to_owned();
        name.push(".");
        name.push(which);
        name.into()
    }

    /// Makes a fresh one in a new file of a folder, kept as its others.
    ///
    /// # Errors
    /// When the file exists or can't be written; when the TPM refuses.
    pub fn create(state: &StateDir, path: &Path) -> Result<(), Failure> {
        let mut key = Secret::default();
        fill_random(&mut key[..])?;
        KeyFiles::of(state)?.put_cluster(path, &key)
    }

    /// One alone, from bytes; for tests and [`ClusterKey::load`].
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self { used: hmac::Key::new(hmac::HMAC_SHA256, bytes), accepted: Vec::new() }
    }

    /// HMAC-SHA256 over the fields, each with its length (four bytes, big-endian) before it: by the key in use.
    pub fn tag(&self, fields: &[&[u8]]) -> [u8; 32] {
        tag(&self.used, fields)
    }

    /// The same by each key that is accepted, the one in use first.
    pub fn tags(&self, fields: &[&[u8]]) -> impl Iterator<Item = [u8; 32]> {
        std::iter::once(&self.used).chain(&self.accepted).map(move |key| tag(key, fields))
    }

    /// Whether a key that is accepted made this tag of the fields.
    pub fn is_tag(&self, fields: &[&[u8]], found: &[u8]) -> bool {
        self.tags(fields).any(|tag| half::equal(&tag, found))
    }
}

fn tag(key: &hmac::Key, fields: &[&[u8]]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(key);
    for field in fields {
        context.update(&(field.len() as u32).to_be_bytes());
        context.update(field);
    }
    context.sign().as_ref().try_into().expect("HMAC-SHA256 has 32 bytes")
}

/// Signs releases.
pub struct ReleaseKey {
    signer: Signs,
    public: Vec<u8>,
}

/// Where the key is.
enum Signs {
    Here(EcdsaKeyPair),
    InTpm(Box<Signer>),
}

impl ReleaseKey {
    /// Reads `release.key` of a folder.
    ///
    /// # Errors
    /// When the file can't be read, is open to others, or holds no P-256 key; when the TPM that it is for is not there, or signs too
    /// slowly.
    pub fn load(state: &StateDir) -> Result<Self, Failure> {
        let path = state.release_key();
        match KeyFiles::of(state)?.release(&path)? {
            Ready::Here(key) => {
                let pair = key_files::pair(&key).map_err(|e| e.at(&path))?;
                let (x, y) = key_files::point(&pair).map_err(|e| e.at(&path))?;
                Ok(Self { public: template::RELEASE.public(&x, &y), signer: Signs::Here(pair) })
            }
            Ready::InTpm(signer, (x, y), min_rate) => {
                require_rate(signer.rate().map_err(|e| e.at(&path))?, min_rate)?;
                Ok(Self { public: template::RELEASE.public(&x, &y), signer: Signs::InTpm(signer) })
            }
        }
    }

    /// `TPMT_PUBLIC`, as tenants seal to it.
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// ECDSA (r || s, 64 bytes) over [`halfkey_protocol::tpm::seal_policy::release_digest`]. The key signs nothing else.
    ///
    /// # Errors
    /// When the kernel has no randomness to give.
    pub fn sign_release(&self, grant: &ReleaseGrant<'_>) -> Result<Vec<u8>, Failure> {
        let (nonce_tpm, node) = grant.signed_session();
        self.sign(nonce_tpm, node)
    }

    /// Whether it signs without waiting for a TPM.
    pub fn is_here(&self) -> bool {
        match &self.signer {
            Signs::Here(_) => true,
            Signs::InTpm(_) => false,
        }
    }

    fn sign(&self, nonce_tpm: &[u8], node: &[u8; 16]) -> Result<Vec<u8>, Failure> {
        // The signer hashes its message: this is the message whose SHA-256 is aHash.
        let message = [nonce_tpm, &0i32.to_be_bytes(), node].concat();
        match &self.signer {
            Signs::Here(pair) => {
                let signature = pair.sign(&SystemRandom::new(), &message);
                let signature = signature.map_err(|_| Failure::new("the release key could not sign"))?;
                Ok(signature.as_ref().to_vec())
            }
            Signs::InTpm(signer) => Ok(signer.sign(&sha256(&message))?.to_vec()),
        }
    }
}

/// A storm of boots would wait for a TPM that is slower.
fn require_rate(found: f64, min_rate: u32) -> Result<(), Failure> {
    if found >= f64::from(min_rate) {
        tracing::info!(signatures_per_s = found.round(), min_rate, "the release key is in the TPM");
        return Ok(());
    }
    Err(Failure::new(format!(
        "the release key in the TPM: expected at least {min_rate} signatures a second (min_rate), found {found:.1}"
    ))
    .hint("each boot takes one: lower min_rate, or have the key sealed only, halfkey-verifier seal-keys --from FOLDER"))
}

/// Reads `deployment.id`.
///
/// # Errors
/// When it can't be read or holds no UUID.
pub fn load_deployment(path: &Path) -> Result<Deployment, Failure> {
    let text = std::fs::read_to_string(path).map_err(|e| Failure::new(format!("{}: {e}", path.display())))?;
    Deployment::parse(text.trim_end()).ok_or_else(|| {
        Failure::new(format!("{}: expected the UUID of the deployment, found something else", path.display()))
            .hint("put back the file of `halfkey-verifier init`: what tenants signed names this id")
    })
}

/// Makes a new deployment's id.
///
/// # Errors
/// When the file exists or can't be written.
pub fn create_deployment(path: &Path) -> Result<Deployment, Failure> {
    let mut random = [0; 16];
    fill_random(&mut random)?;
    let deployment = Deployment::from_random(random);
    write_new(path, format!("{deployment}\n").as_bytes(), 0o644)?;
    Ok(deployment)
}

/// Fills `buffer` from the kernel.
///
/// # Errors
/// When the kernel has no randomness to give.
pub fn fill_random(buffer: &mut [u8]) -> Result<(), Failure> {
    aws_lc_rs::rand::fill(buffer).map_err(|_| Failure::new("the kernel has no randomness to give"))
}

/// Reads a file that only its owner may read.
///
/// # Errors
/// When it can't be read, is larger than a key, or is open to its group or the world.
pub fn read_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let failed = |e: std::io::Error| Failure::new(format!("{}: {e}", path.display()));
    let file = std::fs::File::open(path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    if meta.mode() & 0o077 != 0 {
        return Err(Failure::new(format!(
            "{}: expected a file that only its owner can use, found mode {:04o}",
            path.display(),
            meta.mode() & 0o7777
        ))
        .hint(format!("chmod 600 {}; if others could read it, make a new key", path.display())));
    }
    wiped(&file, meta.len()).map_err(failed)
}

/// What is in a file of about this length.
fn wiped(file: &std::fs::File, length: u64) -> std::io::Result<Zeroizing<Vec<u8>>> {
    // Reserved at once: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(length.min(MAX_KEY_FILE) as usize + 1));
    file.take(MAX_KEY_FILE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a credential that systemd has for this service (`LoadCredential=`). Who may read it is systemd's to say, by an ACL: its mode
/// says nothing.
///
/// # Errors
/// When there are none, or it can't be read.
pub fn read_credential(name: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let Some(folder) = std::env::var_os("CREDENTIALS_DIRECTORY") else {
        return Err(Failure::new(format!(
            "expected a credential {name} of systemd, found none for this service"
        ))
        .hint(format!("LoadCredential={name}:FILE in the unit, or the path of a file in its place")));
    };
    let path = PathBuf::from(folder).join(name);
    let read = || {
        let file = std::fs::File::open(&path)?;
        let length = file.metadata()?.len();
        wiped(&file, length)
    };
    read().map_err(|e| Failure::new(format!("{}: {e}", path.display())))
}

/// Writes a new file with mode 0600, durably.
///
/// # Errors
/// When it exists already or can't be written.
pub fn write_secret(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    write_new(path, bytes, 0o600)
}

/// Writes a new file with this mode, durably.
///
/// # Errors
/// When it exists already or can't be written. What was written in part is removed.
pub fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Failure> {
    let failed = |e: std::io::Error| {
        let failure = Failure::new(format!("{}: {e}", path.display()));
        match e.kind() {
            std::io::ErrorKind::AlreadyExists => failure.hint("give another file, or move it away"),
            _ => failure,
        }
    };
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(mode).open(path).map_err(failed)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.map_err(|e| {
        let _ = std::fs::remove_file(path);
        failed(e)
    })
}

/// Has a file, or the names in a folder, on the disk when this returns.
///
/// # Errors
/// When it can't be opened, or the disk fails.
pub fn sync(path: &Path) -> Result<(), Failure> {
    let synced = std::fs::File::open(path).and_then(|file| file.sync_all());
    synced.map_err(|e| Failure::new(format!("{}: {e}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
    use halfkey_protocol::tpm::seal_policy::release_digest;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_release_signature_is_over_the_digest_that_the_tpm_computes() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path());
        let pem = rcgen::KeyPair::generate().unwrap().serialize_pem();
        write_secret(&state.release_key(), pem.as_bytes()).unwrap();
        let key = ReleaseKey::load(&state).unwrap();
        let signature = key.sign(&[9; 32], &[5; 16]).unwrap();
        let (x, y) = template::RELEASE.point(key.public()).unwrap();
        let point = [&[4][..], &x, &y].concat();
        let digest = aws_lc_rs::digest::Digest::import_less_safe(
            &release_digest(&[9; 32], &[5; 16]),
            &aws_lc_rs::digest::SHA256,
        )
        .unwrap();
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
        public.verify_digest(&digest, &signature).unwrap();
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path());
        let path = state.cluster_key();
        ClusterKey::create(&state, &path).unwrap();
        ClusterKey::load(&state).map(|_| ()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(ClusterKey::load(&state).is_err_and(|e| e.to_string().contains("0640")));
    }
}
