//! A TPM for each machine: swtpm, with an endorsement key certificate from a CA of the rig.

use crate::error::{Context, Error, Result};
use crate::process::{Guard, run};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The manufacturer: a folder with the CA that signs EK certificates.
#[derive(Clone, Debug)]
pub struct Manufacturer {
    folder: PathBuf,
}

impl Manufacturer {
    /// Makes the folder and swtpm's configuration in it; the CA itself is made with the first TPM.
    ///
    /// # Errors
    /// If the folder can't be written.
    pub fn new(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).context(format_args!("can't make {}", folder.display()))?;
        let place = folder.display();
        let localca = format!(
            "statedir = {place}\nsigningkey = {place}/signkey.pem\nissuercert = {place}/issuercert.pem\n\
             certserial = {place}/certserial\n"
        );
        let setup = format!(
            "create_certs_tool = /usr/bin/swtpm_localca\ncreate_certs_tool_config = {place}/localca.conf\n\
             create_certs_tool_options = {place}/localca.options\nactive_pcr_banks = sha256\n"
        );
        let options = "--platform-manufacturer Halfkey\n--platform-version 1\n--platform-model Rig\n";
        for (name, text) in
            [("localca.conf", localca.as_str()), ("setup.conf", &setup), ("localca.options", options)]
        {
            fs::write(folder.join(name), text).context(format_args!("can't write to {place}"))?;
        }
        Ok(Self { folder: folder.to_path_buf() })
    }

    /// Makes a TPM with an identity of its own; its state is `folder`.
    ///
    /// # Errors
    /// If swtpm_setup fails.
    pub fn make(&self, folder: &Path) -> Result<()> {
        // swtpm's CA counts its certificates in a file, without a lock.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        fs::create_dir_all(folder).context(format_args!("can't make {}", folder.display()))?;
        let mode = fs::Permissions::from_mode(0o700);
        fs::set_permissions(folder, mode).context("can't set a mode")?;
        run(Command::new("swtpm_setup")
            .args(["--tpm2", "--create-ek-cert", "--overwrite", "--tpmstate"])
            .arg(folder)
            .arg("--config")
            .arg(self.folder.join("setup.conf")))?;
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

/// Starts the TPM whose state is `state` for QEMU. It ends with the machine.
///
/// # Errors
/// If swtpm does not come up.
pub fn for_machine(state: &Path, socket: &Path, log: &Path) -> Result<Guard> {
    let mut command = Command::new("swtpm");
    command.args(["socket", "--tpm2", "--terminate", "--tpmstate"]);
    command.arg(format!("dir={},mode=0600", state.display()));
    command.arg("--ctrl").arg(format!("type=unixio,path={}", socket.display()));
    command.arg("--log").arg(format!("file={},level=1", log.display()));
    let mut guard = Guard::start("swtpm", &mut command, log)?;
    wait_for_socket(&mut guard, socket, log)?;
    Ok(guard)
}

/// Starts it for programs on this host, powered on: they connect to the socket (`swtpm:unix:PATH`).
///
/// # Errors
/// If swtpm does not come up.
pub fn for_programs(state: &Path, socket: &Path, log: &Path) -> Result<Guard> {
    let mut command = Command::new("swtpm");
    command.args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate"]);
    command.arg(format!("dir={},mode=0600", state.display()));
    command.arg("--server").arg(format!("type=unixio,path={}", socket.display()));
    command.arg("--ctrl").arg(format!("type=unixio,path={}.ctrl", socket.display()));
    let mut guard = Guard::start("swtpm", &mut command, log)?;
    wait_for_socket(&mut guard, socket, log)?;
    Ok(guard)
}

fn wait_for_socket(guard: &mut Guard, socket: &Path, log: &Path) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(60);
    while !socket.exists() {
        if let Some(status) = guard.exited()? {
            let tail = crate::process::tail_of(log, 5);
            return Err(Error::new(format!("swtpm ended at once ({status}):\n{tail}")));
        }
        if Instant::now() > end {
            return Err(Error::new(format!("swtpm made no socket {}", socket.display())));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
