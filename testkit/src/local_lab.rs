//! A node without a virtual machine: swtpm, a LUKS2 volume in a file, verifier and workstation on this host.
//!
//! Everything but the opening of the volume is what runs on a real machine. There is no firmware, so the test measures in its
//! place: [`LocalLab::power_on`] extends what a real boot did, and the agent finds that boot's log and command line where it
//! looks for its own, in a mount namespace.

use crate::error::{Context, Result};
use crate::log::read;
use crate::process::{Guard, run, run_with_input};
use crate::programs::{Programs, tree};
use crate::reaper;
use crate::swtpm::Swtpm;
use crate::tenant::Tenant;
use crate::verifier::Verifier;
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::tpm::kdf::Hash;
use nix::unistd::geteuid;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// Passphrase of the volumes before enrollment.
pub const PASSPHRASE: &str = "correct horse battery staple";

/// One node, its verifier, and its operator's workstation.
pub struct LocalLab {
    /// The programs under test.
    pub programs: Programs,
    /// State and logs.
    pub folder: PathBuf,
    /// The TPM; is on.
    pub tpm: Swtpm,
    /// The verifier; runs.
    pub verifier: Verifier,
    /// The operator's workstation.
    pub tenant: Tenant,
    namespace: Guard,
}

/// The recorded boot: a unified kernel image, without Secure Boot.
const BOOT: &str = "testkit/boots/uki-no-secure-boot";

impl LocalLab {
    /// A node that was never registered; powered on with image `a`.
    ///
    /// # Errors
    /// If one of the parts can't be made.
    pub fn new(programs: Programs, folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).context(format_args!("can't make {}", folder.display()))?;
        let tpm = Swtpm::start();
        let mut verifier = Verifier::init_here(&programs, &folder.join("verifier"))?;
        verifier.start()?;
        let tenant = Tenant::login(&programs, &verifier, &folder.join("workstation"))?;
        fs::write(folder.join("passphrase"), PASSPHRASE).context("can't write the passphrase")?;
        fs::write(folder.join(LINE), "").context("can't write a command line")?;
        let namespace = namespace(folder)?;
        let folder = folder.to_path_buf();
        let mut node = Self { programs, folder, verifier, tenant, tpm, namespace };
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

    /// Where the agent keeps the challenge of an enrollment that is not done.
    pub fn challenge(&self, node: &str) -> PathBuf {
        self.folder.join(STATE).join("halfkey-agent").join(format!("challenge-{node}"))
    }

    /// Where the volume `name` is.
    pub fn device(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.luks"))
    }

    /// Switches the TPM off, if it is on, and on again; the firmware measures the boot of an image with this content.
    ///
    /// # Errors
    /// If the TPM does not come up.
    pub fn power_on(&mut self, image: &str) -> Result<()> {
        let recorded = tree().join(BOOT);
        let read = |extension| {
            let path = recorded.with_extension(extension);
            fs::read(&path).context(format_args!("can't read {}", path.display()))
        };
        let (mut log, line) = (read("bin")?, read("cmdline")?);
        exchange_image(&mut log, image)?;
        self.power_on_with(&log, &line)
    }

    /// The same; the firmware, and what it starts, measures what this log says, and this is the kernel's command line.
    ///
    /// # Errors
    /// If the TPM does not come up, or this is no log.
    pub fn power_on_with(&mut self, log: &[u8], line: &[u8]) -> Result<()> {
        self.tpm.power_on()?;
        self.tpm.replay(&read(log), &PcrBank::ALL);
        self.show(Some(log), line)
    }

    /// What the agent finds: `binary_bios_measurements`, if there is such a file, and `/proc/cmdline`.
    ///
    /// # Errors
    /// If a file can't be written.
    pub(crate) fn show(&self, log: Option<&[u8]>, line: &[u8]) -> Result<()> {
        let path = self.folder.join(LOG);
        match log {
            Some(log) => fs::write(path, log).context("can't write a firmware log")?,
            // It may be that there was none before.
            None => drop(fs::remove_file(path)),
        }
        fs::write(self.folder.join(LINE), line).context("can't write a command line")?;
        self.show_systemd(&[])
    }

    /// The same: systemd's measurement log.
    ///
    /// # Errors
    /// If the file can't be written.
    pub(crate) fn show_systemd(&self, log: &[u8]) -> Result<()> {
        fs::write(self.folder.join(SYSTEMD), log).context("can't write systemd's log")
    }

    /// Forgets what a killed program left in the TPM.
    ///
    /// # Errors
    /// If tpm2-tools fail.
    pub fn flush_tpm(&self) -> Result<()> {
        for kind in ["--transient-object", "--loaded-session"] {
            run(&mut self.tpm.tool_command("tpm2_flushcontext", &[kind]))?;
        }
        Ok(())
    }

    /// `halfkey-agent` with its TPM.
    pub fn agent(&self, args: &[&str]) -> Command {
        self.agent_on(&self.tpm.location(), args)
    }

    /// The same with a TPM that is reached by way of another place.
    pub fn agent_on(&self, tpm: &str, args: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        let space = format!("/proc/{}/ns", self.namespace.pid());
        command.arg(format!("--mount={space}/mnt"));
        if !geteuid().is_root() {
            command.arg(format!("--user={space}/user")).arg("--preserve-credentials");
        }
        command.arg("--").arg(&self.programs.agent).args(["--tpm", tpm]).args(args).stdin(Stdio::null());
        reaper::mark(&mut command);
        command
    }

    /// Puts this program in the place of `program`, for the agent.
    ///
    /// # Errors
    /// If it can't be mounted there.
    pub fn interpose(&self, program: &Path, with: &Path) -> Result<()> {
        let space = format!("/proc/{}/ns", self.namespace.pid());
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount={space}/mnt"));
        if !geteuid().is_root() {
            command.arg(format!("--user={space}/user")).arg("--preserve-credentials");
        }
        run(command.args(["--", "mount", "--bind"]).arg(with).arg(program))?;
        Ok(())
    }

    /// `halfkey-agent enroll` for these volumes, ready to run.
    ///
    /// # Errors
    /// If the workstation or the verifier lacks a file.
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

    /// A node that is enrolled registers anew, as `halfkey-agent enroll` does before the tenant enrolls it again.
    ///
    /// # Errors
    /// If the agent can't be run, or did not register.
    pub fn register_anew(&self, node: &str, volumes: &[&str]) -> Result<()> {
        let mut said = String::new();
        // A run that finds something to finish does that first.
        for _ in 0..3 {
            if self.challenge(node).exists() {
                return Ok(());
            }
            said = text(&self.agent_enroll(volumes)?.output().context("can't run the agent")?);
        }
        Err(format!("the node has not registered anew:\n{said}").into())
    }

    /// The operator enrolls the node, with the manufacturer's CA as the only root.
    ///
    /// # Errors
    /// If `halfkey enroll` fails.
    pub fn tenant_enroll(&self, node: &str) -> Result<String> {
        self.tenant_enroll_with(node, &[])
    }

    /// The same with more flags.
    ///
    /// # Errors
    /// If `halfkey enroll` fails.
    pub fn tenant_enroll_with(&self, node: &str, flags: &[&str]) -> Result<String> {
        let roots = self.tpm.ca();
        let roots = roots.to_str().context("the folder's name is no text")?;
        self.tenant.run(&[&["enroll", node, "--label", "node", "--yes", "--ek-roots", roots], flags].concat())
    }

    /// Registers and enrolls the node and binds its volumes; returns its id.
    ///
    /// # Errors
    /// If one of the programs fails.
    pub fn enroll(&self, volumes: &[&str]) -> Result<String> {
        self.enroll_with(volumes, &[])
    }

    /// The same with more flags of `halfkey enroll`.
    ///
    /// # Errors
    /// If one of the programs fails.
    pub fn enroll_with(&self, volumes: &[&str], flags: &[&str]) -> Result<String> {
        let (child, node) = self.register(volumes)?;
        self.tenant_enroll_with(&node, flags)?;
        let output = child.wait_with_output().context("can't wait for the agent")?;
        crate::ensure!(output.status.success(), "enroll failed:\n{}", text(&output));
        Ok(node)
    }

    /// `unlock --dry-run --json` of these volumes.
    pub fn unlock(&self, volumes: &[&str]) -> Command {
        self.unlock_on(&self.tpm.location(), volumes)
    }

    /// The same with a TPM that is reached by way of another place.
    pub fn unlock_on(&self, tpm: &str, volumes: &[&str]) -> Command {
        let mut command = self.agent_on(tpm, &["unlock", "--dry-run", "--json", "--timeout", "20"]);
        for name in volumes {
            command.arg("--device").arg(self.device(name));
        }
        command
    }

    /// Starts it, and waits until this node's boot waits for an operator.
    ///
    /// # Errors
    /// If the agent ends before that.
    pub fn unlock_that_waits(&self, node: &str, volumes: &[&str]) -> Result<Child> {
        let mut agent = self.unlock(volumes);
        let mut agent =
            agent.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("can't start the agent")?;
        while self.tenant.node(node)?.pending.is_none() {
            if agent.try_wait().context("can't wait for the agent")?.is_some() {
                let said = agent.wait_with_output().context("can't read what the agent said")?;
                return Err(format!("it does not wait: {}", text(&said)).into());
            }
        }
        Ok(agent)
    }

    /// Runs it.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn unlock_now(&self, volumes: &[&str]) -> Result<Output> {
        self.unlock(volumes).output().context("can't run the agent")
    }
}

/// The firmware's log and the kernel's command line in the node's folder.
const LOG: &str = "firmware.log";
const LINE: &str = "cmdline";
/// systemd's measurement log.
const SYSTEMD: &str = "systemd.log";

/// What is /var/lib for the agent, in the node's folder.
const STATE: &str = "var-lib";

/// A mount namespace in which the node's logs and command line, and a /run and a /var/lib of its own, are the machine's.
fn namespace(folder: &Path) -> Result<Guard> {
    let script = "set -e
        mount -t tmpfs none /sys/kernel/security
        mkdir /sys/kernel/security/tpm0
        ln -s \"$1\" /sys/kernel/security/tpm0/binary_bios_measurements
        mount --bind \"$2\" /proc/cmdline
        mount -t tmpfs none /run
        mkdir -p /run/log/systemd
        ln -s \"$4\" /run/log/systemd/tpm2-measure.log
        mount --bind \"$3\" /var/lib
        echo ready
        exec sleep infinity";
    let mut command = Command::new("unshare");
    if !geteuid().is_root() {
        command.arg("--map-root-user");
    }
    let state = folder.join(STATE);
    fs::create_dir_all(&state).context(format_args!("can't make {}", state.display()))?;
    command.args(["--mount", "--", "sh", "-c", script, "sh"]);
    command.arg(folder.join(LOG)).arg(folder.join(LINE)).arg(&state).arg(folder.join(SYSTEMD));
    let path = folder.join("namespace.log");
    let log = fs::File::create(&path).context("can't make a log")?;
    let (guard, stdout) = Guard::piped("namespace", command.stdin(Stdio::null()).stderr(log))?;
    let mut line = String::new();
    // It says that, or ends.
    BufReader::new(stdout).read_line(&mut line).context("can't read what the namespace says")?;
    if line != "ready\n" {
        return Err(format!("no mount namespace:\n{}", crate::process::tail_of(&path, 5)).into());
    }
    Ok(guard)
}

/// `EV_EFI_BOOT_SERVICES_APPLICATION`
const APPLICATION: u32 = 0x8000_0003;

/// Puts the digest of another image in the place of the first that was started.
fn exchange_image(log: &mut [u8], image: &str) -> Result<()> {
    let digest = {
        let first = read(log).into_iter().find(|record| record.kind == APPLICATION);
        first.context("the recorded boot started nothing")?.digest
    };
    let at = log.windows(digest.len()).position(|window| window == digest);
    let at = at.context("a digest is in its log")?;
    log[at..at + digest.len()].copy_from_slice(&Hash::Sha256.digest(&[image.as_bytes()]));
    Ok(())
}

/// What a program said, both streams.
pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
