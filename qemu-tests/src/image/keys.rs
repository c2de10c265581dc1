//! Keys of Secure Boot that are the tests' own, and signatures by them.

use super::cache::cached;
use crate::error::{Context, Result};
use crate::paths::{Key, Paths};
use crate::process::run;
use crate::variables;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Who signs an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signer {
    /// Whom the owner of the machines trusts.
    Owner,
    /// Someone else.
    Stranger,
}

impl Signer {
    fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Stranger => "stranger",
        }
    }
}

const NAMES: &[&str] = &["pk", "kek", "owner", "stranger"];

/// The keys, in a folder of the cache.
#[derive(Clone, Debug)]
pub struct Keys {
    cache: PathBuf,
    folder: PathBuf,
}

impl Keys {
    /// From the cache, or new ones.
    ///
    /// # Errors
    /// If openssl fails.
    pub fn get(paths: &Paths) -> Result<Self> {
        let folder = cached(paths.cache.join("keys-1"), |partial| {
            fs::create_dir_all(partial).context("can't make a folder in the cache")?;
            NAMES.iter().try_for_each(|name| make(partial, name))
        })?;
        Ok(Self { cache: paths.cache.clone(), folder })
    }

    /// The certificate, DER.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn certificate(&self, signer: Signer) -> Result<Vec<u8>> {
        self.der(signer.name())
    }

    /// What the firmware of a machine holds: these signers, and so many [`revoked`] images.
    ///
    /// # Errors
    /// If a certificate can't be read.
    pub fn enrolled(&self, db: &[Signer], count: u32) -> Result<variables::Keys> {
        Ok(variables::Keys {
            pk: self.der("pk")?,
            kek: self.der("kek")?,
            db: db.iter().map(|signer| self.certificate(*signer)).collect::<Result<_>>()?,
            dbx: revoked(count),
        })
    }

    /// The image with a signature, from the cache or made now.
    ///
    /// # Errors
    /// If sbsign fails.
    pub fn sign(&self, image: &Path, signer: Signer) -> Result<PathBuf> {
        let name = signer.name();
        let key = Key::new("signed 1").text(&image.to_string_lossy()).file(&self.file(name, "crt"))?.hex();
        cached(self.cache.join(format!("signed-{key}.efi")), |partial| {
            run(Command::new("sbsign")
                .arg("--key")
                .arg(self.file(name, "key"))
                .arg("--cert")
                .arg(self.file(name, "crt"))
                .arg("--output")
                .arg(partial)
                .arg(image))?;
            Ok(())
        })
    }

    fn der(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.file(name, "der");
        fs::read(&path).context(format_args!("can't read {}", path.display()))
    }

    fn file(&self, name: &str, kind: &str) -> PathBuf {
        self.folder.join(format!("{name}.{kind}"))
    }
}

/// Hashes of images that nobody has.
pub fn revoked(count: u32) -> Vec<[u8; 32]> {
    (0..count).map(|number| Sha256::digest(number.to_le_bytes()).into()).collect()
}

fn make(folder: &Path, name: &str) -> Result<()> {
    let file = |kind: &str| folder.join(format!("{name}.{kind}"));
    let subject = format!("/CN=Halfkey rig {name}");
    run(Command::new("openssl")
        .args(["req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes", "-sha256", "-days", "3650", "-subj"])
        .arg(subject)
        .arg("-keyout")
        .arg(file("key"))
        .arg("-out")
        .arg(file("crt")))?;
    run(Command::new("openssl")
        .args(["x509", "-outform", "der", "-in"])
        .arg(file("crt"))
        .arg("-out")
        .arg(file("der")))?;
    Ok(())
}
