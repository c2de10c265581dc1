//! Who makes TPMs and certifies their EKs.

use super::STATE;
use crate::error::{Context, Error, Result};
use crate::process::run;
use crate::programs;
use nix::unistd::geteuid;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// The manufacturer: a folder with the CA that signs EK certificates.
#[derive(Clone, Debug)]
pub struct Manufacturer {
    folder: PathBuf,
    banks: &'static str,
}

impl Manufacturer {
    /// Makes the folder and swtpm's configuration in it; the CA itself is made with the first TPM.
    ///
    /// # Errors
    /// If the folder can't be written.
    pub fn new(folder: &Path) -> Result<Self> {
        Self::with_banks(folder, "sha256")
    }

    /// The same; its TPMs have these banks, as swtpm_setup names them.
    ///
    /// # Errors
    /// If the folder can't be written.
    pub fn with_banks(folder: &Path, banks: &'static str) -> Result<Self> {
        make_folder(folder)?;
        let place = folder.display();
        let localca = format!(
            "statedir = {place}\nsigningkey = {place}/signkey.pem\nissuercert = {place}/issuercert.pem\n\
             certserial = {place}/certserial\n"
        );
        let setup = format!(
            "create_certs_tool = /usr/bin/swtpm_localca\ncreate_certs_tool_config = {place}/localca.conf\n\
             create_certs_tool_options = {place}/localca.options\nactive_pcr_banks = {banks}\n"
        );
        let options = "--platform-manufacturer Halfkey\n--platform-version 1\n--platform-model test\n";
        for (name, text) in
            [("localca.conf", localca.as_str()), ("setup.conf", &setup), ("localca.options", options)]
        {
            fs::write(folder.join(name), text).context(format_args!("can't write to {place}"))?;
        }
        Ok(Self { folder: folder.to_path_buf(), banks })
    }

    /// Makes a TPM with an identity of its own; its state is `folder`.
    ///
    /// # Errors
    /// If swtpm_setup fails.
    pub fn make(&self, folder: &Path) -> Result<()> {
        // swtpm's CA counts its certificates in a file, without a lock.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        make_folder(folder)?;
        let mut setup = Command::new("swtpm_setup");
        setup.args(["--tpm2", "--create-ek-cert", "--overwrite", "--pcr-banks", self.banks]);
        if geteuid().is_root() {
            // Else it becomes the user tss, who may not write here.
            setup.args(["--runas", "root"]);
        }
        setup.arg("--tpmstate").arg(folder).arg("--config").arg(self.folder.join("setup.conf"));
        run(&mut setup)?;
        Ok(())
    }

    /// Puts the CA's certificates, and nothing else, into a folder for `halfkey enroll --ek-roots`.
    ///
    /// # Errors
    /// If there is no CA yet or the folder can't be written.
    pub fn roots(&self, to: &Path) -> Result<()> {
        fs::create_dir_all(to).context(format_args!("can't make {}", to.display()))?;
        for name in ["issuercert.pem", "swtpm-localca-rootca-cert.pem"] {
            fs::copy(self.folder.join(name), to.join(name)).context(format_args!("can't copy {name}"))?;
        }
        Ok(())
    }
}

/// The identity of a TPM, kept between runs because making its keys takes a second. The same number is the same TPM.
pub(super) struct Identity(u32);

/// Those that a living TPM of this program has.
static TAKEN: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

impl Identity {
    /// One that no other TPM of this program has.
    pub(super) fn take() -> Self {
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let number = (1..).find(|number| !taken.contains(number)).expect("a free number");
        taken.insert(number);
        drop(taken);
        let identity = Self(number);
        if !identity.folder().join(STATE).exists() {
            manufacture(&identity.folder()).unwrap();
        }
        identity
    }

    pub(super) fn folder(&self) -> PathBuf {
        programs::target().join("tmp/tpms").join(self.0.to_string())
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        TAKEN.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

fn manufacture(kept: &Path) -> Result<()> {
    let parent = kept.parent().expect("a folder below target");
    fs::create_dir_all(parent).context("can't make a folder for TPMs")?;
    let making = tempfile::tempdir_in(parent).context("can't make a folder for a TPM")?;
    let manufacturer = Manufacturer::with_banks(&making.path().join("ca"), "sha1,sha256,sha384")?;
    manufacturer.make(making.path())?;
    // Another test program may have been faster; then its folder stays.
    match fs::rename(making.path(), kept) {
        Ok(()) => {
            let _ = making.keep();
            Ok(())
        }
        Err(_) if kept.join(STATE).exists() => Ok(()),
        Err(error) => Err(Error::new(format!("can't keep the state of a TPM: {error}"))),
    }
}

fn make_folder(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).context(format_args!("can't make {}", folder.display()))?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).context("can't set a mode")
}
