//! The scenarios. Those of a [`Group`] share one machine and are told in order; each needs only what [`Context`] gives it, so
//! any of them can be run alone. Groups know nothing of each other and run at the same time.
//!
//! | file | what |
//! | --- | --- |
//! | [`catalogue`] | all of them, and when each is run |
//! | [`scenario`] | what a scenario says of itself |
//! | [`list`] | scenarios by name and tier; docs/scenarios.md |
//! | [`unlock`] | enrollment, approval, the unattended boot |
//! | [`afterwards`] | root in the running system gets nothing; [`second_agent`] is the attacker's tool |
//! | [`tampered`] | command line, initramfs, TPM, header |
//! | [`server`] | revoked, down, impersonated |
//! | [`several`] | several machines at one server |
//! | [`volumes`] | several volumes |
//! | [`rogue`] | another root, another /var |
//! | [`exits`] | shells of the initramfs, an agent that crashes |
//! | [`updates`] | kernel updates, announced and not |
//! | [`secure_boot`] | images signed by the owner, by others, by nobody |
//! | [`loaders`] | shim and GRUB, systemd-boot |
//! | [`entries`] | boot entries that somebody has changed |
//! | [`after_opening`] | a boot that fails after its volumes were opened; [`notes`] has its initramfs |
//! | [`prompts`] | a prompt after an opening |
//! | [`repair`] | held, repaired, released, a disk missing |
//! | [`installed`] | machines as their owners install them, from the packages on |
//! | [`service`] | the server as its package installs it |
//! | [`exitrd`] | the shutdown of the running system |

mod after_opening;
mod afterwards;
pub mod catalogue;
mod entries;
mod exitrd;
mod exits;
mod installed;
pub mod list;
mod loaders;
mod notes;
mod packages;
mod prompts;
mod repair;
mod rogue;
pub mod scenario;
mod second_agent;
mod secure_boot;
mod server;
mod service;
mod several;
mod tampered;
mod unlock;
mod updates;
mod volumes;

use crate::error::{Context as _, Result};
use crate::image::distribution::{self, Distribution};
use crate::image::system::{BootPath, Release, System};
use crate::lab::Lab;
use crate::lab::machine::Boot;
use crate::story::Story;
use crate::terminal;
use crate::test_env::TestEnv;
use halfkey_protocol::wire::Evidence;
use scenario::Needs;
use std::path::PathBuf;
use std::sync::Arc;

/// Scenarios that share a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// A unified kernel image, without Secure Boot.
    Uki,
    /// The same; it is never enrolled.
    Exits,
    /// The same, with SysRq, and a gate that can be killed.
    Fence,
    /// The same with the previous kernel.
    Updates,
    /// Secure Boot with the owner's keys.
    SecureBoot,
    /// shim and GRUB.
    Grub,
    /// systemd-boot.
    Entry,
    /// Two machines with a UKI, on a network of their own.
    Pair,
    /// Its owner has installed it: systemd-boot and ukify.
    UkiInstalled,
    /// The same with NetworkManager.
    NmInstalled,
    /// The same: shim, GRUB, LVM.
    GrubInstalled,
}

impl Group {
    /// The group that takes longest first.
    pub const ALL: &[Self] = &[
        Self::Fence,
        Self::Uki,
        Self::SecureBoot,
        Self::Entry,
        Self::Exits,
        Self::Grub,
        Self::Updates,
        Self::Pair,
        Self::UkiInstalled,
        Self::NmInstalled,
        Self::GrubInstalled,
    ];

    /// Its machine, for people.
    pub fn machine(self) -> &'static str {
        match self {
            Self::Uki | Self::Exits => "UKI",
            Self::Fence => "UKI, SysRq on, two volumes that a boot can be told to harm",
            Self::Updates => "UKI with the previous kernel",
            Self::SecureBoot => "UKI signed by its owner, Secure Boot, the previous kernel",
            Self::Grub => "shim and GRUB, Secure Boot with Microsoft's keys",
            Self::Entry => "systemd-boot, an entry of type 1",
            Self::Pair => "two with a UKI, on a network of their own",
            Self::UkiInstalled => {
                "installed by the distribution's tools: systemd-boot, ukify, btrfs, /var on a volume of its own"
            }
            Self::NmInstalled => {
                "installed by the distribution's tools: systemd-boot, ukify, NetworkManager, a strict hostonly initramfs"
            }
            Self::GrubInstalled => {
                "installed by the distribution's tools: shim and GRUB, Secure Boot with Microsoft's keys, LVM on LUKS, ifupdown, initramfs-tools"
            }
        }
    }

    /// What its machine runs if nobody asks for another distribution, so in `make test`: each distribution that is released has a group
    /// there in which a machine is enrolled and unlocked.
    pub fn tested_on(self) -> &'static Distribution {
        let name = match self {
            Self::Grub | Self::UkiInstalled | Self::NmInstalled | Self::GrubInstalled => "debian13",
            _ => "debian12",
        };
        distribution::find(name).expect("it is one of them")
    }

    /// How its machine boots.
    pub fn path(self) -> BootPath {
        match self {
            Self::Uki | Self::Exits | Self::Fence | Self::Updates | Self::Pair => BootPath::Uki,
            Self::UkiInstalled | Self::NmInstalled => BootPath::Uki,
            Self::SecureBoot => BootPath::SignedUki,
            Self::Grub | Self::GrubInstalled => BootPath::Grub,
            Self::Entry => BootPath::Entry,
        }
    }

    /// What the operator approves first.
    fn system(self, env: &TestEnv) -> System {
        match self {
            Self::Fence => return notes::system(env),
            Self::Uki => return rogue::system(env),
            _ => {}
        }
        let release = match self {
            Self::Entry => Release::Measuring,
            Self::Updates | Self::SecureBoot => Release::Previous,
            _ => Release::Newest,
        };
        System { release, ..env.system(self.path()) }
    }
}

/// What a scenario can use.
pub struct Context {
    /// Images and hardware.
    pub env: Arc<TestEnv>,
    /// Who listens.
    pub story: Story,
    group: Group,
    lab: Option<Lab>,
    /// Another one at the same server.
    other: Option<Lab>,
    /// A machine that is not enrolled.
    unenrolled: Option<crate::lab::machine::Machine>,
    /// The machine of the lab, if it runs because someone typed the passphrase.
    by_passphrase: Option<Boot>,
}

impl Context {
    /// With nothing enrolled yet.
    pub fn new(env: Arc<TestEnv>, story: Story, group: Group) -> Self {
        Self { env, story, group, lab: None, other: None, unenrolled: None, by_passphrase: None }
    }

    /// What the operator of this group approves first.
    fn system(&self) -> System {
        self.group.system(&self.env)
    }

    /// Makes what a scenario asks for, if it is not there.
    ///
    /// # Errors
    /// If the machine can't be enrolled.
    pub fn provide(&mut self, needs: &Needs) -> Result<()> {
        if needs.enrolled { self.lab().map(drop) } else { Ok(()) }
    }

    /// The enrolled machine; it is enrolled now if there is none.
    fn lab(&mut self) -> Result<&mut Lab> {
        if self.lab.is_none() {
            self.story.prepares("enrolling a machine first");
            unlock::enroll(self)?;
        }
        Ok(self.lab.as_mut().expect("it was just put there"))
    }

    /// Enrolls a machine and boots it: what it sent for its first release, and its
    /// command line.
    ///
    /// # Errors
    /// If it does not come up by itself.
    pub fn attested(&mut self) -> Result<(Evidence, String)> {
        let lab = self.lab()?;
        let marker = lab.running()?.marker()?;
        Ok((lab.last_record()?.evidence, marker.cmdline))
    }

    /// Lets a person at the machine that its scenario has left on, by failing or on purpose; if it is off, it is switched on again.
    ///
    /// # Errors
    /// If there is no machine, or it can't be switched on.
    pub fn visit(&mut self) -> Result<()> {
        if let Some(mut left) = self.env.watch.left() {
            return terminal::visit(&mut left.console);
        }
        if let Some(boot) = &mut self.by_passphrase {
            return boot.visit();
        }
        if let Some(lab) = &mut self.lab {
            return lab.visit();
        }
        let machine = self.unenrolled.as_mut().context("the scenario has no machine any more")?;
        let mut boot = machine.boot()?;
        boot.visit()?;
        boot.pull_plug();
        Ok(())
    }

    /// After a failure nobody knows what state the machine is in: the next scenario gets another one.
    pub fn forget(&mut self) {
        (self.lab, self.other, self.unenrolled, self.by_passphrase) = (None, None, None, None);
    }

    /// Switches off what runs.
    ///
    /// # Errors
    /// If the machine does not go off, or the verifier does not end.
    pub fn end(&mut self) -> Result<()> {
        if let Some(boot) = self.by_passphrase.take() {
            boot.pull_plug();
        }
        if let Some(mut other) = self.other.take() {
            other.off()?;
        }
        let Some(mut lab) = self.lab.take() else { return Ok(()) };
        lab.off()?;
        lab.verifier.stop()
    }

    /// Where the logs of the current machine are.
    pub fn logs(&self) -> Vec<PathBuf> {
        let other = self.other.as_ref().map(|other| other.machine.console_log());
        let unenrolled = self.unenrolled.as_ref().map(crate::lab::machine::Machine::console_log);
        let lab = self.lab.as_ref().map(|lab| [lab.machine.console_log(), lab.verifier.log()]);
        unenrolled.into_iter().chain(lab.into_iter().flatten()).chain(other).collect()
    }
}
