//! A node without a virtual machine: swtpm, a LUKS2 volume in a file, verifier and desk on this host's loopback.
//!
//! Everything but the opening of the volume is what runs on a real machine. There is no firmware, so the rig measures in its
//! place: [`Loopback::power_on`] extends PCR 0 to 7.

use crate::error::{Context, Result};
use crate::paths::Paths;
use crate::process::{Guard, run, run_with_input};
use crate::swtpm::{self, Manufacturer};
use crate::tenant::Tenant;
use crate::verifier::Verifier;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// Passphrase of the volumes before enrollment.
pub const PASSPHRASE: &str = "correct horse battery staple";

/// One node, one verifier, one desk.
pub struct Loopback {
    /// The programs under test.
    pub paths: Paths,
    /// State and logs.
    pub folder: PathBuf,
    /// Who made the TPM.
    pub manufacturer: Manufacturer,
    /// The verifier; runs.
    pub verifier: Verifier,
    /// The desk.
    pub tenant: Tenant,
    tpm: Option<Guard>,
}

impl Loopback {
    /// A node that was never registered; powered on with firmware `a`.
    ///
    /// # Errors
    /// If one of the parts can't be made.
    pub fn new(paths: Paths, folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).context(format_args!("can't make {}", folder.display()))?;
        let manufacturer = Manufacturer::new(&folder.join("manufacturer"))?;
        manufacturer.make(&folder.join("tpm"))?;
        manufacturer.roots(&folder.join("roots"))?;
        let mut verifier = Verifier::init_at(&paths, &folder.join("verifier"), "127.0.0.1")?;
        verifier.start()?;
        let tenant = Tenant::login(&paths, &verifier, &folder.join("desk"))?;
        fs::write(folder.join("passphrase"), PASSPHRASE).context("can't write the passphrase")?;
        let mut node =
            Self { paths, folder: folder.to_path_buf(), manufacturer, verifier, tenant, tpm: None };
        node.volume("root")?;
        node.power_on("a")?;
        Ok(node)
    }

    /// A new LUKS2 volume in a file, opened by [`PASSPHRASE`].
    ///
    /// # Errors
    /// If cryptsetup fails.
    pub fn volume(&self, name: &str) -> Result<PathBuf> {
        let path = self.device(name);
        let file = fs::File::create(&path).context(format_args!("can't make {}", path.display()))?;
        file.set_len(24 << 20).context("can't size the volume")?;
        run_with_input(
            Command::new("cryptsetup")
                .args(["luksFormat", "--batch-mode", "--type", "luks2", "--pbkdf", "pbkdf2"])
                .args(["--pbkdf-force-iterations", "1000", "--key-file", "-"])
                .arg(&path),
            PASSPHRASE.as_bytes(),
        )?;
        Ok(path)
    }

    /// Where the volume `name` is.
    pub fn device(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.luks"))
    }

    /// Switches the TPM off, if it is on, and on again; the firmware measures itself.
    ///
    /// # Errors
    /// If the TPM does not come up.
    pub fn power_on(&mut self, firmware: &str) -> Result<()> {
        self.tpm = None;
        let socket = self.folder.join("tpm.sock");
        for path in [socket.clone(), self.folder.join("tpm.sock.ctrl")] {
            let _ = fs::remove_file(path);
        }
        self.tpm =
            Some(swtpm::for_programs(&self.folder.join("tpm"), &socket, &self.folder.join("tpm.log"))?);
        let digest = crate::paths::Key::new("firmware").text(firmware).hex().repeat(4);
        let extends: Vec<String> = (0..8).map(|pcr| format!("{pcr}:sha256={digest}")).collect();
        run(Command::new("tpm2_pcrextend").args(extends).env("TPM2TOOLS_TCTI", self.tcti()))?;
        Ok(())
    }

    /// Forgets what a killed program left in the TPM.
    ///
    /// # Errors
    /// If tpm2-tools fail.
    pub fn flush_tpm(&self) -> Result<()> {
        for kind in ["--transient-object", "--loaded-session"] {
            run(Command::new("tpm2_flushcontext").arg(kind).env("TPM2TOOLS_TCTI", self.tcti()))?;
        }
        Ok(())
    }

    /// For tpm2-tools.
    pub fn tcti(&self) -> String {
        format!("swtpm:path={}", self.folder.join("tpm.sock").display())
    }

    /// For the agent.
    pub fn tpm(&self) -> String {
        format!("swtpm:unix:{}", self.folder.join("tpm.sock").display())
    }

    /// `halfkey-agent` with its TPM.
    pub fn agent(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.paths.agent);
        command.args(["--tpm", &self.tpm()]).args(args).stdin(Stdio::null());
        command
    }

    /// `halfkey-agent enroll` for these volumes, ready to run.
    ///
    /// # Errors
    /// If the desk or the verifier lacks a file.
    pub fn agent_enroll(&self, volumes: &[&str]) -> Result<Command> {
        let ca = self.folder.join("ca.pem");
        fs::write(&ca, self.verifier.ca()?).context("can't write the CA")?;
        let mut command = self.agent(&["enroll", "--timeout", "120", "--server", &self.verifier.url()]);
        command.arg("--ca").arg(ca).args(["--tenant-key", &self.tenant.key()?]);
        command.arg("--key-file").arg(self.folder.join("passphrase"));
        command.args(volumes.iter().map(|name| self.device(name)));
        Ok(command)
    }

    /// Starts `halfkey-agent enroll` and waits until the node is registered.
    ///
    /// # Errors
    /// If it ends before that.
    pub fn register(&self, volumes: &[&str]) -> Result<(Child, String)> {
        let mut child = self
            .agent_enroll(volumes)?
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("can't start the agent")?;
        match self.tenant.wait_for("register") {
            Ok(()) => Ok((child, self.tenant.only_node()?)),
            Err(error) => {
                // Nothing is lost by ending it: it was expected to wait.
                let _ = child.kill();
                let said = child.wait_with_output().context("can't read what the agent said")?;
                Err(format!("the node was not registered: {error}\n{}", text(&said)).into())
            }
        }
    }

    /// The operator enrolls the node, with the manufacturer's CA as the only root.
    ///
    /// # Errors
    /// If `halfkey enroll` fails.
    pub fn tenant_enroll(&self, node: &str) -> Result<String> {
        let roots = self.folder.join("roots");
        let roots = roots.to_str().context("the folder's name is no text")?;
        self.tenant.run(&["enroll", node, "--label", "node", "--yes", "--ek-roots", roots])
    }

    /// Registers and enrolls the node and binds its volumes; returns its id.
    ///
    /// # Errors
    /// If one of the programs fails.
    pub fn enroll(&self, volumes: &[&str]) -> Result<String> {
        let (child, node) = self.register(volumes)?;
        self.tenant_enroll(&node)?;
        let output = child.wait_with_output().context("can't wait for the agent")?;
        crate::ensure!(output.status.success(), "enroll failed:\n{}", text(&output));
        Ok(node)
    }

    /// `unlock --dry-run --json` of these volumes.
    pub fn unlock(&self, volumes: &[&str]) -> Command {
        let mut command = self.agent(&["unlock", "--dry-run", "--json", "--timeout", "20"]);
        for name in volumes {
            command.arg("--device").arg(self.device(name));
        }
        command
    }

    /// Runs it.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn unlock_now(&self, volumes: &[&str]) -> Result<Output> {
        self.unlock(volumes).output().context("can't run the agent")
    }
}

/// What a program said, both streams.
pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
