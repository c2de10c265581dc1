//! The scenarios. Those of a [`Group`] share one machine and are told in order; each needs only what [`World`] gives it, so
//! any of them can be run alone. Groups know nothing of each other and run at the same time.
//!
//! | number | file |
//! | --- | --- |
//! | 1, 2 | [`unlock`]: enrollment, approval, the unattended boot |
//! | 3 | [`afterwards`]: root in the running system gets nothing; [`second_agent`] is the attacker's tool |
//! | 4, 5, 9, 12 | [`tampered`]: command line, initramfs, TPM, header |
//! | 6, 7, 8 | [`server`]: revoked, down, impersonated |
//! | 10 | [`volumes`]: several volumes |
//! | 11 | [`rogue`]: another root |
//! | 13, 14 | [`exits`]: shells of the initramfs, an agent that crashes |
//! | 15 to 20 | [`updates`]: kernel updates, announced and not |
//! | 21 to 24 | [`secure_boot`]: images signed by the owner, by others, by nobody |
//! | 25 to 28 | [`loaders`]: shim and GRUB, systemd-boot |

mod afterwards;
mod exits;
mod loaders;
mod rogue;
mod second_agent;
mod secure_boot;
mod server;
mod tampered;
mod unlock;
mod updates;
mod volumes;

use crate::error::Result;
use crate::estate::Estate;
use crate::image::system::{BootPath, Release, System};
use crate::machine::Boot;
use crate::rig::Rig;
use crate::story::Story;
use halfkey_protocol::wire::Finish;
use std::path::PathBuf;
use std::sync::Arc;

/// Scenarios that share a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// A unified kernel image, without Secure Boot.
    Uki,
    /// The same; it is never enrolled.
    Exits,
    /// The same with the previous kernel.
    Updates,
    /// Secure Boot with the owner's keys.
    SecureBoot,
    /// shim and GRUB.
    Grub,
    /// systemd-boot.
    Entry,
}

impl Group {
    /// The group that takes longest first.
    pub const ALL: &[Self] =
        &[Self::Uki, Self::Updates, Self::SecureBoot, Self::Exits, Self::Grub, Self::Entry];

    /// How its machine boots.
    pub fn path(self) -> BootPath {
        match self {
            Self::Uki | Self::Exits | Self::Updates => BootPath::Uki,
            Self::SecureBoot => BootPath::SignedUki,
            Self::Grub => BootPath::Grub,
            Self::Entry => BootPath::Entry,
        }
    }

    /// What the operator approves first.
    fn system(self, rig: &Rig) -> System {
        let release = match self {
            Self::Updates | Self::SecureBoot => Release::Previous,
            _ => Release::Newest,
        };
        System { release, ..rig.system(self.path()) }
    }
}

/// What a scenario can use.
pub struct World {
    /// Images and hardware.
    pub rig: Arc<Rig>,
    /// Who listens.
    pub story: Story,
    group: Group,
    estate: Option<Estate>,
    /// A machine that is not enrolled.
    stray: Option<crate::machine::Machine>,
    /// The machine of the estate, if it runs because someone typed the passphrase.
    by_passphrase: Option<Boot>,
}

impl World {
    /// With nothing enrolled yet.
    pub fn new(rig: Arc<Rig>, story: Story, group: Group) -> Self {
        Self { rig, story, group, estate: None, stray: None, by_passphrase: None }
    }

    /// What the operator of this group approves first.
    fn system(&self) -> System {
        self.group.system(&self.rig)
    }

    /// The enrolled machine; it is enrolled now if there is none.
    fn estate(&mut self) -> Result<&mut Estate> {
        if self.estate.is_none() {
            self.story.prepares("enrolling a machine first");
            unlock::enroll(self)?;
        }
        Ok(self.estate.as_mut().expect("it was just put there"))
    }

    /// Enrolls a machine and boots it: what it sent for its first release, and its
    /// command line.
    ///
    /// # Errors
    /// If it does not come up by itself.
    pub fn attested(&mut self) -> Result<(Finish, String)> {
        let estate = self.estate()?;
        let marker = estate.running()?.marker()?;
        Ok((estate.last_record()?.finish, marker.cmdline))
    }

    /// After a failure nobody knows what state the machine is in: the next scenario gets another one.
    pub fn forget(&mut self) {
        (self.estate, self.stray, self.by_passphrase) = (None, None, None);
    }

    /// Switches off what runs.
    ///
    /// # Errors
    /// If the machine does not go off, or the verifier does not end.
    pub fn end(&mut self) -> Result<()> {
        if let Some(boot) = self.by_passphrase.take() {
            boot.pull_plug();
        }
        let Some(mut estate) = self.estate.take() else { return Ok(()) };
        estate.off()?;
        estate.verifier.stop()
    }

    /// Where the logs of the current machine are.
    pub fn logs(&self) -> Vec<PathBuf> {
        let stray = self.stray.as_ref().map(crate::machine::Machine::console_log);
        let estate = self.estate.as_ref().map(|estate| [estate.machine.console_log(), estate.verifier.log()]);
        stray.into_iter().chain(estate.into_iter().flatten()).collect()
    }
}

/// A story with an end.
pub struct Scenario {
    /// As in the project's plan.
    pub number: u32,
    /// What `run` is told.
    pub name: &'static str,
    /// Which machine it is about.
    pub group: Group,
    /// One sentence.
    pub title: &'static str,
    /// Tells it.
    pub run: fn(&mut World) -> Result<()>,
}

/// All of them.
pub const ALL: &[Scenario] = &[
    Scenario {
        number: 1,
        name: "enroll",
        group: Group::Uki,
        title: "first boot with passphrase, enrolled from inside, next boot waits until it is approved",
        run: unlock::enroll,
    },
    Scenario {
        number: 2,
        name: "unattended",
        group: Group::Uki,
        title: "unlocked with no one typing",
        run: unlock::unattended,
    },
    Scenario {
        number: 3,
        name: "afterwards",
        group: Group::Uki,
        title: "after the boot root gets neither half",
        run: afterwards::run,
    },
    Scenario {
        number: 4,
        name: "cmdline",
        group: Group::Uki,
        title: "changed kernel command line: denied, passphrase works",
        run: tampered::cmdline,
    },
    Scenario {
        number: 5,
        name: "initramfs",
        group: Group::Uki,
        title: "changed initramfs: denied",
        run: tampered::initramfs,
    },
    Scenario {
        number: 6,
        name: "revoked",
        group: Group::Uki,
        title: "revoked: denied; restored: unlocks",
        run: server::revoked,
    },
    Scenario {
        number: 7,
        name: "down",
        group: Group::Uki,
        title: "verifier down: prompt in time; verifier late: unlocks",
        run: server::down,
    },
    Scenario {
        number: 8,
        name: "wrong-ca",
        group: Group::Uki,
        title: "another CA in the token: nothing is sent",
        run: server::wrong_ca,
    },
    Scenario {
        number: 9,
        name: "other-tpm",
        group: Group::Uki,
        title: "the disk in another machine: nothing unlocks, it is recorded",
        run: tampered::other_tpm,
    },
    Scenario {
        number: 10,
        name: "volumes",
        group: Group::Uki,
        title: "two volumes with one attestation",
        run: volumes::run,
    },
    Scenario {
        number: 11,
        name: "rogue-root",
        group: Group::Uki,
        title: "a plaintext root with the right UUID: powered off before it runs",
        run: rogue::run,
    },
    Scenario {
        number: 12,
        name: "rogue-header",
        group: Group::Uki,
        title: "the token in a look-alike volume: prompt, and the fence tells",
        run: tampered::header,
    },
    Scenario {
        number: 13,
        name: "shells",
        group: Group::Exits,
        title: "rd.break and emergency shells find the fence closed",
        run: exits::shells,
    },
    Scenario {
        number: 14,
        name: "crashes",
        group: Group::Exits,
        title: "the agent is killed or hangs: prompt, and the fence is closed",
        run: exits::crashes,
    },
    Scenario {
        number: 15,
        name: "surprise",
        group: Group::Updates,
        title: "a new kernel that nobody announced: denied and named",
        run: updates::surprise,
    },
    Scenario {
        number: 16,
        name: "unattested",
        group: Group::Updates,
        title: "a proposal of a machine that its passphrase opened: refused",
        run: updates::unattested,
    },
    Scenario {
        number: 17,
        name: "predicted",
        group: Group::Updates,
        title: "a new kernel that was predicted: unlocks",
        run: updates::predicted,
    },
    Scenario {
        number: 18,
        name: "rollback",
        group: Group::Updates,
        title: "the old kernel: unlocks within the policy, denied outside",
        run: updates::rollback,
    },
    Scenario {
        number: 19,
        name: "proposal",
        group: Group::Updates,
        title: "an unsigned proposal waits; accepted, it boots unattended",
        run: updates::proposal,
    },
    Scenario {
        number: 20,
        name: "opt-out",
        group: Group::Updates,
        title: "trust-root-with-next-boot: one update without an operator, no second",
        run: updates::opt_out,
    },
    Scenario {
        number: 21,
        name: "signed",
        group: Group::SecureBoot,
        title: "a new kernel by the policy's signer: proposed, unlocks",
        run: secure_boot::signed,
    },
    Scenario {
        number: 22,
        name: "dbx",
        group: Group::SecureBoot,
        title: "more in dbx: unlocks if the policy says at least, else not",
        run: secure_boot::dbx,
    },
    Scenario {
        number: 23,
        name: "other-signer",
        group: Group::SecureBoot,
        title: "an image by another signer, whose key is in db: denied and named",
        run: secure_boot::other_signer,
    },
    Scenario {
        number: 24,
        name: "unsigned",
        group: Group::SecureBoot,
        title: "Secure Boot off and an unsigned image: denied and named",
        run: secure_boot::unsigned,
    },
    Scenario {
        number: 25,
        name: "grub",
        group: Group::Grub,
        title: "shim and GRUB: approved, then unattended",
        run: loaders::unattended,
    },
    Scenario {
        number: 26,
        name: "grub-command",
        group: Group::Grub,
        title: "another command in grub.cfg: denied and named",
        run: loaders::grub_command,
    },
    Scenario {
        number: 27,
        name: "entry",
        group: Group::Entry,
        title: "systemd-boot with a type 1 entry: approved, then unattended",
        run: loaders::unattended,
    },
    Scenario {
        number: 28,
        name: "token",
        group: Group::Entry,
        title: "a forbidden word on the command line: denied and named",
        run: loaders::token,
    },
];

/// The scenario with this name or number.
pub fn find(name: &str) -> Option<&'static Scenario> {
    ALL.iter().find(|scenario| scenario.name == name || scenario.number.to_string() == name)
}
