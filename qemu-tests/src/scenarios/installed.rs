//! Machines that their owners have installed, and what README tells them to type: nothing else is typed. Packages come as files, and
//! what they depend on from an archive on the machine; who looks whether it went well uses the tests' own line.

use super::{Context, packages};
use crate::ensure;
use crate::error::{Context as _, Result};
use crate::image::guest::PASSPHRASE;
use crate::image::installation::{GRUB, Installation, NM, UKI};
use crate::image::system::BootPath;
use crate::lab::machine::{BOOT, Boot, Machine, Reached};
use crate::lab::server::Server;
use crate::lab::workstation::Workstation;
use crate::lab::{wait_for_pending, was_released};
use crate::marker::Marker;
use crate::process::run as run_here;
use crate::story::Story;
use crate::story::Who;
use crate::test_env::TestEnv;
use halfkey_protocol::Reason;
use halfkey_protocol::identity::fingerprint;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Where root's shell on the serial console waits for a command.
const SHELL: &str = "root@guest:~# ";
/// How long a command may take that builds an initramfs: emulated, on a busy host.
const DRACUT: Duration = Duration::from_secs(3600);
/// What the operator calls the machine, as in README.
const LABEL: &str = "web-17";
/// The version that is installed first.
const OLDER: &str = "0.0.1";
/// What a newcomer may have to type from the packages to the removal on a machine, besides what its loader takes.
const ON_MACHINE: usize = 9;
/// The same at the workstation, until the machine unlocks itself.
const AT_WORKSTATION: usize = 5;

/// systemd-boot with ukify.
pub fn uki(context: &mut Context) -> Result<()> {
    told(context, &UKI)
}

/// shim, GRUB and LVM.
pub fn grub(context: &mut Context) -> Result<()> {
    told(context, &GRUB)
}

/// NetworkManager, and an initramfs for that machine alone.
pub fn nm(context: &mut Context) -> Result<()> {
    told(context, &NM)
}

fn told(context: &Context, installation: &'static Installation) -> Result<()> {
    let mut owner = Owner::new(context, installation)?;
    let mut boot = owner.enroll(context)?;
    boot = owner.approve(boot)?;
    boot = owner.once_more(boot)?;
    boot = owner.update_kernel(boot)?;
    boot = owner.upgrade(boot)?;
    owner.remove(boot)?;
    owner.count()
}

/// Whose machine it is: what they have, and what they typed.
struct Owner<'a> {
    story: &'a Story,
    installation: &'static Installation,
    machine: Machine,
    server: Server,
    workstation: Workstation,
    packages: Packages,
    node: String,
    on_machine: Vec<String>,
    at_workstation: Vec<String>,
    /// Number of the last evidence before the current boot.
    before: u64,
}

/// The agent's package, and one that says to be older.
struct Packages {
    older: PathBuf,
    newer: PathBuf,
}

impl<'a> Owner<'a> {
    fn new(context: &'a Context, installation: &'static Installation) -> Result<Self> {
        let Context { env, story, .. } = context;
        let packages = Packages::find(env)?;
        let machine = Machine::installed(env, installation, &mut |text| story.prepares(text))?;
        let server = Server::new(env)?;
        let workstation = Workstation::new(env, &server)?;
        // What Workstation::new did, and what installing the package is.
        let at_workstation =
            ["apt install ./halfkey_*.deb", "halfkey login operator-alice.bundle", "halfkey key"];
        Ok(Self {
            story,
            installation,
            machine,
            server,
            workstation,
            packages,
            node: String::new(),
            on_machine: Vec::new(),
            at_workstation: at_workstation.map(str::to_owned).to_vec(),
            before: 0,
        })
    }

    /// From the first boot by passphrase to the reboot after the enrollment.
    fn enroll(&mut self, context: &Context) -> Result<Boot> {
        self.story.does(Who::Machine, "boots as it was installed; someone types the passphrase");
        let mut boot = self.machine.boot()?;
        boot.wait_console(&[self.installation.asks], BOOT)?;
        boot.type_line(PASSPHRASE)?;
        self.by_passphrase(&mut boot)?;
        boot.write_file("/root/ca.pem", &self.server.ca()?)?;
        boot.send_file(&self.packages.older, &format!("/root/halfkey-agent_{OLDER}-1_amd64.deb"))?;

        for command in self.installation.floor {
            self.types(&mut boot, command)?;
        }
        // Its default takes minutes of each initramfs under emulation.
        boot.run("echo 'compress=\"zstd -1\"' >/etc/dracut.conf.d/rig.conf")?;
        self.types(&mut boot, "apt install ./halfkey-agent_*.deb")?;
        let devices: Vec<&str> = self.installation.volumes.iter().map(|(device, _)| *device).collect();
        let enroll = format!(
            "halfkey-agent enroll --server {} --ca ca.pem --tenant-key {} --rebuild-initramfs {}",
            self.server.url(),
            self.workstation.key()?,
            devices.join(" ")
        );
        self.story.does(Who::Machine, format!("root runs: {enroll}"));
        self.on_machine.push(enroll.clone());
        boot.type_line(&format!("clear; {enroll}"))?;
        ensure!(
            boot.wait_console(&["EK fingerprint: ", SHELL], DRACUT)? == 0,
            "halfkey-agent enroll ended before it showed the EK's fingerprint"
        );
        let shown = boot.rest_of_line()?;
        while boot.wait_console(&["xisting passphrase of", "waiting for the tenant"], BOOT)? == 0 {
            boot.type_line(PASSPHRASE)?;
        }
        self.node = self.workstation.newcomer()?;
        let record = self.workstation.node(&self.node)?;
        ensure!(
            record.registration.as_ref().is_some_and(|sent| fingerprint(&sent.ek_public) == shown),
            "the console shows EK {shown}, the verifier another"
        );
        let roots = context.env.place("ek-roots");
        context.env.manufacturer.roots(&roots)?;
        let (id, roots) = (self.node[..4].to_owned(), roots.to_string_lossy().into_owned());
        self.asks(&["enroll", &id, "--label", LABEL, "--ek-roots", &roots])?;
        boot.wait_console(&["enrolled; the next boot asks"], BOOT)?;
        boot.wait_console(&[SHELL], BOOT)?;
        self.story.proves(
            "enrolled, with an initramfs that the machine's own dracut made and the agent looked into",
        );
        Ok(boot)
    }

    fn approve(&mut self, boot: Boot) -> Result<Boot> {
        self.types_reboot(boot)?;
        self.story.does(Who::Machine, "reboots and attests; no boot of it was approved yet");
        let mut boot = self.machine.boot()?;
        let pending = wait_for_pending(&self.workstation, &self.node)?;
        ensure!(pending == Reason::NoPolicy.code(), "the boot is pending because of {pending}");
        self.asks(&["approve", LABEL, "--learn"])?;
        self.came_up(&mut boot)?;
        self.story.proves("approved while it waited; nobody typed");
        Ok(boot)
    }

    /// It is switched off and on: nobody has to type that.
    fn once_more(&mut self, boot: Boot) -> Result<Boot> {
        boot.power_off()?;
        self.unattended("boots once more; nobody is there")
    }

    /// Into what is new, which the hooks have proposed; `said` is what they said.
    fn reboot(&mut self, boot: Boot, why: &str, said: &str) -> Result<Boot> {
        if self.installation.path == BootPath::Grub {
            ensure!(
                said.contains("is announced") && said.contains("is denied and asks for the passphrase"),
                "the hooks did not say what comes of it:\n{said}"
            );
            return self.approve_afterwards(boot, why);
        }
        self.accept()?;
        self.types_reboot(boot)?;
        self.unattended(&format!("reboots {why}; nobody is there"))
    }

    /// GRUB's boots are known once they were booted.
    fn approve_afterwards(&mut self, boot: Boot, why: &str) -> Result<Boot> {
        self.types_reboot(boot)?;
        self.story.does(Who::Machine, format!("reboots {why}"));
        self.before = self.workstation.last_evidence(&self.node)?;
        let mut boot = self.machine.boot()?;
        boot.expect(Reached::Prompt)?;
        let recorded = self.workstation.evidence(&self.node)?.evidence;
        let new: Vec<_> = recorded.iter().filter(|summary| summary.id > self.before).collect();
        let denied = |code: &Option<String>| code.as_deref() == Some(Reason::PolicyMismatch.code());
        ensure!(!new.is_empty(), "the verifier recorded nothing of this boot");
        for summary in new {
            ensure!(denied(&summary.code), "evidence {}: {}", summary.id, summary.message);
        }
        self.story.proves("denied, and it asks for its passphrase");
        self.story.does(Who::Operator, format!("runs: halfkey approve {LABEL} --learn"));
        self.workstation.run(&["approve", LABEL, "--learn", "--yes"])?;
        self.story.does(Who::Machine, "gets its passphrase this once");
        self.by_passphrase_typed(&mut boot)?;
        boot.power_off()?;
        self.unattended("boots the same once more; nobody is there")
    }

    /// It must come up by itself.
    fn unattended(&mut self, why: &str) -> Result<Boot> {
        self.story.does(Who::Machine, why);
        self.before = self.workstation.last_evidence(&self.node)?;
        let mut boot = self.machine.boot()?;
        self.came_up(&mut boot)?;
        self.story.proves("unlocked; nobody typed");
        Ok(boot)
    }

    fn update_kernel(&mut self, mut boot: Boot) -> Result<Boot> {
        let before = boot.run("uname -r")?;
        let name = boot.run("cd /srv/archive && ls linux-image-*.deb")?;
        let package = name.split('_').next().context("there is no other kernel")?.to_owned();
        let said = self.types(&mut boot, &format!("apt install {package}"))?;
        let mut boot = self.reboot(boot, "into the new kernel", &said)?;
        let after = boot.run("uname -r")?;
        ensure!(package.ends_with(after.trim()), "the machine runs {after} after {package} was installed");
        self.story.proves(format!(
            "{} was followed by {}: the hooks have told the verifier",
            before.trim(),
            after.trim()
        ));
        Ok(boot)
    }

    fn upgrade(&mut self, mut boot: Boot) -> Result<Boot> {
        let newer = self.packages.newer.file_name().unwrap_or_default().to_string_lossy().into_owned();
        boot.send_file(&self.packages.newer, &format!("/root/{newer}"))?;
        boot.run("rm /root/halfkey-agent_0.0.1-1_amd64.deb")?;
        let said = self.types(&mut boot, "apt install ./halfkey-agent_*.deb")?;
        self.reboot(boot, "with another version of the packages", &said)
    }

    /// What is the only way in stays; with another one it goes.
    fn remove(&mut self, mut boot: Boot) -> Result<()> {
        const REMOVE: &str = "apt remove halfkey-agent";
        let device = self.installation.volumes[0].0;
        boot.run(&format!(
            "cryptsetup luksHeaderBackup {device} --header-backup-file /run/header && cryptsetup luksKillSlot -q {device} 0"
        ))?;
        self.story.does(Who::Machine, "has no passphrase any more; root removes the package");
        let (status, said) = self.at_console(&mut boot, REMOVE)?;
        ensure!(status != 0 && said.contains("is the only way in"), "removed ({status}):\n{said}");
        boot.run(&format!(
            "halfkey-agent --version && cryptsetup luksHeaderRestore -q {device} --header-backup-file /run/header"
        ))?;
        self.story.proves("refused: it is the only way in");
        let said = self.types(&mut boot, REMOVE)?;
        ensure!(said.contains("asks for its passphrase"), "what removing means was not said:\n{said}");
        self.types_reboot(boot)?;
        self.story.does(Who::Machine, "reboots without the package");
        let mut boot = self.machine.boot()?;
        boot.expect(Reached::Prompt)?;
        self.by_passphrase_typed(&mut boot)?;
        boot.power_off()?;
        self.story.proves("it asks for its passphrase, as before");
        Ok(())
    }

    /// The operator accepts what the hooks have proposed.
    fn accept(&mut self) -> Result<()> {
        let waiting = self.workstation.proposals(false)?;
        let [waits] = waiting.as_slice() else {
            let found: Vec<&str> = waiting.iter().map(|one| one.message.as_str()).collect();
            return Err(format!("expected one proposal that waits, found {found:?}").into());
        };
        self.story.does(Who::Operator, format!("runs: halfkey proposal accept {}", waits.id));
        self.workstation.run(&["proposal", "accept", &waits.id.to_string(), "--yes"])?;
        Ok(())
    }

    /// The same, at the prompt.
    fn by_passphrase_typed(&self, boot: &mut Boot) -> Result<()> {
        boot.type_passphrase()?;
        self.by_passphrase(boot)
    }

    /// From the first passphrase up to the running system.
    fn by_passphrase(&self, boot: &mut Boot) -> Result<()> {
        // The others have the same, which systemd still knows unless the machine was slow.
        while boot.reached()? == Reached::Prompt {
            boot.type_passphrase()?;
        }
        let marker = boot.marker()?;
        ensure!(marker.agent.is_none(), "the agent claims to have opened something");
        boot.wait_console(&[SHELL], BOOT).map(drop)
    }

    /// It runs, and nobody typed.
    fn came_up(&self, boot: &mut Boot) -> Result<()> {
        boot.expect(Reached::System)?;
        let marker = boot.marker()?;
        was_released(&self.workstation, &self.node, self.before, &marker)?;
        self.all_opened(&marker)?;
        boot.wait_console(&[SHELL], BOOT)?;
        let unit = self.installation.network;
        let said = boot.run(&format!("journalctl --boot --quiet --lines=1 _SYSTEMD_UNIT={unit}"))?;
        ensure!(!said.trim().is_empty(), "{unit} did not run: something else brought the network up");
        Ok(())
    }

    fn all_opened(&self, marker: &Marker) -> Result<()> {
        let Installation { volumes, root, .. } = self.installation;
        let agent = marker.agent.as_ref().context("the agent left no state: it opened nothing")?;
        for (device, name) in *volumes {
            let opened = agent.volumes.iter().any(|volume| volume.name == *name);
            ensure!(opened, "the agent did not open {device} as {name}");
        }
        ensure!(marker.root.starts_with(root), "{} is mounted at /", marker.root);
        Ok(())
    }

    /// Types a command on the machine, which must succeed.
    fn types(&mut self, boot: &mut Boot, command: &str) -> Result<String> {
        self.story.does(Who::Machine, format!("root runs: {command}"));
        self.on_machine.push(command.to_owned());
        let (status, said) = self.at_console(boot, command)?;
        ensure!(status == 0, "on the machine, `{command}` failed ({status}):\n{said}");
        Ok(said)
    }

    /// Types it at the console, and yes where apt asks: exit status, and what was said.
    fn at_console(&self, boot: &mut Boot, command: &str) -> Result<(i32, String)> {
        let begun = boot.console().len();
        boot.type_line(command)?;
        while boot.wait_console(&["[Y/n]", SHELL], DRACUT)? == 0 {
            boot.type_line("y")?;
        }
        let said = boot.console().get(begun..).unwrap_or_default().to_owned();
        boot.type_line("echo STATUS $?")?;
        boot.wait_console(&["\nSTATUS "], BOOT)?;
        let status = boot.rest_of_line()?;
        boot.wait_console(&[SHELL], BOOT)?;
        let status = status.trim().parse().context(format_args!("the shell gave no status: {status}"))?;
        Ok((status, said))
    }

    fn types_reboot(&mut self, mut boot: Boot) -> Result<()> {
        // QEMU ends where a machine would begin anew.
        self.on_machine.push("reboot".to_owned());
        boot.type_line("reboot")?;
        boot.wait_off()
    }

    /// Runs a command at the workstation.
    fn asks(&mut self, args: &[&str]) -> Result<()> {
        let command = format!("halfkey {}", args.join(" "));
        self.story.does(Who::Operator, format!("runs: {command}"));
        self.at_workstation.push(command);
        self.workstation.run(&[args, &["--yes"]].concat()).map(drop)
    }

    /// Says how much a newcomer has to type.
    fn count(&self) -> Result<()> {
        let (machine, workstation) = (self.on_machine.len(), self.at_workstation.len());
        let said = format!(
            "typed: {machine} commands on the machine, from the packages to their removal; \
             {workstation} at the workstation until it unlocked itself"
        );
        self.story.proves(&said);
        println!("   {said}");
        for (who, typed) in [("machine#", &self.on_machine), ("workstation$", &self.at_workstation)] {
            typed.iter().for_each(|command| println!("   {who} {command}"));
        }
        let most = ON_MACHINE + self.installation.floor.len();
        ensure!(
            machine <= most && workstation <= AT_WORKSTATION,
            "expected at most {most} and {AT_WORKSTATION} commands: {said}"
        );
        Ok(())
    }
}

impl Packages {
    fn find(env: &TestEnv) -> Result<Self> {
        let newer = packages::newest(env, "halfkey-agent_")?;
        let place = env.place("packages");
        let unpacked = place.join("unpacked");
        fs::create_dir_all(&place).context("can't make a folder")?;
        run_here(Command::new("dpkg-deb").arg("-R").arg(&newer).arg(&unpacked))?;
        let same = |path: &Path| fs::read(path).context(format_args!("can't read {}", path.display()));
        ensure!(
            same(&unpacked.join("usr/bin/halfkey-agent"))? == same(&env.paths.programs.agent)?,
            "{} has another agent than {}\nhint: make packages",
            newer.display(),
            env.paths.programs.agent.display()
        );
        let control = unpacked.join("DEBIAN/control");
        let text = fs::read_to_string(&control).context("can't read a package's control file")?;
        let version = |line: &str| match line.strip_prefix("Version: ") {
            Some(_) => format!("Version: {OLDER}-1\n"),
            None => format!("{line}\n"),
        };
        fs::write(&control, text.lines().map(version).collect::<String>())
            .context("can't write a package's control file")?;
        let older = place.join(format!("halfkey-agent_{OLDER}-1_amd64.deb"));
        run_here(
            Command::new("dpkg-deb").args(["--root-owner-group", "-Zgzip", "-b"]).arg(&unpacked).arg(&older),
        )?;
        Ok(Self { older, newer })
    }
}
