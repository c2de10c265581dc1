//! Boots without a virtual machine: what a machine measures is extended into a real TPM, and shown, with the kernel's command
//! line, to the real agent in a mount namespace. That runs `unlock --dry-run` against a real verifier. About a second each.
//!
//! [`ReplayedBoot`] is what is measured and what can be read of it. The functions that make one are kinds of machines; its
//! methods make another machine of it, or what an attacker would. [`Machine`] is enrolled and boots it.

use crate::error::Result;
use crate::local_lab::{LocalLab, text};
pub use crate::log::kind;
use crate::log::{Record, sha1, systemd_record, tag, write};
use crate::node::enrollment_in;
use crate::programs::Programs;
use crate::recorded::{self, boot};
use crate::secure_boot;
use crate::software::Software;
use halfkey_protocol::NodeId;
use halfkey_protocol::keys::label;
use halfkey_protocol::keys::opening::OpeningSecret;
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::tpm::kdf::Hash;
use halfkey_protocol::wire::Proposal;
use halfkey_protocol::wire::policies::ProposalRecord;
use std::fs;
use std::process::{Child, Output};

/// What a machine measures until the agent runs, and what can be read of it.
#[derive(Clone)]
pub struct ReplayedBoot {
    /// What firmware, loaders and kernel extend, in order.
    pub measured: Vec<Record>,
    /// The banks that its TPM has.
    pub banks: Vec<PcrBank>,
    /// `binary_bios_measurements`; none if there is no such file.
    pub log: Option<Vec<u8>>,
    /// What the kernel calls its command line.
    pub command_line: String,
    /// PCR and SHA-256 digest of what systemd measures after the kernel's start, and the text that its log has for it.
    pub systemd: Vec<(u8, Vec<u8>, String)>,
    /// PCR and data of what is measured behind the log, as IMA does.
    pub afterwards: Vec<(u8, Vec<u8>)>,
}

/// A unified kernel image that the firmware starts; Secure Boot is off.
pub fn uki() -> ReplayedBoot {
    ReplayedBoot::recorded(boot("uki-no-secure-boot"))
}

/// The same with Secure Boot and keys of the owner's own.
pub fn uki_with_own_keys() -> ReplayedBoot {
    ReplayedBoot::recorded(boot("uki-secure-boot-own-keys"))
}

/// The same with the stub and the boundary events of systemd 262. When it was recorded, policies accepted a word that none does any more.
pub fn uki_with_systemd_262() -> ReplayedBoot {
    ReplayedBoot::recorded(recorded::SYSTEMD_262).without_option("SYSTEMD_SULOGIN_FORCE=1")
}

/// A unified kernel image that systemd-boot starts; Secure Boot is off.
pub fn uki_by_systemd_boot() -> ReplayedBoot {
    let entry = boot("systemd-boot-type1").records();
    let loader = entry.into_iter().find(|record| record.kind == kind::APPLICATION).unwrap();
    uki().changed(|measured| {
        let at = measured.iter().position(|record| record.kind == kind::APPLICATION).unwrap();
        measured.insert(at, loader);
    })
}

/// An entry of systemd-boot with kernel, initrd and options; Secure Boot is off. The kernel is Debian 12's, 6.1; what a kernel
/// that measures its initrd (6.13 and later) measures looks the same.
pub fn entry() -> ReplayedBoot {
    ReplayedBoot::recorded(boot("systemd-boot-type1"))
}

/// A kernel that the firmware starts itself, and that measures its initrd; Secure Boot is off. Nobody recorded it.
pub fn kernel() -> ReplayedBoot {
    let software = Software::default().on_firmware(&Hash::Sha256.digest(&[b"firmware"]));
    ReplayedBoot::of(software.records(), software.command_line)
}

/// Shim and GRUB with Secure Boot and the keys of Microsoft.
pub fn shim_and_grub() -> ReplayedBoot {
    ReplayedBoot::recorded(boot("grub-shim-ms-keys"))
}

/// GRUB that the firmware starts; Secure Boot is off.
pub fn grub() -> ReplayedBoot {
    let off: Vec<Record> =
        uki().measured.into_iter().filter(|record| record.kind == kind::VARIABLE).collect();
    // Without Secure Boot variables of the firmware would be options of systemd.
    shim_and_grub().with_option("efi=noruntime").changed(|measured| {
        let variables = measured.iter().position(|record| record.kind == kind::VARIABLE).unwrap();
        let shim = measured.iter().position(|record| record.kind == kind::APPLICATION).unwrap();
        measured.remove(shim);
        measured
            .retain(|record| !matches!(record.kind, kind::VARIABLE | kind::AUTHORITY) && record.pcr != 14);
        measured.splice(variables..variables, off);
    })
}

/// Secure Boot is off, and firmware starts the option ROM of a card, with this content, before everything else.
pub fn uki_behind_option_rom(content: &[u8]) -> ReplayedBoot {
    uki().changed(|measured| {
        let image = measured.iter().find(|record| record.kind == kind::APPLICATION).unwrap();
        let digest = Hash::Sha256.digest(&[content]);
        let rom = Record { pcr: 2, kind: kind::DRIVER, digest, ..image.clone() };
        let at = measured.iter().position(|record| record.pcr == 2).unwrap();
        measured.insert(at, rom);
    })
}

impl ReplayedBoot {
    /// As it was recorded.
    pub fn recorded(boot: &recorded::Boot) -> Self {
        Self { systemd: boot.systemd_events(), ..Self::of(boot.records(), boot.line().to_owned()) }
    }

    fn of(measured: Vec<Record>, command_line: String) -> Self {
        let banks = PcrBank::ALL.to_vec();
        let log = Some(write(&measured, &banks));
        Self { measured, banks, log, command_line, systemd: Vec::new(), afterwards: Vec::new() }
    }

    /// Another boot, with its own log.
    #[must_use]
    pub fn changed(mut self, change: impl FnOnce(&mut Vec<Record>)) -> Self {
        change(&mut self.measured);
        self.log = Some(write(&self.measured, &self.banks));
        self
    }

    /// The last image that was started is another, also where shim has verified it before.
    #[must_use]
    pub fn with_other_image(self) -> Self {
        self.changed(|measured| {
            let is_image = |record: &Record| record.kind == kind::APPLICATION;
            let last = measured.iter().rfind(|record| is_image(record)).unwrap().digest.clone();
            let same = measured.iter_mut().filter(|record| is_image(record) && record.digest == last);
            same.for_each(|record| record.digest = vec![0x33; 32]);
        })
    }

    /// The kernel's command line has one option more, wherever the text of it is measured.
    #[must_use]
    pub fn with_option(mut self, option: &str) -> Self {
        let old = self.command_line.clone();
        self.command_line = format!("{old} {option}");
        // GRUB's is that without the file.
        let common = old.split_once(" root=").map_or(old.clone(), |(_, rest)| format!(" root={rest}"));
        let (common, options) = (common.into_bytes(), format!(" {option}").into_bytes());
        self.with_load_options().changed(|measured| {
            for record in measured {
                let found = record.data.windows(common.len()).position(|window| window == common);
                let Some(at) = found.filter(|_| record.pcr == 8) else { continue };
                // The event data says what it is before the text that is measured.
                let digest_of = |data: &[u8], from: usize| {
                    Hash::Sha256.digest(&[data[from..].split(|byte| *byte == 0).next().unwrap()])
                };
                let from = (0..at).find(|from| digest_of(&record.data, *from) == record.digest).unwrap();
                record.data.splice(at + common.len()..at + common.len(), options.iter().copied());
                record.digest = digest_of(&record.data, from);
            }
        })
    }

    /// The command line of a kernel that no GRUB starts lacks one option.
    #[must_use]
    pub fn without_option(mut self, option: &str) -> Self {
        let others: Vec<_> = self.command_line.split(' ').filter(|word| *word != option).collect();
        self.command_line = others.join(" ");
        self.with_load_options()
    }

    /// The kernel's stub has measured the command line that it has.
    fn with_load_options(self) -> Self {
        let text = self.command_line.encode_utf16().chain([0]).flat_map(u16::to_le_bytes);
        let digest = Hash::Sha256.digest(&[&text.collect::<Vec<u8>>()]);
        self.changed(|measured| {
            let is_load_options = |record: &&mut Record| {
                record.pcr == 9
                    && record.kind == kind::EVENT_TAG
                    && record.data.starts_with(&tag::LOAD_OPTIONS.to_le_bytes())
            };
            measured.iter_mut().filter(is_load_options).for_each(|record| record.digest.clone_from(&digest));
        })
    }

    /// A variable of Secure Boot has these signature lists besides.
    #[must_use]
    pub fn with_keys(self, variable: &str, lists: &[u8]) -> Self {
        self.changed(|measured| secure_boot::change(measured, variable, |value| value.extend(lists)))
    }

    /// What was proposed in its place: images from the kernel or UKI on, initrd, sections, command line.
    #[must_use]
    pub fn proposed(mut self, proposal: &Proposal) -> Self {
        let options = proposal.command_line.clone().map(|line| {
            let text: Vec<u8> = line.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
            self.command_line = line;
            Hash::Sha256.digest(&[&text])
        });
        self.changed(|measured| {
            let put = |of: &mut dyn Iterator<Item = &mut Record>, digests: Vec<Vec<u8>>| {
                let mut count = 0;
                of.zip(&digests).for_each(|(record, digest)| {
                    record.digest.clone_from(digest);
                    count += 1;
                });
                assert_eq!(count, digests.len(), "what was proposed is more than what is measured");
            };
            let images = proposal.images.iter().rev().map(|image| image.authenticode.0.clone()).collect();
            let is_image = |record: &&mut Record| record.kind == kind::APPLICATION;
            put(&mut measured.iter_mut().rev().filter(is_image), images);
            // The name of each comes first.
            let sections = proposal.sections.iter().map(|section| section.digest.0.clone()).collect();
            put(&mut measured.iter_mut().filter(|record| record.pcr == 11).skip(1).step_by(2), sections);
            for (tag, digest) in [
                (tag::LOAD_OPTIONS, options),
                (tag::INITRD, proposal.initrd.as_ref().map(|initrd| initrd.0.clone())),
            ] {
                let is_tag = |record: &&mut Record| {
                    record.kind == kind::EVENT_TAG && record.data.starts_with(&tag.to_le_bytes())
                };
                put(&mut measured.iter_mut().filter(is_tag), digest.into_iter().collect());
            }
        })
    }

    /// On a TPM with these banks only.
    #[must_use]
    pub fn in_banks(mut self, banks: &[PcrBank]) -> Self {
        self.banks = banks.to_vec();
        self.changed(|_| ())
    }

    /// The same measurements; the log says what `change` makes of it.
    #[must_use]
    pub fn with_log(mut self, change: impl FnOnce(Vec<u8>) -> Option<Vec<u8>>) -> Self {
        self.log = self.log.and_then(change);
        self
    }

    /// The same measurements; firmware keeps the log of TPM 1.2, which has SHA-1 only.
    #[must_use]
    pub fn with_log_of_1_2(self) -> Self {
        let events: Vec<_> =
            self.measured.iter().map(|record| (record.pcr, record.kind, record.data.clone())).collect();
        let events: Vec<_> = events.iter().map(|(pcr, kind, data)| (*pcr, *kind, &data[..])).collect();
        self.with_log(|_| Some(sha1(&events)))
    }

    /// systemd, or whatever runs in the initramfs and writes its log, measures otherwise.
    #[must_use]
    pub fn with_systemd(mut self, change: impl FnOnce(&mut Vec<(u8, Vec<u8>, String)>)) -> Self {
        change(&mut self.systemd);
        self
    }

    /// This is measured as well, and is not in the log.
    #[must_use]
    pub fn then(mut self, pcr: u8, data: &[u8]) -> Self {
        self.afterwards.push((pcr, data.to_vec()));
        self
    }
}

/// A machine that is enrolled, its verifier, and its tenant's workstation.
pub struct Machine {
    /// The programs, volumes and the TPM.
    pub lab: LocalLab,
    /// Its id.
    pub id: String,
    volumes: &'static [&'static str],
    _folder: tempfile::TempDir,
}

/// How `unlock` ended.
#[derive(Debug)]
pub struct Unlocked {
    /// The exit code.
    pub code: i32,
    /// All that the agent said.
    pub said: String,
}

impl From<Output> for Unlocked {
    fn from(output: Output) -> Self {
        Self { code: output.status.code().unwrap_or(-1), said: text(&output) }
    }
}

impl Machine {
    /// With one volume, and no policy.
    pub fn enrolled() -> Self {
        Self::with_volumes(&["root"])
    }

    /// With these.
    pub fn with_volumes(volumes: &'static [&'static str]) -> Self {
        let (lab, folder) = new();
        for volume in volumes.iter().filter(|name| **name != "root") {
            lab.volume(volume).unwrap();
        }
        let id = lab.enroll(volumes).unwrap();
        Self { lab, id, volumes, _folder: folder }
    }

    /// Whose TPM has one bank, for which it is enrolled.
    pub fn with_bank(bank: PcrBank) -> Self {
        let (mut lab, folder) = new();
        let others = ["sha1", "sha256", "sha384"].iter().filter(|name| **name != bank.name());
        let banks: String = others.map(|name| format!("{name}:none+")).collect();
        lab.tpm.allocate_banks(&format!("{banks}{}:all", bank.name()));
        lab.replay(&uki().in_banks(&[bank])).unwrap();
        let volumes = &["root"];
        let id = lab.enroll_with(volumes, &["--bank", bank.name()]).unwrap();
        Self { lab, id, volumes, _folder: folder }
    }

    /// The same; this boot was learned with these flags of `halfkey approve`, and is unlocked unattended.
    pub fn that_learned(boot: &ReplayedBoot, flags: &[&str]) -> Self {
        let mut machine = Self::enrolled();
        machine.learns(boot, flags);
        machine.unlocks(boot);
        machine
    }

    /// Off and on again, up to where the agent runs.
    pub fn power_on(&mut self, boot: &ReplayedBoot) {
        self.lab.replay(boot).unwrap();
    }

    /// Boots and unlocks.
    pub fn boots(&mut self, boot: &ReplayedBoot) -> Unlocked {
        self.power_on(boot);
        self.unlock()
    }

    /// `unlock` in this boot.
    pub fn unlock(&self) -> Unlocked {
        self.lab.unlock_now(self.volumes).unwrap().into()
    }

    /// Boots, and is unlocked with nobody there.
    #[track_caller]
    pub fn unlocks(&mut self, boot: &ReplayedBoot) {
        let unlocked = self.boots(boot);
        assert_eq!(unlocked.code, 0, "{}", unlocked.said);
    }

    /// Boots, and waits for an operator.
    pub fn waits(&mut self, boot: &ReplayedBoot) -> Child {
        self.power_on(boot);
        self.lab.unlock_that_waits(&self.id, self.volumes).unwrap()
    }

    /// `halfkey approve` with these flags: exit code, and what it says.
    pub fn approve(&self, flags: &[&str]) -> (i32, String) {
        self.lab.tenant.try_run(&[&["approve", &self.id, "--yes"], flags].concat()).unwrap()
    }

    /// Boots, and an operator lets it learn this boot.
    #[track_caller]
    pub fn learns(&mut self, boot: &ReplayedBoot, flags: &[&str]) {
        let agent = self.waits(boot);
        let (code, said) = self.approve(&[&["--learn"], flags].concat());
        assert_eq!(code, 0, "{said}");
        let unlocked = Unlocked::from(agent.wait_with_output().unwrap());
        assert_eq!(unlocked.code, 0, "{}", unlocked.said);
    }

    /// Extends the fence as opening the volumes would, which a dry run leaves out: with the secret that the verifier derived for the
    /// newest release, and sent to the agent alone.
    pub fn opens(&self) {
        let newest = self.lab.tenant.last_evidence(&self.id).unwrap();
        let r_sha256 = self.lab.tenant.record(newest).unwrap().evidence.purpose_data.0;
        let cluster = fs::read(self.lab.verifier.state().join("cluster.key")).unwrap();
        let node = NodeId::parse(&self.id).unwrap().0;
        let fields = [label::OPENING.as_bytes(), &node, &r_sha256];
        let fields: Vec<u8> =
            fields.iter().flat_map(|field| [&(field.len() as u32).to_be_bytes(), *field].concat()).collect();
        let secret = OpeningSecret::new(&Hash::Sha256.hmac(&cluster, &[&fields])).unwrap();
        let enrollment = self.lab.tenant.node(&self.id).unwrap().enrollment.unwrap();
        let proof_sha256 = enrollment_in(&enrollment).proof_sha256.array().unwrap();
        self.lab.tpm.measure(15, &*secret.event_by(&r_sha256.try_into().unwrap(), &proof_sha256));
    }

    /// `halfkey-agent propose` with these arguments.
    pub fn propose(&self, args: &[&str]) -> Unlocked {
        let mut agent = self.lab.agent(&["propose", "--timeout", "20", "--device"]);
        agent.arg(self.lab.device("root")).args(args).output().unwrap().into()
    }

    /// The same; it waits for an operator.
    #[track_caller]
    pub fn proposes(&self, args: &[&str]) -> ProposalRecord {
        let ended = self.propose(args);
        assert_eq!(ended.code, 7, "{}", ended.said);
        self.lab.tenant.proposals(false).unwrap().swap_remove(0)
    }

    /// The operator accepts what was proposed: exit code, and what `halfkey proposal accept` says.
    pub fn accept(&self, proposal: &ProposalRecord) -> (i32, String) {
        self.accept_saying(proposal, &[])
    }

    /// The same, with these options.
    pub fn accept_saying(&self, proposal: &ProposalRecord, options: &[&str]) -> (i32, String) {
        let id = proposal.id.to_string();
        let accept = [&["proposal", "accept", &id, "--yes"], options].concat();
        self.lab.tenant.try_run(&accept).unwrap()
    }

    /// `halfkey policy` with these arguments: exit code, and what it says.
    pub fn policy(&self, args: &[&str]) -> (i32, String) {
        self.lab.tenant.try_run(&[&["policy"], args].concat()).unwrap()
    }

    /// `halfkey policy apply` for this node: exit code, and what it says.
    pub fn apply(&self, policy: &str) -> (i32, String) {
        let file = self.lab.folder.join("policy.toml");
        std::fs::write(&file, policy).unwrap();
        let file = file.to_str().unwrap();
        self.lab.tenant.try_run(&["policy", "apply", file, "--node", &self.id, "--yes"]).unwrap()
    }

    /// Boots, and gets nothing for this reason; these words are in one finding.
    #[track_caller]
    pub fn denied(&mut self, boot: &ReplayedBoot, reason: &str, named: &[&str]) -> Unlocked {
        let unlocked = self.boots(boot);
        assert_ne!(unlocked.code, 0, "{}", unlocked.said);
        assert_eq!(self.reason().as_deref(), Some(reason), "{}", unlocked.said);
        let findings = self.findings();
        let found = |finding: &String| named.iter().all(|name| finding.contains(name));
        assert!(named.is_empty() || findings.iter().any(found), "{named:?}: {findings:#?}");
        unlocked
    }

    /// The reason on record for the newest evidence.
    pub fn reason(&self) -> Option<String> {
        self.lab.tenant.evidence(&self.id).unwrap().evidence[0].code.clone()
    }

    /// What was found in the newest evidence.
    pub fn findings(&self) -> Vec<String> {
        let newest = self.lab.tenant.evidence(&self.id).unwrap().evidence[0].id;
        self.lab.tenant.record(newest).unwrap().findings.iter().map(ToString::to_string).collect()
    }
}

/// Never registered.
fn new() -> (LocalLab, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (LocalLab::new(Programs::find().unwrap(), folder.path()).unwrap(), folder)
}

impl LocalLab {
    /// Switches the machine off, if it is on, and on again, up to where the agent runs.
    ///
    /// # Errors
    /// If the TPM does not come up.
    pub fn replay(&mut self, boot: &ReplayedBoot) -> Result<()> {
        self.tpm.power_on()?;
        self.tpm.replay(&boot.measured, &boot.banks);
        for (pcr, digest, _) in &boot.systemd {
            self.tpm.extend(*pcr, &[(PcrBank::Sha256, digest.clone())]);
        }
        for (pcr, data) in &boot.afterwards {
            self.tpm.extend(
                *pcr,
                &boot.banks.iter().map(|bank| (*bank, bank.digest(&[data]))).collect::<Vec<_>>(),
            );
        }
        self.show(boot.log.as_deref(), format!("{}\n", boot.command_line).as_bytes())?;
        let systemd = boot.systemd.iter().flat_map(|(pcr, digest, text)| systemd_record(*pcr, digest, text));
        self.show_systemd(&systemd.collect::<Vec<_>>())
    }
}
