//! Enrolled machines with their server and their operator: what scenario `enroll` makes and the others go on with.
//!
//! A [`Lab`] is what is there around one machine. Where there are several, they share [`server::Server`]s,
//! [`workstation::Workstation`]s and [`network::Network`]s, and each has a `Lab` of its own with its disks, TPM, console, marker and
//! clock.

pub mod machine;
pub mod network;
pub mod server;
pub mod workstation;

use crate::error::{Context, Result};
use crate::image::system::System;
use crate::image::{disk, guest, header};
use crate::marker::{AgentState, Marker};
use crate::test_env::TestEnv;
use halfkey_protocol::keys::label;
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::tpm::fence;
use halfkey_protocol::wire::operator::{EvidenceRecord, EvidenceSummary};
use halfkey_testkit::hex;
use machine::{Boot, Machine, Reached};
use serde_json::Value;
use server::Server;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use workstation::Workstation;

/// The label that the operator gives the first machine.
pub const LABEL: &str = "guest";

/// All that belongs to one enrolled machine.
pub struct Lab {
    /// The machine.
    pub machine: Machine,
    /// The server.
    pub verifier: Server,
    /// The operator's workstation.
    pub tenant: Workstation,
    /// What the operator approved.
    pub system: System,
    /// Node id.
    pub node: String,
    /// The machine, if it runs and nobody touched it since it came up by itself.
    running: Option<Boot>,
    /// Number of the last evidence before the current boot.
    before: u64,
    /// See [`Lab::interpreter`].
    interpreter: Option<u64>,
}

impl Lab {
    /// From its parts; the machine is off.
    pub fn new(
        machine: Machine,
        verifier: Server,
        tenant: Workstation,
        system: System,
        node: String,
    ) -> Self {
        Self { machine, verifier, tenant, system, node, running: None, before: 0, interpreter: None }
    }

    /// Switches the machine off if it runs, and on again.
    ///
    /// # Errors
    /// If it can't be switched.
    pub fn boot(&mut self) -> Result<Boot> {
        self.off()?;
        self.before = self.tenant.last_evidence(&self.node)?;
        self.machine.boot()
    }

    /// The same, with a note for what the test has put into the initramfs.
    ///
    /// # Errors
    /// If it can't be switched.
    pub fn boot_noting(&mut self, note: &'static str) -> Result<Boot> {
        self.machine.note = note;
        let boot = self.boot();
        self.machine.note = "";
        boot
    }

    /// The same while the verifier is down.
    ///
    /// # Errors
    /// If the machine can't be switched.
    pub fn boot_without_verifier(&mut self) -> Result<Boot> {
        self.off()?;
        self.before = self.tenant.last_evidence(&self.node)?;
        self.verifier.stop()?;
        self.machine.boot()
    }

    /// Leaves a machine running that came up by itself, for those who want one.
    pub fn keep_running(&mut self, boot: Boot) {
        self.running = Some(boot);
    }

    /// A machine that came up by itself: the one that runs, or a new boot.
    ///
    /// # Errors
    /// If it does not come up by itself.
    pub fn running(&mut self) -> Result<&mut Boot> {
        if self.running.is_none() {
            let mut boot = self.boot()?;
            boot.expect(Reached::System)?;
            self.running = Some(boot);
        }
        Ok(self.running.as_mut().expect("it was just put there"))
    }

    /// The same machine, to work with it and with the rest at once; give it back with [`Lab::keep_running`].
    ///
    /// # Errors
    /// If it does not come up by itself.
    pub fn lend(&mut self) -> Result<(Boot, &mut Self)> {
        self.running()?;
        let boot = self.running.take().expect("it runs");
        Ok((boot, self))
    }

    /// Where in the root file system the first 16 bytes are of the path that systemd names as its ELF interpreter. The running
    /// machine is asked once.
    ///
    /// # Errors
    /// If it does not come up by itself, or can't tell.
    pub fn interpreter(&mut self) -> Result<u64> {
        /// The file's place in the file system, in blocks of 4 KiB, and the path's place in the file, in bytes.
        const ASK: &str = "f=/usr/lib/systemd/systemd; filefrag -b4096 -v $f | awk '$1 == \"0:\" { print $4 + 0 }'; \
            grep -abom1 /lib64/ld-linux $f | cut -d: -f1";
        if let Some(known) = self.interpreter {
            return Ok(known);
        }
        let said = self.running()?.run(ASK)?;
        let mut numbers = said.split_whitespace().map(str::parse::<u64>);
        let (Some(Ok(block)), Some(Ok(at @ 0..4096))) = (numbers.next(), numbers.next()) else {
            return Err(format!("the guest can't tell where systemd is on its disk: {said}").into());
        };
        // Whole blocks of the cipher.
        let found = block * 4096 + at / 16 * 16;
        self.interpreter = Some(found);
        Ok(found)
    }

    /// Lets a person at the machine, which is switched on for that if it is off.
    ///
    /// # Errors
    /// If it can't be switched on.
    pub fn visit(&mut self) -> Result<()> {
        let mut boot = match self.running.take() {
            Some(boot) => boot,
            None => self.boot()?,
        };
        boot.visit()?;
        if !boot.is_off() {
            self.running = Some(boot);
        }
        Ok(())
    }

    /// Shuts the machine down, if it runs.
    ///
    /// # Errors
    /// If it does not go off.
    pub fn off(&mut self) -> Result<()> {
        self.running.take().map_or(Ok(()), Boot::power_off)
    }

    /// What the verifier recorded of this boot, newest first.
    ///
    /// # Errors
    /// If the verifier does not answer.
    pub fn recorded(&self) -> Result<Vec<EvidenceSummary>> {
        let list = self.tenant.evidence(&self.node)?.evidence;
        Ok(list.into_iter().filter(|summary| summary.id > self.before).collect())
    }

    /// The last of it, whole.
    ///
    /// # Errors
    /// If there is none.
    pub fn last_record(&self) -> Result<EvidenceRecord> {
        let recorded = self.recorded()?;
        let last = recorded.first().context("the verifier recorded nothing of this boot")?;
        self.tenant.record(last.id)
    }

    /// Every evidence of this boot must have been denied with this code.
    ///
    /// # Errors
    /// If there is none, or it was judged otherwise.
    pub fn was_denied(&self, code: &str) -> Result<()> {
        let recorded = self.recorded()?;
        crate::ensure!(!recorded.is_empty(), "the verifier recorded nothing of this boot");
        for summary in &recorded {
            crate::ensure!(
                summary.outcome == "denied" && summary.code.as_deref() == Some(code),
                "evidence {}: expected denied ({code}), found {} ({:?}): {}",
                summary.id,
                summary.outcome,
                summary.code,
                summary.message
            );
        }
        Ok(())
    }

    /// The last denial names this: one of its findings, as people read it, has all of `texts`.
    ///
    /// # Errors
    /// If none has: the error lists them.
    pub fn was_found(&self, texts: &[&str]) -> Result<()> {
        let findings: Vec<String> = self.last_record()?.findings.iter().map(ToString::to_string).collect();
        let named = findings.iter().any(|finding| texts.iter().all(|text| finding.contains(text)));
        crate::ensure!(named, "expected a finding with {texts:?}, found:\n    {}", findings.join("\n    "));
        Ok(())
    }

    /// The running system came up by attestation: its fence is what the verifier expects for this very boot, and the root
    /// was opened with the token's keyslot.
    ///
    /// # Errors
    /// Which of it is not so.
    pub fn was_attested(&self, marker: &Marker) -> Result<()> {
        let agent = was_released(&self.tenant, &self.node, self.before, marker)?;
        let root = agent.volumes.iter().find(|volume| volume.name == "root");
        let root = root.context("the agent did not open the root volume")?;
        let slot = header::keyslot(&self.token()?)?;
        crate::ensure!(root.keyslot == slot, "keyslot {} opened, the token's is {slot}", root.keyslot);
        crate::ensure!(slot != 0, "the token's keyslot is that of the passphrase");
        crate::ensure!(marker.root == "/dev/mapper/root", "{} is mounted at /", marker.root);
        Ok(())
    }

    /// The machine's own policy: TOML.
    ///
    /// # Errors
    /// If it has none.
    pub fn policy(&self) -> Result<String> {
        self.tenant.run(&["policy", "show", &format!("node:{}", self.node)])
    }

    /// Puts another in its place.
    ///
    /// # Errors
    /// If it is refused.
    pub fn apply(&self, policy: &str) -> Result<()> {
        let file = self.policy_file(policy)?;
        self.tenant.run(&["policy", "apply", &file, "--node", LABEL, "--yes"])?;
        Ok(())
    }

    /// Tries one on the machine's last boot: exit code and what `halfkey policy test` says.
    ///
    /// # Errors
    /// If it can't be tried.
    pub fn test(&self, policy: &str) -> Result<(i32, String)> {
        self.tenant.try_run(&["policy", "test", &self.policy_file(policy)?, "--against", LABEL])
    }

    fn policy_file(&self, policy: &str) -> Result<String> {
        let file = self.machine.logs().join("policy.toml");
        fs::write(&file, policy).context("can't write a policy")?;
        Ok(file.to_string_lossy().into_owned())
    }

    /// The token of the root volume.
    ///
    /// # Errors
    /// If there is none.
    pub fn token(&self) -> Result<Value> {
        let file = self.header_file()?;
        let token = header::token(&file).map(|(_, token)| token);
        fs::remove_file(&file).context("can't remove a header file")?;
        token
    }

    /// The header of the root volume in a file of its own.
    ///
    /// # Errors
    /// If the disk can't be read.
    pub fn header_file(&self) -> Result<PathBuf> {
        let file = self.machine.disk().with_extension("header");
        fs::write(&file, disk::header(self.machine.disk())?).context("can't write a header file")?;
        Ok(file)
    }

    /// Changes the header of the root volume on the disk.
    ///
    /// # Errors
    /// If the disk can't be written, or what `change` returns.
    pub fn change_header(&self, change: impl FnOnce(&std::path::Path) -> Result<()>) -> Result<()> {
        let file = self.header_file()?;
        change(&file)?;
        disk::set_root(self.machine.disk(), &file)?;
        fs::remove_file(&file).context("can't remove a header file")
    }
}

/// The running system of this node came up by attestation, with evidence that is newer than `before`, and its fence is what the verifier
/// expects for this very boot. Returns what the agent left of it.
///
/// # Errors
/// Which of it is not so.
pub fn was_released<'a>(
    tenant: &Workstation,
    node: &str,
    before: u64,
    marker: &'a Marker,
) -> Result<&'a AgentState> {
    let agent = marker.agent.as_ref().context("the agent left no state: it opened nothing")?;
    crate::ensure!(agent.node == node, "the agent speaks of node {}, not {node}", agent.node);
    let id = agent.evidence_id.context("the agent does not know the number of its evidence")?;
    crate::ensure!(id > before, "evidence {id} is of an earlier boot");
    let record = tenant.record(id)?;
    crate::ensure!(record.summary.outcome == "released", "the verifier recorded {}", record.summary.outcome);
    let expected = record.expected_fence.context("the verifier expects no fence value for this boot")?;
    let expected = hex(&expected);
    crate::ensure!(
        marker.fence_was(&expected)?,
        "PCR 15 is {}, the verifier expects {expected}",
        marker.fence
    );
    Ok(agent)
}

/// Waits until the verifier has a boot of this node that waits for the operator, and says why it does.
///
/// # Errors
/// If none does in time, or it can't be approved.
pub fn wait_for_pending(tenant: &Workstation, node: &str) -> Result<String> {
    let end = Instant::now() + machine::BOOT;
    loop {
        if let Some(pending) = tenant.node(node)?.pending {
            crate::ensure!(pending.approvable, "the pending boot can't be approved: {}", pending.message);
            return Ok(pending.code);
        }
        crate::ensure!(Instant::now() < end, "no boot is pending within {} s", machine::BOOT.as_secs());
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// PCR 15 of a boot whose fence was closed without an attested opening.
pub fn closed_fence() -> String {
    hex(&fence::opened(PcrBank::Sha256, label::FENCE_CLOSED))
}

/// PCR 15 of a boot that was opened by attestation, so that it was `opened`, and then had a shell of the initramfs.
pub fn shell_fence(opened: &[u8]) -> String {
    extended(opened, label::FENCE_SHELL)
}

/// The same of one that then had a prompt for a passphrase.
pub fn passphrase_fence(opened: &[u8]) -> String {
    extended(opened, label::FENCE_PASSPHRASE)
}

fn extended(pcr: &[u8], event: &[u8]) -> String {
    let event: [u8; 32] = Sha256::digest(event).into();
    hex(&Sha256::digest([pcr, &event].concat()))
}

/// A machine with an empty second volume, as an owner has it before there is anything to enroll.
///
/// # Errors
/// If a part can't be made.
pub fn machine(env: &TestEnv, system: &System) -> Result<Machine> {
    let machine = Machine::new(env, system)?;
    env.images.volume(guest::DATA_LUKS, machine.spare())?;
    Ok(machine)
}
